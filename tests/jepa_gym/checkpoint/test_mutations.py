"""Thousands of ways to damage a file of a model: an error that says so, or the same weights."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from jepa_gym.checkpoint import export, published
from jepa_gym.checkpoint.beside import DECODER
from jepa_gym.checkpoint.errors import CheckpointError
from jepa_gym.checkpoint.safetensors_file import read_safetensors, write_safetensors
from jepa_gym.checkpoint.start_frames import read_starts
from jepa_gym.config import EncoderConfig, FrameSpec, PredictorConfig, WorldModelConfig
from jepa_gym.models import MaskedPredictor, VideoTransformer
from jepa_gym.world_model import WorldModel

from ... import mutations
from ...mutations import PER_FILE, no_code_runs  # noqa: F401  (a fixture)

pytestmark = pytest.mark.usefixtures("no_code_runs")
DOCUMENTED = (CheckpointError, FileNotFoundError, ValueError)
WIDTH = 64


@pytest.fixture(scope="module")
def small():
    """A world model of the published architecture, small enough to be read a thousand times."""
    torch.manual_seed(0)
    config = WorldModelConfig(
        frame=FrameSpec(32, 48, ("left",)),
        encoder=EncoderConfig("vit", WIDTH, 1, 1, 2.0, WIDTH, 16, "v2"),
        predictor=PredictorConfig(WIDTH, 1, 1, 2.0, "v2"),
        action_scale=(1.0,) * 7,
    )
    return WorldModel(config).eval()


def state(module):
    return {name: x.clone() for name, x in module.state_dict().items()}


def same(got, wanted):
    return got.keys() == wanted.keys() and all(torch.equal(got[n], wanted[n]) for n in got)


def damage(folder, names, read, wanted, seed, count=PER_FILE):
    return mutations.damage(
        folder, names, read, lambda got: same(got, wanted), DOCUMENTED, seed, count
    )


def test_checkpoint_folders(small, tmp_path):
    small.save_pretrained(tmp_path / "model", {})
    names = ("model.safetensors", "config.json")

    def read():
        loaded = WorldModel.from_pretrained(tmp_path / "model")
        assert loaded.config == small.config
        return state(loaded)

    assert damage(tmp_path / "model", names, read, state(small), 0) > PER_FILE


def test_official_files(small, tmp_path):
    path = tmp_path / "vjepa2-ac.pt"
    export.official(path, small.encoder, small.predictor)

    def read():
        return state(WorldModel.from_pretrained(path))

    assert damage(tmp_path, [path.name], read, state(small), 1, 2 * PER_FILE) > PER_FILE


def test_exported_folders(small, tmp_path):
    export.world_model(tmp_path / "out", small)

    def read():
        return state(WorldModel.from_pretrained(tmp_path / "out"))

    assert damage(tmp_path / "out", ["config.json"], read, state(small), 5) > 0


def test_hugging_face_folders(tmp_path):
    encoder = VideoTransformer(64, 1, 1, rope="v2")
    masked = MaskedPredictor((2, 2), 64, 32, 1, 1, rope="v2")
    export.hugging_face(tmp_path / "hf", encoder, masked)

    def read():
        return state(published.load(tmp_path / "hf", "encoder"))

    names = ("model.safetensors", "config.json")
    assert damage(tmp_path / "hf", names, read, state(encoder), 2) > PER_FILE // 2


def test_folders_of_shards(tmp_path):
    encoder, folder = VideoTransformer(64, 1, 1, rope="v2"), tmp_path / "hf"
    export.hugging_face(folder, encoder, MaskedPredictor((2, 2), 64, 32, 1, 1, rope="v2"))
    tensors, _ = read_safetensors(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    files = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    where = {name: files[number % 2] for number, name in enumerate(sorted(tensors))}
    for file in files:
        write_safetensors(folder / file, {n: tensors[n] for n in where if where[n] == file}, {})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))

    def read():
        return state(published.load(folder, "encoder"))

    names = (files[0], "model.safetensors.index.json")
    assert damage(folder, names, read, state(encoder), 6) > PER_FILE // 2


def test_start_frames(checkpoint):
    def read():
        starts = read_starts(checkpoint)
        return {
            name: torch.from_numpy(np.asarray(getattr(starts, name)))
            for name in ("frames", "states", "goal_frames", "goal_states")
        }

    assert damage(checkpoint, ["start_frames.npz"], read, read(), 3) > PER_FILE // 2


def test_decoders(model, drawing, tmp_path):
    path = DECODER.write(tmp_path, drawing, model, {"command": "none"})

    def read():
        return state(DECODER.read(tmp_path, model))

    assert damage(tmp_path, [path.name], read, state(drawing), 4) > PER_FILE // 2
