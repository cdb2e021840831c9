"""The Gymnasium contract: spaces, seeds, branching, errors."""

from __future__ import annotations

import json
import subprocess
import sys

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as sb3_check_env

from jepa_gym.envs.splits import SPLITS, split_objects

SMALL = {"image_size": 32}


@pytest.mark.parametrize(
    "kwargs",
    [
        {"obs_mode": "state"},
        {"obs_mode": "pixels", "image_size": (24, 40), "camera": "left+wrist"},
        {"obs_mode": "both", "depth": True, "image_size": 32, "camera": "droid"},
        {"obs_mode": "both", "split": "all", "obj": split_objects("all")[0], **SMALL},
    ],
)
def test_checkers_pass(make, env_id, kwargs):
    env = make(env_id, **kwargs)
    check_env(env.unwrapped, skip_render_check=True)
    sb3_check_env(env.unwrapped, warn=False)


def test_seed_decides_everything(make, rollout, env_id):
    first, second = make(env_id, obj="cup", **SMALL), make(env_id, obj="cup", **SMALL)
    rollout(second, 7, 3)  # an earlier episode leaves no trace
    one, two = rollout(first, 3, 12), rollout(second, 3, 12)
    assert all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))
    other = rollout(second, 4, 1)
    assert not np.array_equal(one[0], other[0])


DIGEST = """
import hashlib
import gymnasium as gym, jepa_gym
env = gym.make("FrankaPickPlace-v0", split="train", image_size=32, max_episode_steps=10**6)
env.action_space.seed(5)
digest = hashlib.sha256()
observation, _ = env.reset(seed=5)
for _ in range(200):
    for key in sorted(observation):
        digest.update(observation[key].tobytes())
    observation, *_ = env.step(env.action_space.sample())
print(digest.hexdigest())
env.close()
"""


def test_equal_seeds_are_equal_across_processes():
    runs = [
        subprocess.run([sys.executable, "-c", DIGEST], capture_output=True, text=True, check=True)
        for _ in range(2)
    ]
    assert runs[0].stdout == runs[1].stdout
    assert len(runs[0].stdout.strip()) == 64


def test_horizon_is_a_truncation(make):
    env = make("FrankaReach-v0", obs_mode="state")
    env.reset(seed=0)
    ends = [env.step(np.zeros(7, np.float32))[2:4] for _ in range(10)]
    assert ends == [(False, False)] * 9 + [(False, True)]


@pytest.mark.parametrize("split", [None, "train"])
def test_branching_is_exact(make, rollout, env_id, split):
    env = make(env_id, obj="box", split=split, **SMALL).unwrapped
    rollout(env, 0, 4)
    branch = env.get_state()
    moves = [env.action_space.sample() * 0.5 for _ in range(20)]

    def future() -> list[np.ndarray]:
        env.set_state(branch)
        seen = []
        for move in moves:
            observation, reward, _, _, info = env.step(move)
            seen += [*observation.values(), reward, info["subgoal"], info["success_once"]]
        return [*seen, env.np_random.random(3)]

    one = future()
    env.reset(seed=99)  # another look, another goal
    for first, second in zip(one, future(), strict=True):
        assert np.array_equal(first, second)


def test_spec_kwargs_stay_json(make):
    env = make("FrankaReach-v0", obs_mode="state", variation={"light": 1.2}, image_size=(64, 96))
    copy = gym.make(gym.envs.registration.EnvSpec.from_json(env.spec.to_json()))
    assert copy.unwrapped.image_size == (64, 96)
    assert json.loads(json.dumps(env.spec.kwargs))["variation"] == {"light": 1.2}


def test_reward_is_vectorised_and_pure(make, env_id):
    env = make(env_id, obs_mode="state")
    observation, _ = env.reset(seed=0)
    achieved = np.stack([observation["achieved_goal"], observation["desired_goal"]])
    desired = np.stack([observation["desired_goal"]] * 2)
    rewards = env.unwrapped.compute_reward(achieved, desired, {})
    assert rewards.tolist() == [-1.0, 0.0]
    assert env.unwrapped.compute_reward(achieved[0], desired[0], {}) == rewards[0]


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (np.zeros(6), r"shape \(7,\)"),
        (np.full(7, np.nan), "finite"),
        (np.full(7, 0.5), "outside the bounds"),
        (["0.01"] * 7, "real numbers"),
        (np.zeros(7, complex), "real numbers"),
    ],
)
def test_bad_actions_raise_and_change_nothing(make, action, message):
    env = make("FrankaReach-v0", obs_mode="state").unwrapped
    env.reset(seed=0)
    before = env.get_state()["physics"]
    with pytest.raises(ValueError, match=message):
        env.step(action)
    assert np.array_equal(before, env.get_state()["physics"])


