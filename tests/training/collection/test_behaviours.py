"""Behaviours do what their names say, in every task, with and without clutter."""

from __future__ import annotations

import numpy as np
import pytest

from jepa_gym import TASKS
from jepa_gym.training.collection import explorers
from jepa_gym.training.collection.behaviours import SCRIPTS
from jepa_gym.training.collection.explorers import exploration_env, start_episode

STEPS, SEEDS = 15, range(3)
PLAIN = ("grasp", "cup", None)
CLUTTERED = [(task, "box", "train") for task in TASKS]


class Trace:
    """What happened in an episode: arrays over its moments."""

    def __init__(self, env, seed, behaviour):
        kind, policy = start_episode(env, seed, {behaviour: 1.0})
        assert kind == behaviour
        moments = [self.moment(env)]
        for step in range(STEPS):
            env.step(np.clip(policy(step), env.action_space.low, env.action_space.high))
            moments.append(self.moment(env))
        self.hand, self.object, self.held, self.clearance, self.grasp = map(
            np.array, zip(*moments, strict=True)
        )
        self.closed = self.hand[:, 6]

    @staticmethod
    def moment(env):
        state, place = env.arm.state(), env.object_position()
        return state, place, env.object_held(), env.object_clearance(), env.grasp_point()


def did(behaviour, trace):
    """Say whether an episode shows what its behaviour is called."""
    turns = np.diff(trace.held.astype(int))
    to_grasp = np.linalg.norm(trace.hand[:, :3] - trace.grasp, axis=1)
    lies, high = trace.clearance[-1] < 0.005, trace.clearance.max() > 0.03
    moved = np.linalg.norm((trace.object[-1] - trace.object[0])[:2])
    never, always, let_go = not trace.held.any(), trace.held.all(), trace.held[0] > trace.held[-1]
    return {
        "approach": never and trace.closed.max() < 0.2 and to_grasp.min() < 0.015,
        "grasp": trace.held[0] < trace.held[-1] and trace.clearance[-1] > 0.02,
        "regrasp": trace.held[-1] and (turns > 0).sum() == 2 and (turns < 0).sum() == 1,
        "miss": never and trace.closed.max() > 0.9,
        "push": trace.closed[1:].min() > 0.8 and moved > 0.03,
        "carry": always and np.ptp(trace.hand[:, :3], axis=0).max() > 0.1,
        "place": let_go and lies and moved > 0.01,
        "release": let_go and lies and high,
    }[behaviour]


@pytest.mark.parametrize(("task", "obj", "split"), [PLAIN, *CLUTTERED])
def test_scripts_show_what_they_are_called(task, obj, split):
    env = exploration_env(task, obj=obj, camera="left", image_size=16, split=split)
    try:
        for behaviour in SCRIPTS:
            shown = sum(did(behaviour, Trace(env, seed, behaviour)) for seed in SEEDS)
            assert shown >= len(SEEDS) - 1, (behaviour, shown)
    finally:
        env.close()


def test_reaching_is_explored_with_the_object_in_the_hand():
    env = exploration_env("reach", obj="box", camera="left", image_size=16)
    start_episode(env, 0, {"held": 1.0})
    assert env.object_held()
    assert env.unwrapped.compute_reward(env.arm.state()[:3], env.arm.state()[:3], {}) == 0
    env.close()


def test_a_start_near_the_object_gives_up_where_there_is_none():
    env = exploration_env("grasp", obj="box", camera="left", image_size=16)
    env.reset(seed=0)
    place, rng = env.object_position(), np.random.default_rng(0)
    with pytest.raises(
        RuntimeError, match="none of 1000 drawn places fits as place of a hand near"
    ):
        explorers._near_start(env, rng, place - 0.01, place + 0.01)
    start = explorers._near_start(env, rng, place - 0.01, place + [0.01, 0.01, 0.2])
    assert start[2] - place[2] > explorers.NEAR_M
    env.close()


@pytest.mark.parametrize("behaviour", ["random", "near", "approach", "push"])
def test_nothing_stands_where_hand_and_object_are_put(behaviour):
    clutter = {"distractors": [{"shape": "box"}] * 6}
    env = exploration_env("grasp", obj="box", camera="left", image_size=16, variation=clutter)
    for seed in range(8):
        start_episode(env, seed, {behaviour: 1.0})
        places = [env.data.body(f"distractor_{slot}").xpos[:2] for slot in range(6)]
        for taken in (env.object_position()[:2], env.arm.state()[:2]):
            assert np.linalg.norm(np.subtract(places, taken), axis=1).min() > 0.12
    env.close()
