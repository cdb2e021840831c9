"""Collection: resumable, decided by the seed, the same for any number of workers."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
from filelock import FileLock
from scipy.spatial.transform import Rotation

from jepa_gym.envs.pictures.cameras import CAMERAS, zoomed_fovy_deg
from jepa_gym.envs.splits import split_objects
from jepa_gym.envs.variations import Variation
from jepa_gym.training.collection import collect as module
from jepa_gym.training.collection.collect import collect
from jepa_gym.training.collection.config import CollectConfig
from jepa_gym.training.data.episodes import read_episode, read_metadata

SMALL = {"episodes": 4, "steps": 3, "image_size": 32}
FLAGS = ["--steps", "3", "--image-size", "32", "--objects", "box", "--camera", "left"]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("collect") / "data"
    return folder, collect(CollectConfig(output=folder, workers=2, **SMALL))


@pytest.fixture
def copied(dataset, tmp_path):
    return Path(shutil.copytree(dataset[0], tmp_path / "copy"))


def start(folder, *flags):
    command = [sys.executable, "-m", "jepa_gym.training.collection.collect", "--output", folder]
    return subprocess.Popen(
        [str(word) for word in (*command, *FLAGS, *flags)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # a test run in the background of a shell ignores Ctrl-C and would hand that on
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def wait_for_episodes(folder, count):
    deadline = time.monotonic() + 120
    while len(list(folder.glob("episodes/0*"))) < count and time.monotonic() < deadline:
        time.sleep(0.05)


def workers_of(folder):
    """Process ids of the processes that were spawned for a collection."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"COLLECTED={folder}".encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


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


def test_extrinsics_are_those_of_droid(dataset):
    """OpenCV's axes: z points from the camera to what it looks at, y down in the picture."""
    pose = read_episode(dataset[0] / "episodes" / "000001").extrinsics["left"][0]
    camera = CAMERAS["left"]
    axes = Rotation.from_euler("xyz", pose[3:]).as_matrix()
    forward = np.subtract(camera.target, camera.position)
    np.testing.assert_allclose(pose[:3], camera.position, atol=1e-6)
    np.testing.assert_allclose(axes[:, 2], forward / np.linalg.norm(forward), atol=1e-6)
    assert axes[2, 1] < -0.5


def test_a_split_is_recorded_with_all_its_objects(tmp_path):
    assert CollectConfig(tmp_path).objects == ("box", "cup")
    assert CollectConfig(tmp_path, split="train").objects == split_objects("train")
    assert CollectConfig(tmp_path, split="train", objects=("can",)).objects == ("can",)


def test_seeds_of_the_benchmarks_are_refused(tmp_path):
    with pytest.raises(ValueError, match="kept for evaluation"):
        CollectConfig(output=tmp_path, episodes=10, seed=999_995)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task": "raech"}, "Did you mean `reach`"),
        ({"behaviours": {"expret": 1.0}}, "Did you mean `expert`"),
        ({"behaviours": {"expert": 0.0}}, "positive"),
        ({"behaviours": {"expert": -1.0, "near": 2.0}}, "positive"),
        ({"adapter": "a:B"}, "belongs to `env`"),
        ({"env": "robosuite/Lift", "task": "reach"}, "`task` belongs to the suite's own tasks"),
        ({"env": "robosuite/Lift", "env_kwargs": "[1"}, "`env_kwargs` is not JSON"),
        ({"env": "robosuite/Lift", "env_kwargs": "[1]"}, "must be like"),
        ({"env": "robosuite/Lift", "adapter": "module"}, "must be module:class"),
        ({"split": "train", "objects": ("milk",)}, "the split 'train' has the objects"),
        ({"split": "trian"}, "split"),
        ({"camera": "top"}, "camera"),
        ({"image_size": 4}, "image_size"),
        ({"step_s": 100.0}, "step_s"),
    ],
)
def test_wrong_settings_are_refused_before_anything_is_written(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        CollectConfig(output=tmp_path / "data", **change)
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    "change",
    [{"step_s": 0.5}, {"max_move_m": 0.05}, {"objects": ("box",)}, {"seed": 1}, {"steps": 4}],
)
def test_other_settings_are_refused(copied, change):
    before = (copied / "dataset.json").read_bytes()
    with pytest.raises(ValueError, match=f"{next(iter(change))}=.*give the same settings"):
        collect(CollectConfig(output=copied, **(SMALL | change)))
    assert (copied / "dataset.json").read_bytes() == before


def test_settings_of_an_interrupted_or_an_older_collection_count(copied):
    (copied / "dataset.json").unlink()  # interrupted
    with pytest.raises(ValueError, match="step_s"):
        collect(CollectConfig(output=copied, step_s=0.5, **SMALL))
    (copied / "collection.json").unlink()  # nobody knows
    with pytest.raises(ValueError, match=r"no collection\.json"):
        collect(CollectConfig(output=copied, **SMALL))


