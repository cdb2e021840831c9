"""The success detector's command at toy size, and what `JEPALatent-v0` makes of the detector."""

from __future__ import annotations

from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest
import torch

from jepa_gym.checkpoint.beside import SUCCESS
from jepa_gym.latent.rewards import SuccessTest
from jepa_gym.models import SuccessDetector
from jepa_gym.training.data.clips import ClipArrays
from jepa_gym.training.recipes import success
from jepa_gym.training.recipes.hindsight import GoalSampler
from jepa_gym.training.recipes.landscape import area_under_curve, reached
from jepa_gym.world_model import WorldModel

from ..conftest import SIZE, read_log
from .test_decode import checkpoint as checkpoint


def test_learns_and_the_environment_asks_it(dataset_folder, checkpoint, capsys):
    config = success.SuccessConfig(
        data=dataset_folder, checkpoint=str(checkpoint), steps=20, eval_every=10, batch_size=32,
        threads=1,
    )  # fmt: skip
    progress = success.train(config)
    assert "success.safetensors" in capsys.readouterr().err
    told = [line for line in read_log(checkpoint / "success-detector") if "auc" in line]
    assert 0 <= told[-1]["false_success_rate"] <= 1
    assert success.train(config).step == progress.step == 20
    model = WorldModel.from_pretrained(checkpoint)
    detector = SUCCESS.own(model)
    env = gym.make("JEPALatent-v0", model=model, reward="sparse", starts="given")
    frames = np.random.default_rng(0).integers(256, size=(2, SIZE, 2 * SIZE, 3), dtype=np.uint8)
    start = {"frame": frames[0], "state": np.zeros(7, np.float32), "goal": frames[1]}
    env.reset(seed=0, options=start)
    observation, reward, *_, info = env.step(np.zeros(7, np.float32))
    pair = [torch.from_numpy(observation[f"{name}_goal"]) for name in ("achieved", "desired")]
    there = detector(*pair).item() > 0
    assert info["is_success"] is there and reward == there - 1
    many = [np.stack([observation[f"{name}_goal"]] * 3) for name in ("achieved", "desired")]
    np.testing.assert_array_equal(env.unwrapped.compute_reward(*many, {}), [there - 1] * 3)


def places(count, length, seed):
    """A world whose latent is where the hand is, over 10 cm, in one token."""
    rng = np.random.default_rng(seed)
    states = np.zeros((count, length, 7), np.float32)
    states[..., :3] = 0.06 * rng.normal(size=(count, length, 3))
    latents = (10 * states[..., None, :3]).astype(np.float16)
    actions, rows = np.zeros((count, length - 1, 7), np.float32), np.arange(count)
    names = tuple(map(str, rows))
    return GoalSampler(ClipArrays(latents, rows, names, states, actions), latents, 256, seed)


def test_tells_the_goal_from_other_places_and_keeps_to_its_false_successes():
    torch.manual_seed(0)
    network, model = SuccessDetector(1, 3), SimpleNamespace(device=torch.device("cpu"))
    sampler, held_out = places(200, 9, 0), places(200, 9, 1)
    optimizer = torch.optim.AdamW(network.parameters(), 3e-3)
    for step in range(150):
        logits, there = success.logits_of(network, sampler.batch(step))
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, there.float())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    success.calibrate(network, model, sampler)
    assert success.figures(network, model, sampler)["false_success_rate"] <= 0.021
    found = success.figures(network, model, held_out)
    assert found["auc"] > 0.97 and found["false_success_rate"] < 0.05


def test_reached_means_hand_and_gripper():
    goal = torch.zeros(7)
    states = torch.zeros(3, 7)
    states[1, 0], states[2, 6] = 0.041, 0.3
    assert reached(states, goal).tolist() == [True, False, False]


def test_area_under_curve_counts_ties_half():
    assert area_under_curve(torch.tensor([1.0, 2.0]), torch.tensor([0.0, 1.0])) == 0.875
    assert np.isnan(area_under_curve(torch.zeros(0), torch.zeros(2)))


def test_without_a_detector_the_energy_decides():
    model = SimpleNamespace(
        config=SimpleNamespace(success_energy=0.5), device=torch.device("cpu"), folder=None
    )
    goals = np.zeros((2, 1, 4), np.float32)
    test = SuccessTest(model)
    assert test(goals + [[[0.4]], [[0.6]]], goals).tolist() == [True, False]
    model.config.success_energy = None
    assert not SuccessTest(model).known
    assert not SuccessTest(model)(goals, goals).any()


@pytest.mark.parametrize("shape", [(4, 8), (2, 3, 4, 8)])
def test_detector_takes_any_leading_dimensions(shape):
    detector, latents = SuccessDetector(4, 8), torch.randn(shape)
    assert detector(latents, latents).shape == shape[:-2]
