"""Batches: by weights, ahead of time, and from files larger than the memory."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from jepa_gym.training.data import clips
from jepa_gym.training.data.clips import ClipArrays, ClipSampler
from jepa_gym.training.data.dataset import Dataset
from jepa_gym.training.data.episodes import CorruptEpisodeError

READ = """
import json, sys
import numpy as np
from jepa_gym.training.data import clips

def resident_mb():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 / 1e6

clips.memory_bytes = lambda: 10**9
shape = (2_000, 8, 128, 256, 3)  # 1.6 GB
frames = np.load(sys.argv[1], mmap_mode="r")
states = np.zeros((len(frames), 8, 7), np.float32)
arrays = clips.ClipArrays(frames, np.arange(len(frames)), ("x",) * len(frames), states, states)
sampler = clips.ClipSampler(arrays, 8, 16, seed=0)
sampler.batch(0)
before = resident_mb()
for number in range(1, 40):
    sampler.batch(number)
print(json.dumps([before, resident_mb()]))
"""


def arrays_of(count: int, **changes) -> ClipArrays:
    frames = np.arange(count, dtype=np.uint8)[:, None, None, None, None] * np.ones(
        (1, 6, 2, 2, 3), np.uint8
    )
    states = np.zeros((count, 6, 7), np.float32)
    ids = tuple(map(str, range(count)))
    return ClipArrays(frames, np.arange(count), ids, states, states[:, 1:], **changes)


def test_a_file_larger_than_the_memory_is_read_in_flat_memory(tmp_path):
    path = tmp_path / "frames.npy"
    np.lib.format.open_memmap(path, "w+", np.uint8, (2000, 8, 128, 256, 3))  # a sparse file
    assert path.stat().st_blocks * 512 < 1e6
    command = [sys.executable, "-c", READ, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    before, after = json.loads(done.stdout)
    assert after - before < 60  # 490 MB were read


def test_windows_are_drawn_by_their_weights():
    weights = np.array([0.7, 0.0, 0.2, 0.1])
    sampler = ClipSampler(arrays_of(4, weights=weights), 2, 4000, seed=1)
    drawn = np.bincount([episode for episode, _, _ in sampler.spans(3)], minlength=4) / 4000
    np.testing.assert_allclose(drawn, weights, atol=0.03)
    assert drawn[1] == 0
    assert sampler.spans(3, slice(5, 9)) == sampler.spans(3)[5:9]


def test_hindsight_goals_come_after_the_clip_in_its_episode():
    frames = np.arange(3 * 6, dtype=np.uint8).reshape(3, 6, 1, 1, 1)
    states, actions = np.zeros((3, 6, 7), np.float32), np.zeros((3, 5, 7), np.float32)
    arrays = ClipArrays(frames, np.arange(3), ("a", "b", "c"), states, actions)
    sampler, seen = ClipSampler(arrays, 3, 16, 0), set()
    for number in range(20):
        goals = sampler.goals(number)[:, 0, 0, 0].tolist()
        assert goals[4:9] == sampler.goals(number, slice(4, 9))[:, 0, 0, 0].tolist()
        for (episode, _, stop), goal in zip(sampler.spans(number), goals, strict=True):
            assert episode == goal // 6 and goal % 6 >= stop - 1
            seen.add((stop - 1, goal % 6))
    assert seen == {(last, goal) for last in (2, 3, 4, 5) for goal in range(last, 6)}


def test_poses_of_cameras():
    poses = np.arange(4)[:, None, None, None] * np.ones((1, 6, 2, 6), np.float32)
    sampler = ClipSampler(arrays_of(4, extrinsics=poses), 3, 5, seed=1)
    drawn = sampler.extrinsics(2)
    assert drawn.shape == (5, 3, 2, 6)
    assert drawn[:, 0, 0, 0].tolist() == sampler.batch(2).frames[:, 0, 0, 0, 0].tolist()
    with pytest.raises(ValueError, match="do not tell the cameras' poses"):
        ClipSampler(arrays_of(4), 3, 5, seed=1).extrinsics(0)


def test_readers_change_nothing_whatever_is_asked_for():
    plain = ClipSampler(arrays_of(9), 3, 4, seed=2)
    ahead = ClipSampler(arrays_of(9, readers=2), 3, 4, seed=2)
    whole, half = slice(None), slice(0, 2)
    asked = [(0, whole), (1, whole), (2, half), (2, whole), (40, half), (3, whole), (3, whole)]
    for number, rows in asked:  # a run, an evaluation between, a run that was resumed
        a, b = plain.batch(number, rows), ahead.batch(number, rows)
        assert torch.equal(a.frames, b.frames) and torch.equal(a.actions, b.actions)
    assert len(ahead._waiting) <= 2 * 2 * clips.AHEAD


@pytest.mark.parametrize("readers", [0, 2])
def test_frames_decoded_on_the_fly_are_those_of_the_cache(dataset_folder, readers):
    cached = Dataset.open(dataset_folder).load_arrays("train")
    fresh = Dataset.open(dataset_folder, decode="on-the-fly", readers=readers).load_arrays("train")
    assert fresh.frames.shape == cached.frames.shape and not isinstance(fresh.frames, np.ndarray)
    np.testing.assert_array_equal(fresh.frames[3:5], cached.frames[3:5])
    a, b = (ClipSampler(x, 5, 4, seed=0) for x in (cached, fresh))
    for number in (0, 1, 7):
        assert torch.equal(a.batch(number).frames, b.batch(number).frames)
    assert Dataset.open(dataset_folder, decode="on-the-fly").load_arrays("test").readers > 0


def test_what_does_not_fit_the_disk_is_decoded_on_the_fly(tmp_path, monkeypatch, capsys):
    from jepa_gym.training.data import cache

    from ..conftest import make_dataset

    folder = make_dataset(tmp_path / "d", train=3, validation=1)
    monkeypatch.setattr(cache, "SPARE", 1e9)
    arrays = Dataset.open(folder).load_arrays("train")
    assert not isinstance(arrays.frames, np.ndarray)
    assert "do not fit" in capsys.readouterr().err
    assert not list((folder / "cache").glob("frames*"))
    video = next(path for path in (folder / "episodes" / arrays.ids[1]).rglob("left.mp4"))
    video.write_bytes(video.read_bytes()[:500])
    with pytest.raises(CorruptEpisodeError, match=arrays.ids[1]):
        arrays.clip(1, 0, 4)


def test_errors(dataset_folder):
    with pytest.raises(ValueError, match="mean `on-the-fly`"):
        Dataset.open(dataset_folder, decode="onthefly")
    with pytest.raises(ValueError, match="`readers` must not be negative"):
        Dataset.open(dataset_folder, readers=-2)
