"""What may differ between episodes: the look of the scene, the cameras, the start.

What training and tests draw of it stands in `splits`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from jepa_gym.envs.physics.scene import DISTRACTOR_SLOTS
from jepa_gym.envs.pictures.textures import check_texture
from jepa_gym.names import check_choice

SHAPES = ("box", "cylinder", "ellipsoid", "capsule")
SURFACES = (
    "object_texture", "robot_texture", "table_texture", "background_texture", "floor_texture",
)  # fmt: skip
"""Factors that are textures."""


@dataclass(frozen=True)
class Distractor:
    """A thing on the table that has nothing to do with the task.

    Attributes:
        shape: One of `SHAPES`.
        size_m: Half of its width, depth and height, each in [0.01, 0.05].
        rgb: Colour, each channel in [0, 1].
        position: (x, y) on the table in m; None: drawn, clear of object, goal and hand.
    """

    shape: str = "box"
    size_m: tuple[float, float, float] = (0.02, 0.02, 0.03)
    rgb: tuple[float, float, float] = (0.5, 0.5, 0.5)
    position: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        """Check ranges."""
        check_choice("shape", self.shape, SHAPES)
        object.__setattr__(self, "size_m", _numbers("size_m", self.size_m, 3, 0.01, 0.05))
        object.__setattr__(self, "rgb", _numbers("rgb", self.rgb, 3, 0.0, 1.0))
        if self.position is not None:
            object.__setattr__(self, "position", _numbers("position", self.position, 2, -0.6, 0.9))


RANGES = {
    "object_scale": (0.8, 1.1),
    "light": (0.3, 2.0),
    "light_azimuth_deg": (-180.0, 180.0),
    "light_elevation_deg": (-50.0, 30.0),
    "camera_azimuth_deg": (-180.0, 180.0),
    "camera_elevation_deg": (-15.0, 45.0),
    "camera_distance": (0.6, 1.6),
    "camera_zoom": (0.4, 2.0),
    "start_yaw_rad": (-0.5, 0.5),
}
"""Allowed values of the numeric factors; what a split draws is narrower."""


@dataclass(frozen=True)
class Variation:
    """How one episode looks; the default is the plain scene.

    Attributes:
        object_rgb: Colour of the object, a tint if it has a picture; None: its own.
        object_texture: Name of a texture; None: its own.
        object_scale: Factor on the object's size (0.8 to 1.1; mass is kept).
        robot_texture: Name of a texture for the arm, tinted by its colours; None: plain.
        table_texture: Name of a texture; None: the plain checkerboard.
        background_texture: Name of a texture for the walls; None: plain grey.
        floor_texture: Name of a texture; None: that of the walls.
        light: Factor on the brightness (0.3 to 2).
        light_rgb: Colour of all light, each channel in [0, 1].
        light_azimuth_deg: The lamps turned about the table's middle.
        light_elevation_deg: The lamps raised about the table's middle, 56 and 61 degrees by
            default.
        camera_azimuth_deg: Exterior cameras turned about their target, degrees.
        camera_elevation_deg: Exterior cameras raised about their target, degrees.
        camera_distance: Factor on their distance.
        camera_zoom: Factor on their focal length: above 1 narrows the field of view.
        distractors: Up to eight things on the table.
        start_yaw_rad: The hand's yaw at the start.

    Raises:
        ValueError: A value outside the allowed ones, which the message names.
    """

    object_rgb: tuple[float, float, float] | None = None
    object_texture: str | None = None
    object_scale: float = 1.0
    robot_texture: str | None = None
    table_texture: str | None = None
    background_texture: str | None = None
    floor_texture: str | None = None
    light: float = 1.0
    light_rgb: tuple[float, float, float] = (1.0, 1.0, 1.0)
    light_azimuth_deg: float = 0.0
    light_elevation_deg: float = 0.0
    camera_azimuth_deg: float = 0.0
    camera_elevation_deg: float = 0.0
    camera_distance: float = 1.0
    camera_zoom: float = 1.0
    distractors: tuple[Distractor, ...] = ()
    start_yaw_rad: float = 0.0

    def __post_init__(self) -> None:
        """Check ranges and bring everything to plain hashable types."""
        if self.object_rgb is not None:
            object.__setattr__(self, "object_rgb", _numbers("object_rgb", self.object_rgb, 3, 0, 1))
        object.__setattr__(self, "light_rgb", _numbers("light_rgb", self.light_rgb, 3, 0, 1))
        for name in SURFACES:
            if getattr(self, name) is not None:
                check_texture(name, getattr(self, name))
        for name, (low, high) in RANGES.items():
            object.__setattr__(self, name, _numbers(name, getattr(self, name), None, low, high))
        given = self.distractors
        if not isinstance(given, list | tuple) or len(given) > DISTRACTOR_SLOTS:
            raise ValueError(
                f"`distractors` is a list of at most {DISTRACTOR_SLOTS}, got {given!r}"
            )
        things = tuple(
            thing if isinstance(thing, Distractor) else _from_mapping(Distractor, thing)
            for thing in given
        )
        object.__setattr__(self, "distractors", things)

    @property
    def kind(self) -> str:
        """The kind of scene (`SCENE_KINDS`) that can show this variation."""
        if self.distractors:
            return "cluttered"
        textured = any(getattr(self, name) is not None for name in SURFACES)
        return "textured" if textured else "plain"

    def replaced(self, changes: Mapping[str, Any] | Variation) -> Variation:
        """Return this variation with some factors set, from a mapping or all from another one.

        Raises:
            ValueError: An unknown factor or a value that is not allowed.
        """
        if isinstance(changes, Variation):
            return changes
        return _from_mapping(Variation, changes, self)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types; `Variation().replaced(...)` of it gives this variation again."""
        return dataclasses.asdict(self)


# ---- checks


def _numbers(name: str, value: Any, count: int | None, low: float, high: float) -> Any:
    """Return one float, or a tuple of `count`, after a check of shape and range."""
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        array = np.array(np.nan)
    shape = () if count is None else (count,)
    if array.shape != shape or not ((array >= low) & (array <= high)).all():
        what = "a number" if count is None else f"{count} numbers"
        raise ValueError(f"`{name}` must be {what} in [{low:g}, {high:g}], got {value!r}")
    return float(array) if count is None else tuple(float(item) for item in array)


def _from_mapping(kind: type, values: Any, base: Any = None) -> Any:
    names = tuple(field.name for field in dataclasses.fields(kind))
    if not isinstance(values, Mapping):
        raise ValueError(f"a {kind.__name__} is a mapping with the keys {names}, got {values!r}")
    for name in values:
        check_choice(f"{kind.__name__} key", name, names)
    return dataclasses.replace(base, **values) if base is not None else kind(**values)
