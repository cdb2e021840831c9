"""Vector environments: the same bits as single ones, autoreset, errors, and no process left."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

import jepa_gym  # noqa: F401
from jepa_gym.envs.vector import LIBRARY_THREADS

ENV_ID = "FrankaReach-v0"
SMALL = {"image_size": 16, "camera": "left", "max_episode_steps": 2}


@pytest.fixture
def make_vec():
    """Make vector environments of two processes that are closed at the end of the test."""
    made = []

    def build(**kwargs):
        env = gym.make_vec(ENV_ID, num_envs=2, **(SMALL | kwargs))
        made.append(env)
        return env

    yield build
    for env in made:
        env.close()
    assert not multiprocessing.active_children()


def moves(count: int) -> np.ndarray:
    """Return actions (count, 2, 7), half of the largest."""
    space = gym.spaces.Box(-1, 1, (count, 2, 7), np.float32, seed=0)
    return space.sample() * np.array([0.03] * 3 + [0.1] * 3 + [0.5], np.float32)


def same(one, two) -> bool:
    """Return whether observations, infos or other nests are equal to the bit."""
    if isinstance(one, dict):
        return set(one) == set(two) and all(same(one[key], two[key]) for key in one)
    return np.asarray(one).dtype == np.asarray(two).dtype and np.array_equal(one, two)


def of_env(batch: dict, index: int) -> dict:
    """Return one environment's part of batched observations, or of infos without their masks."""
    return {
        key: of_env(value, index) if isinstance(value, dict) else value[index]
        for key, value in batch.items()
        if not key.startswith("_")
    }


@pytest.mark.parametrize("mode", ["next_step", "same_step"])
def test_equal_to_single_environments(make_vec, mode):
    """Observations, rewards, ends and infos over two episode ends, one seed per environment."""
    vector = make_vec(autoreset_mode=mode)
    assert vector.metadata["autoreset_mode"] is AutoresetMode[mode.upper()]
    singles = [gym.make(ENV_ID, **SMALL) for _ in range(2)]
    seen, infos = vector.reset(seed=7)
    over = False
    for index, env in enumerate(singles):
        alone, info = env.reset(seed=7 + index)
        assert same(of_env(seen, index), alone) and same(of_env(infos, index), info)
    for action in moves(6):
        seen, rewards, terminated, truncated, infos = vector.step(action)
        assert not terminated.any()
        for index, env in enumerate(singles):
            if over and mode == "next_step":
                alone, info = env.reset()
                expected = (0.0, False)
            else:
                alone, reward, _, ends, info = env.step(action[index])
                expected = (reward, ends)
            if expected[1] and mode == "same_step":
                assert same(infos["final_obs"][index], alone)
                assert same(of_env(infos["final_info"], index), info)
                alone, info = env.reset()
            assert same(of_env(seen, index), alone)
            own = {key: value for key, value in infos.items() if "final" not in key}
            assert same(of_env(own, index), info)
            assert (rewards[index], truncated[index]) == expected
        over = truncated.all()
    for env in singles:
        env.close()


def test_equal_seeds_are_bit_equal_across_processes(make_vec):
    """Two vector environments, with the seeds given as a list and in the other order."""
    first, second = make_vec(), make_vec()
    one, two = first.reset(seed=[3, 4])[0], second.reset(seed=[4, 3])[0]
    for action in moves(5):
        assert all(np.array_equal(one[key], two[key][::-1]) for key in one)
        assert not np.array_equal(one["pixels"], two["pixels"])
        one, two = first.step(action)[0], second.step(action[::-1])[0]


def test_states_can_be_fetched_and_restored(make_vec):
    env = make_vec(max_episode_steps=100)
    env.reset(seed=[5, 5])
    state = env.call("get_state")[0]
    action = np.repeat(moves(1)[:, :1], 2, axis=1)[0]
    before = env.step(action)[0]
    env.call("set_state", state)
    assert same(before, env.step(action)[0])


