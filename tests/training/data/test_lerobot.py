"""LeRobot's format v3: read and written; `fixtures/lerobot_v3` was written by LeRobot 0.4.4."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from filelock import FileLock
from scipy.spatial.transform import Rotation

from jepa_gym.training.data import lerobot_writer
from jepa_gym.training.data.dataset import read_index
from jepa_gym.training.data.episodes import CorruptEpisodeError
from jepa_gym.training.data.lerobot_writer import write_lerobot
from jepa_gym.training.data.sources import open_source
from jepa_gym.training.data.videos import write_video

from ..conftest import make_dataset

FIXTURE = Path(__file__).resolve().parents[2] / "fixtures" / "lerobot_v3"
LEROBOT_PYTHON = os.environ.get("JEPA_GYM_LEROBOT_PYTHON")
"""A Python of an environment that LeRobot is installed in, see docs/data.md."""
STEPS = 12


@pytest.fixture(scope="module")
def own(tmp_path_factory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("lerobot") / "own", train=3, test=1)


def write(own: Path, folder: Path) -> Path:
    write_lerobot(open_source(own), read_index(own), folder)
    return folder


@pytest.fixture(scope="module")
def written(own, tmp_path_factory) -> Path:
    return write(own, tmp_path_factory.mktemp("lerobot") / "written")


@pytest.fixture
def theirs(tmp_path) -> Path:
    return shutil.copytree(FIXTURE, tmp_path / "theirs")


def check_equal(own: Path, written: Path) -> None:
    ours, theirs = open_source(own), pickle.loads(pickle.dumps(open_source(written)))
    assert theirs.format == "lerobot" and theirs.state_convention == ours.state_convention
    assert theirs.ids() == ours.ids() and set(theirs.cameras) == set(ours.cameras)
    for name in ours.ids():
        a, b = ours.recording(name), theirs.recording(name)
        np.testing.assert_array_equal(a.times_s, b.times_s)
        for key in ("states", "actions", "rewards", "success"):
            np.testing.assert_array_equal(np.float32(getattr(a, key)), getattr(b, key))
        assert b.metadata["kind"] == "random" and b.metadata["instruction"] == "move"
        for camera in ours.cameras:
            np.testing.assert_array_equal(a.extrinsics[camera], b.extrinsics[camera])
            assert theirs.frame_count(name, camera) == STEPS
            for rows in ([0, 3, 3, 11], range(STEPS)):
                frames = theirs.frames(name, camera, rows)
                np.testing.assert_array_equal(frames, ours.frames(name, camera, rows))
        assert all(path.is_file() for path in theirs.files(name))


def test_what_is_written_is_read_again(own, written):
    check_equal(own, written)


def test_large_sets_have_many_files(own, tmp_path, monkeypatch):
    for name, value in (("DATA_MB", 0), ("VIDEO_MB", 0), ("EPISODES_PER_FILE", 2)):
        monkeypatch.setattr(lerobot_writer, name, value)
    monkeypatch.setattr(lerobot_writer, "FILES_PER_CHUNK", 3)
    folder = write(own, tmp_path / "many")
    for kind in ("data", "videos/observation.images.left"):
        found = [path.relative_to(folder / kind) for path in (folder / kind).rglob("file-*")]
        assert sorted(path.with_suffix("").as_posix() for path in found) == [
            *(f"chunk-000/file-00{number}" for number in range(3)), "chunk-001/file-000"
        ]  # fmt: skip
    assert len(list((folder / "meta" / "episodes").rglob("*.parquet"))) == 2
    check_equal(own, folder)


def kinds(path: Path) -> dict[str, pa.DataType]:
    return {
        field.name: field.type
        for field in pq.read_schema(path)
        if not field.name.startswith("stats/")
    }


def test_tables_are_those_of_lerobot(written):
    """Columns, types and pandas' index, against what LeRobot wrote."""
    data, episodes = "data/chunk-000/file-000.parquet", "meta/episodes/chunk-000/file-000.parquet"
    ours, theirs = kinds(written / data), kinds(FIXTURE / data)
    assert {x: ours[x] for x in theirs if x in ours} == {x: theirs[x] for x in theirs if x in ours}
    assert theirs.keys() - ours.keys() == {"observation.images.wrist"}  # pictures, not a video
    ours, theirs = kinds(written / episodes), kinds(FIXTURE / episodes)
    assert {x: str(ours[x]).replace("element", "item") for x in theirs} == {
        x: str(theirs[x]).replace("element", "item") for x in theirs
    }
    described = [
        json.loads((pq.read_schema(folder / "meta/tasks.parquet").metadata or {})[b"pandas"])
        for folder in (written, FIXTURE)
    ]
    assert described[0]["index_columns"] == described[1]["index_columns"]
    infos = [json.loads((folder / "meta/info.json").read_text()) for folder in (written, FIXTURE)]
    assert infos[0].keys() == infos[1].keys()
    left = [info["features"]["observation.images.left"] for info in infos]
    assert left[0].keys() == left[1].keys() and left[0]["info"].keys() == left[1]["info"].keys()


