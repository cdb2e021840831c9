"""Demonstrations of robomimic and robosuite: one HDF5 file, read with h5py alone.

::

    data                                  attribute env_args: JSON with env_kwargs.control_freq
    data/demo_0                           attribute model_file: the simulated scene (MJCF)
    data/demo_0/obs/agentview_image       (T, Y, X, 3) uint8, upright
    data/demo_0/obs/robot0_eef_pos        (T, 3) m, world frame
    data/demo_0/obs/robot0_eef_quat       (T, 4) x y z w, world frame
    data/demo_0/obs/robot0_gripper_qpos   (T, 2) m, the fingers' joints
    data/demo_0/rewards                   (T,)

What is put right, so that states mean what they mean everywhere else here (convention "hand"):

- Position and orientation are given in the frame of the world; where the robot's base stands in it
  is read from `model_file`, and they are turned into the frame of the base.
- `robot0_eef_quat` is the orientation of the Panda's flange, which is turned by pi about x when the
  gripper points down; the hand's is zero then. The position is the point between the fingertips in
  both conventions.
- The fingers' joints run from +-0.04 m (open) to 0 (closed): closedness is 1 - width / 0.08 m.
- Frame t was taken at t / control_freq seconds.

Actions are commands of a controller in [-1, 1], no poses, and are left out: what is trained on are
the differences of states.

Reference: robomimic (arXiv 2108.03298), documentation page "Dataset Structure"; robosuite
(arXiv 2009.12293), `robosuite/robots/robot.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import h5py
import numpy as np
from scipy.spatial.transform import Rotation

from jepa_gym.files import parse_json
from jepa_gym.training.data.episodes import CorruptEpisodeError, Episode, problem
from jepa_gym.training.data.sources.base import Recording, Source
from jepa_gym.training.data.units import euler_of_quaternions

SUFFIXES = (".hdf5", ".h5")
PICTURE = "_image"
"""How the names of pictures end; what stands before it is the camera."""
PANDA_WIDTH_M = 0.08
"""Between the fingers of an open Panda gripper."""
FLANGE = Rotation.from_euler("x", np.pi)
"""The flange's orientation, seen from the hand."""
UNREADABLE = (OSError, KeyError, ValueError, TypeError, RuntimeError)
"""What h5py raises where a file is damaged or lacks something."""


class RobomimicSource(Source):
    """The demonstrations of one HDF5 file with pictures."""

    format = "robomimic"

    def __init__(self, path: Path) -> None:
        self.path = path
        self.state_convention: str | None = "hand"
        try:
            with h5py.File(path, "r") as file:
                demonstrations: Any = file["data"]
                self._ids = sorted(name for name in demonstrations if name.startswith("demo_"))
                arguments = parse_json(str(demonstrations.attrs["env_args"]))
                observed = demonstrations[self._ids[0]].get("obs", {}) if self._ids else {}
                self.cameras = tuple(
                    sorted(x.removesuffix(PICTURE) for x in observed if x.endswith(PICTURE))
                )
            settings: dict[str, Any] = arguments["env_kwargs"]
            self.step_s = 1.0 / float(settings["control_freq"])
        except (*UNREADABLE, ZeroDivisionError) as error:
            raise ValueError(f"{path} is no demonstration file of robomimic ({error})") from error
        self.task = str(arguments.get("env_name", ""))
        robots = settings.get("robots", "Panda")
        if not self._ids:
            raise ValueError(f"{path} holds no demonstration (`data/demo_*`)")
        if not self.cameras:
            raise ValueError(
                f"{path} holds no pictures (`obs/<camera>{PICTURE}`), only states: render them "
                "first, with robomimic's `dataset_states_to_obs.py --camera_names agentview ...`"
            )
        if robots not in ("Panda", ["Panda"]):
            raise ValueError(
                f"{path} was recorded with {robots}: only one Panda's pose and gripper are known; "
                "write a converter as in docs/data.md"
            )

    @classmethod
    def recognises(cls, path: Path) -> bool:
        """Say whether this is an HDF5 file with a group `data`."""
        if not path.is_file() or path.suffix not in SUFFIXES or not h5py.is_hdf5(path):
            return False
        try:
            with h5py.File(path, "r") as file:
                return "data" in file
        except UNREADABLE:
            return False

    def ids(self) -> list[str]:
        """Return the names of the demonstrations."""
        return list(self._ids)

    def files(self, episode_id: str) -> list[Path]:
        """Return the file, which holds all of them."""
        return [self.path]

    def recording(self, episode_id: str) -> Recording:
        """Read the numbers of a demonstration; see `Source.recording`."""
        where = self.path / episode_id
        try:
            with h5py.File(self.path, "r") as file:
                demo: Any = file[f"data/{episode_id}"]
                observed = demo["obs"]
                base = base_pose(str(demo.attrs["model_file"]))
                states = hand_states(
                    np.asarray(observed["robot0_eef_pos"], np.float64),
                    np.asarray(observed["robot0_eef_quat"], np.float64),
                    np.asarray(observed["robot0_gripper_qpos"], np.float64),
                    base,
                )
                rewards = np.asarray(demo["rewards"], np.float64) if "rewards" in demo else None
        except (*UNREADABLE, ElementTree.ParseError) as error:
            raise CorruptEpisodeError(where, f"cannot be read ({error})") from error
        times_s = self.step_s * np.arange(len(states))
        rewards = None if rewards is None else rewards[: len(states) - 1]
        reason = problem(Episode({}, states, rewards=rewards, timestamps_s=times_s))
        if reason:
            raise CorruptEpisodeError(where, reason)
        return Recording(times_s, states, rewards=rewards, metadata={"task": self.task})

    def frame_count(self, episode_id: str, camera: str) -> int:
        """Count the pictures of a camera; see `Source.frame_count`."""
        with self._pictures(episode_id, camera) as pictures:
            return len(pictures)

    def frames(self, episode_id: str, camera: str, rows: Sequence[int]) -> np.ndarray:
        """Read some pictures; see `Source.frames`."""
        wanted, places = np.unique(np.asarray(rows), return_inverse=True)  # h5py wants them so
        with self._pictures(episode_id, camera) as pictures:
            return pictures[wanted][places]

    @contextmanager
    def _pictures(self, episode_id: str, camera: str) -> Iterator[h5py.Dataset]:
        """Open the pictures of a camera; what goes wrong with them is a corrupt episode."""
        name = f"data/{episode_id}/obs/{camera}{PICTURE}"
        try:
            with h5py.File(self.path, "r") as file:
                pictures: Any = file[name]
                if pictures.ndim != 4 or pictures.shape[-1] != 3 or pictures.dtype != np.uint8:
                    raise ValueError(
                        f"expected (T, Y, X, 3) uint8, got {pictures.shape} {pictures.dtype}"
                    )
                yield pictures
        except UNREADABLE as error:
            raise CorruptEpisodeError(
                self.path / episode_id, f"cannot read {name} ({error})"
            ) from error


