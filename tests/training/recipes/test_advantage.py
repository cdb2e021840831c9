"""Offline advantages: the best way through the data is found, and steps along it count more."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from jepa_gym.checkpoint.beside import INVERSE
from jepa_gym.training.data.clips import ClipArrays
from jepa_gym.training.recipes import amortise
from jepa_gym.training.recipes.advantage import DISCOUNT, Advantage, weights_of
from jepa_gym.training.recipes.hindsight import GoalSampler
from jepa_gym.world_model import WorldModel

from ..conftest import read_log
from .test_amortise import checkpoint as checkpoint
from .test_amortise import config as config


def ring(number: int, length: int, seed: int) -> GoalSampler:
    """Eight places in a ring, one token each; random walks that go left, right or stay."""
    rng = np.random.default_rng(seed)
    moves = rng.integers(-1, 2, (number, length - 1))
    places = (rng.integers(8, size=(number, 1)) + np.pad(np.cumsum(moves, 1), ((0, 0), (1, 0)))) % 8
    latents = np.eye(8, dtype=np.float16)[places][:, :, None]
    states = np.zeros((number, length, 7), np.float32)
    actions = np.zeros((number, length - 1, 7), np.float32)
    actions[..., 0] = moves
    rows = np.arange(number)
    return GoalSampler(ClipArrays(latents, rows, tuple(map(str, rows)), states, actions), latents,
                       256, seed)  # fmt: skip


def test_finds_the_short_way_in_random_walks():
    torch.manual_seed(0)
    judge, sampler = Advantage(1, 8), ring(400, 15, 0)
    optimizer = torch.optim.AdamW(judge.value.parameters(), 2e-3)
    for step in range(400):
        loss = judge(sampler.batch(step))[1].mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        judge.follow()
    places = torch.eye(8)[:, None]
    values = judge.value(places[[1, 2, 4]], places[[0, 0, 0]])
    assert values[0] > values[1] + 0.3 > values[2] + 0.6  # one, two and four steps away
    batch = sampler.batch(10_000)
    here, there = batch["latents"][:, 0].argmax(1), batch["goals"][:, 0].argmax(1)
    way = (there - here) % 8
    right, left = (way > 0) & (way < 4), way > 4
    moved = batch["actions"][:, 0]
    advantages = judge(batch)[0]
    toward = (right & (moved > 0)) | (left & (moved < 0))
    away = (right & (moved < 0)) | (left & (moved > 0))
    assert advantages[toward].mean() > advantages[away].mean() + 0.5
    weights = weights_of(advantages, 2.0)
    assert weights[toward].mean() > 2 * weights[away].mean()
    assert weights.mean() == pytest.approx(1.0, abs=1e-5)


def test_arriving_costs_one_step_and_the_rest_is_discounted():
    judge = Advantage(1, 8)
    pair = {name: torch.randn(2, 1, 8) for name in ("latents", "next_latents", "goals")}
    advantages, _ = judge(pair | {"steps": torch.tensor([1, 3])})
    value = judge.value(pair["latents"], pair["goals"])
    following = judge.slow(pair["next_latents"], pair["goals"])
    expected = torch.stack([-1 - value[0], -1 + DISCOUNT * following[1] - value[1]])
    torch.testing.assert_close(advantages, expected.detach())


def test_the_command_trains_both_and_writes_the_inverse_model_alone(config, checkpoint):
    progress = amortise.train(replace(config, advantage=1.0, steps=20, eval_every=10))
    assert any("value" in line for line in read_log(checkpoint / "amortise"))
    network = INVERSE.own(WorldModel.from_pretrained(checkpoint))
    assert network is not None and progress.step == 20
    with pytest.raises(ValueError, match="`advantage` must be at least 0"):
        replace(config, advantage=-1.0)
