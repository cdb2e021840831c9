"""A goal-conditioned inverse model: the next action on the way from what is seen to a goal.

It learns in hindsight, from any recording: every later frame of an episode is a goal that the
episode's next action led on to. It is fast and sees far ahead, where the energy of one imagined
step tells little; it cannot check what it proposes, which planning with the world model can.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

GRIPPER_CHANGE = 0.05
"""Changes of closedness below this count as none."""
OPEN, KEEP, CLOSE = 0, 1, 2
"""Classes of the gripper's change."""


@dataclass(frozen=True)
class Guess:
    """What an inverse model says of B pairs of a frame and a goal."""

    movement: Tensor
    """(B, 6), the next action's translation and rotation, over the model's action scale."""
    gripper: Tensor
    """(B, 3), logits of opening, keeping and closing."""
    steps: Tensor
    """(B, K), logits of the steps from the frame to the goal being 1, 2, ..., K or more."""

    def actions(self, scale: Tensor) -> Tensor:
        """Return the actions (B, 7) in physical units; the gripper opens or closes fully.

        Args:
            scale: (7,), the model's action scale.
        """
        gripper = self.gripper.argmax(-1, keepdim=True).to(self.movement.dtype) - KEEP
        return torch.cat([self.movement * scale[:6], gripper], -1)

    def expected_steps(self) -> Tensor:
        """Return the mean number of steps (B,) to the goal."""
        counts = torch.arange(1, self.steps.shape[-1] + 1, device=self.steps.device)
        return (self.steps.softmax(-1) * counts).sum(-1)


class InverseModel(nn.Module):
    """Latent, state and goal latent to the next action and the steps that are left.

    Reference: goals in hindsight as in goal-conditioned supervised learning (arXiv 1912.06088);
        the network is ours.
    """

    def __init__(
        self,
        num_tokens: int,
        latent_dim: int,
        most_steps: int,
        squeezed: int = 384,
        hidden: int = 512,
    ) -> None:
        """Create the network.

        Args:
            num_tokens: N of a latent.
            latent_dim: D of a latent.
            most_steps: K; goals farther than that count as K steps away.
            squeezed: Numbers that a latent is reduced to, linearly.
            hidden: Width of the hidden layers.
        """
        super().__init__()
        self.sizes = {
            "num_tokens": num_tokens,
            "latent_dim": latent_dim,
            "most_steps": most_steps,
            "squeezed": squeezed,
            "hidden": hidden,
        }
        self.squeeze_here = nn.Linear(num_tokens * latent_dim, squeezed)
        self.squeeze_goal = nn.Linear(num_tokens * latent_dim, squeezed)
        layers: list[nn.Module] = []
        width = 2 * squeezed + 7
        for _ in range(3):
            layers += [nn.Linear(width, hidden), nn.LayerNorm(hidden), nn.GELU()]
            width = hidden
        self.layers = nn.Sequential(*layers)
        self.movement = nn.Linear(hidden, 6)
        self.gripper = nn.Linear(hidden, 3)
        self.steps = nn.Linear(hidden, most_steps)

    def forward(self, latents: Tensor, states: Tensor, goals: Tensor) -> Guess:
        """Guess what leads on to the goals.

        Args:
            latents: (B, N, D), of the present frames.
            states: (B, 7), standardised.
            goals: (B, N, D).
        """
        here, there = self.squeeze_here(latents.flatten(1)), self.squeeze_goal(goals.flatten(1))
        hidden = self.layers(torch.cat([here, there, states.to(here.dtype)], -1))
        heads = (self.movement(hidden), self.gripper(hidden), self.steps(hidden))
        return Guess(*(output.float() for output in heads))


def gripper_classes(changes: Tensor) -> Tensor:
    """Return the classes `OPEN`, `KEEP`, `CLOSE` (...) of changes of closedness (...)."""
    return KEEP + (changes > GRIPPER_CHANGE).long() - (changes < -GRIPPER_CHANGE).long()
