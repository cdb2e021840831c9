"""Baselines in the place of those of the published table: pixels, simulator, transformer."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from jepa_gym import make_env
from jepa_gym.agents import make_agent
from jepa_gym.agents.pixel_agent import PixelModel
from jepa_gym.checkpoint.beside import BEHAVIOUR, DECODER
from jepa_gym.models import BehaviourTransformer
from jepa_gym.world_model import WorldModel


@pytest.fixture(scope="module")
def model():
    return WorldModel.from_pretrained("default")


@pytest.fixture(scope="module")
def start(model):
    env = make_env(model, "reach", obj="box", protocol="one", obs_mode="both")
    observation, _ = env.reset(seed=500_000)
    yield env, observation
    env.close()


def act(agent, env, observation, steps):
    memory = None
    for step in range(steps):
        action, memory = agent.predict(observation, memory, episode_start=step == 0)
        observation, _, _, _, info = env.step(action)
    return info["distance_m"]


def test_the_simulator_as_the_model_reaches(start):
    env, _ = start
    observation, info = env.reset(seed=500_000)
    assert info["distance_m"] > 0.1
    assert act(make_agent("simulator-mpc", env=env), env, observation, 5) < 0.02


def test_pixels_lead_towards_the_goal(model, start):
    env, _ = start
    observation, info = env.reset(seed=500_000)
    assert act(make_agent("pixel-mpc", model=model), env, observation, 6) < 0.6 * info["distance_m"]


@torch.no_grad()
def test_pixel_energy_is_the_mean_difference_of_what_is_drawn(model, start):
    _, observation = start
    decoder = DECODER.own(model)
    latents, goal = model.observe({key: x[None] for key, x in observation.items()})
    dynamics = PixelModel(model, decoder)
    energy = dynamics.energy(torch.stack([latents, goal], 1), goal)
    expected = (decoder(latents) - decoder(goal)).abs().mean()
    torch.testing.assert_close(energy[0], torch.tensor([expected, 0.0]))
    with pytest.raises(ValueError, match="no readout"):
        dynamics.state_difference(latents[:, None], goal)


def test_a_missing_network_is_named(model, tmp_path):
    bare = WorldModel(model.config).eval()
    bare.save_pretrained(tmp_path, {})
    for name, command in (("pixel-mpc", "decode"), ("bc-transformer", "amortise --network")):
        with pytest.raises(ValueError, match=f"jepa-gym {command}"):
            make_agent(name, model=WorldModel.from_pretrained(tmp_path))


def test_the_transformer_acts_alone(model, start, tmp_path):
    _, observation = start
    torch.manual_seed(0)
    model.save_pretrained(tmp_path, {})
    own = WorldModel.from_pretrained(tmp_path)
    network = BehaviourTransformer(model.config.num_tokens, model.config.encoder.latent_dim, 18)
    BEHAVIOUR.write(tmp_path, network, own, {})
    agent = make_agent("bc-transformer", model=own)
    batch = {key: np.stack([x, x]) for key, x in observation.items()}
    batch["goal_pixels"][1] = batch["pixels"][1]
    actions, _ = agent.predict(batch)
    assert np.abs(actions[0] - actions[1]).max() > 1e-6, "the goal says nothing"
    alone, _ = agent.predict(observation)
    np.testing.assert_allclose(alone, actions[0], atol=1e-5)
    with pytest.raises(ValueError, match="multiple of 32"):
        BehaviourTransformer(8, 160, 18, embed_dim=40)
