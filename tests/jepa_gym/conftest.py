from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from jepa_gym.checkpoints import StartFrames, write_starts
from jepa_gym.config import EncoderConfig, FrameSpec, PredictorConfig, WorldModelConfig
from jepa_gym.world_model import WorldModel

GOLDEN = Path(__file__).parents[1] / "fixtures" / "golden"


@pytest.fixture
def golden():
    """Return a reader: name -> (configuration, weights, other tensors)."""

    def read(name):
        with safe_open(GOLDEN / f"{name}.safetensors", "pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            config = json.loads(file.metadata()["config"])
        prefix = "weights."
        weights = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
        return config, weights, {k: v for k, v in tensors.items() if not k.startswith(prefix)}

    return read


def _tiny_config(kind="conv", **changes):
    encoder = EncoderConfig(
        kind=kind,
        width=32,
        depth=1,
        heads=2,
        latent_dim=32 if kind == "vit" else 16,
        patch=16,
    )
    return WorldModelConfig(
        frame=FrameSpec(height=32, width=64),
        encoder=encoder,
        predictor=PredictorConfig(width=32, depth=2, heads=2),
        state_mean=(0.5, 0.0, 0.2, 3.1, 0.0, 0.0, 0.5),
        state_std=(0.1, 0.2, 0.1, 0.5, 0.5, 0.5, 0.4),
        **changes,
    )


@pytest.fixture
def tiny_config():
    return _tiny_config


@pytest.fixture
def model():
    torch.manual_seed(0)
    return WorldModel(_tiny_config()).eval()


def some_starts(count=3, seed=0):
    rng = np.random.default_rng(seed)
    shape = (count, 32, 64, 3)
    states = rng.uniform(-0.5, 0.5, (2, count, 7)).astype(np.float32)
    states[..., 6] = rng.uniform(0, 1, (2, count))
    return StartFrames(
        frames=rng.integers(0, 256, shape, dtype=np.uint8),
        states=states[0],
        goal_frames=rng.integers(0, 256, shape, dtype=np.uint8),
        goal_states=states[1],
    )


@pytest.fixture
def checkpoint(model, tmp_path):
    folder = tmp_path / "checkpoint"
    model.save_pretrained(folder, {"command": "none", "figures": {"loss": 1.0}})
    write_starts(folder, some_starts())
    return folder
