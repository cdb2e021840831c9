"""Each recipe end to end at toy size: collect's layout in, a loadable model out."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from safetensors import safe_open
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from jepa_gym.checkpoint.errors import CheckpointError
from jepa_gym.checkpoint.start_frames import read_starts
from jepa_gym.cli import main
from jepa_gym.config import EncoderConfig, PredictorConfig
from jepa_gym.training.data.dataset import Dataset, split_of, write_index
from jepa_gym.training.data.episodes import write_episode
from jepa_gym.training.recipes import decode, joint, posttrain, pretrain
from jepa_gym.training.recipes.masks import PUBLISHED
from jepa_gym.training.recipes.surprise import open_watcher
from jepa_gym.world_model import WorldModel

from ..conftest import INDEX, SIZE, make_episode, read_log

PREDICTOR = PredictorConfig(embed_dim=16, depth=1, num_heads=1)
VIT = EncoderConfig(kind="vit", embed_dim=16, depth=1, num_heads=1, latent_dim=16, patch_size=8)


@pytest.fixture(scope="module")
def runs(tmp_path_factory, dataset_folder):
    return tmp_path_factory.mktemp("runs"), dataset_folder


def joint_config(runs, **changes) -> joint.JointConfig:
    folder, data = runs
    fields = {
        "data": data,
        "output": folder / "joint",
        "steps": 12,
        "batch_size": 4,
        "threads": 1,
        "encoder": EncoderConfig(embed_dim=16, depth=1, num_heads=1, latent_dim=16, patch_size=8),
        "predictor": PREDICTOR,
    }
    return joint.JointConfig(**fields | changes)


def check_world_model(folder, data) -> WorldModel:
    model = WorldModel.from_pretrained(folder)
    arrays = Dataset.open(data).load_arrays("validation")
    latents = model.encode(torch.from_numpy(arrays.clip(0, 0, 2).copy())[None])
    states = torch.from_numpy(arrays.states[:1, :2])
    future = model.rollout(latents, states, torch.zeros(1, 3, 2, 7))
    assert future.shape == (1, 3, 2, 8, 16) and future.isfinite().all()
    assert model.config.success_energy > 0
    assert model.config.frame.width == 2 * SIZE
    card = (folder / "README.md").read_text()
    assert Dataset.open(data).hash in card and "landscape_error" in card
    starts = read_starts(folder)
    moved = np.linalg.norm(starts.states[:, :3] - starts.goal_states[:, :3], axis=1)
    assert (moved > 0.08).all() and (moved < 0.2).all()
    return model


def test_joint(runs):
    folder, data = runs
    progress = joint.train(joint_config(runs))
    assert progress.step > 0
    check_world_model(folder / "joint", data)
    assert any("landscape_error" in line for line in read_log(folder / "joint"))


def test_joint_losses_fall_and_reach_every_parameter(runs):
    torch.manual_seed(0)
    config = joint_config(runs)
    dataset = Dataset.open(config.data)
    arrays = dataset.load_arrays("train")
    settings = joint.model_config(dataset, arrays, config.encoder, config.predictor, 4)
    model = joint.JointModel(WorldModel(settings))
    sampler = joint.ClipSampler(arrays, 4, 8, 0)
    batch = sampler.batch(0)
    frames = torch.cat([batch.frames, sampler.goals(0)[:, None]], 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    values = []
    for step in range(40):
        generator = torch.Generator().manual_seed(step)
        losses = joint.joint_losses(model, frames, batch.states, batch.actions, config, generator)
        optimizer.zero_grad()
        losses["loss"].backward()
        optimizer.step()
        values.append(losses["loss"].item())
    assert values[-1] < 0.7 * values[0]
    silent = {name for name, p in model.named_parameters() if p.grad is None}
    assert silent == {
        f"world_model.predictor.extrinsics_encoder.{part}" for part in ("weight", "bias")
    }


def test_calibration_makes_evaluation_agree_with_training(runs):
    config = joint_config(runs)
    dataset = Dataset.open(config.data)
    arrays = dataset.load_arrays("train")
    torch.manual_seed(0)
    model = WorldModel(joint.model_config(dataset, arrays, config.encoder, config.predictor, 4))
    sampler = joint.ClipSampler(arrays, 4, 12, 0)
    joint.calibrate(model, sampler)
    assert not model.training
    with torch.no_grad():
        features = model.features(sampler.batch(99).frames).flatten(0, 1)
    assert features.mean(0).abs().mean() < 0.5
    assert 0.5 < features.std(0).mean() < 1.5


def test_joint_refuses_what_fails(runs):
    with pytest.raises(ValueError, match="collapses"):
        joint_config(runs, encoder=VIT)
    with pytest.raises(ValueError, match="less than `frames`"):
        joint_config(runs, frames=2)
    with pytest.raises(ValueError, match="`goal_weight` must be at least 0"):
        joint_config(runs, goal_weight=-1.0)


def test_joint_without_goals(runs):
    progress = joint.train(joint_config(runs, goal_weight=0.0, output=runs[0] / "goalless"))
    assert progress.step > 0
    assert not any("goal" in line for line in read_log(runs[0] / "goalless"))


def shown(run: Path, name: str) -> list[tuple[int, int]]:
    """Rows and columns of the pictures with this name in a run's TensorBoard."""
    board = EventAccumulator(str(run / "tensorboard"), {"images": 0}).Reload()
    return [(image.height, image.width) for image in board.Images(name)]


