"""Damaged episodes, indices and caches: an error that names the file, or the same clips."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from jepa_gym.training.data.dataset import Dataset
from jepa_gym.training.data.episodes import CorruptEpisodeError, Episode, read_episode

from ...mutations import damage, no_code_runs  # noqa: F401  (a fixture)

pytestmark = pytest.mark.usefixtures("no_code_runs")


@pytest.fixture(scope="module")
def folder(dataset_folder, tmp_path_factory):
    """A dataset that was read once, so that its cache and its remembered hashes exist."""
    copy = shutil.copytree(dataset_folder, tmp_path_factory.mktemp("data") / "franka")
    Dataset.open(copy).load_arrays("train")
    return copy


def test_episodes(folder):
    episode = next((folder / "episodes").iterdir())
    whole = read_episode(episode)

    def sound(got: Episode) -> bool:
        return got.states.shape == whole.states.shape and bool(np.isfinite(got.states).all())

    names = [p.relative_to(episode).as_posix() for p in episode.rglob("*") if p.is_file()]
    assert len(names) == 4  # metadata, numbers, two videos
    errors = (CorruptEpisodeError,)
    assert damage(episode, names, lambda: read_episode(episode), sound, errors) > 20


def test_datasets(folder):
    whole = Dataset.open(folder).load_arrays("train")

    def same(got) -> bool:
        return np.array_equal(got.states, whole.states) and got.ids == whole.ids

    episode = next((folder / "episodes").iterdir()).relative_to(folder)
    names = ["dataset.json", "files.json"]
    names += [(episode / name).as_posix() for name in ("trajectory.h5", "recordings/MP4/left.mp4")]
    errors = (ValueError, FileNotFoundError, CorruptEpisodeError)
    refused = damage(folder, names, lambda: Dataset.open(folder).load_arrays("train"), same, errors)
    assert refused > 40
