"""Goals: schedules of sub-goals, and where goals come from."""

from __future__ import annotations

import numpy as np
import pytest

from jepa_gym.envs.tasks.episode import GoalError
from jepa_gym.envs.tasks.schedule import GoalSchedule

PUBLISHED = GoalSchedule(("grasped", "near", "placed"), (4, 10, 4))
HERE, THERE = np.zeros(7), np.array([0.2, 0, 0, 0, 0, 0, 1.0])


def test_published_schedule_switches_by_time():
    shown, index = [], 0
    for steps_done in range(19):
        index = PUBLISHED.advance(index, steps_done, HERE, THERE)
        shown.append(index)
    assert shown == [0] * 4 + [1] * 10 + [2] * 5


def test_progress_switches_when_the_subgoal_is_reached_and_never_back():
    schedule = GoalSchedule(("grasped", "near", "placed"), (4, 10, 4), "progress")
    assert schedule.advance(0, 17, HERE, THERE) == 0
    assert schedule.advance(0, 1, THERE, THERE) == 1
    assert schedule.advance(1, 2, HERE, THERE) == 1
    assert schedule.advance(2, 3, THERE, THERE) == 2
    closing = THERE.copy()
    closing[6] = 0.5
    assert not schedule.reached(closing, THERE)
    assert schedule.reached(THERE + [0.02, 0, 0, 0, 0, 0, 0], THERE)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((), ()), "same length"),
        ((("a", "b"), (1,)), "same length"),
        ((("a", "b"), (0, 1)), "at least 1"),
        ((("a",), (1,), "events"), "'time', 'progress'"),
    ],
)
def test_bad_schedules_raise(arguments, message):
    with pytest.raises(ValueError, match=message):
        GoalSchedule(*arguments)


def test_pick_and_place_shows_the_published_subgoals(make):
    env = make("FrankaPickPlace-v0", image_size=32)
    assert env.unwrapped.goal_schedule == PUBLISHED
    observation, info = env.reset(seed=0)
    grasped, near, placed = env.unwrapped.subgoals
    assert grasped.state[6] > 0.1 and near.state[6] > 0.1 and placed.state[6] < 0.1
    assert near.state[2] > placed.state[2] + 0.05
    shown, truncated = [info["subgoal"]], False
    while not truncated:
        observation, *_, truncated, info = env.step(np.zeros(7, np.float32))
        shown.append(info["subgoal"])
    assert shown == [0] * 4 + [1] * 10 + [2] * 5
    assert np.array_equal(observation["goal_pixels"], placed.pixels)
    assert np.array_equal(observation["goal_state"], placed.state)


SHOWN = {
    "FrankaGrasp-v0": ("image", "image x4 by time", "image"),
    "FrankaPickPlace-v0": ("image x3 by time", "image x3 by time", "image"),
}
"""Environment -> what the protocols published, suite and one show, where that is not one image."""


def test_protocols_show_what_they_name_and_end_in_the_same_image(make, env_id):
    finals, starts = [], []
    for protocol, shown in zip(
        (None, "suite", "one"), SHOWN.get(env_id, ("image",) * 3), strict=True
    ):
        kwargs = {} if protocol is None else {"protocol": protocol}
        env = make(env_id, obj="cup", image_size=32, **kwargs)
        observation, info = env.reset(seed=0)
        assert (info["protocol"], info["goal_shown"]) == (protocol or "published", shown)
        assert shown == env.unwrapped.goal_schedule.shown
        subgoals = env.unwrapped.subgoals
        assert len(subgoals) == int(shown[7:8] or 1)
        assert np.array_equal(observation["goal_pixels"], subgoals[0].pixels)
        finals.append(subgoals[-1].pixels)
        starts.append(observation["pixels"])
    for pictures in (finals, starts):
        assert all(np.array_equal(pictures[0], other) for other in pictures[1:])


