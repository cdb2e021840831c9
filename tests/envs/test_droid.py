"""DROID's view and states."""

from __future__ import annotations

import numpy as np

from jepa_gym.envs.droid import TOOL_LENGTH_M, flange_action, hand_action, make_droid, to_droid
from jepa_gym.envs.rotations import matrix


def test_states_are_the_flanges():
    state = np.array([0.5, 0.1, 0.2, 0, 0, 0, 0.7])
    converted = to_droid(state)
    assert np.allclose(np.abs(converted[3]), np.pi) and np.allclose(converted[4:6], 0, atol=1e-6)
    assert np.allclose(converted[:3], [0.5, 0.1, 0.2 + TOOL_LENGTH_M])
    assert converted[6] == np.float32(0.7)
    tilted = to_droid(np.array([0.5, 0.1, 0.2, 0, 0.3, 0, 0]))
    offset = np.array([np.sin(0.3), 0, np.cos(0.3)]) * TOOL_LENGTH_M
    assert np.allclose(tilted[:3], [0.5, 0.1, 0.2] + offset, atol=1e-6)


def test_translations_need_no_conversion():
    with make_droid("FrankaReach-v0", obj="cup", image_size=64) as env:
        before, _ = env.reset(seed=0)
        move = np.array([0.04, -0.02, 0.03, 0, 0, 0, 0.5], np.float32)
        after, *_ = env.step(move)
    assert before["pixels"].shape == (64, 64, 3)
    change = after["observation"] - before["observation"]
    assert np.allclose(change[:3], move[:3], atol=3e-3)
    assert 0.4 < change[6] < 0.6
    assert abs(before["goal_state"][3]) > 3.1


def test_an_action_is_what_moves_one_state_to_the_next(make):
    """Also where the hand turns, which moves the fingertips about the flange."""
    env = make("FrankaReach-v0", obs_mode="state", state_convention="droid")
    before = env.reset(seed=0, options={"start_position": (0.5, 0.0, 0.2)})[0]["observation"]
    assert before[2] > 0.3 and abs(before[3]) > 3.1
    action = np.array([0.03, -0.02, 0.01, 0.2, -0.15, 0.1, 0], np.float32)
    after = env.step(action)[0]["observation"]
    assert np.allclose(after[:3] - before[:3], action[:3], atol=3e-3)
    turned = matrix(after[3:6]) @ matrix(before[3:6]).T
    assert np.allclose(turned, matrix(action[3:6]), atol=0.03)


def test_actions_convert_back():
    state = np.array([0.5, 0.1, 0.2, 0.1, -0.3, 0.2, 0.0])
    action = np.array([0.01, 0.02, -0.03, 0.1, 0.2, -0.3, 1.0])
    assert np.allclose(flange_action(hand_action(action, state), state), action)
    assert not np.allclose(hand_action(action, state)[:3], action[:3], atol=0.01)


def test_the_expert_plays_in_droids_convention(make, env_id, play_expert):
    arguments = {"obs_mode": "state", "state_convention": "droid"}
    for seed in range(2):
        assert play_expert(make(env_id, obj="box", split="train", **arguments), seed)["is_success"]
