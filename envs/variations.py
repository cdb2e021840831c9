"""What may differ between episodes, and the splits that keep training and test apart.

Every factor has values for training and held-out values that do not overlap; a split says which
groups of factors are held out. A factor that is not held out keeps to its training values, so a
change of success between `train` and `camera` is due to the camera alone.
"""

from __future__ import annotations

import colorsys
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from jepa_gym.envs.physics.objects import OBJECTS
from jepa_gym.envs.physics.scene import DISTRACTOR_SLOTS
from jepa_gym.envs.pictures.textures import HELD_OUT_TEXTURES, TEXTURES, TRAIN_TEXTURES
from jepa_gym.names import check_choice

SHAPES = ("box", "cylinder", "ellipsoid", "capsule")


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
    "camera_azimuth_deg": (-180.0, 180.0),
    "camera_elevation_deg": (-15.0, 40.0),
    "camera_distance": (0.6, 1.5),
    "start_yaw_rad": (-0.5, 0.5),
}
"""Allowed values of the numeric factors; what a split draws is narrower."""


@dataclass(frozen=True)
class Variation:
    """How one episode looks; the default is the plain scene.

    Attributes:
        object_rgb: Colour of the object, a tint if it has a picture; None: its own.
        object_texture: Name in `TEXTURES`; None: its own.
        object_scale: Factor on the object's size (0.8 to 1.1; mass is kept).
        table_texture: Name in `TEXTURES`; None: the plain checkerboard.
        background_texture: Name in `TEXTURES` for walls and floor; None: plain grey.
        light: Factor on the brightness (0.3 to 2).
        light_azimuth_deg: The lamps turned about the table's middle.
        camera_azimuth_deg: Exterior cameras turned about their target, degrees.
        camera_elevation_deg: Exterior cameras raised about their target, degrees.
        camera_distance: Factor on their distance.
        distractors: Up to three things on the table.
        start_yaw_rad: The hand's yaw at the start.

    Raises:
        ValueError: A value outside the allowed ones, which the message names.
    """

    object_rgb: tuple[float, float, float] | None = None
    object_texture: str | None = None
    object_scale: float = 1.0
    table_texture: str | None = None
    background_texture: str | None = None
    light: float = 1.0
    light_azimuth_deg: float = 0.0
    camera_azimuth_deg: float = 0.0
    camera_elevation_deg: float = 0.0
    camera_distance: float = 1.0
    distractors: tuple[Distractor, ...] = ()
    start_yaw_rad: float = 0.0

    def __post_init__(self) -> None:
        """Check ranges and bring everything to plain hashable types."""
        if self.object_rgb is not None:
            object.__setattr__(self, "object_rgb", _numbers("object_rgb", self.object_rgb, 3, 0, 1))
        for name in ("object_texture", "table_texture", "background_texture"):
            if getattr(self, name) is not None:
                check_choice(name, getattr(self, name), TEXTURES)
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
        textures = (self.object_texture, self.table_texture, self.background_texture)
        return "plain" if textures == (None, None, None) else "textured"

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


# ---- splits


@dataclass(frozen=True)
class Ranges:
    """A union of closed intervals of a number."""

    intervals: tuple[tuple[float, float], ...]

    def draw(self, rng: np.random.Generator) -> float:
        """Return a number, uniform over the union."""
        lengths = np.array([high - low for low, high in self.intervals])
        low, high = self.intervals[rng.choice(len(lengths), p=lengths / lengths.sum())]
        return float(rng.uniform(low, high))


@dataclass(frozen=True)
class Choices:
    """A set of values, drawn with equal chances."""

    values: tuple[Any, ...]

    def draw(self, rng: np.random.Generator) -> Any:
        """Return one of the values."""
        return self.values[rng.integers(len(self.values))]


@dataclass(frozen=True)
class Factor:
    """One thing that varies: its group, its training values and its held-out values."""

    group: str
    train: Ranges | Choices
    held_out: Ranges | Choices


def _spans(*ends: float) -> Ranges:
    return Ranges(tuple(zip(ends[::2], ends[1::2], strict=True)))


