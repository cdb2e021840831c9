"""Impossible clips: equal to their twins before the moment, and impossible after it."""

from __future__ import annotations

import numpy as np
import pytest

from jepa_gym.benchmarks import violations
from jepa_gym.benchmarks.violations import EARLIEST, KINDS, LATEST, STEPS, make_pair, ordinary_clip
from jepa_gym.training.collection.explorers import exploration_env


@pytest.fixture(scope="module")
def env():
    made = exploration_env("grasp", obj="box", camera="left+wrist", image_size=64)
    yield made
    made.close()


@pytest.mark.parametrize("kind", KINDS)
def test_twins_part_at_the_moment(env, kind):
    before = {name: getattr(env.model, name).copy() for name in violations._CHANGED}
    pair = make_pair(env, kind, 1)
    assert EARLIEST <= pair.moment <= LATEST
    for clip in (pair.possible, pair.impossible):
        assert clip.frames.shape == (STEPS + 1, 64, 128, 3) and clip.states.shape == (STEPS + 1, 7)
    differ = (pair.possible.frames != pair.impossible.frames).any(axis=(1, 2, 3))
    assert not differ[: pair.moment].any()
    assert differ[pair.moment : pair.moment + 2].any()
    moved = np.linalg.norm(np.diff(pair.possible.states[:, :3], axis=0), axis=1)
    assert (moved > 0.005).any()  # the arm moves
    for name, value in before.items():
        assert (getattr(env.model, name) == value).all()
    again = make_pair(env, kind, 1)
    assert (again.impossible.frames == pair.impossible.frames).all()
    assert (again.possible.frames == pair.possible.frames).all()


def object_after(env, kind, steps):
    """Place the object away from the hand, let a kind happen, and return where it was and is."""
    env.reset(seed=3)
    env.place_object(np.array([0.5, 0.1, env.object_half_height()]), 0.0)
    env.place_arm(np.array([0.45, -0.15, 0.25]))
    before = env.object_position()
    act = KINDS[kind](env, np.random.default_rng(0))
    with violations._restored(env):
        for since in range(steps):
            act(since)
            env.step(np.zeros(7, np.float32))
        return before, env.object_position(), env.frame()


def test_what_happens_is_what_the_table_says(env):
    before, after, _ = object_after(env, "floats", 5)
    assert after[2] - before[2] == pytest.approx(0.15, abs=0.01)
    before, after, _ = object_after(env, "sinks-into-table", 2)
    assert after[2] - before[2] == pytest.approx(-0.06, abs=0.01)
    before, after, _ = object_after(env, "teleports", 2)
    assert 0.08 <= np.linalg.norm(after - before) <= 0.31
    assert after[2] == pytest.approx(before[2], abs=0.002)
    red = ((env.frame().astype(int) @ [1, -1, -1]) > 60).sum()
    for kind in ("vanishes", "changes-colour"):
        _, _, frame = object_after(env, kind, 1)
        assert ((frame.astype(int) @ [1, -1, -1]) > 60).sum() < 0.1 * red


def test_what_the_hand_holds_cannot_float(env):
    env.reset(seed=3)
    env.simulate_grasp()
    rng = np.random.default_rng(0)
    assert KINDS["floats"](env, rng) is None and KINDS["sinks-into-table"](env, rng) is None


def test_a_violation_that_nobody_sees_is_refused(env, monkeypatch):
    monkeypatch.setattr(violations, "ATTEMPTS", 2)
    monkeypatch.setattr(violations, "SEEN_PIXELS", 64 * 128 + 1)
    with pytest.raises(RuntimeError, match="none of 2 draws of `vanishes`"):
        make_pair(env, "vanishes", 0)


def test_ordinary_clips_go_by_their_seed(env):
    one, same, other = (ordinary_clip(env, seed) for seed in (5, 5, 6))
    assert (one.frames == same.frames).all() and (one.states == same.states).all()
    assert (one.frames != other.frames).any()
