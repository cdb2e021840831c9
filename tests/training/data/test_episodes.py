from __future__ import annotations

import errno
import json

import h5py
import numpy as np
import pytest

from jepa_gym.training.data import episodes
from jepa_gym.training.data.episodes import (
    CorruptEpisodeError,
    Episode,
    read_episode,
    write_episode,
)

STEPS = 6


def small_episode() -> Episode:
    rows = np.linspace(0, 200, 32).astype(np.uint8)
    frames = np.zeros((STEPS, 32, 48, 3), np.uint8)
    frames[:] = rows[None, :, None, None]
    frames += (8 * np.arange(STEPS, dtype=np.uint8))[:, None, None, None]
    rng = np.random.default_rng(0)
    states = rng.uniform(-1, 1, size=(STEPS, 7))
    states[:, 6] = np.linspace(0, 1, STEPS)
    return Episode(
        frames={"left": frames, "wrist": frames[:, ::-1].copy()},
        states=states,
        extrinsics={"left": rng.normal(size=(STEPS, 6)), "wrist": rng.normal(size=(STEPS, 6))},
        actions=rng.normal(size=(STEPS - 1, 7)),
        rewards=-np.ones(STEPS - 1),
        success=np.array([False] * (STEPS - 2) + [True]),
        sim_state=rng.normal(size=(STEPS, 9)),
        timestamps_s=0.25 * np.arange(STEPS),
        metadata={"step_s": 0.25, "object": "cup"},
    )


@pytest.fixture
def folder(tmp_path):
    return write_episode(tmp_path / "000007", small_episode())


def test_round_trip(folder):
    written, read = small_episode(), read_episode(folder)
    for name in ("states", "actions", "rewards", "success", "sim_state", "timestamps_s"):
        np.testing.assert_array_equal(getattr(written, name), getattr(read, name))
    for camera in ("left", "wrist"):
        np.testing.assert_array_equal(written.extrinsics[camera], read.extrinsics[camera])
        error = np.abs(written.frames[camera].astype(int) - read.frames[camera])
        assert error.mean() < 3
    assert read.metadata["object"] == "cup"
    assert read.metadata["id"] == "000007"
    assert read.metadata["right_mp4_path"] is None


def test_droid_layout(folder):
    assert (folder / "metadata_000007.json").is_file()
    assert (folder / "recordings" / "MP4" / "left.mp4").is_file()
    with h5py.File(folder / "trajectory.h5") as file:
        assert file["observation/robot_state/cartesian_position"].shape == (STEPS, 6)
        assert file["observation/robot_state/gripper_position"].shape == (STEPS,)
        assert file["observation/camera_extrinsics/left_left"].shape == (STEPS, 6)


def test_never_overwrites(folder):
    with pytest.raises(FileExistsError, match="never overwritten"):
        write_episode(folder, small_episode())


def test_failed_write_leaves_nothing(tmp_path):
    episode = small_episode()
    episode.metadata["object"] = object()  # not JSON, noticed after the videos were written
    with pytest.raises(TypeError):
        write_episode(tmp_path / "000001", episode)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"actions": np.zeros((STEPS, 7))}, r"actions must have shape \(5, 7\)"),
        ({"states": np.full((STEPS, 7), np.nan)}, "states holds NaN"),
        ({"states": np.full((STEPS, 7), 1e30)}, "states holds numbers beyond"),
        ({"states": np.full((STEPS, 7), [300, 0, 200, 0, 0, 0, 0.0])}, "millimetres"),
        ({"states": np.full((STEPS, 7), [0, 0, 0, 180, 0, 0, 0.0])}, "degrees"),
        ({"states": np.full((STEPS, 7), [0, 0, 0, 0, 0, 0, 255.0])}, "closedness"),
        ({"sim_state": np.full((STEPS, 9), 1e30)}, "sim_state holds numbers beyond"),
        ({"timestamps_s": np.zeros(STEPS)}, "do not grow"),
        ({"metadata": {}}, "step_s"),
    ],
)
def test_refuses_to_write_bad_episodes(tmp_path, change, message):
    episode = small_episode()
    for name, value in change.items():
        setattr(episode, name, value)
    with pytest.raises(ValueError, match=message):
        write_episode(tmp_path / "000001", episode)
    assert not (tmp_path / "000001").exists()


