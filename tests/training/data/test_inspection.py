from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation

from jepa_gym.cli import main
from jepa_gym.training.data.dataset import write_index
from jepa_gym.training.data.episodes import write_episode

from ..conftest import INDEX, make_episode
from .droid_layout import as_droid
from .foreign import as_robomimic, as_videos


@pytest.fixture
def own(tmp_path) -> Path:
    """Three episodes of a hand that points down and turns about the vertical."""
    for number in range(3):
        episode = make_episode(number)
        episode.states[:, 3:6] = np.linspace([0.1, -0.1, -1.5], [-0.1, 0.1, 1.5], 12)
        write_episode(tmp_path / "own" / "episodes" / f"{number:06d}", episode)
    write_index(tmp_path / "own", INDEX)
    return tmp_path / "own"


def inspect(capsys, *words: object) -> tuple[int, str]:
    status = main(["inspect", *map(str, words)])
    out, err = capsys.readouterr()
    return status, out + err


def test_what_is_there_is_said_and_drawn(own, tmp_path, capsys):
    status, text = inspect(capsys, own, "--output", tmp_path / "sheet.png")
    assert status == 0, text
    for part in (
        "format jepa-gym, 3 episodes, 3 were read",
        "camera left: 16 x 16 (height x width)",
        "frames of an episode: 12\n",
        "seconds between frames: 0.25\n",
        "states: the pose of the hand",
        "yaw (rad)    -1.5 to 1.5, median ",
        "splits: 3 train, 0 validation, 0 test",
        "no problem found",
    ):
        assert part in text
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == (7 * 128, 6 * 152)
    status, text = inspect(capsys, own, "--episodes", 2)
    assert status == 0 and "3 episodes, 2 were read" in text


def test_every_format_is_inspected(own, tmp_path, capsys):
    for number, folder in enumerate(sorted((own / "episodes").iterdir())):
        as_droid(folder, tmp_path / "droid" / f"2023-07-0{number}")
    status, text = inspect(capsys, tmp_path / "droid", "--state-convention", "hand")
    assert status == 0 and "camera right: in none of these episodes" in text
    assert "camera wrist: 16 x 16" in text
    status, text = inspect(capsys, as_robomimic(own, tmp_path / "image.hdf5"))
    assert status == 0 and "format robomimic, 3 episodes" in text and "of the hand" in text
    videos = as_videos(own, tmp_path / "videos")
    status, text = inspect(capsys, videos, "--output", tmp_path / "videos.png")
    assert status == 0 and "states: none; masked pre-training" in text
    stills = tmp_path / "stills"
    stills.mkdir()
    Image.new("RGB", (20, 10)).save(stills / "a.png")
    status, text = inspect(capsys, stills, "--output", tmp_path / "stills.png")
    assert status == 0 and "camera picture: 10 x 20" in text


def change_states(own: Path, change) -> None:
    for folder in (own / "episodes").iterdir():
        with h5py.File(folder / "trajectory.h5", "a") as file:
            robot = file["observation/robot_state"]
            pose, closedness = robot["cartesian_position"][:], robot["gripper_position"][:]
            change(pose, closedness)
            robot["cartesian_position"][:], robot["gripper_position"][:] = pose, closedness


def millimetres(pose, closedness):
    pose[:, :3] = 1000 * pose[:, :3] + 100


def degrees(pose, closedness):
    pose[:, 3:] = np.degrees(pose[:, 3:])


def scalar_first(pose, closedness):
    stored = np.roll(Rotation.from_euler("xyz", pose[:, 3:]).as_quat(), 1, axis=1)
    pose[:, 3:] = Rotation.from_quat(stored).as_euler("xyz")


def flange(pose, closedness):
    turns = Rotation.from_euler("xyz", pose[:, 3:]) * Rotation.from_euler("x", np.pi)
    pose[:, 3:] = turns.as_euler("xyz")


def width(pose, closedness):
    closedness *= 0.08


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (millimetres, "must be in metres (millimetres?)"),
        (degrees, "must be in radians (degrees?)"),
        (scalar_first, "quaternions had been read in the other order"),
        (flange, "are they of 'droid'"),
        (width, "is it a width in metres?"),
    ],
)
def test_wrong_units_are_caught(own, capsys, change, message):
    change_states(own, change)
    status, text = inspect(capsys, own)
    assert status == 1 and f"problem: {'' if 'must be' not in message else 'corrupt'}" in text
    assert message in text


def test_damaged_episodes_are_named(own, tmp_path, capsys):
    video = own / "episodes" / "000001" / "recordings" / "MP4" / "wrist.mp4"
    video.write_bytes(video.read_bytes()[:300])
    status, text = inspect(capsys, own, "--output", tmp_path / "sheet.png")
    assert status == 1 and "000001: cannot decode recordings/MP4/wrist.mp4" in text
    assert (tmp_path / "sheet.png").is_file()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--output", "sheet.jpg"], "must end in .png"),
        (["--episodes", "0"], "at least 1"),
        (["--format", "rlds"], "`format` must be one of"),
        (["--state-convention", "flange"], "`state_convention` must be one of"),
    ],
)
def test_refusals(own, capsys, words, message):
    status, text = inspect(capsys, own, *words)
    assert status == 1 and message in text and len(text.splitlines()) == 1
