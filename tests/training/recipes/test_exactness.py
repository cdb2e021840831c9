"""Every recipe, killed at random and resumed, or shared by two processes, does as one run."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from jepa_gym.config import EncoderConfig, PredictorConfig
from jepa_gym.training.data.dataset import Dataset
from jepa_gym.training.engine.config import RunConfig
from jepa_gym.training.engine.schedules import Schedule
from jepa_gym.training.engine.trainer import Trainer
from jepa_gym.training.recipes import decode, joint, posttrain, pretrain, probe
from jepa_gym.training.recipes.augmentations import Augmentations, PretrainAugmentations
from jepa_gym.training.recipes.finish import model_config
from jepa_gym.world_model import WorldModel

from ..conftest import ended, forked, in_two, read_log

SIZES = {"embed_dim": 16, "depth": 1, "num_heads": 1}
CONV = EncoderConfig(latent_dim=16, patch_size=8, **SIZES)
VIT = EncoderConfig(kind="vit", latent_dim=16, patch_size=8, **SIZES)
PREDICTOR = PredictorConfig(**SIZES)
RECIPES = ("joint", "pretrain", "posttrain", "decode", "probe")
VARIANTS = ("cooldown", "vjepa1", "joint augmented", "posttrain pixels", "fine-tuning")
COSINE = Schedule(warmup=0.1, decay=0.9, shape="cosine", stretch=1.25)
CHANGES = {"colour": 0.3, "blur": 0.5, "noise": 5.0, "cutout": 0.2, "background": 0.2}
Train = Callable[[RunConfig], object]


@pytest.fixture(scope="module")
def recipes(dataset_folder, tmp_path_factory) -> dict[str, tuple[Train, RunConfig]]:
    """Every recipe with a configuration of seconds; what they need is made first."""
    folder = tmp_path_factory.mktemp("runs")
    torch.set_num_threads(1)
    shared = {"data": dataset_folder, "output": folder, "threads": 1, "device": "cpu"}
    shared |= {"steps": 12, "save_every": 4, "log_every": 1, "eval_every": 6, "batch_size": 4}
    masked = pretrain.PretrainConfig(frames=4, encoder=VIT, predictor=PREDICTOR, **shared)
    pretrain.train(replace(masked, output=folder / "encoder", steps=2))
    sincos = {"rope": "sincos"}
    vjepa1 = {
        "encoder": replace(VIT, **sincos),
        "predictor": replace(PREDICTOR, **sincos),
        "own_mask_tokens": True,
        "stills": 0.25,
        "momentum": 0.9,
        "final_momentum": 1.0,
        "final_weight_decay": 0.4,
        "schedule": COSINE,
        "augment": PretrainAugmentations(**CHANGES, crop=(0.3, 1.0), mirror=0.5),
    }
    dataset = Dataset.open(dataset_folder)
    torch.manual_seed(0)
    model = WorldModel(model_config(dataset, dataset.load_arrays("train"), CONV, PREDICTOR, 4))
    model.eval().save_pretrained(folder / "model", {})
    return {
        "joint": (joint.train, joint.JointConfig(encoder=CONV, predictor=PREDICTOR, **shared)),
        "pretrain": (pretrain.train, masked),
        "cooldown": (
            pretrain.train,
            replace(
                masked,
                from_run=folder / "encoder",
                frames=8,
                image_size=24,
                schedule=Schedule(warmup=0, decay=1.0),
            ),
        ),
        "vjepa1": (pretrain.train, replace(masked, **vjepa1)),
        "posttrain pixels": (
            posttrain.train,
            posttrain.PosttrainConfig(
                encoder=str(folder / "encoder"),
                predictor=replace(PREDICTOR, use_extrinsics=True),
                from_pixels=True,
                rollout_steps=3,
                augment=Augmentations(**CHANGES),
                **shared,
            ),
        ),
        "fine-tuning": (
            posttrain.train,
            posttrain.PosttrainConfig(init=str(folder / "model"), **shared),
        ),
        "joint augmented": (
            joint.train,
            joint.JointConfig(
                encoder=CONV,
                predictor=PREDICTOR,
                rollout_steps=3,
                rollout_loss="end",
                learning_rate=3e-4,  # rounding grows with the rate and the length of the rollout
                augment=Augmentations(**CHANGES),
                **shared,
            ),
        ),
        "posttrain": (
            posttrain.train,
            posttrain.PosttrainConfig(
                encoder=str(folder / "encoder"), predictor=PREDICTOR, **shared
            ),
        ),
        "decode": (decode.train, decode.DecodeConfig(checkpoint=str(folder / "model"), **shared)),
        "probe": (
            probe.train,
            probe.ProbeConfig(
                model=str(folder / "encoder"), target="direction", clips=60, rates=(1.0,), **shared
            ),
        ),
    }


def final_files(folder: Path) -> list[Path]:
    """The newest checkpoint and the finished weights of a run."""
    return [sorted((folder / "checkpoints").glob("step-*"))[-1], *folder.glob("*.safetensors")]


def killed_at(step: int) -> Callable[[Trainer, int], None]:
    """A replacement of `Trainer.take_step` that dies before this step."""
    take = Trainer.take_step

    def take_step(trainer: Trainer, steps: int) -> None:
        if trainer.progress.step == step:
            os.kill(os.getpid(), signal.SIGKILL)
        take(trainer, steps)

    return take_step


@pytest.mark.parametrize("name", (*RECIPES, *VARIANTS))
def test_killed_runs_end_like_an_uninterrupted_one(name, recipes, tmp_path, monkeypatch):
    train, config = recipes[name]
    config = replace(config, bf16=False)  # faster at these sizes
    whole, killed = (replace(config, output=tmp_path / kind) for kind in ("whole", "killed"))
    train(whole)
    kills = 10 if name in RECIPES else 3
    steps = sorted(random.Random(name).choices(range(config.steps), k=kills))
    for step in steps:
        with monkeypatch.context() as patch:
            patch.setattr(Trainer, "take_step", killed_at(step))
            assert ended(forked(lambda: train(killed))) == -signal.SIGKILL
    train(killed)
    for ours, theirs in zip(*map(final_files, (whole.output, killed.output)), strict=True):
        one, other = load_file(ours), load_file(theirs)
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one), (name, steps)
    logs = [(run.output / "log.jsonl").read_bytes() for run in (whole, killed)]
    assert logs[0] == logs[1]


def losses_of(run: RunConfig) -> list[float]:
    return [line["loss"] for line in read_log(run.output) if "loss" in line]


@pytest.mark.parametrize("name", (*RECIPES, *VARIANTS))
def test_two_processes_have_the_losses_of_one(name, recipes, tmp_path, monkeypatch):
    train, config = recipes[name]
    config = replace(config, bf16=False, steps=50, eval_every=50, save_every=50)
    one, two = (replace(config, output=tmp_path / kind) for kind in ("one", "two"))
    train(one)
    assert in_two(monkeypatch, lambda: train(two)) == [0, 0]
    losses = [losses_of(run) for run in (one, two)]
    assert len(losses[0]) == len(losses[1]) == 50
    worst = max(abs(ours - theirs) for ours, theirs in zip(*losses, strict=True))
    assert worst < 1e-5, worst


@pytest.mark.parametrize("name", ["joint", "pretrain", "posttrain"])
def test_processes_that_share_the_parameters_have_the_losses_of_one(
    name, recipes, tmp_path, monkeypatch
):
    train, config = recipes[name]
    config = replace(config, bf16=False, steps=6, eval_every=3, save_every=3)
    one, two = (replace(config, output=tmp_path / kind) for kind in ("one", "two"))
    train(one)
    assert in_two(monkeypatch, lambda: train(replace(two, parallel="fsdp"))) == [0, 0]
    assert len(losses_of(one)) == config.steps
    assert losses_of(two) == pytest.approx(losses_of(one), abs=1e-5)
    for ours, theirs in zip(*map(final_files, (one.output, two.output)), strict=True):
        shapes = [{name: x.shape for name, x in load_file(path).items()} for path in (ours, theirs)]
        assert shapes[0] == shapes[1]
