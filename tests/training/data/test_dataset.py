from __future__ import annotations

import json
import mmap
import shutil

import numpy as np
import pytest
import torch

from jepa_gym import poses
from jepa_gym.training.data.dataset import ClipSampler, Dataset, content_hash, is_held_out
from jepa_gym.training.data.episodes import CorruptEpisodeError

from ..conftest import SIZE, make_dataset, make_episode


def test_arrays(dataset_folder):
    dataset = Dataset.open(dataset_folder)
    train, held_out = dataset.load_arrays("train"), dataset.load_arrays("held-out")
    assert len(train.ids) == 12 and len(held_out.ids) == 16
    assert train.frames.shape == (28, 12, SIZE, 2 * SIZE, 3)
    assert all(map(is_held_out, held_out.ids)) and not any(map(is_held_out, train.ids))
    truth = make_episode(int(held_out.ids[3]))
    np.testing.assert_allclose(held_out.states[3], truth.states, atol=1e-6)
    error = np.abs(held_out.clip(3, 0, 12)[:, :, :SIZE].astype(int) - truth.frames["left"])
    assert error.mean() < 6


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


def test_share_held_out():
    share = np.mean([is_held_out(f"{number:06d}") for number in range(4000)])
    assert 0.04 < share < 0.06


def test_hash_sees_every_byte(tmp_path):
    folder = make_dataset(tmp_path / "d", train=2, held_out=0)
    before = content_hash(folder)
    assert json.loads((folder / "dataset.json").read_text())["content_hash"] == before
    path = next(folder.rglob("left.mp4"))
    path.write_bytes(path.read_bytes() + b"x")
    assert content_hash(folder) != before


def test_corrupt_episode_is_named_and_skipped_only_on_request(tmp_path):
    folder = make_dataset(tmp_path / "d", train=3, held_out=1)
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
    folder = make_dataset(tmp_path / "d", train=3, held_out=0)
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
