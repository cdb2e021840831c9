from __future__ import annotations

import errno
import json
import mmap
import os
import shutil
import subprocess
import sys

import h5py
import numpy as np
import pytest
import torch

from jepa_gym import poses
from jepa_gym.commands import one_line
from jepa_gym.training.data import cache, content
from jepa_gym.training.data.clips import ClipArrays, ClipSampler
from jepa_gym.training.data.dataset import ContentError, Dataset, split_of, write_index
from jepa_gym.training.data.episodes import CorruptEpisodeError

from ..conftest import INDEX, SIZE, make_dataset, make_episode


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
    monkeypatch.setattr(cache, "_build", lambda *_: pytest.fail("built again"))
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


def test_hash_sees_every_byte_and_is_remembered(tmp_path, monkeypatch):
    folder = make_dataset(tmp_path / "d", train=2)
    before = Dataset.open(folder).hash
    assert json.loads((folder / "dataset.json").read_text())["content_hash"] == before
    path = next(folder.rglob("left.mp4"))
    path.write_bytes(path.read_bytes() + b"x")
    read = []
    digest = content.hashlib.file_digest
    monkeypatch.setattr(
        content.hashlib, "file_digest", lambda f, name: read.append(f.name) or digest(f, name)
    )
    assert Dataset.open(folder).hash != before
    assert read == [str(path)]  # nothing else is read again


def test_a_moved_dataset_is_read_once_more(tmp_path, monkeypatch):
    folder = make_dataset(tmp_path / "d", train=2)
    copied = shutil.copytree(folder, tmp_path / "copy", copy_function=shutil.copyfile)
    assert Dataset.open(copied).hash == Dataset.open(folder).hash
    monkeypatch.setattr(content.hashlib, "file_digest", lambda *_: pytest.fail("read again"))
    Dataset.open(copied).check_content()


def corrupt_episode(folder):
    bad = sorted((folder / "episodes").iterdir())[1]
    video = bad / "recordings" / "MP4" / "left.mp4"
    video.write_bytes(video.read_bytes()[:200])
    return bad


def test_corrupt_episode_is_named_and_skipped_only_on_request(tmp_path):
    folder = make_dataset(tmp_path / "d", train=3, validation=1)
    bad = corrupt_episode(folder)
    with pytest.raises(ContentError, match=f"{bad.name}/recordings/MP4/left.mp4"):
        Dataset.open(folder).load_arrays("train")
    with pytest.warns(UserWarning, match=bad.name):
        arrays = Dataset.open(folder, skip_corrupt=True).load_arrays("train")
    assert len(arrays.ids) == 2 and bad.name not in arrays.ids


def test_corrupt_since_it_was_recorded(tmp_path):
    folder = make_dataset(tmp_path / "d", train=3)
    bad = corrupt_episode(folder)
    write_index(folder, INDEX)
    with pytest.raises(CorruptEpisodeError, match=bad.name):
        Dataset.open(folder).load_arrays("train")
    with pytest.warns(UserWarning, match=bad.name):
        Dataset.open(folder, skip_corrupt=True).load_arrays("train")
    with pytest.raises(CorruptEpisodeError, match="--skip-corrupt"):  # from the cache now
        Dataset.open(folder).load_arrays("train")


def test_skipping_what_is_corrupt_does_not_forgive_other_changes(tmp_path):
    folder = make_dataset(tmp_path / "d", train=4)
    corrupt_episode(folder)
    exchanged = sorted((folder / "episodes").iterdir())[0]
    with h5py.File(exchanged / "trajectory.h5", "a") as file:
        file["observation/robot_state/gripper_position"][0] = 0.123
    with pytest.raises(ContentError, match=f"{exchanged.name}/trajectory.h5"):
        Dataset.open(folder, skip_corrupt=True).load_arrays("train")


def test_removed_episode(tmp_path):
    folder = make_dataset(tmp_path / "d", train=3)
    shutil.rmtree(sorted((folder / "episodes").iterdir())[0])
    for skip in (False, True):
        with pytest.raises(ContentError, match="files were added, removed or changed"):
            Dataset.open(folder, skip_corrupt=skip).load_arrays("train")


