"""The vector environment: as n single ones, by Gymnasium's conventions."""

from __future__ import annotations

import json

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import data_equivalence
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers.vector import RecordEpisodeStatistics

import jepa_gym  # noqa: F401
from jepa_gym.checkpoint.beside import DECODER
from jepa_gym.world_model import WorldModel

ENV_ID = "JEPALatent-v0"
COUNT = 3


@pytest.fixture
def loaded(checkpoint):
    return WorldModel.from_pretrained(checkpoint)


@pytest.fixture
def make_vec(loaded):
    def build(**kwargs):
        return gym.make_vec(
            ENV_ID, **({"num_envs": COUNT, "model": loaded, "max_episode_steps": 3} | kwargs)
        )

    return build


def moves(count, envs=COUNT, seed=0):
    space = gym.spaces.Box(-1, 1, (count, envs, 7), np.float32, seed=seed)
    return space.sample() * np.array([0.07] * 3 + [0.2] * 3 + [0.9], np.float32)


def close(one, two, atol=1e-5):
    """Whether nests agree: same keys, types and shapes, numbers to `atol`."""
    if isinstance(one, dict):
        return set(one) == set(two) and all(close(one[key], two[key], atol) for key in one)
    one, two = np.asarray(one), np.asarray(two)
    if one.dtype != two.dtype or one.shape != two.shape:
        return False
    if one.dtype == object:
        return all(a is b is None or close(a, b, atol) for a, b in zip(one, two, strict=True))
    if one.dtype.kind != "f":
        return np.array_equal(one, two)
    return np.allclose(one, two, rtol=0, atol=atol, equal_nan=True)


@pytest.mark.parametrize("reward", ["energy", "progress", "sparse"])
@pytest.mark.parametrize("mode", ["next_step", "same_step"])
def test_equal_to_single_environments(make_vec, loaded, mode, reward, with_threshold):
    """Gymnasium's own vector environment of single ones is the reference, over episode ends."""
    model = with_threshold(loaded)
    shared = {"reward": reward, "model": model}
    vector = make_vec(autoreset_mode=mode, **shared)
    singles = SyncVectorEnv(
        [lambda: gym.make(ENV_ID, max_episode_steps=3, **shared)] * COUNT,
        autoreset_mode=AutoresetMode[mode.upper()],
    )
    assert vector.metadata["autoreset_mode"] is singles.metadata["autoreset_mode"]
    assert vector.observation_space == singles.observation_space
    assert vector.single_action_space == singles.single_action_space
    options = {"index": 1} if mode == "same_step" else None
    assert close(vector.reset(seed=7, options=options), singles.reset(seed=7, options=options))
    for number, action in enumerate(moves(9)):
        ours, reference = vector.step(action), singles.step(action)
        for place, (one, two) in enumerate(zip(ours, reference, strict=True)):
            assert close(one, two), f"step {number}, result {place}"
        assert ours[0] in vector.observation_space


def test_different_ends_in_one_batch(make_vec, loaded):
    """Truncation on the score puts episodes out of step: contexts of one and of two frames."""
    plain = make_vec()
    plain.reset(seed=1)
    low, high = np.sort(plain.step(moves(1)[0])[4]["ood"])[1:]
    limit = float(low + high) / 2
    vector = make_vec(max_ood=limit)
    singles = SyncVectorEnv(
        [lambda: gym.make(ENV_ID, model=loaded, max_episode_steps=3, max_ood=limit)] * COUNT
    )
    assert close(vector.reset(seed=1), singles.reset(seed=1))
    seen = []
    for action in moves(12):
        ours, reference = vector.step(action), singles.step(action)
        assert all(close(one, two) for one, two in zip(ours, reference, strict=True))
        seen.append(ours[3])
    seen = np.array(seen)
    assert (seen.any(1) & ~seen.all(1)).any()


def test_seeds(make_vec):
    vector = make_vec()
    space = vector.single_observation_space
    one = vector.reset(seed=3)[0]
    again = vector.reset(seed=[3, 4, 5])[0]
    assert data_equivalence(one, again, exact=True)
    other = vector.reset(seed=[5, None, 3])[0]
    assert np.array_equal(other["achieved_goal"][0], one["achieved_goal"][2])
    assert {key: value[0] for key, value in other.items()} in space
    with pytest.raises(ValueError, match="2 seeds"):
        vector.reset(seed=[1, 2])


def test_same_seed_same_bytes(make_vec):
    runs = []
    for _ in range(2):
        vector = make_vec(autoreset_mode="same_step")
        runs.append([vector.reset(seed=2), *(vector.step(action) for action in moves(7))])
    assert data_equivalence(runs[0], runs[1], exact=True)


def test_states_branch(make_vec):
    vector = make_vec()
    vector.reset(seed=0)
    actions = moves(8)
    vector.step(actions[0])
    state = vector.get_state()
    first = [vector.step(action) for action in actions[1:]]  # beyond the end of an episode
    vector.set_state(state)
    assert data_equivalence(first, [vector.step(action) for action in actions[1:]], exact=True)
    with pytest.raises(ValueError, match="another environment"):
        make_vec(num_envs=2).set_state(state)


