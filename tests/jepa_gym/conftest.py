from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from safetensors import safe_open

from jepa_gym.checkpoint.start_frames import StartFrames, write_starts
from jepa_gym.config import EncoderConfig, FrameSpec, PredictorConfig, WorldModelConfig
from jepa_gym.models import FrameDecoder
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
        embed_dim=32,
        depth=1,
        num_heads=2,
        latent_dim=16 if kind == "conv" else 32,
        patch_size=16,
    )
    return WorldModelConfig(
        frame=FrameSpec(height=32, width=64),
        encoder=encoder,
        predictor=PredictorConfig(embed_dim=32, depth=2, num_heads=2),
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


@pytest.fixture
def drawing():
    """An untrained decoder of the tiny model; unlike a new one, it draws the latents."""
    torch.manual_seed(0)
    decoder = (
        FrameDecoder((2, 4), 16, patch_size=16, embed_dim=32, depth=1).requires_grad_(False).eval()
    )
    torch.nn.init.normal_(decoder.stages[-1].weight)
    return decoder


@pytest.fixture
def with_threshold():
    """Return a function that gives a model a success threshold between its energies."""

    def give(model, threshold=1.1):
        model.config = replace(model.config, success_energy=threshold)
        return model

    return give


class PixelEnv(gym.Env):
    """Observes what the Franka suite does, as noise; the goal image changes at the second step."""

    def __init__(self, blind=False, **kwargs):
        self.kwargs, self.closed = kwargs, False
        (rows, columns), high = kwargs["image_size"], np.full(7, kwargs["max_move_m"], np.float32)
        high[3:] = 0.3, 0.3, 0.3, 1
        self.action_space = gym.spaces.Box(-high, high)
        frame = gym.spaces.Box(0, 255, (rows, columns * 2, 3), np.uint8)
        parts = {"observation": gym.spaces.Box(-1, 1, (7,), np.float32)}
        parts["goal_state"] = parts["observation"]
        if not blind:
            parts |= {"pixels": frame, "goal_pixels": frame}
        self.observation_space = gym.spaces.Dict(parts)

    def observe(self):
        seen = {
            key: self.np_random.integers(0, 256, space.shape, dtype=np.uint8)
            if space.dtype == np.uint8
            else self.np_random.uniform(0, 1, 7).astype(np.float32)
            for key, space in self.observation_space.items()
        }
        if self.goal is None or self.steps == 2:
            self.goal = seen["goal_pixels"]
        return seen | {"goal_pixels": self.goal.copy()}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps, self.goal = 0, None
        return self.observe(), {"steps": 0}

    def step(self, action):
        self.steps += 1
        return self.observe(), -float(self.steps), False, False, {"steps": self.steps}

    def close(self):
        self.closed = True


@pytest.fixture
def pixel_env_id():
    gym.register("PixelTest-v0", PixelEnv)
    yield "PixelTest-v0"
    del gym.registry["PixelTest-v0"]
