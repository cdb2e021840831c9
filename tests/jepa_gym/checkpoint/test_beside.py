from __future__ import annotations

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from jepa_gym.checkpoint.beside import DECODER, encoder_hash
from jepa_gym.checkpoint.errors import CheckpointError
from jepa_gym.checkpoint.safetensors_file import write_safetensors
from jepa_gym.world_model import WorldModel

CARD = {"command": "none"}


def test_round_trip(model, drawing, tmp_path):
    path = DECODER.write(tmp_path / "new", drawing, model, CARD)
    assert path == tmp_path / "new" / "decoder.safetensors"
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    loaded = DECODER.read(path.parent, model)
    assert loaded.sizes == drawing.sizes and not loaded.training
    latents = torch.randn(2, 8, 16)
    assert torch.equal(loaded(latents), drawing(latents))
    with safe_open(path, "pt") as file:
        assert json.loads(file.metadata()["card"]) == CARD


def test_belongs_to_an_encoder_and_not_to_a_predictor(model, drawing, checkpoint):
    DECODER.write(checkpoint, drawing, model, CARD)
    loaded = WorldModel.from_pretrained(checkpoint)
    assert encoder_hash(loaded) == encoder_hash(model)
    assert DECODER.own(loaded) is not None
    with torch.no_grad():
        loaded.predictor.predictor_norm.bias.add_(1)
    assert DECODER.own(loaded) is not None
    with torch.no_grad():
        loaded.encoder.norm.bias.add_(1)
    with pytest.raises(CheckpointError, match=r"another model.*jepa-gym decode"):
        DECODER.own(loaded)


def test_models_without_a_decoder(model, checkpoint):
    assert DECODER.own(model) is None  # it has no folder
    assert DECODER.own(WorldModel.from_pretrained(checkpoint)) is None
    with pytest.raises(FileNotFoundError, match=r"decoder\.safetensors"):
        DECODER.read(checkpoint, model)


def test_damaged_files(model, drawing, tmp_path):
    path = DECODER.write(tmp_path, drawing, model, CARD)
    content, tensors = path.read_bytes(), load_file(path)
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    path.write_bytes(content[:-10])
    with pytest.raises(CheckpointError, match="truncated"):
        DECODER.read(tmp_path, model)
    save_file(tensors, path)
    with pytest.raises(CheckpointError, match="no decoder"):
        DECODER.read(tmp_path, model)
    write_safetensors(path, {"extra": torch.zeros(1)} | tensors, metadata)
    with pytest.raises(CheckpointError, match="1 unexpected: extra"):
        DECODER.read(tmp_path, model)
    sizes = json.loads(metadata["sizes"]) | {"patch_size": 12}
    write_safetensors(path, tensors, metadata | {"sizes": json.dumps(sizes)})
    with pytest.raises(CheckpointError, match="power of two"):
        DECODER.read(tmp_path, model)


def test_a_failed_save_leaves_the_old_file(model, drawing, tmp_path, monkeypatch):
    before = DECODER.write(tmp_path, drawing, model, CARD).read_bytes()

    def fail(tensors, path, metadata):
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr("jepa_gym.checkpoint.safetensors_file.save_file", fail)
    with pytest.raises(OSError, match="disk full"):
        DECODER.write(tmp_path, drawing, model, CARD)
    assert (tmp_path / "decoder.safetensors").read_bytes() == before
    assert not list(tmp_path.glob(".*"))
