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
        self.config = SimpleNamespace(
            context_frames=context_frames, num_tokens=7, encoder=SimpleNamespace(latent_dim=1)
        )
        self.context_lengths: list[int] = []
        self.broken = False
        self.bias = 0.0  # what every imagined latent is off by

    def encode(self, frames: torch.Tensor) -> torch.Tensor:
        assert frames.dtype == torch.uint8
        assert frames.ndim == 5
        return frames[:, :, 0, :7, :1].float() / 255  # (B, T, 7, 1)

    def rollout(
        self,
        latents: torch.Tensor,
        states: torch.Tensor,
        actions: torch.Tensor,
        grad: bool = False,
    ) -> torch.Tensor:
        assert grad == actions.requires_grad
        assert states.shape == (*latents.shape[:2], 7)
        self.context_lengths.append(latents.shape[1])
        moves = actions.cumsum(dim=2)[..., None]  # (B, S, H, 7, 1)
        return latents[:, -1, None, None] + self.bias + moves * (torch.nan if self.broken else 1.0)

    def energy(self, latents: torch.Tensor, goal: torch.Tensor) -> torch.Tensor:
        return (latents - goal[:, None]).abs().mean(dim=(-2, -1))


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