FACTORS: dict[str, Factor] = {
    "object_hue": Factor("appearance", _spans(0.0, 0.2, 0.5, 0.7), _spans(0.27, 0.43, 0.77, 0.93)),
    "object_texture": Factor("appearance", Choices(TRAIN_TEXTURES), Choices(HELD_OUT_TEXTURES)),
    "object_scale": Factor("appearance", _spans(0.95, 1.04), _spans(0.85, 0.93, 1.06, 1.1)),
    "table_texture": Factor(
        "appearance", Choices((None, *TRAIN_TEXTURES)), Choices(HELD_OUT_TEXTURES)
    ),
    "background_texture": Factor(
        "appearance", Choices((None, *TRAIN_TEXTURES)), Choices(HELD_OUT_TEXTURES)
    ),
    "light": Factor("appearance", _spans(0.8, 1.1), _spans(0.45, 0.65, 1.25, 1.45)),
    "light_azimuth_deg": Factor(
        "appearance", _spans(-30.0, 30.0), _spans(-150.0, -60.0, 60.0, 150.0)
    ),
    "distractor_count": Factor("appearance", Choices((0, 1)), Choices((2, 3))),
    "distractor_shape": Factor(
        "appearance", Choices(("box", "cylinder")), Choices(("ellipsoid", "capsule"))
    ),
    "camera_azimuth_deg": Factor("camera", _spans(-8.0, 8.0), _spans(-25.0, -12.0, 12.0, 25.0)),
    "camera_elevation_deg": Factor("camera", _spans(-3.0, 3.0), _spans(-9.0, -5.0, 5.0, 14.0)),
    "camera_distance": Factor("camera", _spans(0.96, 1.04), _spans(0.84, 0.92, 1.08, 1.2)),
    "start_yaw_rad": Factor("start", _spans(-0.1, 0.1), _spans(-0.35, -0.15, 0.15, 0.35)),
    "object": Factor(
        "object",
        Choices(tuple(name for name, entry in OBJECTS.items() if not entry.held_out)),
        Choices(tuple(name for name, entry in OBJECTS.items() if entry.held_out)),
    ),
}
SPLITS: dict[str, frozenset[str]] = {
    "train": frozenset(),
    "object": frozenset({"object"}),
    "camera": frozenset({"camera"}),
    "appearance": frozenset({"appearance"}),
    "all": frozenset({"object", "camera", "appearance", "start"}),
}
"""Split -> groups of factors that take held-out values."""
OWN_SURFACE_SHARE = 0.5
"""Share of training episodes whose object keeps its own colour and texture."""


def split_values(split: str, factor: str) -> Ranges | Choices:
    """Return the values a factor takes in a split.

    Raises:
        ValueError: Unknown split or factor.
    """
    check_choice("split", split, tuple(SPLITS))
    check_choice("factor", factor, tuple(FACTORS))
    entry = FACTORS[factor]
    return entry.held_out if entry.group in SPLITS[split] else entry.train


def split_objects(split: str) -> tuple[str, ...]:
    """Return the catalogue's objects that belong to a split."""
    values = split_values(split, "object")
    assert isinstance(values, Choices)
    return values.values


def sample_variation(split: str, rng: np.random.Generator) -> Variation:
    """Draw how an episode of a split looks; where distractors stand is drawn by the task."""

    def draw(factor: str) -> Any:
        return split_values(split, factor).draw(rng)

    hue, texture = draw("object_hue"), draw("object_texture")
    # colour or texture, not both: dark textures would hide the colour
    surface = rng.choice(["own", "colour", "texture"], p=_surface_shares(split))
    names = ("object_scale", "table_texture", "background_texture", "light", "light_azimuth_deg")
    camera = ("camera_azimuth_deg", "camera_elevation_deg", "camera_distance", "start_yaw_rad")
    return Variation(
        object_rgb=colorsys.hsv_to_rgb(hue, 0.8, 0.85) if surface == "colour" else None,
        object_texture=texture if surface == "texture" else None,
        distractors=tuple(
            Distractor(
                shape=draw("distractor_shape"),
                size_m=tuple(rng.uniform(0.015, 0.03, 3)),
                rgb=tuple(rng.uniform(0.1, 0.9, 3)),
            )
            for _ in range(draw("distractor_count"))
        ),
        **{name: draw(name) for name in (*names, *camera)},
    )


def _surface_shares(split: str) -> tuple[float, float, float]:
    own = 0.0 if "appearance" in SPLITS[split] else OWN_SURFACE_SHARE
    return own, (1 - own) / 2, (1 - own) / 2


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
