"""What actions are accepted."""

from __future__ import annotations

import numpy as np
import pytest
from gymnasium import spaces

from jepa_gym.actions import BOUNDS_TOLERANCE, checked_actions

SPACE = spaces.Box(-np.float32(0.5), np.float32(0.5), (7,))


def test_rounding_is_forgiven_and_put_onto_the_bound():
    action = np.zeros(7)
    action[2] = 0.5 + 0.9 * BOUNDS_TOLERANCE
    assert checked_actions(action, SPACE)[2] == 0.5
    action[2] = 0.5 + 1.1 * BOUNDS_TOLERANCE
    with pytest.raises(ValueError, match=r"outside the bounds .*index \[2\]"):
        checked_actions(action, SPACE)
    assert checked_actions(action, SPACE, clip=True)[2] == 0.5


def test_several_environments_are_named():
    actions = np.zeros((3, 7))
    assert checked_actions(actions, SPACE, 3).shape == (3, 7)
    actions[1, 4], actions[2, 0] = 2.0, -3.0
    with pytest.raises(ValueError, match=r"in environment 1, .*index \[0\]\) in environment 2"):
        checked_actions(actions, SPACE, 3)
    with pytest.raises(ValueError, match=r"shape \(2, 7\)"):
        checked_actions(actions, SPACE, 2)


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (["0.1"] * 7, "real numbers"),
        (np.zeros(7, complex), "real numbers"),
        (np.zeros(7, bool), "real numbers"),
        ([None] * 7, "real numbers"),
        (np.full(7, np.nan), "finite"),
        (np.full(7, np.inf), "finite"),
        (np.zeros(6), r"shape \(7,\)"),
    ],
)
@pytest.mark.parametrize("clip", [False, True])
def test_what_is_no_action_is_refused(action, message, clip):
    with pytest.raises(ValueError, match=message):
        checked_actions(action, SPACE, clip=clip)


def test_integers_and_lists_are_numbers():
    assert checked_actions([0] * 7, SPACE).dtype == np.float64
