from __future__ import annotations

import json
import subprocess
import sys

import gymnasium as gym
import numpy as np
import pytest
import stable_baselines3.common.env_checker as sb3_checker
import torch
from gymnasium.error import ClosedEnvironmentError
from gymnasium.utils.env_checker import check_env, data_equivalence

import jepa_gym  # noqa: F401
from jepa_gym import poses
from jepa_gym.checkpoint.beside import DECODER
from jepa_gym.checkpoint.errors import CheckpointError
from jepa_gym.latent.rewards import Neighbours
from jepa_gym.world_model import WorldModel


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
        (["0.01"] * 7, "real numbers"),
        (np.zeros(7, complex), "real numbers"),
        (np.array([0.1, 0, 0, 0, 0, 0, 0]), "clip_actions=True"),
    ],
)
def test_bad_actions(env, action, message):
    env.reset(seed=0)
    with pytest.raises(ValueError, match=message):
        env.unwrapped.step(action)


def test_rounding_beyond_the_bounds_is_forgiven_as_in_the_simulator(env):
    env.reset(seed=0)
    high = env.action_space.high.astype(np.float64)
    observation, *_ = env.unwrapped.step(high + 9e-7)
    env.reset(seed=0)
    assert data_equivalence(observation, env.unwrapped.step(high)[0], exact=True)
    with pytest.raises(ValueError, match="outside the bounds"):
        env.unwrapped.step(high + 2e-6)


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


@pytest.fixture
def loaded(checkpoint):
    return WorldModel.from_pretrained(checkpoint)


@pytest.mark.parametrize("frames", [1, 2, 3])
def test_equal_to_a_direct_rollout(loaded, frames):
    """Each step is one `rollout` over the last frames, their states by composition."""
    env = gym.make("JEPALatent-v0", model=loaded, context_frames=frames).unwrapped
    observation, _ = env.reset(seed=0)
    latents = torch.from_numpy(observation["achieved_goal"])[None, None]
    states = torch.from_numpy(observation["observation"])[None, None]
    env.action_space.seed(0)
    for _ in range(4):
        action = env.action_space.sample()
        observation, _, _, _, info = env.step(action)
        move = torch.from_numpy(action)
        window = latents[:, -frames:], states[:, -frames:]
        future = loaded.rollout(*window, move[None, None, None])[:, :, 0]
        latents = torch.cat([latents, future], 1)
        states = torch.cat([states, poses.compose(states[:, -1:], move)], 1)
        np.testing.assert_allclose(observation["achieved_goal"], future[0, 0], atol=1e-6)
        np.testing.assert_allclose(observation["observation"], states[0, -1], atol=1e-6)
        goal = torch.from_numpy(observation["desired_goal"])[None]
        assert info["energy"] == pytest.approx(float(loaded.energy(future[:, 0], goal)), abs=1e-6)


def test_progress_adds_up_and_can_be_relabelled(loaded):
    env = gym.make("JEPALatent-v0", model=loaded, reward="progress")
    first, before = env.reset(seed=0)
    env.action_space.seed(0)
    achieved, infos, total = [], [], 0.0
    for _ in range(4):
        observation, reward, _, _, info = env.step(env.action_space.sample())
        achieved.append(observation["achieved_goal"])
        infos.append(info)
        total += reward
    assert total == pytest.approx(before["energy"] - info["energy"], abs=1e-6)
    goal, compute = observation["desired_goal"], env.unwrapped.compute_reward
    assert compute(achieved[-1], goal, info) == reward
    other = first["achieved_goal"]
    many = compute(np.stack(achieved), np.stack([other] * 4), infos)
    assert many.shape == (4,) and many[0] == pytest.approx(-np.abs(achieved[0] - other).mean())
    with pytest.raises(ValueError, match="copy_info_dict=True"):
        compute(achieved[0], goal, {})


def test_sparse_needs_a_threshold(loaded, with_threshold):
    with pytest.raises(ValueError, match="success_energy"):
        gym.make("JEPALatent-v0", model=loaded, reward="sparse")
    env = gym.make("JEPALatent-v0", model=with_threshold(loaded, 100.0), reward="sparse")
    env.reset(seed=0)
    _, reward, _, _, info = env.step(np.zeros(7, np.float32))
    assert reward == 0.0 and info["is_success"] is info["success"] is True
    env = gym.make("JEPALatent-v0", model=with_threshold(loaded, 1e-9), reward="sparse")
    observation, info = env.reset(seed=0)
    assert env.step(np.zeros(7, np.float32))[1] == -1.0 and info["is_success"] is False
    latents = np.stack([observation["achieved_goal"], observation["desired_goal"]])
    reward = env.unwrapped.compute_reward(latents, observation["desired_goal"][None], {})
    assert reward.tolist() == [-1, 0]


