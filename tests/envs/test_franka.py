"""The Franka suite: the Gymnasium contract, seeding, branching, errors, what the picture shows."""

from __future__ import annotations

import gc

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as sb3_check_env

import jepa_gym  # noqa: F401
from jepa_gym.envs.base import WORKSPACE_HIGH_M, WORKSPACE_LOW_M

IDS = ("FrankaReach-v0", "FrankaGrasp-v0")
OBJECTS = ("box", "cup")


@pytest.fixture
def make():
    """Make environments that are closed at the end of the test."""
    made = []

    def build(env_id: str, **kwargs):
        env = gym.make(env_id, **kwargs)
        made.append(env)
        return env

    yield build
    for env in made:
        env.close()


def rollout(env, seed: int, steps: int) -> list[np.ndarray]:
    """Reset from `seed`, act randomly (seeded too) and return every array that was observed."""
    observation, _ = env.reset(seed=seed)
    env.action_space.seed(seed)
    seen = list(observation.values())
    for _ in range(steps):
        observation, reward, *_ = env.step(env.action_space.sample())
        seen += [*observation.values(), np.array(reward)]
    return seen


@pytest.mark.parametrize("env_id", IDS)
@pytest.mark.parametrize("obs_mode", ["state", "both"])
def test_checkers_pass(make, env_id, obs_mode):
    env = make(env_id, obs_mode=obs_mode)
    check_env(env.unwrapped, skip_render_check=True)
    sb3_check_env(env.unwrapped, warn=False)


@pytest.mark.parametrize("env_id", IDS)
def test_seed_decides_everything(make, env_id):
    first, second = make(env_id, obj="cup"), make(env_id, obj="cup")
    one, two = rollout(first, 3, 12), rollout(second, 3, 12)
    assert all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))
    other = rollout(second, 4, 1)
    assert not np.array_equal(one[0], other[0])


def test_horizon_is_a_truncation(make):
    env = make("FrankaReach-v0", obs_mode="state")
    env.reset(seed=0)
    ends = [env.step(np.zeros(7, np.float32))[2:4] for _ in range(10)]
    assert ends == [(False, False)] * 9 + [(False, True)]


@pytest.mark.parametrize("env_id", IDS)
def test_branching_is_exact(make, env_id):
    env = make(env_id, obj="box")
    rollout(env, 0, 4)
    branch = env.unwrapped.get_state()
    moves = [env.action_space.sample() * 0.5 for _ in range(20)]

    def future() -> list[np.ndarray]:
        env.unwrapped.set_state(branch)
        seen = []
        for move in moves:
            observation, *_ = env.unwrapped.step(move)
            seen += [
                observation["observation"],
                observation["achieved_goal"],
                observation["pixels"],
            ]
        return [*seen, env.unwrapped.np_random.random(3)]

    for one, two in zip(future(), future(), strict=True):
        assert np.array_equal(one, two)


@pytest.mark.parametrize("obj", OBJECTS)
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
    from scipy.spatial.transform import Rotation

    env = make("FrankaReach-v0", obs_mode="state").unwrapped
    env.reset(seed=2)
    for turn in ([0.1, 0, 0], [0, 0, 0.25], [-0.05, 0.1, -0.1]):
        before = Rotation.from_euler("xyz", env.arm.state()[3:6])
        action = np.zeros(7)
        action[3:6] = turn
        env.step(action)
        achieved = Rotation.from_euler("xyz", env.arm.state()[3:6]) * before.inv()
        assert np.allclose(achieved.as_euler("xyz"), turn, atol=0.02)


@pytest.mark.parametrize("env_id", IDS)
@pytest.mark.parametrize("obj", OBJECTS)
def test_expert_succeeds(make, env_id, obj):
    env = make(env_id, obj=obj, obs_mode="state")
    wins = 0
    for seed in range(20):
        env.reset(seed=seed)
        truncated = False
        while not truncated:
            *_, truncated, info = env.step(env.unwrapped.expert_action())
        wins += info["is_success"]
    assert wins >= 19


def test_success_needs_the_object_held_and_lifted(make):
    env = make("FrankaGrasp-v0", obs_mode="state").unwrapped
    env.reset(seed=0)
    assert not env.task_info()["is_success"]
    env.place_object(np.array([0.5, 0.0, 0.2]), 0.0)
    info = env.task_info()
    assert info["clearance_m"] > 0.04 and not info["is_success"]


def test_reward_is_vectorised_and_pure(make):
    env = make("FrankaReach-v0", obs_mode="state")
    observation, *_ = env.reset(seed=0)[0], None
    achieved = np.stack([observation["achieved_goal"], observation["desired_goal"]])
    desired = np.stack([observation["desired_goal"]] * 2)
    rewards = env.unwrapped.compute_reward(achieved, desired, {})
    assert rewards.tolist() == [-1.0, 0.0]
    assert env.unwrapped.compute_reward(achieved[0], desired[0], {}) == rewards[0]


