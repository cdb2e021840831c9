from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from jepa_gym.training.data.units import euler_of_quaternions, suspicion, time_suspicion

DOWN = {"hand": Rotation.identity(), "droid": Rotation.from_euler("x", np.pi)}


def states_of(turns: Rotation) -> np.ndarray:
    rng = np.random.default_rng(0)
    closedness = rng.uniform(0, 1, len(turns))
    return np.column_stack(
        [rng.uniform(-0.3, 0.3, (len(turns), 3)), turns.as_euler("xyz"), closedness]
    )


def table_turns(convention: str, yaw: float = 1.5, tilt: float = 0.2) -> Rotation:
    """Turns of an arm above a table: any yaw, some tilt."""
    rng = np.random.default_rng(1)
    angles = rng.uniform(-1, 1, (50, 3)) * [tilt, tilt, yaw]
    return Rotation.from_euler("xyz", angles) * DOWN[convention]


@pytest.mark.parametrize("convention", ["hand", "droid"])
def test_the_order_of_quaternions_is_caught(convention):
    turns = table_turns(convention)
    assert suspicion(states_of(turns), convention) is None
    scalar_first = np.roll(turns.as_quat(), 1, axis=1)
    mistaken = states_of(Rotation.from_quat(scalar_first))  # w x y z, read as x y z w
    assert "other order" in suspicion(mistaken, convention)
    mistaken = states_of(Rotation.from_quat(np.roll(turns.as_quat(), -1, axis=1)))
    assert "other order" in suspicion(mistaken, convention)


@pytest.mark.parametrize("convention", ["hand", "droid"])
def test_hands_that_point_elsewhere_are_not_suspicious(convention):
    sideways = Rotation.from_euler("y", 1.4) * table_turns(convention)
    assert suspicion(states_of(sideways), convention) is None
    assert suspicion(states_of(Rotation.random(200, 0)), convention) is None


def test_the_other_convention_is_named():
    assert "of 'droid'" in suspicion(states_of(table_turns("droid")), "hand")
    assert "of 'hand'" in suspicion(states_of(table_turns("hand")), "droid")


def test_times_in_milliseconds_are_caught():
    assert "milliseconds" in time_suspicion(250.0 * np.arange(5))
    assert time_suspicion(0.25 * np.arange(5)) is time_suspicion(np.zeros(1)) is None


def test_a_width_is_no_closedness():
    states = states_of(table_turns("hand"))
    states[:, 6] *= 0.08
    assert "a width in metres" in suspicion(states, "hand")
    states[:, 6] = 0.0  # a gripper that rests
    assert suspicion(states, "hand") is None


def test_quaternions():
    turns = Rotation.from_euler("xyz", [[0.1, 0.2, 0.3], [0.0, -1.0, 2.0]])
    np.testing.assert_allclose(euler_of_quaternions(turns.as_quat()), turns.as_euler("xyz"))
    with pytest.raises(ValueError, match="lengths 2 to 2"):
        euler_of_quaternions(2 * turns.as_quat())
    with pytest.raises(ValueError, match=r"\(T, 4\)"):
        euler_of_quaternions(np.zeros((5, 3)))
