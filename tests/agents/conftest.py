from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch


class LinearModel:
    """A world model of known optimum: the latent is the 7-D state itself, in seven tokens.

    A frame is an image whose first seven pixels hold the state, see `frame`.
    """

    def __init__(self, context_frames: int = 2) -> None:
        self.context_frames = context_frames
        self.readout_weight = 0.0
        self.config = SimpleNamespace(num_tokens=7, encoder=SimpleNamespace(latent_dim=1))
        self.context_lengths: list[int] = []
        self.broken = False
        self.bias = 0.0  # what every imagined latent is off by

    def observe(self, observation: dict[str, np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
        if "pixels" in observation:
            return self._encode(observation["pixels"]), self._encode(observation["goal_pixels"])
        goals = (observation[f"{which}_goal"] for which in ("achieved", "desired"))
        current, goal = (torch.from_numpy(latents) for latents in goals)
        return current, goal

    @staticmethod
    def _encode(frames: np.ndarray) -> torch.Tensor:
        assert frames.dtype == np.uint8
        return torch.from_numpy(frames)[:, 0, :7, :1].float() / 255  # (B, 7, 1)

    def prepare(self, latents, states, *, grad=False) -> LinearRollout:
        assert states.shape == (*latents.shape[:2], 7)
        self.context_lengths.append(latents.shape[1])
        return LinearRollout(self, latents, grad)

    def energy(self, latents: torch.Tensor, goal: torch.Tensor) -> torch.Tensor:
        return (latents - goal[:, None]).abs().mean(dim=(-2, -1))


class LinearRollout:
    def __init__(self, model: LinearModel, latents: torch.Tensor, grad: bool) -> None:
        self.model, self.last, self.grad = model, latents[:, -1, None, None], grad

    def latents(self, actions: torch.Tensor, chunk: int | None = None) -> torch.Tensor:
        assert self.grad == actions.requires_grad
        moves = actions.cumsum(dim=2)[..., None]  # (B, S, H, 7, 1)
        return self.last + self.model.bias + moves * (torch.nan if self.model.broken else 1.0)

    def energy(self, actions, goal, chunk=None) -> torch.Tensor:
        return self.model.energy(self.latents(actions)[:, :, -1], goal)


def frame(state: np.ndarray) -> np.ndarray:
    """Draw states (..., 7) in [0, 1] as frames (..., 2, 8, 3) uint8."""
    image = np.zeros((*state.shape[:-1], 2, 8, 3), dtype=np.uint8)
    image[..., 0, :7, :] = np.round(state * 255).astype(np.uint8)[..., None]
    return image


@pytest.fixture
def model() -> LinearModel:
    return LinearModel()


@pytest.fixture
def observe():
    """Build the pixel observation of a state and a goal state, each (7,) or (B, 7)."""

    def build(state, goal) -> dict[str, np.ndarray]:
        state, goal = np.asarray(state, np.float32), np.asarray(goal, np.float32)
        return {
            "observation": state,
            "goal_state": goal,
            "pixels": frame(state),
            "goal_pixels": frame(goal),
            "achieved_goal": state[..., :3],
            "desired_goal": goal[..., :3],
        }

    return build