def test_options_for_all_and_for_each(make_vec):
    vector = make_vec()
    assert vector.reset(options={"index": 2})[1]["index"].tolist() == [2, 2, 2]
    assert vector.reset(options={"index": [2, 0, 1]})[1]["index"].tolist() == [2, 0, 1]
    with pytest.raises(ValueError, match="for all 3"):
        vector.reset(options={"index": [0, 1]})
    with pytest.raises(ValueError, match="only"):
        vector.reset(options={"start": 1})
    frames = np.stack([np.full((32, 64, 3), 60 * i, np.uint8) for i in range(COUNT)])
    options = {"frame": frames, "state": np.full(7, 0.25), "goal": frames[1]}
    observation, infos = vector.reset(options=options)
    assert infos["source"].tolist() == ["given"] * 3
    assert infos["energy"][1] == pytest.approx(0, abs=1e-5) and infos["energy"][0] > 0.01
    assert (observation["observation"] == 0.25).all()
    assert "goal_state" not in infos


def test_bad_actions_change_nothing(make_vec):
    vector = make_vec()
    with pytest.raises(RuntimeError, match="reset"):
        vector.step(np.zeros((COUNT, 7)))
    vector.reset(seed=0)
    state = vector.get_state()
    bad = np.zeros((COUNT, 7))
    bad[1, 0] = 0.1
    for action, message in (
        (np.zeros((2, 7)), r"shape \(3, 7\).* got shape \(2, 7\)"),
        (np.full((COUNT, 7), np.nan), "finite"),
        (bad, "clip_actions=True"),
    ):
        with pytest.raises(ValueError, match=message):
            vector.step(action)
    assert vector.get_state()["episodes"]["_steps"].tolist() == [0, 0, 0]
    after = vector.step(np.zeros((COUNT, 7)))
    vector.set_state(state)
    assert data_equivalence(after, vector.step(np.zeros((COUNT, 7))), exact=True)


def test_actions_of_ended_episodes_are_ignored(make_vec):
    vector = make_vec(max_episode_steps=1)
    vector.reset(seed=0)
    assert vector.step(np.zeros((COUNT, 7)))[3].all()
    _, rewards, _, truncated, infos = vector.step(np.full((COUNT, 7), np.nan))
    assert not rewards.any() and not truncated.any() and "reward_energy" not in infos


def test_action_sets(make_vec):
    env = make_vec(action_set="xyz", rescale_actions=True)
    whole = make_vec()
    assert env.action_space.shape == (COUNT, 3) and env.action_space.high.max() == 1
    env.reset(seed=0), whole.reset(seed=0)
    given = np.linspace(-1, 1, 3 * COUNT, dtype=np.float32).reshape(COUNT, 3)
    moved = np.zeros((COUNT, 7), np.float32)
    moved[:, :3] = given * whole.single_action_space.high[:3]
    assert data_equivalence(env.step(given)[0], whole.step(moved)[0], exact=True)
    with pytest.raises(ValueError, match=r"must have shape \(3, 3\)"):
        env.step(moved)


def test_bad_seeds_change_nothing(make_vec):
    env, plain = make_vec(), make_vec()
    env.reset(seed=0), plain.reset(seed=0)
    with pytest.raises(gym.error.Error, match="Seed must be"):
        env.reset(seed=[5, -1, 3])
    assert data_equivalence(env.reset()[0], plain.reset()[0], exact=True)


def test_observations_are_copies(make_vec):
    vector = make_vec()
    observation, _ = vector.reset(seed=0)
    kept = {key: value.copy() for key, value in observation.items()}
    for value in observation.values():
        value[:] = 9
    vector.step(np.zeros((COUNT, 7)))
    assert np.array_equal(vector.get_state()["episodes"]["_goals"], kept["desired_goal"])


def test_close_spec_and_gymnasium_wrappers(make_vec, checkpoint):
    made = gym.make_vec(ENV_ID, num_envs=2, checkpoint=str(checkpoint), autoreset_mode="same_step")
    assert made.unwrapped.max_episode_steps == 10
    assert json.loads(made.spec.to_json())["kwargs"]["autoreset_mode"] == "same_step"
    again = gym.make_vec(made.spec)
    assert again.num_envs == 2 and again.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    vector = RecordEpisodeStatistics(make_vec())
    vector.reset(seed=0)
    for action in moves(3):
        infos = vector.step(action)[4]
    assert infos["episode"]["l"].tolist() == [3, 3, 3]
    vector.close()
    vector.close()
    with pytest.raises(gym.error.ClosedEnvironmentError):
        vector.step(moves(1)[0])


def test_render(make_vec):
    vector = make_vec(render_mode="rgb_array")
    with pytest.raises(RuntimeError, match="reset"):
        vector.render()
    vector.reset(seed=0)
    pictures = vector.render()
    assert len(pictures) == COUNT and pictures[0].shape == (64, 128, 3)
    assert make_vec().render() is None


def test_render_uses_the_decoder_of_the_checkpoint(make_vec, loaded, checkpoint, drawing):
    DECODER.write(checkpoint, drawing, loaded, {})
    vector = make_vec(render_mode="rgb_array")
    vector.reset(seed=0)
    latents = vector.step(np.zeros((COUNT, 7), np.float32))[0]["achieved_goal"]
    for picture, latent in zip(vector.render(), latents, strict=True):
        drawn = (255 * drawing(torch.from_numpy(latent)[None])[0]).round().byte().numpy()
        assert np.array_equal(picture[1:-1, 1:63], drawn[1:-1, 1:-1])


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"autoreset_mode": "later"}, "next_step"),
        ({"num_envs": 0}, "num_envs"),
        ({"max_episode_steps": 0}, "max_episode_steps"),
        ({"reward": "dense"}, "reward"),
        ({"render_mode": "human"}, "render_mode"),
    ],
)
def test_bad_arguments(make_vec, kwargs, message):
    with pytest.raises(ValueError, match=message):
        make_vec(**kwargs)
