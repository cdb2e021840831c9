"""A collection over a Ray cluster: the same files as on one machine, whole or not at all."""

from __future__ import annotations

import builtins
from dataclasses import replace
from pathlib import Path

import pytest

from jepa_gym.training.collection import ray_cluster
from jepa_gym.training.collection.collect import collect
from jepa_gym.training.collection.config import CollectConfig
from jepa_gym.training.data.episodes import read_episode

SMALL = {"episodes": 4, "steps": 2, "image_size": 16, "camera": "left", "objects": ("box",)}


@pytest.mark.filterwarnings("ignore")  # of Ray's own code
def test_two_workers_record_what_one_process_does(tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_worker_niceness", "0")  # else whatever else runs goes first
    pytest.importorskip("ray", reason="the extra `ray` is not installed")
    alone = collect(CollectConfig(output=tmp_path / "alone", workers=1, **SMALL))
    config = CollectConfig(output=tmp_path / "shared", workers=2, ray=True, **SMALL)
    assert collect(config)["content_hash"] == alone["content_hash"]


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
