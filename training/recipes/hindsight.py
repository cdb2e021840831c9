"""Frames with hindsight goals: every later frame of an episode is a goal that it led on to."""

from __future__ import annotations

import numpy as np
import torch

from jepa_gym.checkpoint.beside import encoder_hash
from jepa_gym.training.data.clips import ClipArrays
from jepa_gym.training.data.dataset import SPLITS, Dataset
from jepa_gym.training.engine.distributed import first_process_first
from jepa_gym.training.engine.task import Batch
from jepa_gym.training.recipes.posttrain_start import cache_latents
from jepa_gym.world_model import WorldModel

NEAR_SHARE, NEAR_STEPS = 0.3, 3
"""Share of the goals that are at most so many steps away: the last steps need the most precision,
and uniform draws would show few of them."""


class GoalSampler:
    """Draws frames with hindsight goals; batch number k of a seed is always the same."""

    def __init__(self, arrays: ClipArrays, latents: np.ndarray, batch_size: int, seed: int) -> None:
        """Prepare sampling.

        Args:
            arrays: A split.
            latents: (E_all, T, N, D), of the whole dataset.
            batch_size: B.
            seed: Any non-negative integer.
        """
        self.arrays, self.latents, self.batch_size, self.seed = arrays, latents, batch_size, seed
        weights = np.ones(len(arrays.rows)) if arrays.weights is None else arrays.weights
        self._bounds = np.cumsum(weights) / np.sum(weights)

    def batch(self, number: int, rows: slice = slice(None)) -> Batch:
        """Draw batch `number`.

        Args:
            number: Any non-negative integer.
            rows: Only these of its pairs, for one of several processes.

        Returns:
            `latents`, `next_latents` and `goals` (B, N, D) float16, `states`, `goal_states` and
            `actions` (B, 7), and `steps` (B,) int64 from the frame to the goal.
        """
        rng = np.random.default_rng((self.seed, number))
        last = self.arrays.states.shape[1] - 1
        draws = rng.random((5, self.batch_size))[:, rows]
        found = np.searchsorted(self._bounds, draws[0], side="right")
        episodes = found.clip(0, len(self.arrays.rows) - 1)
        starts = (draws[1] * last).astype(int)
        left = last - starts
        near = draws[2] < NEAR_SHARE
        steps = 1 + (draws[3] * np.where(near, np.minimum(left, NEAR_STEPS), left)).astype(int)
        at = self.arrays.rows[episodes]
        numbers = {
            "latents": self.latents[at, starts],
            "next_latents": self.latents[at, starts + 1],
            "goals": self.latents[at, starts + steps],
            "states": self.arrays.states[episodes, starts],
            "goal_states": self.arrays.states[episodes, starts + steps],
            "actions": self.arrays.actions[episodes, starts],
            "steps": steps,
        }
        return {name: torch.from_numpy(np.ascontiguousarray(x)) for name, x in numbers.items()}


def goal_samplers(
    dataset: Dataset, model: WorldModel, batch_size: int, seed: int
) -> dict[str, GoalSampler]:
    """Encode a dataset once, and return a sampler for each split that has episodes.

    Args:
        dataset: Gives the frames; the latents are kept in its cache.
        model: Encodes them.
        batch_size: Pairs of a frame and a goal that are drawn at a time.
        seed: Any non-negative integer.
    """
    splits = {split: dataset.load_arrays(split) for split in SPLITS}
    path = dataset.folder / "cache" / f"latents-{dataset.key}-{encoder_hash(model)[:16]}.npy"
    with first_process_first():
        latents = cache_latents(model, splits["train"], path)
    return {
        split: GoalSampler(arrays, latents, batch_size, seed)
        for split, arrays in splits.items()
        if len(arrays.rows)
    }
