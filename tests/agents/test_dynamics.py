"""Models beside the world model: the simulator, which knows the answer, and ensembles."""

from __future__ import annotations

import copy
import inspect
from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest
import torch

import jepa_gym  # noqa: F401  (registers the environments)
from jepa_gym.agents import PLANNERS, make_agent
from jepa_gym.agents.dynamics import Dynamics, Ensemble, SimulatorModel
from jepa_gym.agents.planners import make_planner
from jepa_gym.world_model import WorldModel

TINY = {
    "cem": {"samples": 10, "iterations": 3, "top_k": 3},
    "icem": {"samples": 12, "iterations": 3, "top_k": 3},
    "mppi": {"samples": 10, "iterations": 3},
    "random": {"samples": 32, "iterations": 1},
}
"""Budgets of about 32 simulated moves for a step; a planner without one needs a gradient."""
STEPS = 5


@pytest.fixture(scope="module")
def env():
    env = gym.make("FrankaReach-v0", obs_mode="state")
    yield env
    env.close()


def simulator_agent(name: str, env: gym.Env):
    config = type(make_planner(name).config)(**TINY.get(name, {}))
    return make_agent(f"mpc-{name}", model=SimulatorModel(env), config=config, min_improvement=0.0)


@pytest.mark.parametrize("name", PLANNERS)
def test_reaches_in_the_simulator(env, name):
    agent = simulator_agent(name, env)
    observation, info = env.reset(seed=3)
    if name not in TINY:
        with pytest.raises(ValueError, match="the cost has none"):
            agent.predict(observation)
        return
    assert info["distance_m"] > 0.1
    memory = None
    for _ in range(STEPS):
        action, memory = agent.predict(observation, memory)
        imagined = agent.last_plan.energy[0]
        observation, _, _, _, info = env.step(action)
        if action[6] == 0:  # a change of the gripper is carried out to the stop
            # less the 1 mm or so that the arm moves when it holds still
            assert imagined == pytest.approx(info["distance_m"], abs=0.01)
    assert info["distance_m"] < (0.06 if name == "random" else 0.04)


def test_imagining_leaves_the_simulator_as_it_was(env):
    agent = simulator_agent("cem", env)
    observation, _ = env.reset(seed=1)
    before = env.unwrapped.get_state()
    first, _ = agent.predict(observation)
    after = env.unwrapped.get_state()
    np.testing.assert_array_equal(before["physics"], after["physics"])
    assert before["rng"] == after["rng"]
    np.testing.assert_array_equal(first, agent.predict(observation)[0])


def test_the_simulator_imagines_what_it_does(env):
    env.reset(seed=2)
    model = SimulatorModel(env)
    actions = torch.zeros(1, 2, 2, 7)
    actions[0, 0, :, 0], actions[0, 1, 0, 2] = 0.03, -0.05
    future = model.prepare(torch.zeros(1, 1, 1, 3), torch.zeros(1, 1, 7)).latents(actions)
    assert future.shape == (1, 2, 2, 1, 3)
    for action, imagined in zip(actions[0, 0], future[0, 0, :, 0], strict=True):
        place = env.step(action.numpy())[0]["achieved_goal"]
        np.testing.assert_array_equal(place, imagined)
    goal = future[:, 0, -1]
    energy = model.energy(future[:, :, -1], goal)
    assert energy[0, 0] == 0
    assert energy[0, 1] == pytest.approx(np.linalg.norm(future[0, 1, -1, 0] - goal[0, 0]))


def test_the_simulator_refuses_what_it_cannot_do(env):
    with pytest.raises(TypeError, match="has no `get_state"):
        SimulatorModel(gym.make("CartPole-v1"))
    observation, _ = env.reset(seed=1)
    batch = {key: np.stack([value] * 2) for key, value in observation.items()}
    with pytest.raises(ValueError, match="the one environment it was made with, got a batch of 2"):
        simulator_agent("cem", env).predict(batch)


@pytest.mark.parametrize("cost", ["last", "path"])
@pytest.mark.parametrize(("name", "times"), [("cem", 1), ("gradient", 2), ("hybrid", 2)])
def test_a_context_is_prepared_once(model, observe, name, times, cost):
    observation = observe([0.4, 0.5, 0.3, 0, 0, 0, 0.2], [0.44, 0.45, 0.36, 0, 0, 0, 0.6])
    make_agent(f"mpc-{name}", model=model, cost=cost).predict(observation)
    assert len(model.context_lengths) == times  # once more for gradients


