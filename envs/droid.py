"""The suite as DROID shows it, for world models that were trained on that dataset.

V-JEPA 2-AC saw DROID's left exterior camera, 1280x720, cropped to the middle 972x720 and squashed
to 256x256, and states of the Franka's flange with roll near +-pi. `state_convention="droid"` gives
the states, `camera="droid"` the view, and `make_droid` both, in a laboratory.

Closedness is 0 open to 1 closed in both conventions. An action is what moves one state to the next:
a translation moves flange and fingertips alike, but a turn about the one moves the other. Positions
in reset options are those of the fingertips in both conventions.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np

from jepa_gym.envs.rotations import euler, matrix

DROID_VIEW: dict[str, Any] = {
    "camera": "droid",
    "image_size": 256,
    "variation": {"table_texture": "breadboard", "background_texture": "lab"},
    "state_convention": "droid",
}
"""Arguments of `gym.make`: the camera with its 1.35:1 squash, an optical table, a laboratory, the
flange's states."""
TOOL_LENGTH_M = 0.163
"""From the flange to the fingertips of DROID's Robotiq 2F-85. That DROID's positions are the
flange's is read off the published example frames: z is 0.25 m while the fingers hold a cup that
stands on the table."""
_FLANGE = matrix(np.array([np.pi, 0.0, 0.0]))
"""The flange's z axis points out of the hand, so that pointing down is a roll of pi."""


def to_droid(state: np.ndarray) -> np.ndarray:
    """Return a state (7,) of the suite as DROID's: flange position (m), its Euler angles (rad)."""
    hand = matrix(state[3:6])
    position = np.asarray(state[:3], np.float64) - _tool(hand)
    return np.array([*position, *euler(hand @ _FLANGE), state[6]], dtype=np.float32)


def hand_action(action: np.ndarray, state: np.ndarray) -> np.ndarray:
    """Return the hand's action (7,) float64 that moves the flange by `action` (7,).

    Args:
        action: DROID's action: translation of the flange (m), turn (rad), change of closedness.
        state: The hand's state (7,) before it.
    """
    return np.array([*(action[:3] + _swing(action, state)), *action[3:]], np.float64)


def flange_action(action: np.ndarray, state: np.ndarray) -> np.ndarray:
    """Return DROID's action (7,) float64 that moves the hand by `action` (7,) from `state` (7,)."""
    return np.array([*(action[:3] - _swing(action, state)), *action[3:]], np.float64)


def make_droid(env_id: str, **kwargs: Any) -> gym.Env:
    """Make a Franka environment with DROID's view and states.

    Args:
        env_id: `FrankaReach-v0`, ...
        **kwargs: Arguments of `gym.make`, on top of `DROID_VIEW`.
    """
    return gym.make(env_id, **(DROID_VIEW | kwargs))


def _tool(hand: np.ndarray) -> np.ndarray:
    """Return the way (3,) in metres from the flange to the fingertips of a hand turned (3, 3)."""
    return hand @ _FLANGE @ [0.0, 0.0, TOOL_LENGTH_M]


def _swing(action: np.ndarray, state: np.ndarray) -> np.ndarray:
    """Return the move (3,) in metres of the fingertips if the hand turns about the flange."""
    tool = _tool(matrix(state[3:6]))
    return matrix(action[3:6]) @ tool - tool