def test_opening_shows_and_the_hand_stays_in_view(make):
    """Open to closed changes at least 1 % of one view, at every corner of the workspace."""
    env = make("FrankaReach-v0", camera="left+wrist").unwrapped
    env.reset(seed=0)
    corners = np.stack(np.meshgrid(*zip(WORKSPACE_LOW_M, WORKSPACE_HIGH_M, strict=True)), -1)
    camera = env.data.camera("left")
    for corner in corners.reshape(-1, 3):
        pictures = []
        for closedness in (0.0, 1.0):
            env.place_arm(corner, closedness)
            pictures.append(env.frame().astype(int))
        changed = np.abs(pictures[0] - pictures[1]).max(-1) > 8
        assert max(changed[:, :128].mean(), changed[:, 128:].mean()) >= 0.01
        seen = camera.xmat.reshape(3, 3).T @ (env.data.site("grip").xpos - camera.xpos)
        half = np.tan(np.deg2rad(env.model.camera("left").fovy[0] / 2))
        assert np.abs(seen[:2] / -seen[2]).max() < 0.95 * half


def test_frame_is_upright_rgb(make):
    env = make("FrankaReach-v0", obj="box", camera="left").unwrapped
    env.reset(seed=0)
    frame = env.frame().astype(int)
    red = (frame[..., 0] > 130) & (frame[..., 1] < 90) & (frame[..., 2] < 90)
    assert red.sum() > 20, "the red box must show in the red channel"
    rows = np.nonzero(red)[0]
    assert rows.mean() > 64, "the table, and the box on it, are in the lower half"


def test_frames_survive_garbage_collection_and_other_environments(make):
    """Stock robosuite hands out stale or random frames here; see `robosuite_assets`."""
    env = make("FrankaGrasp-v0")
    env.reset(seed=0)
    for _ in range(3):
        other = gym.make("FrankaReach-v0", obj="cup")
        other.reset(seed=1)
        other.close()
        del other
        gc.collect()
        poison = [np.full((128, 256, 3), 7, np.uint8) for _ in range(50)]
        del poison
        observation, *_ = env.step(np.array([0.03, 0, 0.02, 0, 0, 0, 0], np.float32))
        fresh = env.unwrapped.frame()
        assert np.array_equal(observation["pixels"], fresh)
        assert fresh.std() > 20


def test_goal_image_shows_the_goal_state(make):
    env = make("FrankaReach-v0").unwrapped
    observation, _ = env.reset(seed=5)
    env.place_arm(observation["goal_state"][:3].astype(float))
    difference = np.abs(env.frame().astype(int) - observation["goal_pixels"])
    assert (difference.max(-1) > 8).mean() < 0.01


def test_subgoals_switch_by_time(make):
    env = make("FrankaGrasp-v0")
    observation, info = env.reset(seed=0)
    active = [info["subgoal"]]
    for _ in range(9):
        observation, *_, info = env.step(np.zeros(7, np.float32))
        active.append(info["subgoal"])
    assert active == [0] * 4 + [1] * 2 + [2] * 2 + [3] * 2
    assert observation["goal_state"][6] > 0.1


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


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (np.zeros(6), r"shape \(7,\)"),
        (np.full(7, np.nan), "finite"),
        (np.full(7, 0.5), "outside the bounds"),
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
        ({"obj": "boxx"}, "Did you mean 'box'"),
        ({"camera": "lef"}, "camera"),
        ({"image_size": 4}, "image_size"),
        ({"obs_mode": "rgb"}, "obs_mode"),
        ({"step_s": 0.0}, "step_s"),
        ({"max_move_m": 3.0}, "max_move_m"),
    ],
)
def test_bad_arguments_name_what_is_allowed(kwargs, message):
    with pytest.raises(ValueError, match=message):
        gym.make("FrankaReach-v0", **kwargs)


def test_unknown_options_and_missing_reset_raise(make):
    env = make("FrankaReach-v0", obs_mode="state").unwrapped
    with pytest.raises(gym.error.ResetNeeded):
        env.step(np.zeros(7))
    with pytest.raises(ValueError, match="options"):
        env.reset(options={"colour": "red"})


def test_missing_gl_names_the_packages():
    """Without a GL library the message says what to install."""
    import subprocess
    import sys

    code = "import gymnasium as gym, jepa_gym; gym.make('FrankaReach-v0')"
    result = subprocess.run(
        [sys.executable, "-c", code],
        env={"PATH": "", "MUJOCO_GL": "disabled", "HOME": "/nonexistent"},
        capture_output=True,
        text=True,
    )
    assert result.returncode != 0
    assert "libegl1" in result.stderr
