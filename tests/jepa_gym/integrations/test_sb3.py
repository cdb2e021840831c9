"""Stable-Baselines3 on the batched latent environment and on the suite's processes."""

from __future__ import annotations

import multiprocessing
from copy import deepcopy

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3 import PPO, SAC, HerReplayBuffer
from stable_baselines3.common.callbacks import EvalCallback
from stable_baselines3.common.vec_env import VecMonitor, VecNormalize

from jepa_gym.integrations.sb3 import GymnasiumVecEnv, LatentExtractor, make_vec_env
from jepa_gym.world_model import WorldModel

COUNT = 3
SMALL = {"image_size": 16, "camera": "left", "max_episode_steps": 2, "obs_mode": "state"}


@pytest.fixture
def loaded(checkpoint):
    return WorldModel.from_pretrained(checkpoint)


@pytest.fixture
def make(loaded):
    def build(n_envs=COUNT, **kwargs):
        chosen = {"model": loaded, "max_episode_steps": 3} | kwargs
        return make_vec_env("JEPALatent-v0", n_envs, **chosen)

    return build


@pytest.fixture
def franka():
    env = make_vec_env("FrankaReach-v0", 2, seed=0, **SMALL)
    yield env
    env.close()
    assert not multiprocessing.active_children()


def moves(count, envs=COUNT):
    space = gym.spaces.Box(-0.05, 0.05, (count, envs, 7), np.float32, seed=0)
    return space.sample()


def test_steps_as_the_vector_environment_does(make, loaded):
    env = make(seed=5, monitor=False)
    plain = gym.make_vec(
        "JEPALatent-v0",
        num_envs=COUNT,
        model=loaded,
        max_episode_steps=3,
        autoreset_mode="same_step",
    )
    seen, (expected, _) = env.reset(), plain.reset(seed=5)
    assert all(np.array_equal(seen[key], expected[key]) for key in expected)
    for number, actions in enumerate(moves(7), start=1):
        seen, rewards, dones, infos = env.step(actions)
        expected, wanted, _, truncated, batched = plain.step(actions)
        assert all(np.array_equal(seen[key], expected[key]) for key in expected)
        np.testing.assert_array_equal(rewards, wanted.astype(np.float32))
        assert rewards.dtype == np.float32
        np.testing.assert_array_equal(dones, truncated)
        assert dones.all() == (number % 3 == 0)
        for index, info in enumerate(infos):
            assert info["TimeLimit.truncated"] == dones[index]
            last = batched["final_info"] if dones[index] else batched
            assert info["energy"] == last["energy"][index]
            if dones[index]:
                final = batched["final_obs"][index]
                given = info["terminal_observation"]
                assert all(np.array_equal(given[key], final[key]) for key in final)
                assert not np.array_equal(given["achieved_goal"], seen["achieved_goal"][index])
            else:
                assert "terminal_observation" not in info and "final_obs" not in info


def test_the_seed_is_used_once(make):
    env = make(seed=1)
    first, second = env.reset(), env.reset()
    assert not np.array_equal(first["observation"], second["observation"])
    env.seed(1)
    again = env.reset()
    assert all(np.array_equal(first[key], again[key]) for key in first)


def test_one_model_for_all(make, loaded):
    env = make(n_envs=16)
    assert env.get_attr("model") == [loaded] * 16
    assert env.num_envs == 16


def test_learns_with_the_usual_wrappers(make, tmp_path):
    env = VecNormalize(make(n_envs=4), norm_obs=False)
    policy = {"features_extractor_class": LatentExtractor, "net_arch": [16]}
    learner = PPO(
        *("MultiInputPolicy", env),
        n_steps=6,
        batch_size=12,
        policy_kwargs=policy,
        seed=0,
        device="cpu",
    )
    before = deepcopy(learner.policy.features_extractor.state_dict())
    judged = VecNormalize(make(n_envs=2), norm_obs=False, training=False)
    callback = EvalCallback(
        judged, n_eval_episodes=4, eval_freq=6, log_path=str(tmp_path), verbose=0
    )
    learner.learn(48, callback=callback)
    assert all(episode["l"] == 3 for episode in learner.ep_info_buffer)
    assert len(learner.ep_success_buffer) == len(learner.ep_info_buffer) > 0
    told = np.load(tmp_path / "evaluations.npz")
    assert told["results"].shape[1] == 4 and (told["ep_lengths"] == 3).all()
    after = learner.policy.features_extractor.state_dict()
    assert any(not torch.equal(before[name], after[name]) for name in before)