def test_a_folder_of_an_earlier_version_is_continued(dataset, copied):
    index = dict(dataset[1])
    index["settings"] = {k: v for k, v in index["settings"].items() if k not in ("task", "split")}
    (copied / "dataset.json").write_text(json.dumps(index))
    (copied / "collection.json").unlink()
    assert collect(CollectConfig(output=copied, workers=1, **SMALL))["episodes"] == 4
    (copied / "collection.json").unlink()
    with pytest.raises(ValueError, match="max_move_m"):
        collect(CollectConfig(output=copied, max_move_m=0.05, **SMALL))


def test_damaged_settings_name_the_file(copied):
    (copied / "collection.json").write_text("{")
    with pytest.raises(ValueError, match=r"collection\.json is damaged"):
        collect(CollectConfig(output=copied, **SMALL))


def test_each_existing_episode_is_checked(copied):
    path = copied / "episodes" / "000001" / "metadata_000001.json"
    (copied / "files.json").unlink()
    path.write_text(path.read_text().replace('"step_s": 0.25', '"step_s": 0.5'))
    with pytest.raises(ValueError, match=r"000001: its `step_s` is 0\.5.*delete that folder"):
        collect(CollectConfig(output=copied, **SMALL))
    path.unlink()
    with pytest.raises(ValueError, match="000001: expected one metadata"):
        collect(CollectConfig(output=copied, **SMALL))


def test_a_changed_episode_is_not_taken_into_the_index(copied):
    with h5py.File(copied / "episodes" / "000003" / "trajectory.h5", "a") as file:
        file["reward"][0] = 7.0
    with pytest.raises(ValueError, match=r"000003/trajectory\.h5 was changed; delete that folder"):
        collect(CollectConfig(output=copied, **SMALL))


def test_fewer_episodes_than_there_are(copied):
    with pytest.raises(ValueError, match="raise --episodes"):
        collect(CollectConfig(output=copied, **(SMALL | {"episodes": 2})))


def test_two_collections_at_once(copied):
    with (
        FileLock(copied / ".collect.lock"),
        pytest.raises(ValueError, match="another `jepa-gym collect` works in"),
    ):
        collect(CollectConfig(output=copied, **SMALL))


def test_user_errors_are_one_line(copied, monkeypatch, capsys):
    flags = ["--output", str(copied), "--episodes", "4", "--step-s", "0.5"]
    monkeypatch.setattr(sys, "argv", ["jepa-gym collect", *flags])
    assert module.main() == 1
    message = capsys.readouterr().err
    assert message.startswith("error: ") and message.count("\n") == 1


@pytest.mark.parametrize("task", ["reach", "reach-with-object", "pick-place"])
def test_other_tasks_and_looks(tmp_path, task):
    behaviours = {"expert": 0.5, "near": 0.5}
    settings = SMALL | {
        "episodes": 8,
        "steps": 2,
        "task": task,
        "split": "train",
        "behaviours": behaviours,
    }
    objects = ("can",)
    config = CollectConfig(
        output=tmp_path, workers=1, objects=objects, camera="left+right", **settings
    )
    assert collect(config)["cameras"] == ["left", "right"]
    folders = sorted((tmp_path / "episodes").iterdir())
    assert {read_metadata(folder)["kind"] for folder in folders} == {"expert", "near"}
    looks = [Variation().replaced(read_metadata(folder)["variation"]) for folder in folders]
    assert len({look.table_texture for look in looks}) > 1
    for folder, look in zip(folders, looks, strict=True):
        fovy_deg = zoomed_fovy_deg(CAMERAS["left"], look.camera_zoom)
        assert read_metadata(folder)["fovy_deg"]["left"] == pytest.approx(fovy_deg)
    left = [read_episode(folder, ("left", "right")).extrinsics["left"][0] for folder in folders]
    assert len({tuple(pose) for pose in left}) == len(folders)  # the split moves the camera


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interruption_keeps_what_was_finished(tmp_path, number):
    folder = tmp_path / "data"
    process = start(folder, "--episodes", 400, "--workers", 1)
    wait_for_episodes(folder, 3)
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    finished = [path for path in (folder / "episodes").iterdir() if path.name.startswith("0")]
    assert process.returncode == {signal.SIGINT: 130, signal.SIGTERM: 143}[number]
    assert "give the same command again" in output and "Traceback" not in output
    assert 3 <= len(finished) < 400
    assert not (folder / "dataset.json").exists()
    for path in finished:
        read_episode(path, ("left",))


def test_workers_die_with_a_killed_parent_and_the_next_collection_goes_on(tmp_path, monkeypatch):
    folder = tmp_path / "data"
    monkeypatch.setenv("COLLECTED", str(folder))
    process = start(folder, "--episodes", 400, "--workers", 2)
    wait_for_episodes(folder, 1)
    assert len(workers_of(folder)) >= 3
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    deadline = time.monotonic() + 10
    while workers_of(folder) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not workers_of(folder)
    finished = max(int(path.name) for path in folder.glob("episodes/0*"))
    settings = {"steps": 3, "image_size": 32, "objects": ("box",), "camera": "left"}
    index = collect(CollectConfig(output=folder, episodes=finished + 2, workers=1, **settings))
    assert index["episodes"] == finished + 2
    assert not list(folder.glob("episodes/.*"))
