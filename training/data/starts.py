"""Starts for `JEPALatent-v0` from a dataset."""

from __future__ import annotations

from pathlib import Path

from jepa_gym.checkpoint.folder import StartFrames
from jepa_gym.training.data.dataset import Dataset
from jepa_gym.training.recipes.finish import start_frames

DEFAULT_STARTS = 100


def dataset_starts(folder: str | Path, count: int = DEFAULT_STARTS) -> StartFrames:
    """Take starts and goals from the test episodes of a dataset.

    ``gym.make("JEPALatent-v0", starts="dataset", data=dataset_starts(folder))`` starts from them.

    Args:
        folder: the dataset's folder.
        count: most starts; at most one per episode.

    Returns:
        Frames, each with a later one of its episode, 8 to 20 cm away, as the goal.

    Raises:
        FileNotFoundError: there is no dataset in the folder.
        ValueError: no test episode moves that far, or `count` is not positive.
    """
    if count < 1:
        raise ValueError(f"`count` must be at least 1, got {count}")
    return start_frames(Dataset.open(folder).load_arrays("test"), count)
