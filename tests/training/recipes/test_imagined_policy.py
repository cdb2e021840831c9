"""The imagined policy's command at toy size: a world model and a dataset in, an agent out."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from jepa_gym.agents import make_agent
from jepa_gym.checkpoint.beside import POLICY
from jepa_gym.models import LatentPolicy
from jepa_gym.training.recipes import imagined_policy
from jepa_gym.world_model import WorldModel

from ..conftest import SIZE, read_log
from .test_decode import checkpoint as checkpoint


@pytest.fixture
def config(dataset_folder, checkpoint):
    return imagined_policy.ImaginedPolicyConfig(
        data=dataset_folder,
        checkpoint=str(checkpoint),
        steps=12,
        eval_every=6,
        batch_size=8,
        threads=1,
    )


def test_learns_goes_on_where_it_was_and_acts(config, checkpoint, capsys):
    progress = imagined_policy.train(config)
    assert "policy.safetensors" in capsys.readouterr().err
    told = [line for line in read_log(checkpoint / "imagine-policy") if "imagined_energy" in line]
    assert min(line["imagined_energy"] for line in told) == pytest.approx(progress.best_score)
    assert imagined_policy.train(config).step == progress.step == 12
    model = WorldModel.from_pretrained(checkpoint)
    pixels = np.random.default_rng(0).integers(256, size=(3, SIZE, 2 * SIZE, 3), dtype=np.uint8)
    observation = {"pixels": pixels, "goal_pixels": pixels[::-1], "observation": np.zeros((3, 7))}
    actions, memory = make_agent("imagined-policy", model=model).predict(observation)
    assert actions.shape == (3, 7) and memory is None
    assert (np.abs(actions[:, :3]) <= model.config.frame.max_move_m).all()
    assert (actions[:, :3] != 0).any() and (actions[:, 3:] == 0).all()
    elsewhere, _ = make_agent("imagined-policy", model=model, policy=checkpoint).predict(
        observation
    )
    np.testing.assert_array_equal(elsewhere, actions)


class Points:
    """A world whose latent is where the hand is, over 10 cm, in one token."""

    config = SimpleNamespace(frame=SimpleNamespace(max_move_m=0.05))

    def energy(self, latents, goals):
        return (latents - goals[:, None]).abs().mean((2, 3))

    def prepare(self, latents, states, grad):
        assert grad
        return Start(latents)


class Start:
    def __init__(self, latents):
        self.last = latents[:, -1, None, None]

    def latents(self, actions):
        return self.last + 10 * actions.cumsum(2)[..., None, :3]


def test_gradients_through_the_model_find_the_goal():
    torch.manual_seed(0)
    network, world = LatentPolicy(1, 3, hidden=32), Points()
    optimiser = torch.optim.Adam(network.parameters(), 3e-3)

    def batch():
        here, goals = torch.rand(2, 64, 1, 3)
        states = torch.zeros(64, 7)
        return {"latents": here, "goals": goals, "states": states}

    for _ in range(200):
        energies = imagined_policy.imagined_energies(network, world, batch(), 3)
        optimiser.zero_grad()
        torch.stack(energies[1:]).mean().backward()
        optimiser.step()
    with torch.no_grad():
        energies = imagined_policy.imagined_energies(network, world, batch(), 3)
    assert len(energies) == 4
    assert energies[-1].mean() < 0.25 * energies[0].mean()


def test_needs_a_place_of_its_own_and_a_policy(config, checkpoint):
    with pytest.raises(ValueError, match="--output"):
        imagined_policy.train(replace(config, checkpoint="default"))
    with pytest.raises(ValueError, match=r"no policy beside it.*jepa-gym imagine-policy"):
        make_agent("imagined-policy", model=checkpoint)
    with pytest.raises(ValueError, match="imagined_steps"):
        replace(config, imagined_steps=0)
    assert not (checkpoint / POLICY.file).exists()


def test_refuses_other_views(config, checkpoint):
    model = WorldModel.from_pretrained(checkpoint)
    swapped = replace(model.config.frame, cameras=("wrist", "left"))
    WorldModel(replace(model.config, frame=swapped)).save_pretrained(checkpoint, {})
    with pytest.raises(ValueError, match="shows the views"):
        imagined_policy.train(config)
