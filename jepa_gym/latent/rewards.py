"""What is measured on latents: energy, rewards, and the distance from real frames."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from jepa_gym.checkpoint.beside import SUCCESS
from jepa_gym.checkpoint.start_frames import StartFrames
from jepa_gym.world_model import WorldModel

REWARDS = ("energy", "progress", "sparse")
REFERENCE_FRAMES = 256


def energies(achieved: np.ndarray, desired: np.ndarray) -> np.ndarray:
    """Return the mean absolute differences (...) of latents (..., N, D)."""
    difference = np.abs(np.asarray(achieved) - desired)
    return difference.reshape(*difference.shape[:-2], -1).mean(-1)


class SuccessTest:
    """Whether frames are at their goals, by latents alone: pure and vectorised.

    A model with a success detector beside it asks that; else frames are at the goal whose energy is
    below the model's calibrated `success_energy`.

    Attributes:
        known: Whether the model has one of the two; without them nothing is a success.
    """

    def __init__(self, model: WorldModel) -> None:
        """Read the detector, where there is one.

        Raises:
            CheckpointError: When its file cannot be used.
        """
        self._detector, self._device = SUCCESS.own(model), model.device
        self._energy = model.config.success_energy
        self.known = self._detector is not None or self._energy is not None

    @torch.no_grad()
    def __call__(self, achieved: np.ndarray, desired: np.ndarray) -> np.ndarray:
        """Return whether (...) latents (..., N, D) are at the goals (..., N, D)."""
        if self._detector is None:
            return energies(achieved, desired) < (-1 if self._energy is None else self._energy)
        pair = np.broadcast_arrays(achieved, desired)
        here, there = (torch.tensor(x, dtype=torch.float32, device=self._device) for x in pair)
        return (self._detector(here, there) > 0).cpu().numpy()


class LatentReward:
    """The reward of a step, from latents: pure and vectorised."""

    def __init__(self, kind: str, success: SuccessTest) -> None:
        """Choose the reward.

        Args:
            kind: `energy`: minus the energy. `progress`: energy before the step minus after it,
                so that the sum over an episode depends on its ends only (potential-based shaping,
                Ng et al. 1999, without discount). `sparse`: 0 at the goal, else -1.
            success: Tells which frames are at the goal.

        Raises:
            ValueError: When there is no such reward, or nothing that tells success for `sparse`.
        """
        if kind not in REWARDS:
            raise ValueError(f"`reward` must be one of {REWARDS}, got {kind!r}")
        if kind == "sparse" and not success.known:
            raise ValueError(
                "reward='sparse' needs what tells success, and this model has neither a detector "
                "nor a `success_energy`; train one with `jepa-gym success-detector`, or take "
                "'energy'"
            )
        self.kind, self._success = kind, success

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
        if self.kind == "sparse":
            reward = np.asarray(self._success(achieved, desired), np.float32) - 1
        elif self.kind == "energy":
            reward = -energies(achieved, desired)
        else:
            reward = energies(_previous(info), desired) - energies(achieved, desired)
        return float(reward) if reward.ndim == 0 else reward


class Neighbours:
    """Points of real frames, and how far others are from them.

    The score of a point is its distance (root mean square over its F numbers) to the nearest of
    these, over the largest distance that one of them has to its own nearest neighbour. Up to 1 it
    is as near to a real frame as real frames are to each other; beyond, no real frame is so far
    from the others. It needs no training.
    """

    def __init__(self, points: Tensor) -> None:
        """Keep the points (M, F) of at least two frames."""
        self._points = points
        self._half_squares = points.square().sum(1) / 2
        nearness = (points @ points.T - self._half_squares).fill_diagonal_(-torch.inf)
        self._scale = self._nearest(points, nearness).max().item()

    def score(self, points: Tensor) -> np.ndarray:
        """Return the scores (k,) of points (k, F); NaN if all real frames are the same."""
        nearest = self._nearest(points, points @ self._points.T - self._half_squares)
        nearest = nearest.double().cpu().numpy()
        return nearest / self._scale if self._scale else np.full(len(points), np.nan)

    def _nearest(self, points: Tensor, nearness: Tensor) -> Tensor:
        """Return the distances (k,) to the frame of most `nearness` (k, M): z b - b b / 2.

        That finds the frame with one matrix product; the distance itself is not taken from it, for
        it would cancel near 0.
        """
        return (points - self._points[nearness.argmax(1)]).square().mean(1).sqrt()


class RealFrames:
    """The out-of-distribution score of imagined frames: the larger of latent's and state's."""

    def __init__(
        self, starts: StartFrames, model: WorldModel, encode: Callable[[np.ndarray], Tensor]
    ) -> None:
        """Encode start and goal frames, at most 256, taken evenly from all.

        Args:
            starts: Real frames with their states.
            model: Has the statistics that standardise states.
            encode: From frames (M, Y, X, 3) uint8 to latents (M, N, D).
        """
        self._model = model
        rows = np.linspace(0, len(starts) - 1, min(len(starts), REFERENCE_FRAMES // 2)).astype(int)
        frames = np.concatenate([starts.frames[rows], starts.goal_frames[rows]])
        states = np.concatenate([starts.states[rows], starts.goal_states[rows]])
        states = torch.from_numpy(states.astype(np.float32))
        self._real = [Neighbours(x) for x in self._points(encode(frames), states)]

    def score(self, latents: Tensor, states: Tensor) -> np.ndarray:
        """Return the scores (k,) of latents (k, N, D) and states (k, 7)."""
        points = self._points(latents, states)
        return np.fmax(*(real.score(x) for real, x in zip(self._real, points, strict=True)))

    def _points(self, latents: Tensor, states: Tensor) -> tuple[Tensor, Tensor]:
        """Return flat latents and standardised states."""
        return latents.flatten(1), self._model.normaliser.states(states.to(latents.device))


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