def test_a_copy_imagines_with_the_same_simulator(env):
    agent = simulator_agent("cem", env)
    copied = copy.deepcopy(agent)
    assert copied.model.env is agent.model.env
    observation, _ = env.reset(seed=4)
    np.testing.assert_array_equal(agent.predict(observation)[0], copied.predict(observation)[0])


def test_world_models_and_others_are_dynamics(env):
    world_model = WorldModel.from_pretrained("default")
    for dynamics in (world_model, Ensemble([world_model]), SimulatorModel(env)):
        for name, member in vars(Dynamics).items():
            if not name.startswith("_"):
                assert hasattr(dynamics, name), f"{type(dynamics).__name__} has no {name}"
                if callable(member):
                    theirs = inspect.signature(getattr(dynamics, name)).parameters
                    assert set(inspect.signature(member).parameters) - {"self"} <= set(theirs)


@pytest.mark.parametrize("name", PLANNERS)
def test_an_ensemble_of_equals_acts_as_one(model, observe, name):
    observation = observe([0.4, 0.5, 0.3, 0, 0, 0, 0.2], [0.44, 0.45, 0.36, 0, 0, 0, 0.6])
    alone, _ = make_agent(f"mpc-{name}", model=model).predict(observation)
    together, _ = make_agent(f"mpc-{name}", model=Ensemble([model, model])).predict(observation)
    np.testing.assert_allclose(together, alone, atol=1e-4)


def test_the_energy_of_an_ensemble_is_the_mean(model, observe):
    class Wide:
        """Another latent: six tokens of two numbers."""

        context_frames = 1
        readout_weight = 0.0
        config = SimpleNamespace(num_tokens=6, encoder=SimpleNamespace(latent_dim=2))

        def observe(self, observation):
            frames = (observation[f"{which}pixels"] for which in ("", "goal_"))
            current, goal = (torch.from_numpy(x)[:, 0, :6, :2].float() for x in frames)
            return current, goal

        def prepare(self, latents, states, *, grad=False):
            def imagined(actions, chunk=None):
                return latents[:, -1, None, None] + actions.cumsum(dim=2)[..., None, :1]

            def energy(actions, goal, chunk=None):
                return self.energy(imagined(actions)[:, :, -1], goal)

            return SimpleNamespace(latents=imagined, energy=energy)

        def energy(self, latents, goal):
            return (latents - goal[:, None]).square().mean(dim=(-2, -1))

    wide = Wide()
    ensemble = Ensemble([model, wide])
    assert ensemble.context_frames == 1
    observation = observe(np.full((2, 7), 0.3), np.linspace(0, 1, 14).reshape(2, 7))
    current, goal = ensemble.observe(observation)
    assert current.shape == (2, 1, 7 + 12)
    states, actions = torch.zeros(2, 1, 7), torch.randn(2, 4, 3, 7)
    rollout = ensemble.prepare(current[:, None], states)
    expected = 0
    for one in (model, wide):
        own, aim = one.observe(observation)
        expected = expected + one.prepare(own[:, None], states).energy(actions, aim) / 2
    assert rollout.latents(actions).shape == (2, 4, 3, 1, 7 + 12)
    torch.testing.assert_close(rollout.energy(actions, goal), expected)
    torch.testing.assert_close(ensemble.energy(rollout.latents(actions)[:, :, -1], goal), expected)


def test_an_ensemble_refuses_other_latents(model):
    with pytest.raises(ValueError, match="at least one world model"):
        Ensemble([])
    with pytest.raises(ValueError, match=r"latents are \(\.\.\., 1, 14\), got \(1, 1, 7, 1\)"):
        Ensemble([model, model]).energy(torch.zeros(1, 1, 7, 1), torch.zeros(1, 7, 1))
    latents = dict.fromkeys(("achieved_goal", "desired_goal"), np.zeros((1, 7, 1), np.float32))
    with pytest.raises(ValueError, match="the latents of one model alone"):
        Ensemble([model, model]).observe({"observation": np.zeros((1, 7)), **latents})