def test_published_recipe(runs):
    folder, data = runs
    shared = {"data": data, "steps": 12, "batch_size": 4, "threads": 1}
    pretrain.train(
        pretrain.PretrainConfig(
            output=folder / "encoder",
            frames=4,
            encoder=VIT,
            predictor=PredictorConfig(embed_dim=16, depth=1, num_heads=1),
            **shared,
        )
    )
    assert any("probe_cm" in line for line in read_log(folder / "encoder"))
    assert not open_watcher(folder / "encoder").needs_states  # with its masked predictor
    config = posttrain.PosttrainConfig(
        output=folder / "ac", encoder=str(folder / "encoder"), predictor=PREDICTOR, **shared
    )
    posttrain.train(config)
    model = check_world_model(folder / "ac", data)
    drawn = decode.DecodeConfig(checkpoint=str(folder / "ac"), output=folder / "drawn", **shared)
    decode.train(replace(drawn, steps=2))
    posttrain.train(replace(config, steps=13, decoder=folder / "drawn"))
    assert shown(folder / "encoder", "features") == [(2 * SIZE, 2 * 2 * SIZE)] * 6
    assert shown(folder / "ac", "imagined") == [(3 * SIZE, 4 * 2 * SIZE)] * 7
    assert shown(folder / "drawn", "drawn") == [(2 * SIZE, 6 * 2 * SIZE)] * 2
    fresh = WorldModel(model.config)
    pretrain.load_encoder(folder / "encoder", fresh)
    for name, tensor in fresh.encoder.state_dict().items():
        assert torch.equal(tensor, model.encoder.state_dict()[name])  # it stayed frozen
    wider = WorldModel(
        joint.model_config(
            Dataset.open(data),
            Dataset.open(data).load_arrays("train"),
            EncoderConfig(
                kind="vit", embed_dim=32, depth=1, num_heads=1, latent_dim=32, patch_size=8
            ),
            PREDICTOR,
            4,
        )
    )
    with pytest.raises(CheckpointError, match="wrong shape"):
        pretrain.load_encoder(folder / "encoder", wider)


@pytest.mark.parametrize("family", ["vjepa2", "dinov2"])
def test_posttraining_on_a_hugging_face_encoder(family, runs, tmp_path, monkeypatch):
    _, data = runs
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1, "patch_size": 8}
    if family == "vjepa2":
        predictor = {
            f"pred_{name}": number for name, number in sizes.items() if "patch" not in name
        }
        settings = transformers.VJEPA2Config(crop_size=16, **sizes, **predictor)
        network = transformers.VJEPA2Model(settings)
    else:
        network = transformers.Dinov2Model(transformers.Dinov2Config(image_size=16, **sizes))
    network.save_pretrained(tmp_path / family)
    monkeypatch.setattr("sys.argv", ["jepa-gym"])  # the command replaces it
    flags = {"data": data, "encoder": f"hf:{tmp_path / family}", "output": tmp_path / "ac"}
    flags |= {"steps": 12, "batch-size": 4, "threads": 1}
    flags |= {"predictor.embed_dim": 16, "predictor.depth": 1, "predictor.num_heads": 1}
    words = [str(word) for name, value in flags.items() for word in (f"--{name}", value)]
    assert main(["posttrain", *words]) == 0
    model = check_world_model(tmp_path / "ac", data)
    assert model.config.encoder.kind == "hf"
    with safe_open(tmp_path / "ac" / "model.safetensors", "pt") as file:
        assert all(name.startswith("predictor.") for name in file.keys())  # noqa: SIM118