def test_the_score_of_real_frames(env, loaded):
    """0 for a frame among the real ones, 1 for the one farthest from the others if left out."""
    _, info = env.reset(seed=0)
    assert info["ood"] == pytest.approx(0, abs=1e-4)
    points = torch.tensor([0.0, 1.0, 4.0])[:, None].expand(3, 5)
    real = Neighbours(points)  # nearest neighbours at 1, 1 and 3
    np.testing.assert_allclose(real.score(points), 0)
    np.testing.assert_allclose(real.score(points + 3), [1 / 3, 0, 1], rtol=1e-6)
    assert np.isnan(Neighbours(points[:1].expand(2, -1)).score(points)).all()


def test_leaving_the_workspace_is_out_of_distribution(loaded):
    env = gym.make("JEPALatent-v0", model=loaded, max_ood=2.0, max_episode_steps=100)
    env.reset(seed=0)
    scores, truncated = [], False
    while not truncated:
        *_, truncated, info = env.step(env.action_space.high * np.float32([1, 1, 1, 0, 0, 0, 0]))
        scores.append(info["ood"])
    assert len(scores) < 60 and scores[-1] > 2 >= max(scores[:-1])


def test_truncation_out_of_distribution(loaded):
    env = gym.make("JEPALatent-v0", model=loaded, max_ood=1e-3)
    env.reset(seed=0)
    _, _, terminated, truncated, info = env.step(env.action_space.sample())
    assert truncated and not terminated and info["ood"] > 1e-3
    with pytest.raises(ValueError, match="max_ood"):
        gym.make("JEPALatent-v0", model=loaded, max_ood=0)


@pytest.mark.filterwarnings("error")
def test_a_default_episode_stays_within_the_trained_length(loaded):
    """Its windows do, whatever their length: no step of it warns."""
    for frames in (1, loaded.config.train_frames):
        env = gym.make("JEPALatent-v0", model=loaded, context_frames=frames)
        assert env.spec.max_episode_steps > loaded.config.train_frames
        assert episode(env, 0)[-1][3]  # truncated by its horizon


@pytest.mark.parametrize(
    ("name", "dimensions"), [("xyz", [0, 1, 2]), ("xyz+gripper", [0, 1, 2, 6])]
)
@pytest.mark.parametrize("rescaled", [False, True])
def test_action_sets(loaded, name, dimensions, rescaled):
    whole = gym.make("JEPALatent-v0", model=loaded)
    kwargs = {"action_set": name, "rescale_actions": rescaled}
    env = gym.make("JEPALatent-v0", model=loaded, **kwargs)
    assert json.loads(json.dumps(env.spec.kwargs | {"model": None})) == kwargs | {"model": None}
    bounds = whole.action_space.high[dimensions]
    assert np.array_equal(env.action_space.high, np.ones_like(bounds) if rescaled else bounds)
    first, _ = env.reset(seed=0)
    assert data_equivalence(first, whole.reset(seed=0)[0], exact=True)
    action = np.linspace(0.2, 0.9, len(dimensions), dtype=np.float32) * env.action_space.high
    moved = np.zeros(7, np.float32)
    moved[dimensions] = action * (bounds if rescaled else 1)
    assert data_equivalence(env.step(action)[0], whole.step(moved)[0], exact=True)
    with pytest.raises(ValueError, match="outside the bounds"):
        env.step(1.01 * env.action_space.high)


def test_an_unknown_action_set(loaded):
    with pytest.raises(ValueError, match=r"got 'xyz-gripper'. Did you mean `xyz\+gripper`?"):
        gym.make("JEPALatent-v0", model=loaded, action_set="xyz-gripper")


def test_closed_environments_do_not_step(loaded):
    env = gym.make("JEPALatent-v0", model=loaded).unwrapped
    env.reset(seed=0)
    env.close()
    for use in (lambda: env.step(np.zeros(7)), env.reset):
        with pytest.raises(ClosedEnvironmentError, match="closed"):
            use()


@pytest.mark.parametrize("frames", [0, 5, 1.5])
def test_a_context_longer_than_the_model_allows(loaded, frames):
    with pytest.raises(ValueError, match=r"in \[1, 4\]"):
        gym.make("JEPALatent-v0", model=loaded, context_frames=frames)


