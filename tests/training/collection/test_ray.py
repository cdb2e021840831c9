"""A collection over a Ray cluster: the same files as on one machine, whole or not at all."""

from __future__ import annotations

import builtins
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from jepa_gym.training.collection import ray_cluster
from jepa_gym.training.collection.collect import collect
from jepa_gym.training.collection.config import CollectConfig
from jepa_gym.training.data.episodes import read_episode

SMALL = {"episodes": 4, "steps": 2, "image_size": 16, "camera": "left", "objects": ("box",)}


def test_two_workers_record_what_one_process_does_until_they_are_stopped(tmp_path):
    pytest.importorskip("ray", reason="the extra `ray` is not installed")
    shared = tmp_path / "shared"
    flags = "--steps 2 --image-size 16 --camera left --objects box --episodes 400 --workers 2 --ray"
    process = subprocess.Popen(
        [sys.executable, "-m", collect.__module__, "--output", str(shared), *flags.split()],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # its workers would let everything else go first
        env=os.environ | {"RAY_worker_niceness": "0"},
    )
    deadline = time.monotonic() + 200
    while len(list(shared.glob("episodes/0*"))) < 3 and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 143 and "give the same command again" in output
    count = 1 + max(int(path.name) for path in shared.glob("episodes/0*"))
    small = SMALL | {"episodes": count, "workers": 1}
    alone = collect(CollectConfig(output=tmp_path / "alone", **small))
    assert collect(CollectConfig(output=shared, **small))["content_hash"] == alone["content_hash"]


def test_files_of_an_episode_are_those_that_are_written_here(tmp_path):
    config = CollectConfig(output=tmp_path, workers=1, **SMALL)
    collect(config)
    here = tmp_path / "episodes" / "000001"
    files = ray_cluster.episode_files(config, 1)
    assert files == {
        path.relative_to(here).as_posix(): path.read_bytes()
        for path in here.rglob("*")
        if path.is_file()
    }
    target = tmp_path / "elsewhere" / "000001"
    ray_cluster.put_files(target, files)
    assert read_episode(target, ("left",)).states.shape == (3, 7)
    ray_cluster.put_files(target, {"metadata_000001.json": b"{}"})  # it is there already
    assert read_episode(target, ("left",)).states.shape == (3, 7)
    assert [path.name for path in target.parent.iterdir()] == ["000001"]


def test_settings_of_a_foreign_environment_reach_the_workers(tmp_path):
    config = CollectConfig(
        output=tmp_path, env="robosuite/Lift", episodes=2, steps=1, image_size=16
    )
    again = replace(config, output=Path())  # what is sent to them
    assert again.settings() == config.settings()


def test_an_interrupted_transfer_leaves_nothing(tmp_path):
    with pytest.raises(TypeError):
        ray_cluster.put_files(tmp_path / "000001", {"a": b"1", "b": None})
    assert not list(tmp_path.iterdir())


def test_without_ray_the_extra_is_named(tmp_path, monkeypatch):
    real = builtins.__import__

    def absent(name, *args, **kwargs):
        if name.split(".")[0] == "ray":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(ImportError, match=r'pip install "jepa-gym\[ray\]"'):
        collect(CollectConfig(output=Path(tmp_path), ray=True, **SMALL))