def hand_states(
    position: np.ndarray,
    quaternion: np.ndarray,
    fingers: np.ndarray,
    base: tuple[np.ndarray, Rotation],
) -> np.ndarray:
    """Make states of what robosuite observes.

    Args:
        position: (T, 3) of the point between the fingertips, metres, world frame.
        quaternion: (T, 4) of the flange, x y z w, world frame.
        fingers: (T, 2) positions of the fingers' joints, metres.
        base: Position (3,) in metres and orientation of the robot's base in the world.

    Returns:
        (T, 7) float64: metres and radians in the base frame, closedness.

    Raises:
        ValueError: If shapes are wrong, or quaternions have no length of 1.
    """
    if position.shape != (len(quaternion), 3) or fingers.shape != (len(quaternion), 2):
        raise ValueError(
            f"expected position (T, 3), quaternion (T, 4) and fingers (T, 2), got {position.shape},"
            f" {quaternion.shape} and {fingers.shape}"
        )
    origin, turn = base
    flange = Rotation.from_euler("xyz", euler_of_quaternions(quaternion))
    hand = turn.inv() * flange * FLANGE.inv()
    closedness = np.clip(1.0 - (fingers[:, 0] - fingers[:, 1]) / PANDA_WIDTH_M, 0.0, 1.0)
    return np.column_stack([turn.inv().apply(position - origin), hand.as_euler("xyz"), closedness])


def base_pose(model: str) -> tuple[np.ndarray, Rotation]:
    """Find where a robot's base stands in the world.

    Args:
        model: The simulated scene as MJCF, with a body `robot0_base`.

    Returns:
        Position (3,) in metres and orientation.

    Raises:
        ValueError: If there is no such body, or its orientation is written another way than by a
            quaternion, as robosuite writes it.
        xml.etree.ElementTree.ParseError: If it is no XML.
    """
    world = ElementTree.fromstring(model).find("worldbody")
    chain = [] if world is None else _bodies_to(world, "robot0_base")
    if not chain:
        raise ValueError("its `model_file` has no body `robot0_base`")
    position, turn = np.zeros(3), Rotation.identity()
    for body in chain:
        if any(body.get(kind) for kind in ("euler", "axisangle", "xyaxes", "zaxis")):
            raise ValueError("the orientation of `robot0_base` is not a quaternion")
        w, *xyz = (float(number) for number in body.get("quat", "1 0 0 0").split())
        offset = [float(number) for number in body.get("pos", "0 0 0").split()]
        position = position + turn.apply(offset)
        turn = turn * Rotation.from_quat([*xyz, w])
    return position, turn


def _bodies_to(parent: ElementTree.Element, name: str) -> list[ElementTree.Element]:
    """Return the bodies from below `parent` down to the one of that name, or none."""
    for body in parent.findall("body"):
        below = [] if body.get("name") == name else _bodies_to(body, name)
        if below or body.get("name") == name:
            return [body, *below]
    return []
