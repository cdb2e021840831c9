"""The same episodes, read from our own layout and from raw DROID's."""

from __future__ import annotations

import pickle
from pathlib import Path

import h5py
import numpy as np
import pytest

from jepa_gym.training.data.episodes import CorruptEpisodeError, read_episode
from jepa_gym.training.data.sources import open_source

from ...conftest import make_dataset
from ..droid_layout import as_droid


@pytest.fixture(scope="module")
def own(tmp_path_factory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("sources") / "own", train=3)


@pytest.fixture
def droid(own, tmp_path) -> Path:
    for number, folder in enumerate(sorted((own / "episodes").iterdir())):
        as_droid(folder, tmp_path / "droid" / "lab" / "success" / f"2023-07-0{number}" / "Fri")
    return tmp_path / "droid"


def test_both_layouts_hold_the_same(own, droid):
    ours, theirs = open_source(own), open_source(droid)
    assert (ours.format, theirs.format) == ("jepa-gym", "droid")
    assert (ours.state_convention, theirs.state_convention) == ("hand", "droid")
    assert theirs.ids() == [f"lab/success/2023-07-0{number}/Fri" for number in range(3)]
    for our_id, their_id in zip(ours.ids(), theirs.ids(), strict=True):
        a, b = ours.recording(our_id), theirs.recording(their_id)
        np.testing.assert_array_equal(a.states, b.states)
        np.testing.assert_allclose(a.times_s, b.times_s, atol=1e-9)
        np.testing.assert_array_equal(a.extrinsics["left"], b.extrinsics["left"])
        assert b.actions is None and b.rewards is None and b.success is None
        for camera in ("left", "wrist"):
            assert ours.frame_count(our_id, camera) == theirs.frame_count(their_id, camera) == 12
            rows = [0, 3, 3, 11]
            frames = theirs.frames(their_id, camera, rows)
            np.testing.assert_array_equal(frames, ours.frames(our_id, camera, rows))
            whole = read_episode(own / "episodes" / our_id, (camera,)).frames[camera]
            np.testing.assert_array_equal(frames, whole[rows])


def test_files_are_what_is_read(own, droid):
    assert {path.name for path in open_source(own).files("000000")} == {
        *("left.mp4", "wrist.mp4", "trajectory.h5", "metadata_000000.json")
    }
    source = open_source(droid)
    (droid / source.ids()[0] / "recordings" / "SVO").mkdir()
    (droid / source.ids()[0] / "recordings" / "SVO" / "1.svo").write_bytes(b"large")
    assert len(source.files(source.ids()[0])) == 4


def test_sources_can_be_sent_to_workers(droid):
    source = pickle.loads(pickle.dumps(open_source(droid)))
    assert source.frames(source.ids()[0], "left", [5]).shape == (1, 16, 16, 3)


def test_what_is_wrong_is_said(droid, tmp_path):
    source = open_source(droid)
    name = source.ids()[0]
    with pytest.raises(CorruptEpisodeError, match="name no `right_mp4_path`"):
        source.frame_count(name, "right")
    with pytest.raises(CorruptEpisodeError, match="12 frames, 12 to 12 were asked for"):
        source.frames(name, "left", [12])
    with h5py.File(droid / name / "trajectory.h5", "a") as file:
        del file["observation/timestamp"]
    with pytest.raises(CorruptEpisodeError, match=r"step_start` in milliseconds"):
        source.recording(name)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"the formats are jepa-gym, .*droid, videos, pictures"):
        open_source(tmp_path / "empty")
    with pytest.raises(ValueError, match="of the format jepa-gym"):
        open_source(droid, "jepa-gym")
    with pytest.raises(ValueError, match="mean `droid`"):
        open_source(droid, "driod")
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        open_source(tmp_path / "nowhere")


def test_a_damaged_video_is_named(droid):
    source = open_source(droid)
    path = next((droid / source.ids()[1] / "recordings" / "MP4").glob("*.mp4"))
    path.write_bytes(path.read_bytes()[:300])
    camera = "left" if source._video(source.ids()[1], "left") == path else "wrist"
    for read in (
        lambda: source.frames(source.ids()[1], camera, [0]),
        lambda: source.frame_count(source.ids()[1], camera),
    ):
        with pytest.raises(CorruptEpisodeError, match=f"cannot decode recordings/MP4/{path.name}"):
            read()
