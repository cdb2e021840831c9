from __future__ import annotations

import subprocess
import sys

import gymnasium as gym
import numpy as np
import pytest
import stable_baselines3.common.env_checker as sb3_checker
from gymnasium.utils.env_checker import check_env, data_equivalence

import jepa_gym  # noqa: F401
from jepa_gym.world_model import WorldModel

pytestmark = pytest.mark.filterwarnings("ignore:this rollout is longer")

@pytest.fixture
def env(checkpoint):
    with gym.make("JEPALatent-v0", checkpoint=str(checkpoint), render_mode="rgb_array") as made:
        yield made


def episode(env, seed, steps=10):
    env.action_space.seed(seed)
    out = [env.reset(seed=seed)]
    return out + [env.step(env.action_space.sample()) for _ in range(steps)]


def test_import_is_light():
    code = (
        "import sys, jepa_gym; "
        "assert not {'torch', 'robosuite', 'mujoco'} & set(sys.modules); jepa_gym.__version__"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.filterwarnings("ignore:Your observation .* has an unconventional shape")
@pytest.mark.filterwarnings("ignore:We recommend you to use a symmetric")
def test_check_env(env):
    check_env(env.unwrapped)
    sb3_checker.check_env(env.unwrapped)


def test_spaces_and_truncation(env):
    steps = episode(env, seed=1)
    observation, reward, terminated, truncated, info = steps[-1]
    assert observation["achieved_goal"].shape == (8, 16)
    assert truncated and not terminated
    assert reward == pytest.approx(-info["energy"], abs=1e-6)
    assert info["success"] is info["is_success"] is False
    assert np.isfinite(reward)


def test_same_seed_same_bytes(env):
    assert data_equivalence(episode(env, 3), episode(env, 3), exact=True)
    assert not data_equivalence(episode(env, 3), episode(env, 4), exact=True)


def test_index_and_unknown_options(env):
    first, _ = env.reset(options={"index": 1})
    again, _ = env.reset(seed=5, options={"index": 1})
    assert data_equivalence(first, again, exact=True)
    with pytest.raises(ValueError, match="index"):
        env.reset(options={"index": 3})
    with pytest.raises(ValueError, match="only"):
        env.reset(options={"start": 1})


def test_state_branches(env):
    env.reset(seed=0)
    env.step(env.action_space.sample())
    state, action = env.unwrapped.get_state(), env.action_space.sample()
    first = env.unwrapped.step(action)
    env.unwrapped.step(env.action_space.sample())
    env.unwrapped.set_state(state)
    assert data_equivalence(first, env.unwrapped.step(action), exact=True)


def test_compute_reward_is_vectorised(env):
    observation, _ = env.reset(seed=0)
    achieved, desired = observation["achieved_goal"], observation["desired_goal"]
    single = env.unwrapped.compute_reward(achieved, desired, {})
    assert isinstance(single, float) and single < 0
    many = env.unwrapped.compute_reward(np.stack([achieved, desired]), desired[None], [{}, {}])
    np.testing.assert_allclose(many, [single, 0.0], rtol=1e-6)


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (np.zeros(6), "shape"),
        (np.full(7, np.nan), "finite"),
        (np.array([0.1, 0, 0, 0, 0, 0, 0]), "clip_actions=True"),
    ],
)
def test_bad_actions(env, action, message):
    env.reset(seed=0)
    with pytest.raises(ValueError, match=message):
        env.unwrapped.step(action)


def test_clipping_on_request(checkpoint):
    env = gym.make("JEPALatent-v0", checkpoint=str(checkpoint), clip_actions=True).unwrapped
    before = env.reset(seed=0)[0]["observation"]
    after = env.step(np.array([1.0, 0, 0, 0, 0, 0, 0]))[0]["observation"]
    assert after[0] - before[0] == pytest.approx(0.075, abs=1e-6)


def test_order_is_enforced(checkpoint):
    env = gym.make("JEPALatent-v0", checkpoint=str(checkpoint)).unwrapped
    with pytest.raises(RuntimeError, match="reset"):
        env.step(np.zeros(7))


def test_render(env):
    env.reset(seed=0)
    env.step(env.action_space.sample())
    picture = env.render()
    assert picture.shape == (32 + 32, 128, 3) and picture.dtype == np.uint8
    assert picture[32:].any()


def test_model_object(checkpoint, model):
    loaded = WorldModel.from_pretrained(checkpoint)
    made = gym.make("JEPALatent-v0", model=loaded).unwrapped
    assert made.model is loaded
    with pytest.raises(ValueError, match="start frames"):
        gym.make("JEPALatent-v0", model=model)
