"""When the next sub-goal image is shown: by time, as published, or by progress."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from jepa_gym.names import check_choice

MODES = ("time", "progress")
REACHED_M = 0.03
REACHED_CLOSEDNESS = 0.1


@dataclass(frozen=True)
class GoalSchedule:
    """The order of sub-goals and the rule that switches between them.

    `time`: sub-goal i is shown for `steps[i]` steps whatever happens (V-JEPA 2, section 4.2:
    grasped 4, near the target 10, placed 4). `progress`: it is shown until hand and gripper are as
    in its image, then the next one follows at once; steps are ignored. The last one stays.

    Attributes:
        names: What each sub-goal shows.
        steps: Steps of each sub-goal; 0 for "until the end", allowed for the last one only.
        mode: One of `MODES`.

    Raises:
        ValueError: Nothing to show, unequal lengths, a step count out of range or unknown mode.
    """

    names: tuple[str, ...]
    steps: tuple[int, ...]
    mode: str = "time"

    def __post_init__(self) -> None:
        """Check the values."""
        if not self.names or len(self.names) != len(self.steps):
            raise ValueError(
                f"`names` and `steps` must have the same length of at least 1, got {self.names} "
                f"and {self.steps}"
            )
        if any(steps < 1 for steps in self.steps[:-1]) or self.steps[-1] < 0:
            raise ValueError(f"`steps` must be at least 1 (the last may be 0), got {self.steps}")
        check_choice("goal_schedule", self.mode, MODES)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def shown(self) -> str:
        """What is shown, in the words of the tables: `image`, `image x3 by time`, ..."""
        return "image" if len(self) == 1 else f"image x{len(self)} by {self.mode}"

    def advance(self, index: int, steps_done: int, state: np.ndarray, goal: np.ndarray) -> int:
        """Return the sub-goal that is shown next.

        Args:
            index: The sub-goal that is shown now.
            steps_done: Steps of the episode so far.
            state: (7,) the robot's state now.
            goal: (7,) the state that sub-goal `index` shows.
        """
        last = len(self) - 1
        if self.mode == "progress":
            return min(last, index + self.reached(state, goal))
        ends = np.cumsum(self.steps[:-1])
        return min(last, int(np.searchsorted(ends, steps_done, side="right")))

    @staticmethod
    def reached(state: np.ndarray, goal: np.ndarray) -> bool:
        """Return whether a state (7,) has hand (3 cm) and closedness (0.1) of a sub-goal (7,)."""
        near = np.linalg.norm(np.asarray(state)[:3] - np.asarray(goal)[:3]) <= REACHED_M
        return bool(near and abs(state[6] - goal[6]) <= REACHED_CLOSEDNESS)