def test_masked_loss_trains_encoder_and_moves_the_average(runs):
    _, data = runs
    dataset = Dataset.open(data)
    arrays = dataset.load_arrays("train")
    torch.manual_seed(0)
    world_model = WorldModel(joint.model_config(dataset, arrays, VIT, PREDICTOR, 4))
    model = pretrain.MaskedModel(world_model, PREDICTOR, frames=4)
    frames = joint.ClipSampler(arrays, 4, 3, 0).batch(0).frames
    model.loss(frames, model.draw_masks(3, torch.Generator().manual_seed(0))).backward()
    assert all(p.grad is not None for p in model.encoder.parameters())
    assert all(p.grad is None for p in model.target_encoder.parameters())
    with torch.no_grad():
        model.encoder.norm.bias.add_(1)
    model.update_target_encoder(0.75)
    torch.testing.assert_close(model.target_encoder.norm.bias, torch.full((16,), 0.25))
    assert len(PUBLISHED) == 2


def test_missing_encoder(tmp_path):
    with pytest.raises(FileNotFoundError, match="pretrain"):
        pretrain.encoder_config(tmp_path)


def test_data_without_moves_of_hand_and_gripper_trains_and_says_what_is_left_out(tmp_path, capsys):
    """Such data used to spend the whole budget and then save no model."""
    for split, count in (("train", 4), ("validation", 2)):
        for name in [n for n in map("{:06d}".format, range(400)) if split_of(n) == split][:count]:
            episode = make_episode(int(name))
            episode.states[:, :3] *= 0.05
            episode.states[:, 6] = 0
            write_episode(tmp_path / "data" / "episodes" / name, episode)
    write_index(tmp_path / "data", INDEX)
    joint.train(joint_config((tmp_path, tmp_path / "data")))
    text = capsys.readouterr().err
    for what in ("validation, gripper", "validation, far", "test (", "start frames"):
        assert f"left out: {what}" in text
    assert "wrote" in text and "landscape_error" in text
    model = WorldModel.from_pretrained(tmp_path / "joint")
    assert model.config.success_energy is None


def test_the_model_is_saved_before_its_figures(runs, monkeypatch):
    config = joint_config(runs, output=runs[0] / "cut")
    monkeypatch.setattr("jepa_gym.training.recipes.finish.success_threshold", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        joint.train(config)
    WorldModel.from_pretrained(config.output)


def test_a_damaged_cache_of_latents_is_made_again(runs, capsys):
    data = Dataset.open(runs[1])
    model = WorldModel(
        joint.model_config(data, data.load_arrays("train"), VIT, PREDICTOR, 4)
    ).eval()
    path = data.folder / "cache" / "latents-test.npy"
    latents = np.array(posttrain.cache_latents(model, data.load_arrays("train"), path))
    for content in (b"", path.read_bytes()[:1000], b"\x93" * 100):
        path.unlink()
        path.write_bytes(content)
        again = posttrain.cache_latents(model, data.load_arrays("train"), path)
        assert np.array_equal(again, latents)
        assert "is damaged" in capsys.readouterr().err


def test_sigterm_saves_and_ends_with_143(runs, tmp_path):
    flags = {"data": runs[1], "output": tmp_path / "run", "batch-size": 4, "threads": 1}
    flags |= {"steps": 100_000, "eval-every": 100_000, "log-every": 1}
    for part in ("encoder", "predictor"):
        flags |= {f"{part}.embed-dim": 16, f"{part}.depth": 1, f"{part}.num-heads": 1}
    flags |= {"encoder.latent-dim": 16, "encoder.patch-size": 8}
    words = [str(word) for name, value in flags.items() for word in (f"--{name}", value)]
    command = [sys.executable, "-m", "jepa_gym.cli", "joint", *words]
    run = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    log = tmp_path / "run" / "log.jsonl"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (log.is_file() and log.stat().st_size):
        time.sleep(0.05)
    run.terminate()
    error = run.communicate(timeout=60)[1]
    assert run.returncode == 143 and "Traceback" not in error
    assert "give the same command again" in error
    assert len(list((tmp_path / "run" / "checkpoints").glob("step-*"))) == 2
