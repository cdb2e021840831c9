"""Recipes on raw DROID's layout: unequal episodes, decoded on the fly or from the cache."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from jepa_gym.config import EncoderConfig, PredictorConfig
from jepa_gym.training.data.dataset import split_of
from jepa_gym.training.data.episodes import write_episode
from jepa_gym.training.data.make_index import IndexConfig, make_index
from jepa_gym.training.data.videos import write_video
from jepa_gym.training.recipes import joint, pretrain, probe
from jepa_gym.world_model import WorldModel

from ..conftest import make_episode
from ..data.droid_layout import as_droid

SIZES = {"embed_dim": 16, "depth": 1, "num_heads": 1, "latent_dim": 16, "patch_size": 8}


@pytest.fixture(scope="module")
def droid(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("droid")
    ids = [f"{number:06d}" for number in range(4000)]
    for split, count in (("train", 6), ("validation", 6), ("test", 1)):
        for number, name in enumerate([x for x in ids if split_of(f"LAB/{x}") == split][:count]):
            own = write_episode(folder / "own" / name, make_episode(int(name), 11 + number))
            as_droid(own, folder / "raw" / "LAB" / name)
    make_index(IndexConfig(data=(folder / "raw",), image_size=16, frames=5, workers=1))
    return folder / "raw"


def test_a_joint_run_is_the_same_on_the_fly_and_from_the_cache(droid, tmp_path):
    config = joint.JointConfig(
        data=droid,
        output=tmp_path / "cached",
        steps=3,
        batch_size=4,
        threads=1,
        device="cpu",
        image_size=24,
        encoder=EncoderConfig(**SIZES),
        predictor=PredictorConfig(embed_dim=16, depth=1, num_heads=1),
    )
    joint.train(config)
    joint.train(replace(config, output=tmp_path / "decoded", decode="on-the-fly", readers=2))
    a, b = (load_file(tmp_path / x / "model.safetensors") for x in ("cached", "decoded"))
    assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
    frame = WorldModel.from_pretrained(tmp_path / "decoded").config.frame
    assert (frame.height, frame.width, frame.cameras) == (24, 24, ("left",))
    assert frame.state_convention == "droid"


def test_probes_read_what_is_known_of_the_robots_of_others(droid, tmp_path):
    config = probe.ProbeConfig(
        data=droid,
        output=tmp_path,
        model="random",
        target="hand",
        steps=2,
        batch_size=4,
        rates=(1.0,),
        threads=1,
        device="cpu",
    )
    probe.train(config)
    assert (tmp_path / "probe.json").is_file()
    with pytest.raises(ValueError, match="no simulator state"):
        probe.suite_data(replace(config, target="object"))


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Path:
    """A folder of videos without any states."""
    folder = tmp_path_factory.mktemp("videos")
    ids = [f"{number}.mp4" for number in range(400)]
    for split in ("train", "validation"):
        for name in [x for x in ids if split_of(x) == split][:2]:
            write_video(folder / name, make_episode(int(Path(name).stem)).frames["left"], 0.25)
    make_index(IndexConfig(data=(folder,), image_size=16, frames=4, workers=1))
    return folder


@pytest.mark.parametrize("kind", ["droid", "videos"])
def test_pretraining(kind, request, tmp_path):
    config = pretrain.PretrainConfig(
        data=request.getfixturevalue(kind),
        output=tmp_path / "run",
        steps=2,
        batch_size=4,
        frames=4,
        threads=1,
        encoder=EncoderConfig(kind="vit", **SIZES),
        predictor=PredictorConfig(embed_dim=16, depth=1, num_heads=1),
    )
    progress = pretrain.train(config)
    assert progress.step == 2
    if kind == "videos":
        assert progress.best_step == 2
        with pytest.raises(ValueError, match="only `jepa-gym pretrain` can learn from"):
            joint.train(joint.JointConfig(data=config.data, output=tmp_path / "no", steps=2))
