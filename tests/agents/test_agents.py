"""The registry, the random and the scripted agent, and the checks of `predict`."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.utils.seeding import np_random

import jepa_gym  # noqa: F401  (registers the environments)
from jepa_gym.agents import AGENTS, PLANNERS, make_agent
from jepa_gym.agents.base import Agent
from jepa_gym.names import resolve

SPACE = spaces.Box(
    np.float32([-0.075] * 3 + [-0.3] * 3 + [-1]), np.float32([0.075] * 3 + [0.3] * 3 + [1])
)
OBSERVATION = {"observation": np.zeros(7, np.float32)}
BATCH = {"observation": np.zeros((4, 7), np.float32)}


class ExpertEnv(gym.Env):
    action_space = SPACE

    def expert_action(self) -> np.ndarray:
        return np.full(7, 0.05)


@pytest.mark.parametrize("name", AGENTS)
def test_every_registered_agent_is_an_agent(name):
    assert issubclass(resolve(AGENTS, "agent", name), Agent)


def test_every_planner_is_an_agent_too():
    assert {f"mpc-{name}" for name in PLANNERS} <= set(AGENTS)


def test_unknown_name_suggests_the_nearest():
    with pytest.raises(ValueError, match=r"Unknown agent `mpc-cme`\. Did you mean `mpc-cem`"):
        make_agent("mpc-cme")


def test_import_is_light():
    code = "import sys, jepa_gym.agents; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


def test_import_under_the_folder_name_is_refused():
    run = subprocess.run(
        [sys.executable, "-c", "import agents"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode != 0
    assert "jepa_gym.agents" in run.stderr


def test_random_is_uniform_in_bounds_and_repeats():
    first, second = (make_agent("random", action_space=SPACE, seed=3) for _ in range(2))
    actions = np.concatenate([first.predict(BATCH)[0] for _ in range(250)])
    np.testing.assert_array_equal(actions[:4], second.predict(BATCH)[0])
    assert actions.dtype == np.float32
    assert all(SPACE.contains(action) for action in actions)
    np.testing.assert_allclose(actions.std(axis=0), SPACE.high / np.sqrt(3), rtol=0.1)
    assert first.predict(OBSERVATION)[0].shape == (7,)


def test_random_refuses_other_spaces():
    with pytest.raises(ValueError, match=r"shape \(7,\)"):
        make_agent("random", action_space=spaces.Box(-1, 1, (3,)))
    with pytest.raises(ValueError, match="bounded"):
        make_agent("random", action_space=spaces.Box(-np.inf, np.inf, (7,)))


def test_scripted_asks_the_environment():
    agent = make_agent("scripted", env=ExpertEnv())
    action, _ = agent.predict(OBSERVATION)
    np.testing.assert_array_equal(action, np.full(7, 0.05, np.float32))
    with pytest.raises(ValueError, match="batch of 4"):
        agent.predict(BATCH)
    with pytest.raises(TypeError, match="has no `expert_action"):
        make_agent("scripted", env=gym.make("CartPole-v1"))


def test_a_copied_expert_acts_in_the_same_environment():
    with gym.make("FrankaReach-v0", obs_mode="state") as env:
        agent = make_agent("scripted", env=env)
        observation, _ = env.reset(seed=1)
        for _ in range(2):
            copied, _ = copy.deepcopy(agent).predict(observation)
            action, _ = agent.predict(observation)
            np.testing.assert_array_equal(action, copied)
            observation = env.step(action)[0]


def test_a_copied_noisy_expert_goes_on_with_the_same_noise():
    agent = make_agent("scripted-noisy", env=ExpertEnv())
    copied = copy.deepcopy(agent)
    first, second = (one.predict(OBSERVATION)[0] for one in (agent, copied))
    np.testing.assert_array_equal(first, second)
    assert (agent.predict(OBSERVATION)[0] != first).any()


@pytest.mark.parametrize("name", ["random", "smooth-noise"])
def test_agents_do_not_share_the_draws_of_an_environment_of_their_seed(name):
    agent, (generator, _) = make_agent(name, action_space=SPACE, seed=7), np_random(7)
    kind = "uniform" if name == "random" else "standard_normal"
    theirs = getattr(np.random.default_rng(7), kind)(size=28)
    assert getattr(generator, kind)(size=28) == pytest.approx(theirs)  # what an environment draws
    if name == "random":
        drawn = ((agent.predict(BATCH)[0] - SPACE.low) / (SPACE.high - SPACE.low)).ravel()
    else:
        drawn = agent.predict(BATCH)[1].ravel()
    assert np.abs(drawn - theirs).max() > 0.1


def test_smooth_noise_remembers_stays_in_bounds_and_starts_afresh():
    agent = make_agent("smooth-noise", action_space=SPACE, memory=0.9, spread=0.3, seed=1)
    many = {"observation": np.zeros((2000, 7), np.float32)}
    first, memory = agent.predict(many)
    second, memory = agent.predict(many, memory)
    third, _ = agent.predict(many, memory, episode_start=np.arange(2000) < 1000)
    assert all(SPACE.contains(action) for action in third)
    for actions in (first, second, third):
        np.testing.assert_allclose(actions.std(axis=0), 0.3 * SPACE.high, rtol=0.1)
    correlation = [np.corrcoef(first[:, i], second[:, i])[0, 1] for i in range(7)]
    np.testing.assert_allclose(correlation, 0.9, atol=0.03)
    restarted = [np.corrcoef(second[:1000, i], third[:1000, i])[0, 1] for i in range(7)]
    np.testing.assert_allclose(restarted, 0, atol=0.12)
    again = make_agent("smooth-noise", action_space=SPACE, memory=0.9, spread=0.3, seed=1)
    np.testing.assert_array_equal(first, again.predict(many)[0])
    with pytest.raises(ValueError, match="memory"):
        make_agent("smooth-noise", action_space=SPACE, memory=1.0)
    with pytest.raises(ValueError, match="spread"):
        make_agent("smooth-noise", action_space=SPACE, spread=0.0)


def test_noisy_expert_disturbs_the_expert_within_bounds():
    agent = make_agent("scripted-noisy", env=ExpertEnv(), noise=0.1, mistake_rate=0.25, seed=2)
    actions = np.stack([agent.predict(OBSERVATION)[0] for _ in range(800)])
    assert all(SPACE.contains(action) for action in actions)
    kept = np.isclose(actions[:, 6], 0.05)
    assert 0.7 < kept.mean() < 0.8
    expected = 0.1 * 0.05 * np.sqrt(3)
    assert 0.8 * expected < (actions[kept, :3] - 0.05).std() < 1.1 * expected
    assert np.abs(actions[~kept][:, 3:6]).max() == 0
    exact = make_agent("scripted-noisy", env=ExpertEnv(), noise=0.0, mistake_rate=0.0)
    np.testing.assert_array_equal(exact.predict(OBSERVATION)[0], np.full(7, 0.05, np.float32))
    for wrong in ({"noise": 2.0}, {"mistake_rate": 2.0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            make_agent("scripted-noisy", env=ExpertEnv(), **wrong)


@pytest.mark.parametrize(
    ("observation", "start", "error", "message"),
    [
        (np.zeros(7), None, TypeError, "dict observation"),
        ({"pixels": np.zeros(7)}, None, TypeError, "entry `observation`"),
        ({"observation": np.zeros(6)}, None, ValueError, r"\(7,\) or \(B, 7\), got \(6,\)"),
        (BATCH, np.zeros(3), ValueError, r"`episode_start` must .*\(4,\), got \(3,\)"),
    ],
)
def test_predict_checks_what_it_gets(observation, start, error, message):
    agent = make_agent("random", action_space=SPACE)
    with pytest.raises(error, match=message):
        agent.predict(observation, episode_start=start)