def test_bfloat16_is_near_float32(loaded):
    plain = gym.make("JEPALatent-v0", model=loaded)
    narrow = gym.make("JEPALatent-v0", model=loaded, dtype="bfloat16")
    one, two = plain.reset(seed=0)[0], narrow.reset(seed=0)[0]
    assert data_equivalence(one, two, exact=True)
    for _ in range(3):
        action = plain.action_space.sample()
        one, two = plain.step(action)[0], narrow.step(action)[0]
    assert np.array_equal(one["observation"], two["observation"])
    assert two["achieved_goal"].dtype == np.float32
    apart = np.abs(one["achieved_goal"] - two["achieved_goal"]).mean()
    assert 0 < apart < 0.05
    with pytest.raises(ValueError, match="dtype"):
        gym.make("JEPALatent-v0", model=loaded, dtype="float16")


def test_devices(loaded, checkpoint):
    env = gym.make("JEPALatent-v0", checkpoint=str(checkpoint), device="cpu")
    assert env.unwrapped.model.device.type == "cpu"
    with pytest.raises(ValueError, match="move it"):
        gym.make("JEPALatent-v0", model=loaded, device="meta")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_cuda_agrees(checkpoint, dtype):
    envs = [
        gym.make("JEPALatent-v0", checkpoint=str(checkpoint), device=device, dtype=dtype)
        for device in ("cpu", "cuda")
    ]
    one, two = (episode(env, 0, steps=3) for env in envs)
    for ours, theirs in zip(one, two, strict=True):
        apart = np.abs(ours[0]["achieved_goal"] - theirs[0]["achieved_goal"]).mean()
        assert apart < (1e-3 if dtype == "float32" else 0.05)


def flat_decoder(latents):
    return latents.new_full((len(latents), 32, 64, 3), 0.5)


def test_render_with_a_decoder(loaded):
    env = gym.make("JEPALatent-v0", model=loaded, decoder=flat_decoder, render_mode="rgb_array")
    env.reset(seed=0, options={"index": 0})
    starts = env.unwrapped._episodes.source.reference
    real = env.render()
    assert real.shape == (32, 128, 3)
    assert np.array_equal(real[1:-1, 1:63], starts.frames[0][1:-1, 1:-1])
    assert (real[0, :64] == (40, 180, 60)).all()
    assert np.array_equal(real[:, 64:], starts.goal_frames[0])
    env.step(np.zeros(7, np.float32))
    imagined = env.render()
    assert (imagined[:, 0] == (220, 40, 40)).all() and (imagined[1:-1, 1:63] == 128).all()
    bad = gym.make("JEPALatent-v0", model=loaded, decoder=lambda x: x, render_mode="rgb_array")
    bad.reset(seed=0)
    bad.step(np.zeros(7, np.float32))
    with pytest.raises(ValueError, match="decoder"):
        bad.render()


def test_render_uses_the_decoder_of_the_checkpoint(loaded, checkpoint, drawing):
    DECODER.write(checkpoint, drawing, loaded, {})
    env = gym.make("JEPALatent-v0", checkpoint=str(checkpoint), render_mode="rgb_array")
    env.reset(seed=0)
    latents = env.step(np.zeros(7, np.float32))[0]["achieved_goal"]
    drawn = (255 * drawing(torch.from_numpy(latents)[None])[0]).round().byte().numpy()
    imagined = env.render()
    assert imagined.shape == (32, 128, 3)
    assert np.array_equal(imagined[1:-1, 1:63], drawn[1:-1, 1:-1])
    given = gym.make("JEPALatent-v0", model=loaded, decoder=flat_decoder, render_mode="rgb_array")
    given.reset(seed=0)
    given.step(np.zeros(7, np.float32))
    assert (given.render()[1:-1, 1:63] == 128).all()


def test_render_refuses_the_decoder_of_another_model(loaded, checkpoint, drawing):
    DECODER.write(checkpoint, drawing, WorldModel(loaded.config), {})
    env = gym.make("JEPALatent-v0", model=loaded, render_mode="rgb_array")
    env.reset(seed=0)
    with pytest.raises(CheckpointError, match="another model"):
        env.render()


def test_picture_of_a_latent_goal(loaded):
    options = {"frame": np.zeros((32, 64, 3), np.uint8), "state": np.zeros(7)}
    options["goal"] = np.zeros((8, 16), np.float32)
    for decoder in (None, flat_decoder):
        env = gym.make("JEPALatent-v0", model=loaded, decoder=decoder, render_mode="rgb_array")
        env.reset(options=options)
        if decoder is None:
            with pytest.raises(ValueError, match="no picture"):
                env.render()
        else:
            assert (env.render()[:, 64:] == 128).all()
