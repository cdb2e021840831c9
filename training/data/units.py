"""Whether numbers mean what they should: what is improbable.

What is impossible is refused by `jepa_gym.states.unit_problem`.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

LENGTH_TOLERANCE = 1e-3
UPRIGHT, TILTED = 0.9, 0.8
"""Mean cosine between the hand and the vertical: pointing down as tables ask for; doing something
else."""
STEP_S = (0.001, 20.0)
"""Times between frames that recorders have."""
WIDTH_LIKE = (0.005, 0.13)
"""A closedness that changes by more than the first and never exceeds the second is a width in m."""


def euler_of_quaternions(quaternions: np.ndarray) -> np.ndarray:
    """Turn quaternions (T, 4), x y z w, into extrinsic xyz Euler angles (T, 3) in radians.

    Raises:
        ValueError: If they are not (T, 4), or not of length 1.
    """
    if quaternions.ndim != 2 or quaternions.shape[1] != 4:
        raise ValueError(f"quaternions must be (T, 4), are {quaternions.shape}")
    lengths = np.linalg.norm(quaternions, axis=1)
    if not np.allclose(lengths, 1.0, atol=LENGTH_TOLERANCE):
        raise ValueError(f"quaternions have lengths {lengths.min():g} to {lengths.max():g}, not 1")
    return Rotation.from_quat(quaternions).as_euler("xyz")


def suspicion(states: np.ndarray, convention: str) -> str | None:
    """Say what is probably wrong with states that are possible, or None.

    An arm over a table points its hand down. Where the hand points up, its states are of the other
    convention; where it would point down if the quaternions that the angles come from were read in
    the other order, the order was mistaken. (A hand that hardly turns about the vertical points
    down in both orders, and nothing is seen.)

    Args:
        states: (T, 7) of one or many episodes, in metres, radians and closedness.
        convention: One of `jepa_gym.config.STATE_CONVENTIONS`.
    """
    turns = Rotation.from_euler("xyz", states[:, 3:6])
    as_read = _pointing_down(turns, convention)
    if as_read < -UPRIGHT:
        return (
            f"the hand points up if these are states of the convention {convention!r}: are they of "
            f"{'hand' if convention == 'droid' else 'droid'!r} (roll near pi where the hand points "
            "down)? Name it by --state-convention"
        )
    for order in (1, -1):  # x y z w taken for w x y z, and the reverse
        other = Rotation.from_quat(np.roll(turns.as_quat(), order, axis=1))
        if as_read < TILTED and _pointing_down(other, convention) > UPRIGHT:
            return (
                f"the hand points down by a cosine of {as_read:.2f} only, and would by "
                f"{_pointing_down(other, convention):.2f} if quaternions had been read in the "
                "other order: x y z w is SciPy's and robosuite's, w x y z MuJoCo's"
            )
    closedness = states[:, 6]
    if np.ptp(closedness) > WIDTH_LIKE[0] and closedness.max() < WIDTH_LIKE[1]:
        return (
            f"the gripper's closedness lies between {closedness.min():.3f} and "
            f"{closedness.max():.3f}: is it a width in metres? It must be 0 open and 1 closed"
        )
    return None


def time_suspicion(times_s: np.ndarray) -> str | None:
    """Say what is probably wrong with the times (T,) of an episode's frames, or None."""
    if len(times_s) < 2:
        return None
    step_s = float(np.median(np.diff(times_s)))
    if STEP_S[0] <= step_s <= STEP_S[1]:
        return None
    return f"a frame every {step_s:g} s: times must be in seconds (milliseconds, nanoseconds?)"


def _pointing_down(turns: Rotation, convention: str) -> float:
    """Return the mean cosine between the hand's direction and straight down."""
    upright = turns.as_matrix()[:, 2, 2]  # of the z axis, which the flange has the other way round
    return float(-upright.mean() if convention == "droid" else upright.mean())
