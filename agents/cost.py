"""What a plan costs: how far from the goal it is imagined to end."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from jepa_gym.agents.base import ACTION_DIM, GRIPPER
from jepa_gym.agents.dynamics import Dynamics, Rollout
from jepa_gym.agents.planners.gripper import up_to_the_stops


@dataclass(frozen=True, slots=True)
class CostSettings:
    """What counts in a cost."""

    whole_path: bool = False
    """Take the mean energy of all imagined frames, not the energy of the last one."""
    offset_free: bool = True
    """Take what the model gets wrong about holding still off every imagined latent."""
    stops: bool = True
    """Imagine changes of the gripper up to its stops only."""
    gripper_weight: float = 0.0
    """Weight of |predicted - goal closedness|."""
    readout_weight: float = 0.0
    """Weight of what the model's readout tells apart, of imagined and goal latents alone."""


class PlanCost:
    """The costs of candidates from one context: actions (B, S, H, 7) to (B, S).

    They have a gradient if the candidates require one and the dynamics can give it.

    Attributes:
        hold: (B, 1, H, 7), the actions of holding still.

    Args:
        dynamics: What imagines.
        latents: (B, T, N, D), what was observed.
        states: (B, T, 7).
        goal: (B, N, D).
        closedness: (B,), the goal's, or None if it has no weight.
        horizon: Steps H of a candidate.
        settings: What counts.
    """

    def __init__(
        self,
        dynamics: Dynamics,
        latents: torch.Tensor,
        states: torch.Tensor,
        goal: torch.Tensor,
        closedness: torch.Tensor | None,
        horizon: int,
        settings: CostSettings,
    ) -> None:
        self._dynamics, self._latents, self._states = dynamics, latents, states
        self._goal, self._closedness, self._settings = goal, closedness, settings
        self._rollouts: dict[bool, Rollout] = {}  # by whether they have gradients
        self.hold = torch.zeros(len(latents), 1, horizon, ACTION_DIM, device=latents.device)
        self._offset = torch.zeros_like(latents[:, -1:, None])
        if settings.offset_free:
            # holding still must give the observed frame
            held = self._imagined(self.hold).latents(self.hold)
            held = held if settings.whole_path else held[:, :, -1:]
            self._offset = latents[:, -1:, None] - held  # (B, 1, 1 or H, N, D)
        # moving the goal is moving every last frame
        self._aim = goal.to(self._offset.device) - self._offset[:, 0, -1]

    def __call__(self, actions: torch.Tensor) -> torch.Tensor:
        """Return the costs (B, S) of candidates (B, S, H, 7)."""
        settings = self._settings
        possible, predicted = up_to_the_stops(self._states[:, -1, GRIPPER], actions)
        energy = self._energy(possible if settings.stops else actions).to(actions.device)
        if self._closedness is None:
            return energy
        return energy + settings.gripper_weight * (predicted - self._closedness[:, None]).abs()

    def _energy(self, actions: torch.Tensor) -> torch.Tensor:
        rollout, settings = self._imagined(actions), self._settings
        if not settings.whole_path and not settings.readout_weight:
            return rollout.energy(actions, self._aim)
        future = rollout.latents(actions)  # (B, S, H, N, D)
        future = (future if settings.whole_path else future[:, :, -1:]) + self._offset
        flat, goal = future.flatten(1, 2), self._goal.to(future.device)
        energy = self._dynamics.energy(flat, goal)
        if settings.readout_weight:
            difference = self._dynamics.state_difference(flat, goal)
            energy = energy + settings.readout_weight * difference
        return energy.unflatten(1, future.shape[1:3]).mean(dim=2)

    def _imagined(self, actions: torch.Tensor) -> Rollout:
        """Return the context's rollouts, with gradients if the actions require one."""
        grad = actions.requires_grad
        if grad not in self._rollouts:
            self._rollouts[grad] = self._dynamics.prepare(self._latents, self._states, grad=grad)
        return self._rollouts[grad]