@pytest.mark.parametrize("kind", ["frames", "numbers"])
@pytest.mark.parametrize("damage", ["half", "noise", "empty"])
def test_damaged_cache_is_made_again(dataset_folder, capsys, kind, damage):
    arrays = Dataset.open(dataset_folder).load_arrays("test")
    path = next((dataset_folder / "cache").glob(f"{kind}-*"))
    whole = path.read_bytes()
    broken = {"half": whole[: len(whole) // 2], "noise": b"\x93" * 400, "empty": b""}[damage]
    path.unlink()
    path.write_bytes(broken)
    again = Dataset.open(dataset_folder).load_arrays("test")
    assert "is damaged" in capsys.readouterr().err
    np.testing.assert_array_equal(arrays.frames, again.frames)
    assert arrays.ids == again.ids


def test_full_disk_is_found_before_decoding_and_leaves_nothing(dataset_folder, monkeypatch):
    folder = dataset_folder / "cache"
    shutil.rmtree(folder, ignore_errors=True)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space left") as caught:
        Dataset.open(dataset_folder).load_arrays("train")
    assert one_line(caught.value).startswith(f"the disk is full while writing {folder}")
    assert [path.name.split("-")[0] for path in folder.iterdir()] == ["windows"]  # a few numbers


def test_what_killed_processes_left_is_removed(dataset_folder):
    folder = dataset_folder / "cache"
    shutil.rmtree(folder, ignore_errors=True)
    code = (
        "import os, sys\nfrom jepa_gym.files import atomic_write\n"
        "with atomic_write(sys.argv[1]) as temporary:\n"
        "    temporary.write_bytes(bytes(1000))\n    os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(folder / "frames-0.npy")], check=False)
    assert len(list(folder.iterdir())) == 1
    Dataset.open(dataset_folder).load_arrays("train")
    assert not list(folder.glob(".*"))


def test_errors_of_open(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"dataset\.json"):
        Dataset.open(tmp_path)
    (tmp_path / "dataset.json").write_text("{}")
    with pytest.raises(ValueError, match="cameras"):
        Dataset.open(tmp_path)
    for text in ("{", "[]", "\x00"):
        (tmp_path / "dataset.json").write_text(text)
        with pytest.raises(ValueError, match=r"dataset\.json is damaged .* delete it"):
            Dataset.open(tmp_path)
    (tmp_path / "dataset.json").write_text(json.dumps(INDEX | {"content_hash": 3}))
    with pytest.raises(ValueError, match="wrong type for \\['content_hash'"):
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


def test_clips_are_read_ahead_by_bytes(tmp_path):
    """Latents are cached as float16: two bytes a number."""
    latents = np.lib.format.open_memmap(tmp_path / "l.npy", "w+", np.float16, (3, 6, 5, 4))
    latents[:] = np.arange(latents.size).reshape(latents.shape)
    latents.flush()
    states = np.zeros((2, 6, 7), np.float32)
    arrays = ClipArrays(
        np.load(tmp_path / "l.npy", mmap_mode="r"), np.array([0, 2]), ("a", "b"), states, states
    )
    spans = [(1, 2, 5), (0, 0, 3)]
    content = (tmp_path / "l.npy").read_bytes()
    for (first, stop), clip in zip(arrays.file_ranges(spans), arrays.clips(spans), strict=True):
        assert content[first:stop] == clip.tobytes()


def test_frames_are_resized_on_reading(dataset_folder):
    recorded = Dataset.open(dataset_folder).load_arrays("test")
    dataset = Dataset.open(dataset_folder, image_size=14)
    resized = dataset.load_arrays("test")
    assert dataset.index["image_size"] == 14
    assert resized.frames.shape[2:] == (14, 28, 3)
    assert abs(resized.clip(0, 0, 12).mean() - recorded.clip(0, 0, 12).mean()) < 2
    again = Dataset.open(dataset_folder).load_arrays("test")  # one cache beside the other
    assert again.frames.shape[2:] == (SIZE, 2 * SIZE, 3)
    with pytest.raises(ValueError, match="image_size"):
        Dataset.open(dataset_folder, image_size=0)
