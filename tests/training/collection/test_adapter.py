"""Any Gymnasium environment is recorded through an adapter; robosuite's tasks come with one."""

from __future__ import annotations

import inspect
import json
import textwrap

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.registration import register, registry

from jepa_gym.training.collection import adapter as module
from jepa_gym.training.collection.adapter import Adapter
from jepa_gym.training.collection.collect import collect
from jepa_gym.training.collection.config import CollectConfig
from jepa_gym.training.data.dataset import Dataset
from jepa_gym.training.data.episodes import read_episode, read_metadata

POINT = "CollectedPoint-v0"
HERE = __name__


class PointEnv(gym.Env):
    """A dot that is moved in a plane and drawn from above."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}
    observation_space = gym.spaces.Box(-1, 1, (2,), np.float32)
    action_space = gym.spaces.Box(-0.1, 0.1, (2,), np.float32)

    def __init__(self, render_mode=None, ends_at=None):
        self.render_mode, self.ends_at = render_mode, ends_at

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place, self.steps = self.np_random.uniform(-0.5, 0.5, 2).astype(np.float32), 0
        return self.place.copy(), {}

    def step(self, action):
        assert self.action_space.contains(action)
        self.place, self.steps = np.clip(self.place + action, -1, 1), self.steps + 1
        success = bool(self.place[0] > 0)
        return self.place.copy(), 1.0, self.steps == self.ends_at, False, {"success": success}

    def render(self):
        picture = np.zeros((48, 48, 3), np.uint8)
        x, y = (24 + 20 * self.place).astype(int)
        picture[y - 3 : y + 3, x - 3 : x + 3, 0] = 255
        return picture


class PandaLike(PointEnv):
    """It keeps the contract, so that it needs no adapter."""

    observation_space = gym.spaces.Dict(
        observation=gym.spaces.Box(-2, 2, (7,), np.float32),
        pixels=gym.spaces.Box(0, 255, (48, 48, 3), np.uint8),
    )
    action_space = gym.spaces.Box(-0.1, 0.1, (7,), np.float32)
    step_s = 0.5

    def seen(self):
        state = np.array([*self.place, 0.3, 0, 0, 0, 0], np.float32)
        return {"observation": state, "pixels": self.render()}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.seen(), {}

    def step(self, action):
        self.place = np.clip(self.place + action[:2], -1, 1)
        return self.seen(), 0.0, False, False, {}


class Spaceless(PointEnv):
    action_space = gym.spaces.Discrete(3)


@pytest.fixture(scope="module", autouse=True)
def registered():
    known = {POINT: PointEnv, "CollectedPanda-v0": PandaLike, "CollectedDiscrete-v0": Spaceless}
    for env_id, kind in known.items():
        register(env_id, kind, max_episode_steps=2)
    yield
    for env_id in known:
        del registry[env_id]


def example():
    """The adapter that the docstring shows, executed."""
    code = inspect.getdoc(Adapter).split("::\n", 1)[1].split("Args:")[0]
    names = {}
    exec(textwrap.dedent(code), names)
    return names["PointAdapter"]


PointAdapter = example()


class Lightless(PointAdapter):
    def picture(self, observation):
        return np.zeros((48, 48), np.uint8)


class Stateless(PointAdapter):
    def state(self, observation, info):
        return np.asarray(observation)


class InMillimetres(PointAdapter):
    def state(self, observation, info):
        return 1e5 * super().state(observation, info)


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    """`--adapter` imports by name; pytest's import mode leaves test modules nameless."""
    found = {name: globals()[name] for name in ("PointAdapter", "Lightless", "Stateless")}
    holder = type("Holder", (), found | {"InMillimetres": InMillimetres, "number": 3})
    monkeypatch.setitem(__import__("sys").modules, "point_adapters", holder)


def settings(folder, **changes):
    values = {
        "env": POINT,
        "adapter": "point_adapters:PointAdapter",
        "camera": "top",
        "step_s": 0.1,
        "image_size": 32,
        "episodes": 4,
        "steps": 5,
        "workers": 1,
    }
    return CollectConfig(output=folder, **(values | changes))


def test_the_example_of_the_docstring_records_a_foreign_environment(tmp_path):
    index = collect(settings(tmp_path))
    assert index["cameras"] == ["top"] and index["step_s"] == 0.1 and index["episodes"] == 4
    folder = tmp_path / "episodes" / "000002"
    episode = read_episode(folder, ("top",))
    assert episode.frames["top"].shape == (6, 32, 32, 3)
    assert episode.frames["top"][..., 0].max() > 200  # upright pictures of what was there
    np.testing.assert_allclose(np.diff(episode.timestamps_s), 0.1)
    actions = np.array(read_metadata(folder)["native_actions"])
    moved = np.clip(episode.states[:-1, :2] + actions, -1, 1)
    np.testing.assert_allclose(episode.states[1:, :2], moved, atol=1e-5)
    assert not episode.states[:, 2:].any() and episode.actions is None
    np.testing.assert_array_equal(episode.success, episode.states[1:, 0] > 0)
    arrays = Dataset.open(tmp_path).load_arrays("train")
    assert arrays.states.shape[1:] == (6, 7)