def test_what_others_do_not_have_may_be_left_out(tmp_path):
    whole = small_episode()
    written = Episode(frames=whole.frames, states=whole.states, metadata={"step_s": 0.25})
    read = read_episode(write_episode(tmp_path / "000001", written))
    np.testing.assert_array_equal(read.states, whole.states)
    assert read.extrinsics == {} and read.sim_state is None and read.rewards is None


def test_a_recorded_state_of_1e30_is_refused(folder):
    with h5py.File(folder / "trajectory.h5", "a") as file:
        file["observation/robot_state/cartesian_position"][2, 1] = 1e30
    with pytest.raises(CorruptEpisodeError, match="states holds numbers beyond"):
        read_episode(folder)


def test_full_disk_is_said_and_leaves_nothing(tmp_path, monkeypatch):
    def write(*_):
        raise OSError("unable to write (errno = 28, error message = 'No space left on device')")

    monkeypatch.setattr(episodes.h5py.File, "create_group", write)
    with pytest.raises(OSError, match="No space left") as caught:
        write_episode(tmp_path / "000001", small_episode())
    assert caught.value.errno == errno.ENOSPC and "000001" in str(caught.value.filename)
    assert list(tmp_path.iterdir()) == []


def test_truncated_video(folder):
    path = folder / "recordings" / "MP4" / "wrist.mp4"
    path.write_bytes(path.read_bytes()[:-700])
    with pytest.raises(CorruptEpisodeError, match=r"000007: .*wrist"):
        read_episode(folder)
    assert read_episode(folder, ("left",)).frames.keys() == {"left"}


def test_missing_key(folder):
    with h5py.File(folder / "trajectory.h5", "a") as file:
        del file["reward"]
    with pytest.raises(CorruptEpisodeError, match="reward"):
        read_episode(folder)


def test_wrong_length(folder):
    with h5py.File(folder / "trajectory.h5", "a") as file:
        del file["observation/robot_state/gripper_position"]
        file["observation/robot_state/gripper_position"] = np.zeros(STEPS - 1)
    with pytest.raises(CorruptEpisodeError, match="gripper_position"):
        read_episode(folder)


def test_missing_metadata(folder):
    (folder / "metadata_000007.json").unlink()
    with pytest.raises(CorruptEpisodeError, match="found 0"):
        read_episode(folder)


def test_reads_recordings_of_others(folder):
    """Real DROID has serial numbers for names and none of our own data sets."""
    path = folder / "metadata_000007.json"
    metadata = json.loads(path.read_text())
    del metadata["writer"]
    metadata["left_mp4_path"] = "lab/success/2023-07-07/recordings/MP4/2345.mp4"
    path.write_text(json.dumps(metadata))
    (folder / "recordings" / "MP4" / "left.mp4").rename(folder / "recordings" / "MP4" / "2345.mp4")
    with h5py.File(folder / "trajectory.h5", "a") as file:
        file.move(
            "observation/camera_extrinsics/left_left", "observation/camera_extrinsics/2345_left"
        )
        for key in ("action", "reward", "success", "simulator_state", "timestamp_s"):
            del file[key]
    episode = read_episode(folder, ("left",))
    assert episode.actions is None
    np.testing.assert_array_equal(episode.states, small_episode().states)


def test_videos_are_encoded_without_what_differs_between_processes(folder):
    """The encoder writes its settings into the file."""
    assert b"mbtree=0" in (folder / "recordings" / "MP4" / "left.mp4").read_bytes()