def test_clip_actions_clips(make):
    env = make("FrankaReach-v0", obs_mode="state", clip_actions=True).unwrapped
    env.reset(seed=0)
    before = env.arm.state()[:3]
    env.step(np.array([0, 0, 5.0, 0, 0, 0, 0]))
    assert np.allclose(env.arm.state()[:3] - before, [0, 0, 0.075], atol=0.003)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"obj": "boxx"}, "Did you mean `box`"),
        ({"camera": "lef"}, "camera"),
        ({"image_size": 4}, "image_size"),
        ({"image_size": 10**6}, "image_size"),
        ({"obs_mode": "rgb"}, "obs_mode"),
        ({"split": "test"}, "'camera', 'appearance', 'object'"),
        ({"split": "object", "obj": "box"}, "has the objects"),
        ({"goal_source": "dataset"}, "'expert', 'random'"),
        ({"goal_schedule": "steps"}, "'time', 'progress'"),
        ({"protocol": "four"}, "'published', 'suite', 'one'"),
        ({"state_convention": "flange"}, "'hand', 'droid'"),
        ({"variation": {"colour": 1}}, "Variation key"),
        ({"depth": True, "obs_mode": "state"}, "depth"),
        ({"step_s": 0.0}, "step_s"),
        ({"max_move_m": 3.0}, "max_move_m"),
    ],
)
def test_bad_arguments_name_what_is_allowed(kwargs, message):
    with pytest.raises(ValueError, match=message):
        gym.make("FrankaReach-v0", **kwargs)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"colour": "red"}, "'variation', 'recorded', 'start_position'"),
        ({"start_positon": [0.5, 0, 0.2]}, "Did you mean `start_position`"),
        ({"start_position": [0.5, 0.0]}, "3 numbers in metres between"),
        ({"start_position": [2.0, 0.0, 0.2]}, r"\[0.64, 0.2, 0.34\]"),
        ({"goal_position": [np.nan, 0.0, 0.2]}, "goal_position"),
        ({"object_position": "middle"}, "object_position"),
        ({"variation": {"object_scale": 3.0}}, r"`object_scale` must be a number in \[0.8, 1.1\]"),
        ({"variation": {"table_texture": "woood"}}, "Did you mean"),
        ({"variation": {"distractors": [{}] * 9}}, "at most 8"),
        ({"variation": {"distractors": [{"shape": "cone"}]}}, "'box', 'cylinder'"),
        ({"variation": 3}, "mapping"),
        ({"start_distance_m": 0.2}, r"\(least, largest\) in metres, from 0 to 0.45"),
        ({"start_distance_m": (0.3, 0.2)}, "start_distance_m"),
        ({"start_distance_m": (0.2, 20.0)}, "start_distance_m"),
        ({"variation": {"distractors": 3}}, "list of at most 8"),
        ({"recorded": {"start": np.zeros(3)}}, "'start' and 'goal'"),
        ({"recorded": {"start": np.zeros(3), "goal": np.zeros(3)}}, "simulator state"),
        ({"recorded": 3}, "'start' and 'goal'"),
        ({"recorded": {"start": "first", "goal": "last"}}, "'start' and 'goal'"),
    ],
)
def test_impossible_options_name_what_is_allowed(make, options, message):
    env = make("FrankaReach-v0", obs_mode="state")
    with pytest.raises(ValueError, match=message):
        env.reset(seed=0, options=options)


def test_step_before_reset_raises(make):
    with pytest.raises(gym.error.ResetNeeded):
        make("FrankaReach-v0", obs_mode="state").unwrapped.step(np.zeros(7))


def test_a_refused_reset_changes_nothing_a_failed_one_ends_the_episode(make):
    env = make("FrankaReach-v0", obs_mode="state").unwrapped
    env.reset(seed=0)
    before, draws = env.get_state(), env.np_random.bit_generator.state
    for options in ({"colour": 1}, {"variation": {"light": 99}}, {"start_position": [9, 9, 9]}):
        with pytest.raises(ValueError):
            env.reset(seed=1, options=options)
    assert np.array_equal(before["physics"], env.get_state()["physics"])
    assert env.np_random.bit_generator.state == draws
    with pytest.raises(ValueError, match="simulator state"):
        env.reset(options={"recorded": {"start": np.zeros(3), "goal": np.zeros(3)}})
    with pytest.raises(gym.error.ResetNeeded):
        env.step(np.zeros(7))


def test_an_episode_follows_a_first_reset_that_was_refused(make):
    env = make("FrankaReach-v0", obs_mode="state")
    with pytest.raises(ValueError, match="colour"):
        env.reset(options={"colour": 1})
    env.reset(seed=0)
    env.step(np.zeros(7))


def test_recorded_states_that_no_robot_is_in_are_refused(make):
    env = make("FrankaReach-v0", obs_mode="state").unwrapped
    env.reset(seed=0)
    good = env.get_state()["physics"]
    for index, value in ((1, 1e30), (1, 1e3), (5, np.nan), (20, 1e30)):
        bad = good.copy()
        bad[index] = value
        with pytest.raises(ValueError, match="state of this scene"):
            env.reset(options={"recorded": {"start": good, "goal": bad}})


def test_a_closed_environment_neither_steps_nor_starts(make):
    env = make("FrankaReach-v0", obs_mode="state").unwrapped
    env.reset(seed=0)
    env.close()
    for call in (lambda: env.step(np.zeros(7)), env.reset):
        with pytest.raises(gym.error.ClosedEnvironmentError, match="make a new one"):
            call()


def test_frames_of_a_closed_environment_raise(make):
    env = make("FrankaReach-v0", **SMALL).unwrapped
    env.reset(seed=0)
    env.close()
    env.close()
    with pytest.raises(RuntimeError, match="closed"):
        env.frame()


def test_every_split_can_be_played(make):
    for split in SPLITS:
        env = make("FrankaGrasp-v0", obj=split_objects(split)[0], split=split, **SMALL)
        observation, info = env.reset(seed=0)
        assert observation["pixels"].std() > 10
        assert info["variation"]["camera_azimuth_deg"] != 0