def test_observations_are_copies(make_vec):
    env = make_vec(obs_mode="state")
    seen, _ = env.reset(seed=0)
    kept = seen["observation"].copy()
    later = env.step(moves(1)[0])[0]["observation"]
    assert np.array_equal(seen["observation"], kept) and not np.array_equal(later, kept)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_one_thread_each_and_the_parent_as_before(make_vec, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    before, main = dict(os.environ), sys.modules["__main__"]
    env = make_vec(obs_mode="state")
    assert dict(os.environ) == before and sys.modules["__main__"] is main
    for process in env.unwrapped.processes:
        with open(f"/proc/{process.pid}/environ") as file:
            started = dict(entry.split("=", 1) for entry in file.read().split("\0") if entry)
        assert LIBRARY_THREADS.items() <= started.items()


@pytest.mark.skipif(sys.platform != "linux", reason="cores can be chosen on Linux only")
def test_processes_can_be_pinned_to_cores(make_vec):
    env, cores = make_vec(obs_mode="state", pin_cores=True), sorted(os.sched_getaffinity(0))
    for index, process in enumerate(env.unwrapped.processes):
        assert os.sched_getaffinity(process.pid) == {cores[index % len(cores)]}


def test_actions_of_a_wrong_shape_change_nothing(make_vec):
    env = make_vec(obs_mode="state")
    env.reset(seed=0)
    before = env.call("get_state")
    one_bad = np.zeros((2, 7))
    for actions, message in (
        (np.zeros((3, 7), np.float32), r"shape \(2, 7\).*got shape \(3, 7\)"),
        (one_bad + [[0] * 7, [np.nan] * 7], "finite.* in environment 1"),
        (one_bad + [[0] * 7, [0.5] * 7], "outside the bounds.* in environment 1"),
        ([["0"] * 7] * 2, "real numbers"),
    ):
        with pytest.raises(ValueError, match=message):
            env.step(actions)
    for old, new in zip(before, env.call("get_state"), strict=True):
        assert np.array_equal(old["physics"], new["physics"])
    env.step(one_bad)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"options": {"colour": "red"}}, "colour"),
        ({"options": {"start_position": [9, 9, 9]}}, "start_position"),
        ({"options": {"variation": {"light": 99}}}, "light"),
        ({"seed": -1}, "int of 0 or more"),
        ({"seed": [0, "one"]}, "list of 2"),
        ({"seed": [0, 1, 2]}, "list of 2"),
        ({"seed": 0.5}, "int of 0 or more"),
    ],
)
def test_bad_resets_change_nothing(make_vec, arguments, message):
    env = make_vec(obs_mode="state")
    env.reset(seed=0)
    before = env.call("get_state")
    with pytest.raises(ValueError, match=message):
        env.reset(**arguments)
    for old, new in zip(before, env.call("get_state"), strict=True):
        assert np.array_equal(old["physics"], new["physics"]) and old["rng"] == new["rng"]
    env.step(np.zeros((2, 7)))


def test_an_impossible_reset_leaves_the_processes_alive(make_vec):
    env = make_vec(obs_mode="state")
    with pytest.raises(gym.error.ResetNeeded):
        env.step(np.zeros((2, 7)))
    recorded = {"start": np.zeros(3), "goal": np.zeros(3)}
    with pytest.raises(ValueError, match="simulator state") as caught:
        env.reset(options={"recorded": recorded})
    assert "environment 0" in caught.value.__notes__[0]
    with pytest.raises(gym.error.ResetNeeded):
        env.step(np.zeros((2, 7)))
    env.reset(seed=0)
    env.step(np.zeros((2, 7)))


def test_the_ignored_action_may_be_anything(make_vec):
    env = make_vec(obs_mode="state", max_episode_steps=1)
    env.reset(seed=0)
    *_, truncated, _ = env.step(np.zeros((2, 7)))
    assert truncated.all()
    env.step(np.full((2, 7), np.nan))


def test_a_worker_error_is_raised_here_and_ends_all(make_vec):
    env = make_vec(obs_mode="state")
    env.reset(seed=0)
    with pytest.raises(RuntimeError, match="no renderer") as caught:
        env.call("frame")
    assert "environment 0" in caught.value.__notes__[0]
    assert not multiprocessing.active_children()
    with pytest.raises(gym.error.ClosedEnvironmentError):
        env.step(np.zeros((2, 7), np.float32))


def test_a_killed_process_is_an_error_not_a_hang(make_vec):
    env = make_vec(obs_mode="state")
    env.reset(seed=0)
    os.kill(env.unwrapped.processes[0].pid, signal.SIGKILL)
    with pytest.raises(RuntimeError, match=r"\{0: -9\}"):
        env.step(np.zeros((2, 7), np.float32))
    assert not multiprocessing.active_children()


def test_the_spec_is_json_and_makes_the_same(make_vec):
    spec = make_vec(obs_mode="state", autoreset_mode="same_step").spec
    assert json.loads(spec.to_json())["kwargs"]["autoreset_mode"] == "same_step"
    again = gym.make_vec(spec)
    assert again.num_envs == 2
    assert again.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    again.close()


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"autoreset_mode": "later"}, "next_step"),
        ({"num_envs": 0}, "num_envs"),
        ({"obj": "boxx"}, "Did you mean `box`"),
    ],
)
def test_bad_arguments_start_no_process(kwargs, message):
    with pytest.raises(ValueError, match=message):
        gym.make_vec(ENV_ID, **({"num_envs": 2} | kwargs))
    assert not multiprocessing.active_children()


def test_a_script_needs_no_guard(tmp_path):
    """A new process would import the main module, and so make the environments once more."""
    script = tmp_path / "script.py"
    script.write_text(
        "import gymnasium as gym, jepa_gym\n"
        "print('ran')\n"
        f"env = gym.make_vec({ENV_ID!r}, num_envs=2, obs_mode='state')\n"
        "print(env.reset(seed=0)[0]['observation'].shape)\n"
    )
    result = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60)
    assert result.stdout.splitlines() == ["ran", "(2, 7)"], result.stderr
    assert result.stderr == ""
