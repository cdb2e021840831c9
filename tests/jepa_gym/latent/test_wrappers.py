"""Real environments with the spaces of JEPALatent-v0."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode, SyncVectorEnv

import jepa_gym  # noqa: F401
from jepa_gym.latent.wrappers import LatentObservation, VectorLatentObservation
from jepa_gym.world_model import WorldModel


@pytest.fixture
def loaded(checkpoint):
    return WorldModel.from_pretrained(checkpoint)


@pytest.fixture
def make_real(loaded, pixel_env_id):
    def build(**kwargs):
        return gym.make(pixel_env_id, **(loaded.config.frame.env_kwargs() | kwargs))

    return build


def encoded(model, frame):
    return model.encode(torch.from_numpy(frame)[None, None])[0, 0].numpy()


def test_spaces_and_policy_are_the_same(make_real, loaded):
    real, imagined = LatentObservation(make_real(), loaded), gym.make("JEPALatent-v0", model=loaded)
    assert real.observation_space == imagined.observation_space
    assert real.action_space == imagined.action_space

    def policy(observation):
        pull = np.tanh(observation["desired_goal"] - observation["achieved_goal"]).mean(1)[:7]
        return (real.action_space.high * pull).astype(np.float32)

    for env in (real, imagined):
        observation, _ = env.reset(seed=0)
        for _ in range(2):
            observation, *_ = env.step(policy(observation))
            assert observation in env.observation_space


@pytest.mark.filterwarnings("ignore:.*different from the unwrapped version")
def test_check_env(make_real, loaded):
    check_env(LatentObservation(make_real().unwrapped, loaded), skip_render_check=True)


def test_latents_of_frames_and_goals(make_real, loaded):
    plain, env = make_real(), LatentObservation(make_real(), loaded)
    frames, info = plain.reset(seed=1)
    observation, wrapped_info = env.reset(seed=1)
    assert wrapped_info == info
    for _ in range(4):
        for ours, picture in (("achieved_goal", "pixels"), ("desired_goal", "goal_pixels")):
            latent = encoded(loaded, frames[picture])
            np.testing.assert_allclose(observation[ours], latent, atol=1e-5)
        frames, reward, *_ = plain.step(np.zeros(7, np.float32))
        observation, same, *_ = env.step(np.zeros(7, np.float32))
        assert same == reward
    with pytest.raises(NotImplementedError, match="latents"):
        env.compute_reward(observation["achieved_goal"], observation["desired_goal"], {})


def test_goals_are_encoded_once_per_subgoal(make_real, loaded):
    env = LatentObservation(make_real(), loaded)
    env.reset(seed=0)
    counts = []
    for _ in range(4):  # the second sub-goal is shown from step 2 on
        env.step(np.zeros(7, np.float32))
        counts.append(env._encoder.goal_batches)
    assert counts == [1, 2, 2, 2]


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
def test_vector_equals_single(make_real, loaded, mode):
    functions = [lambda: make_real(max_episode_steps=3)] * 3
    vector = VectorLatentObservation(SyncVectorEnv(functions, autoreset_mode=mode), loaded)
    singles = SyncVectorEnv(
        [lambda: LatentObservation(make_real(max_episode_steps=3), loaded)] * 3, autoreset_mode=mode
    )
    imagined = gym.make_vec("JEPALatent-v0", num_envs=3, model=loaded)
    assert vector.observation_space == imagined.observation_space == singles.observation_space
    assert vector.single_observation_space == imagined.single_observation_space
    assert vector.action_space == imagined.action_space
    ours, reference = vector.reset(seed=0), singles.reset(seed=0)
    for _ in range(8):
        for key, value in reference[0].items():
            np.testing.assert_allclose(ours[0][key], value, atol=1e-5)
            assert ours[0][key].dtype == value.dtype
        last, final = ours[-1].get("final_obs"), reference[-1].get("final_obs")
        assert (last is None) == (final is None)
        for one, two in zip(*(() if last is None else last, () if last is None else final)):  # noqa: B905
            for key in two:
                np.testing.assert_allclose(one[key], two[key], atol=1e-5)
        actions = np.zeros((3, 7), np.float32)
        ours, reference = vector.step(actions), singles.step(actions)
        assert np.array_equal(ours[3], reference[3])


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"image_size": (32, 16)}, "`pixels` must be"),
        ({"max_move_m": 0.05}, "actions"),
        ({"blind": True}, r"lacks \['pixels', 'goal_pixels'\]"),
    ],
)
def test_environments_that_do_not_fit(make_real, loaded, kwargs, message):
    with pytest.raises(ValueError, match=message):
        LatentObservation(make_real(**kwargs), loaded)
    with pytest.raises(ValueError, match=r"env_kwargs\(\)"):
        VectorLatentObservation(SyncVectorEnv([lambda: make_real(**kwargs)]), loaded)


@pytest.mark.parametrize("rescaled", [False, True])
def test_action_sets(make_real, loaded, rescaled):
    kwargs = {"action_set": "xyz+gripper", "rescale_actions": rescaled}
    imagined = gym.make("JEPALatent-v0", model=loaded, **kwargs)
    plain, env = make_real(), LatentObservation(make_real(), loaded, **kwargs)
    vector = VectorLatentObservation(SyncVectorEnv([make_real] * 2), loaded, **kwargs)
    assert env.action_space == imagined.action_space == vector.single_action_space
    assert env.spec.additional_wrappers[-1].kwargs["action_set"] == "xyz+gripper"
    bounds = plain.action_space.high[[0, 1, 2, 6]]
    action = np.float32([0.3, -0.2, 0.1, 0.5]) * (1 if rescaled else bounds)
    moved = np.zeros(7, np.float32)
    moved[[0, 1, 2, 6]] = np.float32([0.3, -0.2, 0.1, 0.5]) * bounds
    plain.reset(seed=0), env.reset(seed=0), vector.reset(seed=0)
    wanted = plain.step(moved)[0]["observation"]
    np.testing.assert_array_equal(env.step(action)[0]["observation"], wanted)
    found = vector.step(np.stack([action] * 2))[0]["observation"]
    np.testing.assert_array_equal(found[0], wanted)


def test_a_franka_environment(loaded):
    """The suite itself: wrapped, and as the place where imagined episodes start."""
    kwargs = loaded.config.frame.env_kwargs()
    with gym.make("FrankaReach-v0", **kwargs) as plain:
        frames, _ = plain.reset(seed=0)
        env = LatentObservation(plain, loaded)
        observation, _ = env.reset(seed=0)
        assert observation in env.observation_space
        latent = encoded(loaded, frames["goal_pixels"])
        np.testing.assert_allclose(observation["desired_goal"], latent, atol=1e-5)
        _, _, _, _, info = env.step(np.zeros(7, np.float32))
        assert "distance_m" in info
    with gym.make("JEPALatent-v0", model=loaded, starts="FrankaReach-v0") as imagined:
        start, info = imagined.reset(seed=0)
        assert info["source"] == "FrankaReach-v0" and start in imagined.observation_space
        assert imagined.step(np.zeros(7, np.float32))[0] in imagined.observation_space