def test_statistics_are_those_of_the_numbers(own, written):
    found = json.loads((written / "meta/stats.json").read_text())
    source = open_source(own)
    states = np.concatenate([source.recording(name).states for name in source.ids()])
    state = found["observation.state"]
    for name, value in (("min", states.min(0)), ("max", states.max(0)), ("mean", states.mean(0))):
        np.testing.assert_allclose(state[name], value, atol=1e-12)
    np.testing.assert_allclose(state["std"], states.std(0), atol=1e-12)
    assert state["count"] == [len(states)]
    picture = found["observation.images.left"]
    frames = np.concatenate([source.frames(x, "left", [0, 4, 7, 11]) for x in source.ids()]) / 255
    assert np.shape(picture["mean"]) == (3, 1, 1) and picture["count"] == [16]
    np.testing.assert_allclose(np.ravel(picture["mean"]), frames.mean((0, 1, 2)))
    np.testing.assert_allclose(np.ravel(picture["std"]), frames.std((0, 1, 2)))
    assert found.keys() == json.loads((written / "meta/info.json").read_text())["features"].keys()


def test_what_lerobot_wrote_is_read(theirs):
    source = open_source(theirs)
    assert (source.format, source.state_convention) == ("lerobot", "hand")
    assert source.ids() == ["000000", "000001"] and source.cameras == ("left", "wrist")
    for episode, name in enumerate(source.ids()):
        recording, steps = source.recording(name), 4 + episode
        np.testing.assert_array_equal(recording.times_s, 0.25 * np.arange(steps))
        assert recording.states is not None and recording.states.shape == (steps, 7)
        np.testing.assert_allclose(recording.states[2], [0.2, 0.2 * episode, 0.3, 0, 0, 0.2, 0.4])
        assert recording.actions is None  # nobody knows what theirs are
        assert recording.metadata == {"instruction": ["reach", "grasp"][episode]}
        for camera in source.cameras:
            assert source.frame_count(name, camera) == steps
            frames = source.frames(name, camera, [1, 2, 2])
            half = frames.shape[1] // 2
            for frame, time in zip(frames.astype(int), [1, 2, 2], strict=True):
                shade = 40 * episode + 20 * time + 10
                error = 0 if camera == "wrist" else 3  # PNG against AV1
                assert abs(frame[:half] - shade - 100).max() <= error
                assert abs(frame[half:] - shade).max() <= error


def change_state(folder: Path, names: list[str] | None, values: np.ndarray) -> None:
    info = json.loads((folder / "meta/info.json").read_text())
    info["features"]["observation.state"] |= {"names": names, "shape": [values.shape[1]]}
    (folder / "meta/info.json").write_text(json.dumps(info))
    path = folder / "data/chunk-000/file-000.parquet"
    table = pq.read_table(path)
    column = table.column_names.index("observation.state")
    table = table.set_column(column, "observation.state", pa.array(values.tolist()))
    pq.write_table(table, path)


def test_states_by_their_names(theirs):
    quaternions = Rotation.from_euler("xyz", np.linspace(-1, 1, 27).reshape(9, 3))
    values = np.column_stack([np.full((9, 3), 0.5), quaternions.as_quat(), np.ones(9)])
    names = ["x", "y", "z", "qx", "qy", "qz", "qw", "gripper"]
    order = [2, 1, 0, 6, 5, 3, 4, 7]
    change_state(theirs, [names[i].upper() for i in order], values[:, order])
    states = open_source(theirs).recording("000001").states
    np.testing.assert_allclose(states[:, 3:6], quaternions.as_euler("xyz")[4:], atol=1e-12)
    values[6, 3:7] *= 2
    change_state(theirs, names, values)
    with pytest.raises(CorruptEpisodeError, match=r"000001: is damaged .*lengths 1 to 2"):
        open_source(theirs).recording("000001")


def test_joint_angles_are_no_states(theirs):
    change_state(theirs, [f"joint_{number}.pos" for number in range(7)], np.ones((9, 7)))
    source = open_source(theirs)
    assert source.state_convention is None and source.recording("000000").states is None
    assert source.frames("000000", "left", [0]).shape == (1, 32, 32, 3)


def test_the_port_of_droid(theirs):
    info = json.loads((theirs / "meta/info.json").read_text())
    pose, gripper = (
        f"observation.state.{name}" for name in ("cartesian_position", "gripper_position")
    )
    info["features"]["observation.state"]["names"] = None
    info["features"] |= {
        pose: {"dtype": "float32", "shape": [6], "names": None},
        gripper: {"dtype": "float32", "shape": [1], "names": None},
    }
    (theirs / "meta/info.json").write_text(json.dumps(info))
    path = theirs / "data/chunk-000/file-000.parquet"
    states = np.random.default_rng(0).uniform(0, 1, (9, 7)).astype(np.float32)
    table = pq.read_table(path).append_column(pose, pa.array(states[:, :6].tolist()))
    pq.write_table(table.append_column(gripper, pa.array(states[:, 6])), path)
    source = open_source(theirs)
    assert source.state_convention == "droid"
    np.testing.assert_array_equal(source.recording("000001").states, states[4:])


