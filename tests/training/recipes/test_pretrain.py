"""Masked pre-training: its variants, and going on from the checkpoint of another run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from jepa_gym.cli import main
from jepa_gym.config import EncoderConfig, PredictorConfig, WorldModelConfig
from jepa_gym.training.data.clips import ClipSampler
from jepa_gym.training.data.dataset import Dataset
from jepa_gym.training.engine.checkpoint import Checkpoints
from jepa_gym.training.engine.schedules import Schedule
from jepa_gym.training.engine.trainer import Trainer
from jepa_gym.training.recipes import joint, pretrain
from jepa_gym.training.recipes.augmentations import PretrainAugmentations, still_rows
from jepa_gym.training.recipes.masked_batches import MaskedBatches
from jepa_gym.training.recipes.masked_model import MaskedModel
from jepa_gym.world_model import WorldModel

from ..conftest import read_log

PREDICTOR = PredictorConfig(embed_dim=16, depth=1, num_heads=1)
VIT = EncoderConfig(kind="vit", embed_dim=16, depth=1, num_heads=1, latent_dim=16, patch_size=8)
COOLDOWN = Schedule(warmup=0, decay=1.0)


@pytest.fixture(scope="module")
def constant(dataset_folder, tmp_path_factory) -> pretrain.PretrainConfig:
    """A finished constant phase."""
    torch.set_num_threads(1)
    config = pretrain.PretrainConfig(
        data=dataset_folder,
        output=tmp_path_factory.mktemp("runs") / "constant",
        steps=4,
        batch_size=4,
        threads=1,
        frames=4,
        bf16=False,
        log_every=1,
        schedule=Schedule(decay=0),
        encoder=VIT,
        predictor=PREDICTOR,
    )
    pretrain.train(config)
    return config


def masked_model(own_mask_tokens: bool = False, rope: str = "interleaved") -> MaskedModel:
    torch.manual_seed(0)
    world_model = WorldModel(WorldModelConfig(encoder=replace(VIT, patch_size=32, rope=rope)))
    return MaskedModel(world_model, replace(PREDICTOR, rope=rope), 4, own_mask_tokens)


def test_a_cooldown_goes_on_at_longer_clips_and_larger_pictures(constant, tmp_path, monkeypatch):
    started = {}
    begin = Trainer.start_from

    def start_from(trainer, tensors):
        begin(trainer, tensors)
        started.update({n: x.clone() for n, x in trainer.module.state_dict().items()})

    monkeypatch.setattr(Trainer, "start_from", start_from)
    monkeypatch.setattr("sys.argv", ["jepa-gym"])  # the command replaces it
    flags = {"data": constant.data, "from": constant.output, "output": tmp_path / "cooldown"}
    flags |= {"frames": 8, "image-size": 32, "steps": 3, "batch-size": 4, "threads": 1}
    flags |= {"schedule.warmup": 0, "schedule.decay": 1.0, "learning-rate": 1e-3, "log-every": 1}
    words = [str(word) for name, value in flags.items() for word in (f"--{name}", value)]
    assert main(["pretrain", "--no-bf16", *words]) == 0
    before, _ = Checkpoints(constant.output, 1).load()
    assert all(x.equal(before[f"module.{name}"]) for name, x in started.items())
    after, facts = Checkpoints(tmp_path / "cooldown", 1).load()
    assert after["optimizer.step.encoder.norm.bias"] == 4 + 3
    assert facts["settings"]["encoder"] == {**facts["settings"]["encoder"], "embed_dim": 16}
    rates = [line["learning_rate"] for line in read_log(tmp_path / "cooldown") if "loss" in line]
    assert rates == pytest.approx([1e-3, 2e-3 / 3, 1e-3 / 3])
    assert pretrain.encoder_config(tmp_path / "cooldown") == VIT


def test_a_cooldown_refuses_what_does_not_fit(constant, tmp_path):
    config = replace(constant, output=tmp_path / "run", from_run=constant.output)
    for name, sizes in (("encoder", replace(VIT, depth=2)), ("own_mask_tokens", True)):
        with pytest.raises(ValueError, match=f"leave --{name} out"):
            pretrain.train(replace(config, **{name: sizes}))
    with pytest.raises(FileNotFoundError, match="there is no checkpoint"):
        pretrain.train(replace(config, from_run=tmp_path))
    other = joint.JointConfig(
        data=constant.data, output=tmp_path / "joint", steps=8, batch_size=4, threads=1,
        encoder=EncoderConfig(embed_dim=16, depth=1, num_heads=1, latent_dim=16, patch_size=8),
        predictor=PREDICTOR,
    )  # fmt: skip
    joint.train(other)
    with pytest.raises(ValueError, match="not of `jepa-gym pretrain`"):
        pretrain.train(replace(config, from_run=other.output))
    assert not config.output.exists()


def test_a_cooldown_is_tied_to_the_content_it_started_from(constant, tmp_path, capsys):
    config = replace(constant, output=tmp_path / "run", from_run=constant.output, schedule=COOLDOWN)
    pretrain.train(config)
    assert "is meant to start" not in capsys.readouterr().err
    again = tmp_path / "again"
    pretrain.train(replace(constant, output=again, seed=1))
    with pytest.raises(ValueError, match="content of from_run is another"):
        pretrain.train(replace(config, from_run=again))
    late = replace(constant, output=tmp_path / "late", from_run=config.output)
    pretrain.train(late)
    assert "is meant to start from the constant phase" in capsys.readouterr().err


def test_absolute_positions_do_not_carry_over(constant, tmp_path):
    sincos = {
        "encoder": replace(VIT, rope="sincos"),
        "predictor": replace(PREDICTOR, rope="sincos"),
    }
    first = replace(constant, output=tmp_path / "first", **sincos)
    pretrain.train(first)
    then = replace(first, output=tmp_path / "then", from_run=first.output)
    with pytest.raises(ValueError, match="absolute positions"):
        pretrain.train(replace(then, frames=8))
    assert pretrain.train(then).step == 4


@pytest.mark.parametrize("share", [0, 0.25, 1 / 3, 1])
def test_stills_are_spread_over_the_batch(share):
    rows = still_rows(12, share)
    assert rows.sum() == round(12 * share)
    halves = rows[:6].sum() - rows[6:].sum()
    assert abs(int(halves)) <= 1


def test_stills_show_their_first_frame_all_along(constant, tmp_path, monkeypatch):
    seen = []
    draws = MaskedModel.loss

    def loss(model, frames, masks):
        seen.append(frames)
        return draws(model, frames, masks)

    monkeypatch.setattr(MaskedModel, "loss", loss)
    pretrain.train(replace(constant, output=tmp_path / "run", stills=0.5, steps=1, minutes=1))
    assert [bool((clip == clip[:1]).all()) for clip in seen[0]] == [False, True, False, True]


def test_rows_alone_are_drawn_as_in_the_whole_batch(constant):
    arrays = Dataset.open(constant.data).load_arrays("train")
    sampler = ClipSampler(arrays, 4, 4, constant.seed)
    augment = PretrainAugmentations(crop=(0.3, 1.0), background=0.2)
    config = replace(constant, single_frames=2, stills=0.5, augment=augment)
    batches = MaskedBatches(config, sampler, masked_model(), 2)
    whole = batches.draw(3, slice(0, 4))
    parts = [batches.draw(3, slice(0, 2)), batches.draw(3, slice(2, 4))]
    assert len(whole["single_frames"]) == 8 and len(whole["single_seen_0"]) == 8
    assert whole.keys() == parts[0].keys() and "augment.other" in whole
    for name, drawn in whole.items():
        assert torch.equal(torch.cat([part[name] for part in parts]), drawn), name


def test_each_kind_of_mask_may_have_its_own_mask_token():
    frames = torch.randint(256, (2, 4, 128, 256, 3), dtype=torch.uint8)
    for own, count in ((False, 1), (True, 2)):
        model = masked_model(own)
        masks = model.draw_masks(2, torch.Generator().manual_seed(0))
        model.loss(frames, masks).backward()
        tokens = model.predictor.mask_tokens
        assert len(tokens) == count and all(token.grad.abs().sum() > 0 for token in tokens)


def test_the_moving_average_follows_its_ramp():
    config = pretrain.PretrainConfig(Path("d"), Path("o"), momentum=0.998, final_momentum=1.0)
    assert pretrain.momentum(config, 0.8) == pytest.approx(0.9996)
    assert pretrain.momentum(replace(config, final_momentum=None), 0.8) == 0.998


@pytest.mark.parametrize(
    "changes", [{"stills": 1.5}, {"momentum": 0}, {"final_momentum": 1.1}, {"frames": 3}]
)
def test_ranges(changes):
    with pytest.raises(ValueError, match=next(iter(changes))):
        pretrain.PretrainConfig(Path("d"), Path("o"), **changes)
