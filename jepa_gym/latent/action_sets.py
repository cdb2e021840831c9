"""Which of the seven numbers of an action a policy chooses, and in which units.

Random moves in all seven dimensions leave the data of the default model after one step: nothing in
it turned the hand. Planners leave the rotation out as well.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from gymnasium import spaces

from jepa_gym.actions import checked_actions
from jepa_gym.config import ACTION_DIM
from jepa_gym.names import did_you_mean

ACTION_SETS = {"xyz": (0, 1, 2), "xyz+gripper": (0, 1, 2, 6), "all": tuple(range(ACTION_DIM))}
"""Name to the dimensions that are chosen; the others stay zero."""


class ActionSet:
    """Turns a policy's actions into those of the contract, (..., 7) in physical units.

    Attributes:
        physical_space: The bounds of the contract's actions, (7,).
        space: The bounds of the policy's actions, (A,).
    """

    def __init__(self, bounds: Sequence[float], name: str = "all", rescaled: bool = False) -> None:
        """Choose the actions.

        Args:
            bounds: (7,), largest absolute value of each number of an action.
            name: One of `ACTION_SETS`.
            rescaled: Whether the policy's numbers are in [-1, 1], 1 being the bound.

        Raises:
            ValueError: When there is no such set.
        """
        if name not in ACTION_SETS:
            raise ValueError(
                f"`action_set` must be one of {tuple(ACTION_SETS)}, got {name!r}."
                f"{did_you_mean(name, ACTION_SETS)}"
            )
        whole = np.array(bounds, np.float32)
        self._dimensions = list(ACTION_SETS[name])
        self._scale = whole[self._dimensions] if rescaled else np.float32(1)
        high = np.ones(len(self._dimensions), np.float32) if rescaled else whole[self._dimensions]
        self.space = spaces.Box(-high, high)
        self.physical_space = spaces.Box(-whole, whole)

    def physical(self, actions: object, count: int | None = None, clip: bool = False) -> np.ndarray:
        """Return the actions (7,) or (count, 7) float32 in physical units.

        Args:
            actions: (A,), or (count, A).
            count: Number of environments; None for a single action.
            clip: Clip to the bounds instead of raising.

        Raises:
            ValueError: As `jepa_gym.actions.checked_actions`.
        """
        chosen = checked_actions(actions, self.space, count, clip=clip)
        whole = np.zeros((*chosen.shape[:-1], ACTION_DIM), np.float32)
        whole[..., self._dimensions] = chosen * self._scale
        return whole
