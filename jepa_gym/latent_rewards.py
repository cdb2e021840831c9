"""What is measured on latents: energy, rewards, and the distance from real frames."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from jepa_gym.checkpoints import StartFrames

REWARDS = ("energy", "progress", "sparse")
REFERENCE_FRAMES = 256
"""Most real frames that imagined latents are compared with, taken evenly from all."""


def energies(achieved: np.ndarray, desired: np.ndarray) -> np.ndarray:
    """Return the mean absolute differences (...) of latents (..., N, D)."""
    difference = np.abs(np.asarray(achieved) - desired)
    return difference.reshape(*difference.shape[:-2], -1).mean(-1)


class LatentReward:
    """The reward of a step, from latents: pure and vectorised."""

    def __init__(self, kind: str, success_energy: float | None) -> None:
        """Choose the reward.

        Args:
            kind: `energy`: minus the energy. `progress`: energy before the step minus after it,
                so that the sum over an episode depends on its ends only (potential-based shaping,
                Ng et al. 1999, without discount). `sparse`: 0 below `success_energy`, else -1.
            success_energy: The model's calibrated threshold.

        Raises:
            ValueError: When there is no such reward, or no threshold for `sparse`.
        """
        if kind not in REWARDS:
            raise ValueError(f"`reward` must be one of {REWARDS}, got {kind!r}")
        if kind == "sparse" and success_energy is None:
            raise ValueError(
                "reward='sparse' needs the model's `success_energy`, which its configuration does "
                "not have; set it (training.landscape.success_energy finds it) or take 'energy'"
            )
        self.kind, self.success_energy = kind, success_energy

    def __call__(self, achieved: np.ndarray, desired: np.ndarray, info: Any) -> np.ndarray | float:
        """Return the rewards (...), a float for a single pair.

        Args:
            achieved: (..., N, D), after the step.
            desired: (..., N, D).
            info: Of `progress`: what `step` returned, with `previous_achieved_goal`; a list of
                such for a batch. Else not used.

        Raises:
            ValueError: When `progress` finds no latent of before the step.
        """
        energy = energies(achieved, desired)
        if self.kind == "energy":
            reward = -energy
        elif self.kind == "sparse":
            reward = np.where(energy < self.success_energy, 0, -1).astype(np.float32)
        else:
            reward = energies(_previous(info), desired) - energy
        return float(reward) if reward.ndim == 0 else reward


class RealFrames:
    """Encoded real frames, and how far a latent is from them.

    The score of a latent is its distance (root mean square over tokens and channels) to the nearest
    of these frames, over the largest distance that one of them has to its own nearest neighbour. Up
    to 1 it is as near to a real frame as real frames are to each other; beyond, no real frame is so
    far from the others. It needs no training.
    """

    def __init__(self, latents: Tensor) -> None:
        """Keep the latents (M, N, D) of at least two frames."""
        self._bank = latents.flatten(1)
        self._half_squares = self._bank.square().sum(1) / 2
        products = self._bank @ self._bank.T - self._half_squares
        self._scale = self._nearest(self._bank, products.fill_diagonal_(-torch.inf)).max().item()

    @staticmethod
    def chosen(starts: StartFrames) -> np.ndarray:
        """Return the frames to compare with, starts and goals, (M, Y, X, 3) uint8."""
        count = min(len(starts), REFERENCE_FRAMES // 2)
        rows = np.linspace(0, len(starts) - 1, count).astype(int)
        return np.concatenate([starts.frames[rows], starts.goal_frames[rows]])

    def score(self, latents: Tensor) -> np.ndarray:
        """Return the scores (k,) of latents (k, N, D); NaN if all real frames are the same."""
        flat = latents.flatten(1)
        nearest = self._nearest(flat, flat @ self._bank.T - self._half_squares)
        nearest = nearest.double().cpu().numpy()
        return nearest / self._scale if self._scale else np.full(len(latents), np.nan)

    def _nearest(self, flat: Tensor, nearness: Tensor) -> Tensor:
        """Return the distances (k,) to the frame of most `nearness` (k, M): z b - b b / 2.

        That finds the frame with one matrix product; the distance itself is not taken from it, for
        it would cancel near 0.
        """
        return (flat - self._bank[nearness.argmax(1)]).square().mean(1).sqrt()


def _previous(info: Any) -> np.ndarray:
    """Read the latents before the step from one info, a vector environment's, or a list of them."""
    key = "previous_achieved_goal"
    infos = [info] if isinstance(info, Mapping) else list(info)
    if not all(isinstance(one, Mapping) and key in one for one in infos):
        raise ValueError(
            f"reward='progress' compares with the latent before the step: `info` must hold "
            f"{key!r}, as that of `step` does (a replay buffer must keep it: copy_info_dict=True)"
        )
    if isinstance(info, Mapping):
        return np.asarray(info[key])
    return np.stack([one[key] for one in infos])
