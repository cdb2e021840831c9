from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from jepa_gym import poses
from jepa_gym.config import PredictorConfig
from jepa_gym.training.data.clips import ClipArrays
from jepa_gym.training.recipes.landscape import Landscape, success_threshold

from ..conftest import make_episode

EPISODES, STEPS = 200, 12


class ExactModel:
    """Its latent is the state itself; frames carry the index of their state."""

    config = SimpleNamespace(
        frame=SimpleNamespace(max_move_m=0.075), predictor=PredictorConfig(use_states=False)
    )

    def __init__(self, states: torch.Tensor, bias_m: float = 0.0):
        self.states, self.bias_m = states, bias_m

    def encode(self, frames: torch.Tensor | np.ndarray) -> torch.Tensor:
        frames = torch.as_tensor(np.asarray(frames))
        index = frames[..., 0, 0, 0].long() * STEPS + frames[..., 0, 0, 1].long()
        state = self.states.flatten(0, 1)[index]
        return state[..., None, :]  # (B, T, 1, 7)

    def rollout_energy(self, latents, states, actions, goal):
        future = poses.compose(states[:, -1:], actions[:, :, 0])
        future[..., 0] += self.bias_m
        return self.energy(future[:, :, None], goal)  # of (B, S, 1, 7)

    def energy(self, latents, goal):
        while goal.ndim < latents.ndim:
            goal = goal.unsqueeze(1)
        return (latents - goal).abs().mean((-2, -1))


@pytest.fixture
def arrays() -> ClipArrays:
    states = np.stack([make_episode(seed).states for seed in range(EPISODES)]).astype(np.float32)
    tensor = torch.from_numpy(states)
    frames = np.zeros((EPISODES, STEPS, 2, 2, 3), np.uint8)
    frames[..., 0] = np.arange(EPISODES)[:, None, None, None]
    frames[..., 1] = np.arange(STEPS)[:, None, None]
    return ClipArrays(
        frames=frames,
        rows=np.arange(EPISODES),
        ids=tuple(map(str, range(EPISODES))),
        states=states,
        actions=poses.difference(tensor[:, :-1], tensor[:, 1:]).numpy(),
    )


def test_exact_model_has_its_minimum_at_the_true_action(arrays):
    figures = Landscape(arrays).evaluate(ExactModel(torch.from_numpy(arrays.states)))
    for axis in "xyz":
        assert figures[f"{axis}_cm"] < 0.15  # half of the last grid's spacing
    assert figures["gripper_error"] < 1e-6 and figures["gripper_right"] == 1
    assert figures["far_closer"] == 1 and figures["far_progress"] > 0.9
    assert figures["one_step_over_copy"] < 1e-5
    assert figures["landscape_error"] < 0.015


def test_biased_model_is_found_out(arrays):
    model = ExactModel(torch.from_numpy(arrays.states), bias_m=0.02)
    figures = Landscape(arrays).evaluate(model)
    assert figures["x_cm"] == pytest.approx(2, abs=0.2)
    assert figures["y_cm"] < 0.15


def test_pairs_follow_the_seed_and_leave_room_for_the_context(arrays):
    first, again = Landscape(arrays, seed=1), Landscape(arrays, seed=1)
    assert first.near == again.near != Landscape(arrays, seed=2).near
    assert min(t for _, t, _ in first.near + first.gripper + first.far) >= 1
    distances = [
        np.linalg.norm(arrays.states[e, g, :3] - arrays.states[e, t, :3]) for e, t, g in first.far
    ]
    assert min(distances) > 0.1 and max(distances) < 0.2


def test_adapts_to_what_the_data_has(arrays):
    everything = Landscape(arrays, pairs=10_000)
    assert not everything.left_out
    assert len(everything.near) == EPISODES * (STEPS - 2)
    resting = arrays.states.copy()
    resting[..., 6] = 0
    slow = replace(arrays, states=0.01 * resting, actions=0.01 * arrays.actions)
    landscape = Landscape(slow)
    assert landscape.left_out.keys() == {"gripper", "far"}
    figures = landscape.evaluate(ExactModel(torch.from_numpy(slow.states)))
    assert figures["landscape_error"] < 0.02
    assert not {"gripper_error", "far_closer"} & figures.keys()


def test_too_little_data(arrays):
    one = replace(arrays, rows=arrays.rows[:1], ids=("0",), states=arrays.states[:1, :4])
    with pytest.raises(ValueError, match="collect more"):
        Landscape(replace(one, actions=arrays.actions[:1, :3]))


def part(arrays: ClipArrays, first: int) -> ClipArrays:
    """Every second episode."""
    return replace(
        arrays,
        rows=arrays.rows[first::2],
        ids=arrays.ids[first::2],
        states=arrays.states[first::2],
        actions=arrays.actions[first::2],
    )


def test_success_energy_separates_frames_at_the_goal_from_others(arrays):
    seen = torch.from_numpy(arrays.states[..., [0, 1, 2, 6]])
    threshold = success_threshold(ExactModel(seen), part(arrays, 0), part(arrays, 1))
    assert 0 < threshold.energy < 0.04
    assert threshold.auc > 0.9
    assert 0.02 < threshold.false_success_rate < 0.1, "5 % on the episodes it was taken from"
    assert 0 <= threshold.missed_success_rate < 0.4


def test_an_open_gripper_is_not_where_a_closed_one_should_be(arrays):
    still = arrays.states.copy()
    still[..., :3] = 0
    still = torch.from_numpy(still)
    resting = replace(arrays, states=still.numpy())
    model = ExactModel(still[..., [0, 1, 2, 6]])
    threshold = success_threshold(model, part(resting, 0), part(resting, 1))
    assert threshold.auc == 1
    assert threshold.missed_success_rate == threshold.false_success_rate == 0
    still[..., 6] = 0
    assert success_threshold(ExactModel(still), resting, resting) is None
