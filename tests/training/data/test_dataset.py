from __future__ import annotations

import json
import mmap
import shutil

import numpy as np
import pytest
import torch

from jepa_gym import poses
from jepa_gym.training.data.dataset import ClipSampler, Dataset, content_hash, split_of
from jepa_gym.training.data.episodes import CorruptEpisodeError

from ..conftest import SIZE, make_dataset, make_episode


def test_arrays(dataset_folder):
    dataset = Dataset.open(dataset_folder)
    splits = {name: dataset.load_arrays(name) for name in ("train", "validation", "test")}
    assert [len(arrays.ids) for arrays in splits.values()] == [12, 16, 4]
    assert all(split_of(name) == split for split, a in splits.items() for name in a.ids)
    assert splits["train"].frames.shape == (32, 12, SIZE, 2 * SIZE, 3)
    validation = splits["validation"]
    truth = make_episode(int(validation.ids[3]))
    np.testing.assert_allclose(validation.states[3], truth.states, atol=1e-6)
    error = np.abs(validation.clip(3, 0, 12)[:, :, :SIZE].astype(int) - truth.frames["left"])
    assert error.mean() < 6


def test_unknown_split_is_refused(dataset_folder):
    with pytest.raises(ValueError, match="mean `validation`"):
        Dataset.open(dataset_folder).load_arrays("valid")


def test_actions_are_differences_of_states(dataset_folder):
    arrays = Dataset.open(dataset_folder).load_arrays("train")
    states, actions = torch.from_numpy(arrays.states), torch.from_numpy(arrays.actions)
    moved = poses.compose(states[:, :-1], actions)
    torch.testing.assert_close(moved, states[:, 1:], atol=1e-5, rtol=0)


def test_cache_is_built_once(dataset_folder, monkeypatch):
    Dataset.open(dataset_folder).load_arrays("train")
    monkeypatch.setattr(Dataset, "_build_cache", lambda *_: pytest.fail("built again"))
    Dataset.open(dataset_folder).load_arrays("train")


def test_splits_are_loaded_once(dataset_folder, monkeypatch):
    dataset = Dataset.open(dataset_folder)
    arrays = dataset.load_arrays("train")
    monkeypatch.setattr(np, "load", lambda *_, **__: pytest.fail("read again"))
    assert dataset.load_arrays("train") is arrays


def test_shares_of_the_splits():
    splits = [split_of(f"{number:06d}") for number in range(8000)]
    for split, share in (("test", 0.025), ("validation", 0.025), ("train", 0.95)):
        assert abs(splits.count(split) / len(splits) - share) < 0.006


def test_what_was_trained_on_stays_so():
    """Models exist whose training left out what the first 5 % of this hash draw."""
    known = {"000000": "train", "000001": "train", "000016": "test", "000056": "validation"}
    assert {name: split_of(name) for name in known} == known


def test_hash_sees_every_byte(tmp_path):
    folder = make_dataset(tmp_path / "d", train=2)
    before = content_hash(folder)
    assert json.loads((folder / "dataset.json").read_text())["content_hash"] == before
    path = next(folder.rglob("left.mp4"))
    path.write_bytes(path.read_bytes() + b"x")
    assert content_hash(folder) != before


def test_corrupt_episode_is_named_and_skipped_only_on_request(tmp_path):
    folder = make_dataset(tmp_path / "d", train=3, validation=1)
    bad = sorted((folder / "episodes").iterdir())[1]
    video = bad / "recordings" / "MP4" / "left.mp4"
    video.write_bytes(video.read_bytes()[:200])
    with pytest.raises(CorruptEpisodeError, match=bad.name):
        Dataset.open(folder).load_arrays("train")
    with pytest.warns(UserWarning, match=bad.name):
        arrays = Dataset.open(folder, skip_corrupt=True).load_arrays("train")
    assert len(arrays.ids) == 2 and bad.name not in arrays.ids
    with pytest.raises(CorruptEpisodeError, match="--skip-corrupt"):  # from the cache now
        Dataset.open(folder).load_arrays("train")


def test_changed_content(tmp_path):
    folder = make_dataset(tmp_path / "d", train=3)
    shutil.rmtree(sorted((folder / "episodes").iterdir())[0])
    with pytest.raises(ValueError, match="content hash"):
        Dataset.open(folder).load_arrays("train")


def test_errors_of_open(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"dataset\.json"):
        Dataset.open(tmp_path)
    (tmp_path / "dataset.json").write_text("{}")
    with pytest.raises(ValueError, match="cameras"):
        Dataset.open(tmp_path)


def test_sampler(dataset_folder):
    arrays = Dataset.open(dataset_folder).load_arrays("train")
    assert isinstance(arrays.frames.base, mmap.mmap)  # what clips are read ahead from
    sampler = ClipSampler(arrays, frames=4, batch_size=5, seed=3)
    batch, again = sampler.batch(7), ClipSampler(arrays, 4, 5, 3).batch(7)
    assert batch.frames.shape == (5, 4, SIZE, 2 * SIZE, 3) and batch.frames.dtype == torch.uint8
    assert batch.states.shape == (5, 4, 7) and batch.actions.shape == (5, 3, 7)
    assert torch.equal(batch.frames, again.frames)
    last = arrays.clips([(len(arrays.rows) - 1, 8, 12), (0, 0, 4)])
    assert np.array_equal(
        last, np.stack([arrays.frames[arrays.rows[-1], 8:12], arrays.clip(0, 0, 4)])
    )
    assert not torch.equal(batch.states, sampler.batch(8).states)
    moved = poses.compose(batch.states[:, :-1], batch.actions)
    torch.testing.assert_close(moved, batch.states[:, 1:], atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match=r"\[1, 12\]"):
        ClipSampler(arrays, 13, 5, 3)
