"""Starts for `JEPALatent-v0`: recorded frames, each with a later one as the goal."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from jepa_gym.checkpoint.start_frames import StartFrames
from jepa_gym.names import check_choice
from jepa_gym.training.data.clips import ClipArrays
from jepa_gym.training.data.dataset import SPLITS, Dataset

DEFAULT_STARTS = 100
START_FRAMES = 24
"""How many a checkpoint carries."""
START_DISTANCE_M = (0.08, 0.20)


def dataset_starts(
    folder: str | Path, count: int = DEFAULT_STARTS, split: str = "test"
) -> StartFrames:
    """Take starts and goals from the episodes of a dataset.

    A checkpoint carries too few to learn from: who trains in imagination takes many of the split
    `train`, and evaluates on those of `test`.

    ``gym.make("JEPALatent-v0", starts="dataset", data=dataset_starts(folder))`` starts from them.

    Args:
        folder: The dataset's folder.
        count: Most starts; at most one per episode.
        split: `train`, `validation` or `test`.

    Returns:
        Frames, each with a later one of its episode, 8 to 20 cm away, as the goal.

    Raises:
        FileNotFoundError: If there is no dataset in the folder.
        ValueError: If no episode of the split moves that far, `count` is not positive, or there is
            no such split.
    """
    if count < 1:
        raise ValueError(f"`count` must be at least 1, got {count}")
    check_choice("split", split, SPLITS)
    return start_frames(Dataset.open(folder).load_arrays(split), count)


def start_frames(arrays: ClipArrays, count: int = START_FRAMES) -> StartFrames:
    """Choose frames of a split, each with a later one 8 to 20 cm away as the goal.

    Args:
        arrays: A split that was not trained on.
        count: Most starts; at most one per episode.

    Raises:
        ValueError: If no episode moves that far.
    """
    chosen = []
    for episode, states in enumerate(arrays.states):
        distance = np.linalg.norm(states[:, None, :3] - states[None, :, :3], axis=-1)
        fits = (distance > START_DISTANCE_M[0]) & (distance < START_DISTANCE_M[1])
        pairs = np.argwhere(np.triu(fits))
        if len(pairs):
            chosen.append((episode, *pairs[len(pairs) // 2]))
    if not chosen:
        raise ValueError(
            "no episode of the split moves the hand by 8 to 20 cm; collect more episodes"
        )
    chosen = chosen[:count]
    return StartFrames(
        frames=np.stack([arrays.clip(e, t, t + 1)[0] for e, t, _ in chosen]),
        states=np.stack([arrays.states[e, t] for e, t, _ in chosen]),
        goal_frames=np.stack([arrays.clip(e, g, g + 1)[0] for e, _, g in chosen]),
        goal_states=np.stack([arrays.states[e, g] for e, _, g in chosen]),
    )
