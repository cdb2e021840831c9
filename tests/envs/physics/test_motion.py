"""Blocking moves: what is commanded is done, and what is held stays held."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from jepa_gym.envs.physics.workbench import WORKSPACE_HIGH_M
from jepa_gym.envs.rotations import euler, matrix


def test_euler_angles_are_scipys_extrinsic_xyz():
    rng = np.random.default_rng(0)
    for angles in rng.uniform(-1.5, 1.5, (50, 3)):
        rotation = Rotation.from_euler("xyz", angles)
        assert np.allclose(matrix(angles), rotation.as_matrix(), atol=1e-12)
        assert np.allclose(euler(matrix(angles)), rotation.as_euler("xyz"), atol=1e-9)


@pytest.mark.parametrize("obj", ["box", "cup"])
def test_moves_are_carried_out(make, obj):
    env = make("FrankaReach-v0", obj=obj, obs_mode="state", max_episode_steps=10**6).unwrapped
    env.reset(seed=1)
    rng, errors = np.random.default_rng(0), []
    for _ in range(150):
        before = env.arm.state()
        target = np.clip(
            before[:3] + rng.uniform(-0.075, 0.075, 3), [0.34, -0.2, 0.15], WORKSPACE_HIGH_M
        )
        action = np.zeros(7)
        action[:3] = target - before[:3]
        env.step(action)
        errors.append(np.abs(env.arm.state()[:3] - target))
    assert np.mean(errors) < 0.002
    assert np.quantile(errors, 0.95, axis=0).max() < 0.005


def test_a_turn_composes_in_the_base_frame(make):
    env = make("FrankaReach-v0", obs_mode="state").unwrapped
    env.reset(seed=2)
    for turn in ([0.1, 0, 0], [0, 0, 0.25], [-0.05, 0.1, -0.1]):
        before = Rotation.from_euler("xyz", env.arm.state()[3:6])
        action = np.zeros(7)
        action[3:6] = turn
        env.step(action)
        achieved = Rotation.from_euler("xyz", env.arm.state()[3:6]) * before.inv()
        assert np.allclose(achieved.as_euler("xyz"), turn, atol=0.02)


def test_closedness_grows_when_the_gripper_closes(make):
    env = make("FrankaReach-v0", obs_mode="state").unwrapped
    env.reset(seed=0)
    assert env.arm.state()[6] < 0.05
    action = np.zeros(7)
    for change, expected in ((0.4, 0.4), (1.0, 1.0), (-1.0, 0.0)):
        action[6] = change
        env.step(action)
        assert env.arm.state()[6] == pytest.approx(expected, abs=0.03)


def test_a_held_object_stays_held_while_moving(make):
    env = make("FrankaGrasp-v0", obj="box", obs_mode="state").unwrapped
    env.reset(seed=0)
    env.place_arm(env.grasp_point())
    close, lift, hold = np.zeros(7), np.zeros(7), np.zeros(7)
    close[6], lift[2] = 1.0, 0.06
    for action in (close, lift, lift, hold, hold, hold):
        *_, info = env.step(action)
    assert info["is_success"]
    release = np.zeros(7)
    release[6] = -1.0
    *_, info = env.step(release)
    assert not info["is_held"]


@pytest.mark.parametrize("direction", [[1, 0, 0], [0, 1, 0], [1, 0.5, 0.5], [0, -1, 1]])
def test_the_arm_stops_at_the_end_of_its_reach_and_says_so(make, direction):
    env = make("FrankaReach-v0", obs_mode="state").unwrapped
    env.reset(seed=0)
    action = np.array([*np.multiply(direction, 0.075), 0, 0, 0, 0])
    for _ in range(15):
        *_, info = env.step(action)
    assert info["ik_error_m"] > 0.01
    assert info["failure"] == "out of reach"
    state = env.arm.state()
    assert np.abs(state[3:6]).max() < 0.1, "the hand must not turn to come nearer"
    env.step(-action)
    assert np.allclose(env.arm.state()[:3], state[:3] - action[:3], atol=5e-3)
    assert env.ik_error_m < 1e-3
    with pytest.raises(ValueError, match="cannot reach"):
        env.place_arm(np.array([1.5, 0.0, 0.2]))
