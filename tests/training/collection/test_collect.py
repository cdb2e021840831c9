"""Collection: resumable, decided by the seed, the same for any number of workers."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from jepa_gym.training.collection.collect import CollectConfig, collect
from jepa_gym.training.data.episodes import read_episode

SMALL = {"episodes": 4, "steps": 3, "image_size": 32}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("collect") / "data"
    return folder, collect(CollectConfig(output=folder, workers=2, **SMALL))


def test_a_lost_episode_is_recorded_again_alike(dataset):
    folder, index = dataset
    shutil.rmtree(folder / "episodes" / "000002")
    again = collect(CollectConfig(output=folder, workers=1, **SMALL))
    assert again == index


def test_index_tells_units_cameras_versions_and_hash(dataset):
    _, index = dataset
    assert index["episodes"] == 4
    assert index["cameras"] == ["left", "wrist"]
    assert index["step_s"] == 0.25
    assert {"state", "action", "time"} <= index["units"].keys()
    assert {"mujoco", "robosuite", "jepa_gym"} <= index["versions"].keys()
    assert len(index["content_hash"]) == 64


def test_an_episode_holds_what_was_done(dataset):
    folder, _ = dataset
    episode = read_episode(folder / "episodes" / "000001")
    assert episode.frames["left"].shape == episode.frames["wrist"].shape == (4, 32, 32, 3)
    assert episode.states.shape == (4, 7) and episode.actions.shape == (3, 7)
    moved = np.diff(episode.states[:, :3], axis=0)
    assert np.abs(moved).max() <= 0.08
    assert episode.metadata["object"] == "cup"
    assert np.allclose(np.diff(episode.timestamps_s), 0.25)


def test_seeds_of_the_benchmarks_are_refused(tmp_path):
    with pytest.raises(ValueError, match="kept for evaluation"):
        CollectConfig(output=tmp_path, episodes=10, seed=999_995)


def test_interruption_keeps_what_was_finished(tmp_path):
    folder = tmp_path / "data"
    command = [
        sys.executable,
        "-m",
        "jepa_gym.training.collection.collect",
        "--output",
        str(folder),
    ]
    command += ["--episodes", "400", "--steps", "3", "--image-size", "32", "--workers", "1"]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # a test run in the background of a shell ignores Ctrl-C and would hand that on
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    deadline = time.monotonic() + 120
    while len(list(folder.glob("episodes/0*"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    finished = [path for path in (folder / "episodes").iterdir() if path.name.startswith("0")]
    assert process.returncode != 0
    assert "run it again" in output
    assert 3 <= len(finished) < 400
    assert not (folder / "dataset.json").exists()
    for path in finished:
        read_episode(path)
