"""Draws of places: bounded, with an error that says what to change."""

from __future__ import annotations

import numpy as np
import pytest

from jepa_gym.envs.tasks import grasp, pick_place, reach, reach_with_object
from jepa_gym.envs.tasks.sampling import ATTEMPTS, first_fit

NOWHERE = (5.0, 6.0)
"""No two places in the workspace are so far apart, m."""


def test_the_first_place_that_fits_is_taken():
    places = iter(np.arange(10.0)[:, None])
    assert first_fit(lambda: next(places), lambda place: place[0] > 3, "place") == 4
    assert next(places) == 5


@pytest.mark.parametrize(
    ("env_id", "module", "name"),
    [
        ("FrankaReach-v0", reach, "START_DISTANCE_M"),
        ("FrankaReachWithObject-v0", reach_with_object, "START_DISTANCE_M"),
        ("FrankaPickPlace-v0", pick_place, "DISTANCE_M"),
    ],
)
def test_a_start_without_any_goal_is_an_error(make, monkeypatch, env_id, module, name):
    env = make(env_id, obs_mode="state")
    monkeypatch.setattr(module, name, NOWHERE)
    with pytest.raises(RuntimeError, match=f"none of {ATTEMPTS} drawn places fits as `goal_p"):
        env.reset(seed=0)


def test_a_hand_without_room_is_an_error(make, monkeypatch):
    env = make("FrankaGrasp-v0", obs_mode="state")
    monkeypatch.setattr(grasp.FrankaGraspEnv, "_fits", lambda self, start: False)
    with pytest.raises(RuntimeError, match="as `start_position`: reset with other positions"):
        env.reset(seed=0)