def test_hindsight_goals_in_imagination(make):
    env = make()
    learner = SAC(
        *("MultiInputPolicy", env),
        replay_buffer_class=HerReplayBuffer,
        learning_starts=18,
        batch_size=64,
        seed=0,
        device="cpu",
    )
    learner.learn(36)
    sample = learner.replay_buffer.sample(64, env=None)
    here, goal = (sample.next_observations[f"{which}_goal"] for which in ("achieved", "desired"))
    energies = (here - goal).abs().mean((1, 2))
    np.testing.assert_allclose(sample.rewards[:, 0].numpy(), -energies.numpy(), atol=1e-5)
    assert (energies == 0).any()  # a goal in hindsight that was reached by this very step


def test_hindsight_goals_in_the_suite_ask_one_process(franka):
    learner = SAC(
        *("MultiInputPolicy", franka),
        replay_buffer_class=HerReplayBuffer,
        learning_starts=12,
        seed=0,
        device="cpu",
    )
    learner.learn(20)
    sample = learner.replay_buffer.sample(64)
    reached = sample.next_observations["achieved_goal"] - sample.next_observations["desired_goal"]
    succeeded = (sample.rewards[:, 0] == 0).numpy()
    near = (reached.norm(dim=1) < 0.04).numpy()
    np.testing.assert_array_equal(succeeded, near)
    assert near.any()


def test_methods_and_attributes_of_processes(franka):
    inner = franka.venv
    goals = np.zeros((5, 3), np.float32)
    rewards = inner.env_method("compute_reward", goals, goals, [{}] * 5, indices=[1])
    assert len(rewards) == 1 and rewards[0].shape == (5,)
    assert inner.get_attr("clip_actions", indices=[0]) == [False]
    with pytest.raises(AttributeError, match="no_such"):
        inner.env.call_one(0, "no_such")
    with pytest.raises(gym.error.ClosedEnvironmentError):
        inner.env.call_one(0, "clip_actions")


def test_pictures(make, checkpoint):
    env = make(render_mode="rgb_array")
    assert isinstance(env, VecMonitor) and env.render_mode == "rgb_array"
    env.reset()
    pictures = env.get_images()
    assert len(pictures) == COUNT and all(picture.dtype == np.uint8 for picture in pictures)
    assert make().get_images() == [None] * COUNT


def test_options_are_for_all(make):
    env = make()
    env.set_options({"index": 1})
    env.reset()
    assert [info["index"] for info in env.unwrapped.reset_infos] == [1] * COUNT
    env.reset()  # as in Stable-Baselines3, options hold for one reset
    env.set_options([{"index": 0}, {"index": 1}, {"index": 2}])
    with pytest.raises(ValueError, match="one dictionary"):
        env.reset()


def test_refuses_what_it_cannot_do(make, loaded):
    with pytest.raises(ValueError, match="There is no environment `Nothing-v0`"):
        make_vec_env("Nothing-v0")
    with pytest.raises(ValueError, match="no vector environment of its own"):
        make_vec_env("Pendulum-v1")
    with pytest.raises(ValueError, match="autoreset_mode"):
        make(autoreset_mode="next_step")
    late = gym.make_vec("JEPALatent-v0", num_envs=2, model=loaded)
    with pytest.raises(ValueError, match="same_step"):
        GymnasiumVecEnv(late)
    with pytest.raises(ValueError, match="for all 3 environments"):
        make().set_attr("max_episode_steps", 5, indices=[0])
    with pytest.raises(ValueError, match="LatentExtractor"):
        LatentExtractor(gym.spaces.Box(-1, 1, (3,)))


def test_features_keep_tokens_apart():
    space = gym.spaces.Dict(
        {
            "achieved_goal": gym.spaces.Box(-9, 9, (4, 6)),
            "desired_goal": gym.spaces.Box(-9, 9, (4, 6)),
            "observation": gym.spaces.Box(-9, 9, (7,)),
        }
    )
    extractor = LatentExtractor(space, width=5)
    observations = {key: torch.randn(2, *box.shape) for key, box in space.spaces.items()}
    features = extractor(observations)
    assert features.shape == (2, extractor.features_dim) == (2, 3 * 4 * 5 + 7)
    swapped = observations | {"achieved_goal": observations["achieved_goal"].flip(1)}
    assert not torch.allclose(features, extractor(swapped))
