"""robosuite's tasks: our states, actions, time and pictures; its objects and its success."""

from __future__ import annotations

import gc
import subprocess
import sys

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env, data_equivalence

import jepa_gym


@pytest.fixture(scope="module")
def lift():
    env = gym.make("robosuite/Lift", camera="left+wrist", image_size=64)
    yield env.unwrapped
    env.close()


def moved(env, offset, closing=0.0):
    """Step with a move that is clipped to the bounds and return what it gives."""
    bound = env.max_move_m
    action = np.array([*np.clip(offset, -bound, bound), 0, 0, 0, closing], np.float32)
    return env.step(action)


def test_nothing_is_imported_before_an_environment_is_made():
    code = (
        "import sys, gymnasium, jepa_gym; gymnasium.spec('robosuite/Lift'); "
        "assert 'robosuite' not in sys.modules and 'mujoco' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_gymnasium_checks_pass(lift):
    check_env(lift, skip_render_check=True)


def test_every_task_starts_moves_and_follows_its_seed():
    for task in jepa_gym.ROBOSUITE_TASKS:
        env = gym.make(f"robosuite/{task}", obs_mode="state").unwrapped

        def play(seed, env=env):
            first = env.reset(seed=seed)
            physics = env.get_state()["physics"]
            return [first, physics, *(moved(env, [0.05, 0, 0.02])[:2] for _ in range(2))]

        first, other, again = play(1), play(2), play(1)
        assert data_equivalence(first, again), task
        assert not np.array_equal(first[1], other[1]), task
        before, after = (first[i][0]["observation"] for i in (0, 2))
        np.testing.assert_allclose(after[:3] - before[:3], [0.05, 0, 0.02], atol=1e-3)
        np.testing.assert_allclose(after[3:6], before[3:6], atol=5e-3)


def test_a_move_is_blocking_in_metres_radians_and_closedness(lift):
    before = lift.reset(seed=0)[0]["observation"]
    after, *_, info = lift.step(np.array([0.05, -0.03, 0.04, 0, 0, 0.2, 1.0], np.float32))
    moved_by = after["observation"] - before
    np.testing.assert_allclose(moved_by[:3], [0.05, -0.03, 0.04], atol=1e-3)
    assert moved_by[5] == pytest.approx(0.2, abs=5e-3)
    assert after["observation"][6] > 0.95
    assert info["elapsed_s"] == 0.25
    still, *_ = lift.step(np.zeros(7, np.float32))
    np.testing.assert_allclose(still["observation"][:6], after["observation"][:6], atol=1e-3)


def test_a_lifted_cube_is_a_success(lift):
    lift.reset(seed=3)
    for _ in range(8):
        hand = lift.scene.arm.state()
        offset = lift.scene.objects()["cube"] - hand[:3]
        high = np.linalg.norm(offset[:2]) > 0.01
        moved(lift, offset + [0, 0, 0.06 if high else 0.0], closing=-hand[6])
    info = moved(lift, np.zeros(3), closing=1.0)[-1]
    assert not info["is_success"]
    moved(lift, [0, 0, 0.07])
    _, reward, terminated, _, info = moved(lift, [0, 0, 0.05])
    assert info["is_success"] and info["success"] and reward == 1.0 and not terminated


def test_pictures_survive_the_garbage_collector_and_other_environments(lift):
    """What robosuite's own pictures do not, see `jepa_gym.envs.physics.robosuite_assets`."""
    first = lift.reset(seed=5)[0]["pixels"]
    other = gym.make("robosuite/Lift", camera="agentview", image_size=64)
    seen = other.reset(seed=5)[0]["pixels"]
    other.close()
    del other
    gc.collect()
    again = lift._observation()["pixels"]
    np.testing.assert_array_equal(first, again)
    assert first.shape == (64, 128, 3) and first.std() > 20 and seen.std() > 20


def test_pictures_are_upright(lift):
    """The red cube on the table is below the middle of the picture, the robot above it."""
    frame = lift.reset(seed=5)[0]["pixels"][:, :64].astype(int)
    red = (frame[..., 0] > 60) & (frame[..., 0] > 2 * frame[..., 1])
    rows = np.flatnonzero(red.any(1))
    assert len(rows) and rows.mean() > 32


def test_states_branch(lift):
    lift.reset(seed=7)
    state = lift.get_state()
    first = moved(lift, [0.03, 0, -0.05], 1.0)[0]
    lift.set_state(state)
    again = moved(lift, [0.03, 0, -0.05], 1.0)[0]
    assert data_equivalence(first, again)


def test_states_of_the_flange(lift):
    hand = lift.reset(seed=1)[0]["observation"]
    env = gym.make("robosuite/Lift", obs_mode="state", state_convention="droid").unwrapped
    flange = env.reset(seed=1)[0]["observation"]
    assert 0.1 < flange[2] - hand[2] < 0.3
    after = moved(env, [0.05, 0, 0])[0]["observation"]
    np.testing.assert_allclose(after[:3] - flange[:3], [0.05, 0, 0], atol=1e-3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"camera": "agentveiw"}, "Did you mean `agentview`"),
        ({"camera": "left+left"}, "camera"),
        ({"obs_mode": "picture"}, "obs_mode"),
        ({"step_s": 9.0}, "step_s"),
        ({"task": "Lfit"}, "Did you mean `Lift`"),
    ],
)
def test_bad_arguments_name_the_allowed_ones(change, message):
    with pytest.raises(ValueError, match=message):
        gym.make("robosuite/Lift", **change)


def test_it_must_be_reset_and_knows_no_options(lift):
    env = gym.make("robosuite/Lift", obs_mode="state").unwrapped
    with pytest.raises(gym.error.ResetNeeded):
        env.step(np.zeros(7, np.float32))
    with pytest.raises(ValueError, match="no reset options, got"):
        env.reset(options={"variation": {}})