def test_it_follows_the_seed_and_goes_on(tmp_path):
    first = collect(settings(tmp_path / "one", episodes=2))
    again = collect(settings(tmp_path / "other", episodes=2))
    more = collect(settings(tmp_path / "one", episodes=4))
    assert first["content_hash"] == again["content_hash"] != more["content_hash"]
    assert collect(settings(tmp_path / "whole"))["content_hash"] == more["content_hash"]
    with pytest.raises(ValueError, match="steps=5, not 6"):
        collect(settings(tmp_path / "one", steps=6))


def test_an_environment_that_keeps_the_contract_needs_no_adapter(tmp_path):
    change = {"env": "CollectedPanda-v0", "adapter": None, "camera": "left", "step_s": 0.5}
    collect(settings(tmp_path, **change))
    episode = read_episode(tmp_path / "episodes" / "000000", ("left",))
    assert episode.actions.shape == (5, 7) and episode.frames["left"].shape == (6, 32, 32, 3)
    np.testing.assert_allclose(episode.states[:, 2], 0.3, atol=1e-6)


def test_episodes_that_end_by_themselves_are_shorter(tmp_path):
    config = settings(tmp_path, env_kwargs='{"ends_at": 3}')
    collect(config)
    assert read_metadata(tmp_path / "episodes" / "000000")["trajectory_length"] == 4
    assert collect(config)["episodes"] == 4  # they are whole nevertheless


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"camera": "left", "step_s": 0.25}, "give --camera top --step-s 0.1"),
        ({"adapter": None, "camera": "left"}, "observes no state of 7 numbers.*write an adapter"),
        ({"adapter": "point_adapters:Lightless"}, r"must be \(Y, X, 3\) uint8"),
        ({"adapter": "point_adapters:Stateless"}, r"must return \(7,\), got \(2,\)"),
        ({"adapter": "point_adapters:number"}, "no subclass of `Adapter`"),
        ({"adapter": "point_adapters:Missing"}, "cannot import the adapter"),
        ({"adapter": "nowhere:Adapter"}, "cannot import the adapter"),
        ({"env": "CollectedPiont-v0"}, "cannot make the environment"),
        ({"env": "CollectedDiscrete-v0"}, "bounded Box.*`policy`"),
        ({"env_kwargs": '{"colour": 1}'}, "cannot make the environment.*colour"),
        ({"behaviours": {"radnom": 1.0}}, "Did you mean `random`"),
    ],
)
def test_what_does_not_fit_is_told_before_anything_is_written(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        collect(settings(tmp_path / "data", **change))
    assert not (tmp_path / "data").exists()


def test_wrong_units_are_caught(tmp_path):
    with pytest.raises(ValueError, match="must be in metres"):
        collect(settings(tmp_path, adapter="point_adapters:InMillimetres"))


def test_a_picture_tiles_its_views():
    class TwoViews(PointAdapter):
        cameras = ("one", "two")

        def picture(self, observation):
            return np.concatenate([np.zeros((48, 48, 3)), np.full((48, 48, 3), 9)], 1).astype(
                np.uint8
            )

    recorder = TwoViews(TwoViews.make(POINT, {}), 48)
    recorder.begin(0, {"random": 1.0})
    frames = recorder.look().frames
    assert frames["one"].max() == 0 and frames["two"].min() == 9
    recorder.cameras = ("one", "two", "three", "four", "five")
    with pytest.raises(ValueError, match="does not tile 5 views"):
        recorder.look()


def test_the_time_of_a_step_must_be_known(monkeypatch):
    monkeypatch.setattr(PointEnv, "metadata", {"render_modes": ["rgb_array"]})
    with pytest.raises(ValueError, match="how many seconds a step of CollectedPoint-v0 takes"):
        Adapter(Adapter.make(POINT, {}), 48)


def test_weights_draw_alike_in_any_order():
    weights = {"a": 0.3, "b": 0.7}
    turned = dict(reversed(weights.items()))
    first, other = np.random.default_rng(0), np.random.default_rng(0)
    for _ in range(20):
        drawn = module.draw_behaviour(first, "ab", weights)
        assert drawn == module.draw_behaviour(other, "ab", turned)


def test_robosuite_tasks_are_recorded_with_poses_and_simulator_states(tmp_path):
    weights = {"grasp": 1.0, "near": 1.0}
    config = CollectConfig(
        output=tmp_path, env="robosuite/Lift", episodes=4, steps=8, image_size=32, workers=1,
        behaviours=weights,
    )  # fmt: skip
    index = collect(config)
    assert index["cameras"] == ["left", "wrist"] and index["step_s"] == 0.25
    kinds, lifted, changed = set(), 0.0, 0.0
    for folder in sorted((tmp_path / "episodes").iterdir()):
        episode = read_episode(folder)
        kinds.add(episode.metadata["kind"])
        assert episode.metadata["task"] == "Lift"
        assert episode.actions.shape == (8, 7) and episode.sim_state.shape[0] == 9
        assert np.abs(np.diff(episode.states[:, :3], axis=0)).max() < 0.08
        assert episode.extrinsics["left"].shape == episode.extrinsics["wrist"].shape == (9, 6)
        np.testing.assert_allclose(
            episode.extrinsics["left"][0, :3], [1.05, 0.66, 0.408], atol=1e-3
        )
        lifted += episode.success.any()
        changed = max(changed, np.ptp(episode.states[:, 6]))
    assert kinds == {"grasp", "near"} and lifted and changed > 0.3
    settings = json.loads((tmp_path / "collection.json").read_text())
    assert settings["env"] == "robosuite/Lift" and settings["behaviours"] == weights