def test_units_are_checked(theirs):
    values = np.zeros((9, 7))
    values[7, 0] = 450.0
    change_state(theirs, ["x", "y", "z", "roll", "pitch", "yaw", "gripper"], values)
    open_source(theirs).recording("000000")
    with pytest.raises(CorruptEpisodeError, match=r"000001: .*millimetres"):
        open_source(theirs).recording("000001")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"codebase_version": "v2.1"}, "format v2.1, v3 is read"),
        ({"fps": 0}, "is damaged"),
        ({"fps": "fast"}, "is damaged"),
        ({"features": {"observation.state": {}}}, "is damaged"),
    ],
)
def test_damaged_descriptions(theirs, change, message):
    info = json.loads((theirs / "meta/info.json").read_text())
    (theirs / "meta/info.json").write_text(json.dumps(info | change))
    with pytest.raises(ValueError, match=message):
        open_source(theirs)


def test_damaged_files_are_named(theirs):
    source = open_source(theirs)
    video = theirs / "videos/observation.images.left/chunk-000/file-000.mp4"
    video.write_bytes(video.read_bytes()[:600])
    for read in (
        lambda: source.frames("000001", "left", [0]),
        lambda: source.frame_count("000001", "left"),
    ):
        with pytest.raises(CorruptEpisodeError, match="000001"):
            read()
    data = theirs / "data/chunk-000/file-000.parquet"
    pq.write_table(pq.read_table(data).slice(0, 8), data)
    with pytest.raises(CorruptEpisodeError, match="has 4 rows, not 5"):
        source.recording("000001")
    data.write_bytes(b"PAR1")
    with pytest.raises(CorruptEpisodeError, match=r"file-000\.parquet"):
        source.recording("000000")
    (theirs / "meta/episodes/chunk-000/file-000.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match="meta/episodes is damaged"):
        open_source(theirs).ids()


def test_pyarrow_is_an_extra(theirs, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(ImportError, match=r"pip install 'jepa-gym\[lerobot\]'"):
        open_source(theirs)


def test_refusals_of_the_writer(own, written, tmp_path):
    with pytest.raises(FileExistsError, match="exists"):
        write(own, written)
    with pytest.raises(ValueError, match=r"0\.3 s is 3\.33 .*--step-s"):
        write_lerobot(open_source(own), {"step_s": 0.3}, tmp_path / "new")
    (tmp_path / ".new.tmp" / "data").mkdir(parents=True)  # of a killed process
    with (
        FileLock(tmp_path / ".new.tmp" / ".lock"),
        pytest.raises(ValueError, match="another process writes"),
    ):
        write(own, tmp_path / "new")
    check_equal(own, write(own, tmp_path / "new"))
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


def test_views_of_one_size_only(own, tmp_path):
    copy = shutil.copytree(own, tmp_path / "own")
    name = open_source(own).ids()[-1]
    larger = np.zeros((STEPS, 32, 32, 3), np.uint8)
    write_video(copy / "episodes" / name / "recordings" / "MP4" / "wrist.mp4", larger, 0.25)
    with pytest.raises(ValueError, match=r"wrist.mp4 has 32 x 32 pixels, others 16 x 16"):
        write(copy, tmp_path / "new")


def test_a_failed_write_leaves_nothing(own, tmp_path):
    copy = shutil.copytree(own, tmp_path / "own")
    video = sorted(copy.rglob("wrist.mp4"))[-1]
    video.write_bytes(video.read_bytes()[:600])
    with pytest.raises(ValueError, match="wrist"):
        write(copy, tmp_path / "new")
    assert [path.name for path in tmp_path.iterdir()] == ["own"]


@pytest.mark.skipif(not LEROBOT_PYTHON, reason="JEPA_GYM_LEROBOT_PYTHON names no LeRobot")
def test_the_lerobot_package_opens_what_is_written(own, written, tmp_path):
    code = (
        "import sys, numpy\n"
        "from lerobot.datasets.lerobot_dataset import LeRobotDataset\n"
        "data = LeRobotDataset('own/written', root=sys.argv[1])\n"
        "rows = [data[number] for number in range(len(data))]\n"
        "seen = {name: numpy.stack([x[name].numpy() for x in rows]) for name in sys.argv[3:]}\n"
        "numpy.savez(sys.argv[2], **seen)\n"
    )
    names = ("observation.images.left", "observation.state", "timestamp", "episode_index")
    arguments = [written, tmp_path / "seen.npz", *names]
    subprocess.run([str(LEROBOT_PYTHON), "-c", code, *map(str, arguments)], check=True)
    seen, source = np.load(tmp_path / "seen.npz"), open_source(own)
    for number, name in enumerate(source.ids()):
        rows = seen["episode_index"] == number
        recording = source.recording(name)
        np.testing.assert_array_equal(seen["timestamp"][rows], np.float32(recording.times_s))
        np.testing.assert_array_equal(seen["observation.state"][rows], np.float32(recording.states))
        pixels = 255 * seen["observation.images.left"][rows].transpose(0, 2, 3, 1)
        np.testing.assert_array_equal(pixels.round(), source.frames(name, "left", range(STEPS)))
