"""What probes read from clips of recorded episodes; every label follows from what was recorded.

Hand and gripper come from the states, the object from the simulator's state, its kind and the
behaviour from the metadata. What the arm does is told move by move, from where hand and object are
before and after it (`ACTIONS`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jepa_gym.envs.physics.objects import object_spec
from jepa_gym.names import check_choice
from jepa_gym.training.data.episodes import read_metadata, read_trajectory

ACTIONS = (
    *("approach", "descend", "close", "lift", "carry", "lower", "open", "retreat"),
    "hold still",
)
"""What the arm does in one move: towards the object; down to it; closes; with the object up,
sideways, down; opens; away from the object; nothing of these."""
DIRECTIONS = ("forward", "back", "left", "right", "up", "down", "still")
"""Of the hand's motion, in the robot's base frame: x, y and z, either way."""
HELD_M = 0.005
"""Height above its place on the table from which an object counts as held."""
NEAR_HAND_M = 0.12
"""A held object's middle is no farther from the hand."""
STILL_M = 0.01
"""The hand stands still in moves below this."""
GRIPPER_CHANGE = 0.15
"""Change of closedness in one move from which the gripper closes or opens."""
_OBJECT = slice(10, 13)
"""The object's place in a recorded simulator state: after the time, seven joints, two fingers."""


@dataclass(frozen=True, slots=True)
class Track:
    """What was recorded of an episode of T frames, without its pictures."""

    states: np.ndarray
    """(T, 7), see `jepa_gym.states`."""
    metadata: dict[str, Any]
    """Of the episode."""
    objects: np.ndarray | None
    """(T, 3) the object's middle, metres in the base frame; None where nothing tells it."""
    source: Path
    """For messages."""

    @classmethod
    def read(cls, folder: Path, states: np.ndarray) -> Track:
        """Read what was recorded beside the states.

        Args:
            folder: Of an episode of `jepa-gym collect`; where there is none, nothing else is known.
            states: (T, 7), see `jepa_gym.states`.

        Raises:
            CorruptEpisodeError: If it cannot be read.
        """
        if not folder.is_dir():
            return cls(states, {}, None, folder)
        metadata = read_metadata(folder)
        simulated = read_trajectory(folder, metadata).get("sim_state")
        known = simulated is not None and len(simulated) == len(states)
        enough = known and simulated.shape[1] >= _OBJECT.stop
        return cls(states, metadata, simulated[:, _OBJECT] if enough else None, folder)

    def object_positions(self) -> np.ndarray:
        """Return the object's middle (T, 3) in metres.

        Raises:
            ValueError: If the episode has no simulator state.
        """
        if self.objects is None:
            raise ValueError(
                f"{self.source} holds no simulator state, so nobody knows where its object is: "
                "probe for `hand`, `opening` or `direction`, or collect with `jepa-gym collect`"
            )
        return self.objects

    def told(self, key: str) -> str:
        """Return a word of the metadata.

        Raises:
            ValueError: If they do not have it.
        """
        if not isinstance(self.metadata.get(key), str):
            raise ValueError(f"the metadata of {self.source} do not tell `{key}`")
        return self.metadata[key]

    def held(self) -> np.ndarray:
        """Return (T,) bool: the object is off the table and near the hand."""
        position = self.object_positions()
        rest = object_spec(self.told("object")).half_height_m
        near = np.linalg.norm(position - self.states[:, :3], axis=1) < NEAR_HAND_M
        return (position[:, 2] > rest + HELD_M) & near

    def actions(self) -> np.ndarray:
        """Return (T - 1,) indices into `ACTIONS`, what the arm does from each frame to the next."""
        position, held = self.object_positions(), self.held()
        move = np.diff(self.states[:, :3], axis=0)
        closing = np.diff(self.states[:, 6])
        distance = np.linalg.norm(self.states[:, :3] - position, axis=1)
        upright = np.abs(move[:, 2]) > np.linalg.norm(move[:, :2], axis=1)
        up, down = upright & (move[:, 2] > 0), upright & (move[:, 2] < 0)
        nearer = np.diff(distance) < 0
        carried = held[:-1] | held[1:]
        names = np.select(
            [
                closing > GRIPPER_CHANGE,
                closing < -GRIPPER_CHANGE,
                np.linalg.norm(move, axis=1) < STILL_M,
                carried & up,
                carried & down,
                carried,
                nearer & down,
                nearer,
            ],
            ["close", "open", "hold still", "lift", "lower", "carry", "descend", "approach"],
            "retreat",
        )
        return np.array([ACTIONS.index(name) for name in names])

    def direction(self, first: int, last: int) -> int:
        """Return an index into `DIRECTIONS`: where the hand went from one frame to another."""
        move = self.states[last, :3] - self.states[first, :3]
        axis = int(np.abs(move).argmax())
        if np.linalg.norm(move) < STILL_M:
            return DIRECTIONS.index("still")
        return 2 * axis + (0 if (move[axis] > 0) else 1)


@dataclass(frozen=True, slots=True)
class Target:
    """What a probe learns to tell of a clip."""

    kind: str
    """`classification`, `regression` or `anticipation`."""
    frames: int
    """Frames of a clip, unless the user says otherwise."""
    label: Callable[[Track, int, int], float | str | Sequence[float]]
    """Track, first and last frame of a clip -> name of the class, or numbers."""
    names: tuple[str, ...] = ()
    """Classes, or what the numbers are; () takes the classes that the data have."""
    unit: str = ""
    """Of numbers."""
    ahead: bool = False
    """Whether it is about what happens some time after the clip."""


TARGETS: dict[str, Target] = {
    "hand": Target(
        "regression", 1, lambda track, _, last: 100 * track.states[last, :3], ("x", "y", "z"), "cm"
    ),
    "object": Target(
        "regression",
        1,
        lambda track, _, last: 100 * track.object_positions()[last],
        ("x", "y", "z"),
        "cm",
    ),
    "opening": Target(
        "regression",
        1,
        lambda track, _, last: [100 - 100 * track.states[last, 6]],
        ("opening",),
        "%",
    ),
    "held": Target(
        "classification",
        1,
        lambda track, _, last: "held" if track.held()[last] else "not held",
        ("held", "not held"),
    ),
    "object-kind": Target("classification", 1, lambda track, *_: track.told("object")),
    "skill": Target("classification", 8, lambda track, *_: track.told("kind")),
    "direction": Target(
        "classification",
        4,
        lambda track, first, last: DIRECTIONS[track.direction(first, last)],
        DIRECTIONS,
    ),
    "action": Target(
        "classification", 4, lambda track, _, last: ACTIONS[track.actions()[last - 1]], ACTIONS
    ),
    "anticipation": Target(
        "anticipation",
        4,
        lambda track, _, last: ACTIONS[track.actions()[last - 1]],
        ACTIONS,
        ahead=True,
    ),
}
"""What `--target` names: where hand and object are, how open the gripper is, whether the object is
held and what it is, how the episode was acted (`skill`, see `jepa-gym collect --behaviours`), where
the hand goes, what the arm does in the last move of the clip, and what it does in the move that
begins some time after the clip's last picture."""


def target_of(name: str) -> Target:
    """Return a target by its name.

    Raises:
        ValueError: If there is none; the message has the names.
    """
    check_choice("target", name, TARGETS)
    return TARGETS[name]