def test_one_image_stays_until_the_end(make):
    env = make("FrankaGrasp-v0", image_size=32)
    first, _ = env.reset(seed=0)
    for _ in range(12):
        observation, *_, info = env.step(np.zeros(7, np.float32))
        assert np.array_equal(observation["goal_pixels"], first["goal_pixels"])
        assert info["subgoal"] == 0


def test_progress_lets_the_expert_see_every_subgoal(make):
    arguments = {"protocol": "suite", "goal_schedule": "progress"}
    env = make("FrankaGrasp-v0", obs_mode="state", **arguments).unwrapped
    _, info = env.reset(seed=0)
    shown = [info["subgoal"]]
    for _ in range(12):
        *_, info = env.step(env.expert_action())
        shown.append(info["subgoal"])
    assert shown[0] == 0 and shown == sorted(shown)
    *_, info = env.step(np.zeros(7))
    assert info["subgoal"] >= shown[-1]


@pytest.mark.parametrize("source", ["expert", "random"])
def test_goal_states_are_successes_of_the_task(make, env_id, source):
    """Put into the goal's state, the simulator itself must report success."""
    env = make(env_id, obj="cup", obs_mode="state", goal_source=source).unwrapped
    reached = []
    original = env.subgoal_now

    def keep():
        reached.append(env.get_state())
        return original()

    env.subgoal_now = keep
    for seed in range(5):
        env.reset(seed=seed)
        start = env.get_state()
        env.set_state(reached[-1])
        env._goal, env.held_once = start["_goal"], True
        assert env.task_info()["failure"] is None
        assert len(env.goal_schedule) == len(start["subgoals"])
        if source == "random":
            assert len(start["subgoals"]) == 1


def test_random_goals_differ_from_the_experts(make):
    states = []
    for source in ("expert", "random"):
        env = make("FrankaReach-v0", obs_mode="state", goal_source=source).unwrapped
        env.reset(seed=3)
        states.append(env.subgoals[-1].state)
    assert np.allclose(states[0][:3], states[1][:3], atol=2e-3)
    assert states[0][6] < 0.05 < states[1][6]


def test_what_a_random_goal_drew_stays_drawn(make):
    """Else the next episode starts with the numbers that made this one's goal."""
    env = make("FrankaReach-v0", obs_mode="state", goal_source="random").unwrapped
    drawn = []
    for seed in range(5):
        env.reset(seed=seed)
        closedness = env.subgoals[0].state[6]
        drawn.append((closedness, env.np_random.random()))
    assert np.ptp([one for one, _ in drawn]) > 0.1
    assert all(abs(one - following) > 1e-3 for one, following in drawn)


def test_goals_from_recorded_states(make):
    env = make("FrankaGrasp-v0", obj="box", protocol="suite", image_size=32).unwrapped
    env.reset(seed=0)
    recording = [env.get_state()["physics"]]
    for _ in range(8):
        env.step(env.expert_action())
        recording.append(env.get_state()["physics"])
    frame, state = env.frame(), env.arm.state().astype(np.float32)
    recorded = {"start": recording[1], "goal": recording[-1]}
    observation, info = env.reset(seed=5, options={"recorded": recorded})
    assert np.array_equal(observation["goal_pixels"], frame)
    assert np.array_equal(observation["goal_state"], state)
    assert np.array_equal(env.get_state()["physics"], recording[1])
    assert not info["is_success"] and len(env.subgoals) == 1
    for _ in range(8):
        *_, info = env.step(env.expert_action())
    assert info["is_success"]
    _, info = env.reset(seed=0)
    assert len(env.subgoals) == 4 and info["goal_shown"] == "image x4 by time"
    with pytest.raises(GoalError, match="not grasped"):
        env.reset(options={"recorded": {"start": recording[1], "goal": recording[1]}})


def test_goal_image_shows_the_goal_state(make):
    env = make("FrankaReach-v0", camera="left+wrist").unwrapped
    observation, _ = env.reset(seed=5)
    env.place_arm(observation["goal_state"][:3].astype(float))
    difference = np.abs(env.frame().astype(int) - observation["goal_pixels"])
    assert (difference.max(-1) > 8).mean() < 0.01
