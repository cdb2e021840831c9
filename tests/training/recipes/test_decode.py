"""The decoder's command at toy size: a world model and a dataset in, a picture of latents out."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open

from jepa_gym.checkpoint.beside import DECODER
from jepa_gym.checkpoint.errors import CheckpointError
from jepa_gym.cli import main
from jepa_gym.config import EncoderConfig, PredictorConfig
from jepa_gym.training.data.dataset import Dataset
from jepa_gym.training.recipes import decode
from jepa_gym.training.recipes.finish import model_config
from jepa_gym.world_model import WorldModel

from ..conftest import SIZE, read_log


@pytest.fixture
def checkpoint(dataset_folder, tmp_path):
    dataset = Dataset.open(dataset_folder)
    encoder = EncoderConfig(embed_dim=16, depth=1, num_heads=1, latent_dim=16, patch_size=8)
    predictor = PredictorConfig(embed_dim=16, depth=1, num_heads=1)
    torch.manual_seed(0)
    model = WorldModel(model_config(dataset, dataset.load_arrays("train"), encoder, predictor, 4))
    model.eval().save_pretrained(tmp_path / "model", {})
    return tmp_path / "model"


@pytest.fixture
def config(dataset_folder, checkpoint, tmp_path):
    return decode.DecodeConfig(
        data=dataset_folder,
        checkpoint=str(checkpoint),
        output=tmp_path / "run",
        steps=60,
        eval_every=30,
        batch_size=8,
        threads=1,
    )


def test_lowers_the_error_and_goes_on_where_it_was(config, checkpoint, capsys):
    progress = decode.train(config)
    assert any("picture_psnr_db" in line for line in read_log(config.output))
    assert "decoder.safetensors" in capsys.readouterr().err
    model = WorldModel.from_pretrained(checkpoint)
    assert DECODER.own(model) is None  # it was written to --output
    decoder = DECODER.read(config.output, model)
    frames = decode.spread_frames(Dataset.open(config.data).load_arrays("train"), 10)
    assert frames.shape == (10, SIZE, 2 * SIZE, 3)
    pictures = decoder(model.encode(frames[:, None], chunk=4)[:, 0])
    flat = decoder.background.sigmoid().expand_as(pictures)
    ours, still = (decode.pixel_losses(x, frames)["square"] for x in (pictures, flat))
    assert ours < 0.8 * still
    with safe_open(config.output / "decoder.safetensors", "pt") as file:
        card = json.loads(file.metadata()["card"])
    assert card["dataset hash"] == Dataset.open(config.data).hash
    assert decode.train(config).step == progress.step


def test_command_writes_beside_the_model(config, checkpoint, monkeypatch):
    monkeypatch.setattr("sys.argv", ["jepa-gym"])  # the command replaces it
    flags = {"data": config.data, "checkpoint": checkpoint, "steps": 4, "threads": 1}
    words = [str(word) for name, value in flags.items() for word in (f"--{name}", value)]
    assert main(["decode", *words]) == 0
    assert DECODER.own(WorldModel.from_pretrained(checkpoint)) is not None
    assert (checkpoint / "decode" / "log.jsonl").is_file()


def test_does_not_go_on_with_another_encoder(config, checkpoint):
    config = replace(config, steps=4)
    decode.train(config)
    model = WorldModel.from_pretrained(checkpoint)
    other = WorldModel(model.config)
    other.save_pretrained(checkpoint, {})
    with pytest.raises(ValueError, match="content of checkpoint is another"):
        decode.train(config)
    with pytest.raises(CheckpointError, match="another model"):
        DECODER.read(config.output, other)


def test_does_not_write_to_the_shipped_checkpoint(config):
    with pytest.raises(ValueError, match="say where to write with --output"):
        decode.train(replace(config, checkpoint="default", output=None))


def test_refuses_other_views(config, checkpoint):
    model = WorldModel.from_pretrained(checkpoint)
    swapped = replace(model.config.frame, cameras=("wrist", "left"))
    WorldModel(replace(model.config, frame=swapped)).save_pretrained(checkpoint, {})
    with pytest.raises(ValueError, match="shows the views"):
        decode.train(config)
