"""The four tasks: experts succeed, success is strict, and failures are named."""

from __future__ import annotations

import numpy as np
import pytest

EPISODES = 12


@pytest.mark.parametrize("obj", ["box", "cup", "can", "milk"])
def test_expert_succeeds(make, play_expert, env_id, obj):
    env = make(env_id, obj=obj, obs_mode="state")
    infos = [play_expert(env, seed) for seed in range(EPISODES)]
    wins = [info["success_at_end"] for info in infos]
    assert sum(wins) >= EPISODES - 1, [info["failure"] for info in infos]
    assert all(info["success_once"] for info in infos if info["success_at_end"])
    assert all((info["failure"] is None) == info["is_success"] for info in infos)


def test_doing_nothing_fails_and_says_why(make, env_id):
    env = make(env_id, obs_mode="state")
    _, info = env.reset(seed=0)
    expected = {"FrankaGrasp-v0": "not grasped", "FrankaPickPlace-v0": "not grasped"}
    assert info["failure"] == expected.get(env_id, "not reached")
    assert not (info["success"] or info["success_at_end"] or info["success_once"])


def test_grasp_needs_the_object_held_and_lifted(make):
    env = make("FrankaGrasp-v0", obs_mode="state").unwrapped
    env.reset(seed=0)
    assert not env.task_info()["is_success"]
    env.place_object(np.array([0.5, 0.0, 0.2]), 0.0)
    info = env.task_info()
    assert info["clearance_m"] > 0.04 and not info["is_success"]


def test_success_once_outlives_success(make):
    env = make("FrankaReach-v0", obs_mode="state")
    env.reset(seed=0)
    for _ in range(4):
        *_, info = env.step(env.unwrapped.expert_action())
    assert info["success_at_end"]
    for _ in range(2):
        *_, info = env.step(np.array([0, 0, 0.075, 0, 0, 0, 0], np.float32))
    assert info["success_once"] and not info["success_at_end"]
    assert info["failure"] == "not reached"


def until(env, condition, limit: int = 18) -> None:
    """Let the expert act until `condition()`."""
    for _ in range(limit):
        if condition():
            return
        env.step(env.expert_action())
    raise AssertionError("the expert never got there")


def test_pick_and_place_names_what_is_missing(make):
    env = make("FrankaPickPlace-v0", obj="cup", obs_mode="state").unwrapped
    env.reset(seed=1)
    until(env, lambda: env.object_held() and env.object_clearance() > 0.03)
    assert env.task_info()["failure"] == "not reached"
    carried = env.get_state()
    env.step(np.array([0, 0, 0, 0, 0, 0, -1], np.float32))
    assert env.task_info()["failure"] in ("dropped", "toppled")
    env.set_state(carried)
    until(env, lambda: env.task_info()["distance_m"] < 0.02 and env.object_clearance() < 0.01)
    if not env.stage.object_released():
        assert env.task_info()["failure"] == "not released"
    until(env, lambda: env.task_info()["is_success"])
    goal = env.goal_position()
    env.place_object(goal + [0, 0, -0.012], 0.0)
    start = env.stage.object_qpos + 3
    env.data.qpos[start : start + 4] = [0.5**0.5, 0, 0.5**0.5, 0]
    env.step(np.array([0, 0, 0.05, 0, 0, 0, 0], np.float32))
    assert env.task_info()["failure"] == "toppled"
    env.place_object(np.array([0.9, 0.5, -0.3]), 0.0)
    assert env.task_info()["failure"] == "out of reach"


def test_a_dropped_object_is_no_reach_with_object(make):
    env = make("FrankaReachWithObject-v0", obj="box", obs_mode="state").unwrapped
    _, info = env.reset(seed=0)
    assert info["is_held"]
    *_, info = env.step(np.array([0, 0, 0, 0, 0, 0, -1], np.float32))
    assert info["failure"] == "dropped"


def test_positions_can_be_chosen(make):
    env = make("FrankaReach-v0", obs_mode="state").unwrapped
    options = {
        "start_position": [0.5, 0.1, 0.3],
        "goal_position": [0.4, -0.1, 0.2],
        "object_position": [0.55, 0.0],
    }
    observation, _ = env.reset(seed=0, options=options)
    assert np.allclose(observation["observation"][:3], options["start_position"], atol=2e-3)
    assert np.allclose(observation["desired_goal"], options["goal_position"], atol=2e-3)
    assert np.allclose(env.object_position()[:2], options["object_position"])
    env = make("FrankaPickPlace-v0", obs_mode="state").unwrapped
    options = {"goal_place": [0.6, 0.15], "object_position": [0.4, -0.1]}
    observation, _ = env.reset(seed=0, options=options)
    assert np.allclose(observation["desired_goal"][:2], options["goal_place"], atol=5e-3)
    assert np.allclose(observation["achieved_goal"][:2], options["object_position"])


@pytest.mark.parametrize("env_id", ["FrankaReach-v0", "FrankaReachWithObject-v0"])
def test_far_starts_are_as_far_from_the_goal_as_asked(make, env_id):
    env = make(env_id, obs_mode="state").unwrapped
    for seed in range(5):
        observation, _ = env.reset(seed=seed, options={"start_distance_m": (0.24, 0.28)})
        achieved, desired = observation["achieved_goal"], observation["desired_goal"]
        assert 0.235 <= np.linalg.norm(achieved - desired) <= 0.285


def test_far_starts_of_grasping_are_as_far_from_the_object_as_asked(make):
    env = make("FrankaGrasp-v0", obs_mode="state").unwrapped
    for seed in range(5):
        observation, _ = env.reset(seed=seed, options={"start_distance_m": (0.24, 0.28)})
        distance = np.linalg.norm(observation["observation"][:3] - env.grasp_point())
        assert 0.235 <= distance <= 0.285
