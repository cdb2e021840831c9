"""The blocks of docs/data.md run, on small sets where the page has large ones."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from jepa_gym.cli import main
from jepa_gym.training.data.dataset import Dataset, write_index
from jepa_gym.training.data.episodes import read_episode, write_episode
from jepa_gym.training.data.lerobot_writer import write_lerobot
from jepa_gym.training.data.sources import FORMATS, open_source

from ..conftest import INDEX, make_episode
from .droid_layout import as_droid
from .foreign import as_robomimic, as_videos

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "data.md").read_text()
CONVERTER = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
COMMANDS = [
    line
    for block in re.findall(r"```bash\n(.*?)```", PAGE, flags=re.DOTALL)
    for line in block.splitlines()
]
STEPS = 16


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """What the page calls data/droid, data/lerobot, data/image.hdf5, data/videos, data/franka."""
    folder = tmp_path_factory.mktemp("page")
    data = folder / "data"
    for number in range(2):
        episode = make_episode(number, STEPS)
        episode.states[:, 3:6] = np.linspace([0.1, -0.1, -1.5], [-0.1, 0.1, 1.5], STEPS)
        path = write_episode(data / "franka" / "episodes" / f"{number:06d}", episode)
        episode.states[:, 3:6] = (
            Rotation.from_euler("xyz", episode.states[:, 3:6]) * Rotation.from_euler("x", np.pi)
        ).as_euler("xyz")
        flange = write_episode(folder / "flange" / f"{number:06d}", episode)
        as_droid(flange, data / "droid" / path.name)
    write_index(data / "franka", INDEX)
    write_lerobot(open_source(data / "franka"), INDEX, data / "lerobot")
    as_robomimic(data / "franka", data / "image.hdf5")
    as_videos(data / "franka", data / "videos")
    return folder


def record_mine(folder: Path) -> np.ndarray:
    """Write what the converter of the page reads, and return the states that it shall find."""
    (folder / "recordings").mkdir()
    for number in range(2):
        episode = make_episode(number, STEPS)
        states = episode.states
        states[:, 3:6] = np.linspace([0.1, -0.1, -1.5], [-0.1, 0.1, 1.5], STEPS)
        np.savez(
            folder / "recordings" / f"take{number}.npz",
            position_mm=1000 * states[:, :3],
            quaternion_xyzw=Rotation.from_euler("xyz", states[:, 3:6]).as_quat(),
            width_mm=80 * (1 - states[:, 6]),
            rgb=np.kron(episode.frames["left"], np.ones((1, 4, 4, 1), np.uint8)),
            time_ms=1000 * episode.timestamps_s,
        )
    return states


def test_the_converter_and_every_command_run(folder, monkeypatch, capsys):
    states = record_mine(folder)
    (converter,) = CONVERTER
    monkeypatch.chdir(folder)
    for _ in range(2):  # the second time, nothing is left to do
        exec(compile(converter, "docs/data.md", "exec"), {})
    read = read_episode(folder / "data/mine/episodes/take1", ("left",))
    np.testing.assert_allclose(read.states, states, atol=1e-9)
    assert Dataset.open(folder / "data/mine").load_arrays("train").frames.shape[1:] == (
        STEPS, 64, 64, 3
    )  # fmt: skip
    for command in COMMANDS:
        name, *words = shlex.split(command)
        workers = [] if words[0] == "inspect" else ["--workers", "1"]
        assert name == "jepa-gym" and main([*words, *workers]) == 0, (
            command,
            capsys.readouterr(),
        )
    assert len(COMMANDS) == 11
    assert {path.name for path in folder.glob("*.png")} == {
        *("droid.png", "lerobot.png", "robomimic.png", "mine.png")
    }


def test_the_page_lists_every_format():
    assert set(re.findall(r"^\| `([a-z-]+)` \| ", PAGE, flags=re.MULTILINE)) == set(FORMATS)
