"""How much better than expected a recorded step was on the way to a goal, learned offline.

The value of a frame for a goal is minus the discounted number of steps to it. It is learned from
hindsight goals by expectile regression on one-step targets, so that it tends to the best way that
the data holds, pieces of several episodes joined, and not to the average one.

Reference: implicit Q-learning (arXiv 2110.06169); its action-free, goal-conditioned form as in HIQL
    (arXiv 2307.11949).
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from jepa_gym.training.engine.task import Batch

DISCOUNT = 0.95
EXPECTILE = 0.8
"""Weight of errors where the value was too low; half would give the average way."""
TARGET_RATE = 0.005
"""Share of the value's weights that its slow copy takes over at each step."""
LARGEST_WEIGHT = 20.0


class Value(nn.Module):
    """Latent and goal latent to the value, at most 0.

    Args:
        num_tokens: N of a latent.
        latent_dim: D of a latent.
    """

    def __init__(self, num_tokens: int, latent_dim: int, squeezed: int = 256, hidden: int = 512):
        super().__init__()
        self.here = nn.Linear(num_tokens * latent_dim, squeezed)
        self.there = nn.Linear(num_tokens * latent_dim, squeezed)
        self.layers = nn.Sequential(
            nn.LayerNorm(2 * squeezed),
            nn.Linear(2 * squeezed, hidden),
            nn.LayerNorm(hidden),
            nn.GELU(),
            nn.Linear(hidden, hidden),
            nn.LayerNorm(hidden),
            nn.GELU(),
            nn.Linear(hidden, 1),
        )

    def forward(self, latents: Tensor, goals: Tensor) -> Tensor:
        """Return values (B,) of latents and goals (B, N, D)."""
        joined = torch.cat([self.here(latents.flatten(1)), self.there(goals.flatten(1))], -1)
        return -nn.functional.softplus(self.layers(joined)[:, 0].float())


class Advantage(nn.Module):
    """A value and its slow copy, which the targets are of.

    Args:
        num_tokens: N of a latent.
        latent_dim: D of a latent.
    """

    def __init__(self, num_tokens: int, latent_dim: int) -> None:
        super().__init__()
        self.value = Value(num_tokens, latent_dim)
        self.slow = copy.deepcopy(self.value).requires_grad_(False)

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Compare a step with what was expected.

        Args:
            batch: As `GoalSampler` draws it.

        Returns:
            The advantages (B,) in steps, without gradient, and the loss of the value (B,).
        """
        goals = batch["goals"].float()
        with torch.no_grad():
            following = self.slow(batch["next_latents"].float(), goals)
            arrived = batch["steps"] == 1
            target = torch.where(arrived, -1.0, -1.0 + DISCOUNT * following)
        value = self.value(batch["latents"].float(), goals)
        error = target - value
        weight = torch.where(error > 0, EXPECTILE, 1 - EXPECTILE)
        return error.detach(), weight * error.square()

    @torch.no_grad()
    def follow(self) -> None:
        """Let the slow copy follow the value; to be called after each optimiser step."""
        for slow, fast in zip(self.slow.parameters(), self.value.parameters(), strict=True):
            slow.lerp_(fast, TARGET_RATE)


def weights_of(advantages: Tensor, temperature: float) -> Tensor:
    """Return exp(temperature x advantage) (B,), at most `LARGEST_WEIGHT`, with a mean of one."""
    weights = (temperature * advantages).exp().clamp(max=LARGEST_WEIGHT)
    return weights / weights.mean()
