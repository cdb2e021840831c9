"""`make_env`: the environment that a world model expects."""

from __future__ import annotations

import subprocess
import sys

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import SyncVectorEnv

import jepa_gym
from jepa_gym.checkpoint import export
from jepa_gym.config import EncoderConfig, FrameSpec, PredictorConfig, WorldModelConfig
from jepa_gym.envs.droid import TOOL_LENGTH_M
from jepa_gym.latent.wrappers import LatentObservation, VectorLatentObservation
from jepa_gym.world_model import WorldModel


@pytest.fixture
def published(tmp_path):
    """A world model read from a file in the layout of the published V-JEPA 2-AC, at small size."""
    encoder = EncoderConfig("vit", 64, 1, 2, latent_dim=64, patch_size=16, rope="v2")
    frame = FrameSpec(256, 256, ("droid",))
    sizes = PredictorConfig(64, 1, 1, rope="v2")
    model = WorldModel(WorldModelConfig(frame, encoder, sizes, action_scale=(1.0,) * 7))
    path = tmp_path / "vjepa2-ac.pt"
    export.official(path, model.encoder, predictor=model.predictor)
    return WorldModel.from_pretrained(path)


def test_a_published_model_gets_droids_states(published):
    place = {"start_position": (0.5, 0.0, 0.312), "goal_position": (0.4, 0.1, 0.25)}
    with jepa_gym.make_env(published, "reach", obj="cup") as env:
        observation, _ = env.reset(seed=0, options=place)
    assert env.spec.id == "FrankaReach-v0" and observation["pixels"].shape == (256, 256, 3)
    assert abs(observation["observation"][2] - 0.312 - TOOL_LENGTH_M) < 2e-3
    assert abs(observation["goal_state"][2] - 0.25 - TOOL_LENGTH_M) < 2e-3
    assert np.abs([observation[key][3] for key in ("observation", "goal_state")]).min() > 3.1


def test_what_the_model_saw_and_what_the_caller_says(published):
    with jepa_gym.make_env(published, "FrankaGrasp-v0", obj="cup", protocol="suite") as env:
        assert LatentObservation(env, published).observation_space["achieved_goal"].shape == (
            256,
            64,
        )
        assert (env.unwrapped.step_s, env.unwrapped.protocol) == (1.0, "suite")
    with jepa_gym.make_env(published, "pick-place", step_s=0.5, image_size=32) as env:
        assert (env.spec.id, env.unwrapped.step_s) == ("FrankaPickPlace-v0", 0.5)


def test_states_of_another_convention_are_not_taken_silently(published):
    shown = published.config.frame.env_kwargs() | {"state_convention": "hand"}
    with gym.make("FrankaReach-v0", **shown) as env, pytest.raises(ValueError, match="make_env"):
        LatentObservation(env, published)
    with jepa_gym.make_env(published, "reach") as env:
        vector = SyncVectorEnv([lambda: gym.make("FrankaReach-v0", **shown)])
        with pytest.raises(ValueError, match="'droid', the environment's 'hand'"):
            VectorLatentObservation(vector, published)
        vector.close()
        LatentObservation(env, published)


def test_every_short_name_is_an_id_and_typos_are_named(published):
    assert {"reach", "grasp", "reach-with-object", "pick-place"} <= set(jepa_gym.TASKS)
    assert all(env_id in gym.registry for env_id in jepa_gym.TASKS.values())
    with pytest.raises(ValueError, match="Did you mean `grasp`"):
        jepa_gym.make_env(published, "grsp")


def test_importing_it_loads_neither_torch_nor_mujoco():
    code = "import sys; from jepa_gym import make_env; sys.exit(any(m in sys.modules for m in M))"
    code = code.replace("M)", "('torch', 'mujoco', 'robosuite'))")
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
