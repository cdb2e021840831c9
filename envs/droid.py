"""The suite as DROID shows it, for world models that were trained on that dataset.

V-JEPA 2-AC saw DROID's left exterior camera, 1280x720, cropped to the middle 972x720 and squashed
to 256x256, and states of the Franka's flange with roll near +-pi. `make_droid` gives both::

    env = make_droid("FrankaReach-v0", obj="cup")
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np

from jepa_gym.envs.physics.arm import euler, matrix

DROID_VIEW: dict[str, Any] = {
    "camera": "droid",
    "image_size": 256,
    "variation": {"table_texture": "breadboard", "background_texture": "lab"},
}
"""Arguments of `gym.make`: the camera with its 1.35:1 squash, an optical table, a laboratory."""
TOOL_LENGTH_M = 0.163
"""From the flange to the fingertips of DROID's Robotiq 2F-85. That DROID's positions are the
flange's is read off the published example frames: z is 0.25 m while the fingers hold a cup that
stands on the table."""
_FLANGE = matrix(np.array([np.pi, 0.0, 0.0]))
"""The flange's z axis points out of the hand, so that pointing down is a roll of pi."""


class DroidConvention(gym.ObservationWrapper):
    """Give states of the flange, as DROID records them, in `observation` and `goal_state`.

    Closedness is 0 open to 1 closed in both conventions. Actions need no conversion: a translation
    moves both points alike, and a rotation in the base frame does not depend on the hand's own
    axes; only a turn of a tilted hand moves the flange more than the grip point.
    """

    def observation(self, observation: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the observation with states converted."""
        converted = dict(observation)
        for key in ("observation", "goal_state"):
            if key in observation:
                converted[key] = to_droid(observation[key])
        return converted


def to_droid(state: np.ndarray) -> np.ndarray:
    """Return a state (7,) of the suite as DROID's: flange position (m), its Euler angles (rad)."""
    hand = matrix(state[3:6])
    position = np.asarray(state[:3], np.float64) - hand @ _FLANGE @ [0.0, 0.0, TOOL_LENGTH_M]
    return np.array([*position, *euler(hand @ _FLANGE), state[6]], dtype=np.float32)


def make_droid(env_id: str, **kwargs: Any) -> gym.Env:
    """Make a Franka environment with DROID's view and states.

    Args:
        env_id: `FrankaReach-v0`, ...
        **kwargs: arguments of `gym.make`, on top of `DROID_VIEW`.
    """
    return DroidConvention(gym.make(env_id, **(DROID_VIEW | kwargs)))
