"""DROID's view and states."""

from __future__ import annotations

import numpy as np

from jepa_gym.envs.droid import TOOL_LENGTH_M, make_droid, to_droid


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
