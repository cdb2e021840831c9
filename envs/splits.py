"""Splits: what training shows, and what is kept for tests.

Every factor has training values, held-out values that lie in gaps between them, and where there is
a beyond also a rim outside of them; none of the three ever meet. Gaps ask for new values of a known
kind, the rim asks for extrapolation. A split says which groups of factors leave the training
values; all others keep to them, so that a change of success between `train` and `camera` is due to
the camera alone. The plain look is one of training.
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from jepa_gym.envs.physics.objects import OBJECTS
from jepa_gym.envs.pictures.generated import PREFIX, SEEDS
from jepa_gym.envs.pictures.textures import FAR_TEXTURES, HELD_OUT_TEXTURES, TRAIN_TEXTURES
from jepa_gym.envs.variations import Distractor, Variation
from jepa_gym.names import check_choice

Zone = Literal["train", "held out", "far"]
NAMED_SHARE = 0.25
"""Share of textures that have a name of their own; all others are generated."""
OWN_SURFACE_SHARE = 0.5
"""Share of training episodes whose object keeps its own colour and texture."""


@dataclass(frozen=True)
class Ranges:
    """A union of closed intervals of a number."""

    intervals: tuple[tuple[float, float], ...]

    def draw(self, rng: np.random.Generator) -> float:
        """Return a number, uniform over the union."""
        rest = rng.random() * sum(high - low for low, high in self.intervals)
        for low, high in self.intervals:
            if rest <= high - low:
                break
            rest -= high - low
        return float(min(low + rest, high))

    def __contains__(self, value: Any) -> bool:
        """Return whether a number is one of the values."""
        return any(low <= value <= high for low, high in self.intervals)


@dataclass(frozen=True)
class Choices:
    """A set of values, drawn with equal chances."""

    values: tuple[Any, ...]

    def draw(self, rng: np.random.Generator) -> Any:
        """Return one of the values."""
        return self.values[rng.integers(len(self.values))]

    def __contains__(self, value: Any) -> bool:
        """Return whether `value` is one of the values."""
        return value in self.values


@dataclass(frozen=True)
class Textures:
    """Textures without end.

    Attributes:
        named: Those with a name of their own, `NAMED_SHARE` of the draws.
        seeds: First seed of the generated ones, and the one behind the last.
        plain_share: Share of draws that keep the surface's own look (None).
    """

    named: tuple[str, ...]
    seeds: tuple[int, int]
    plain_share: float = 0.0

    def draw(self, rng: np.random.Generator) -> str | None:
        """Return the name of a texture, or None."""
        if rng.random() < self.plain_share:
            return None
        if rng.random() < NAMED_SHARE:
            return self.named[rng.integers(len(self.named))]
        return f"{PREFIX}{rng.integers(*self.seeds)}"

    def __contains__(self, value: Any) -> bool:
        """Return whether a name, or None, is one of the values."""
        if value is None:
            return self.plain_share > 0
        seed = value.removeprefix(PREFIX)
        return value in self.named or (seed != value and int(seed) in range(*self.seeds))


Values = Ranges | Choices | Textures


@dataclass(frozen=True)
class Factor:
    """One thing that varies.

    Attributes:
        group: What it belongs to: `appearance`, `camera`, `start` or `object`.
        train: Its training values.
        held_out: Held-out values of a known kind; of a number, gaps between the training values.
        far: Values beyond; None: there is no beyond, and far splits take the held-out values.
    """

    group: str
    train: Values
    held_out: Values
    far: Values | None = None

    def values(self, zone: Zone) -> Values:
        """Return the values of a zone."""
        if zone == "train":
            return self.train
        return self.far if zone == "far" and self.far is not None else self.held_out


def _spans(*ends: float) -> Ranges:
    return Ranges(tuple(zip(ends[::2], ends[1::2], strict=True)))


def _texture(plain_share: float) -> Factor:
    return Factor(
        "appearance",
        Textures(TRAIN_TEXTURES, SEEDS["train"], plain_share),
        Textures(HELD_OUT_TEXTURES, SEEDS["held out"]),
        Textures(FAR_TEXTURES, SEEDS["far"]),
    )


FACTORS: dict[str, Factor] = {
    "object_hue": Factor(
        "appearance",
        _spans(0.0, 0.08, 0.18, 0.29, 0.41, 0.64, 0.74, 0.82, 0.94, 1.0),
        _spans(0.1, 0.16, 0.31, 0.39, 0.66, 0.72, 0.84, 0.92),
    ),
    "object_texture": _texture(0.0),
    "object_scale": Factor(
        "appearance",
        _spans(0.88, 0.93, 0.97, 1.04, 1.08, 1.1),
        _spans(0.94, 0.96, 1.05, 1.07),
        _spans(0.81, 0.86),
    ),
    "robot_texture": _texture(0.6),
    "table_texture": _texture(0.1),
    "background_texture": _texture(0.1),
    "floor_texture": _texture(0.5),
    "light": Factor(
        "appearance",
        _spans(0.6, 0.78, 0.88, 1.12, 1.22, 1.4),
        _spans(0.8, 0.86, 1.14, 1.2),
        _spans(0.46, 0.56, 1.5, 1.7),
    ),
    "light_hue": Factor("appearance", _spans(0.0, 0.5, 0.65, 1.0), _spans(0.52, 0.63)),
    "light_saturation": Factor(
        "appearance", _spans(0.0, 0.12, 0.2, 0.3), _spans(0.14, 0.18), _spans(0.36, 0.46)
    ),
    "light_azimuth_deg": Factor(
        "appearance",
        _spans(-125.0, -80.0, -50.0, 50.0, 80.0, 125.0),
        _spans(-75.0, -55.0, 55.0, 75.0),
        _spans(-180.0, -135.0, 135.0, 180.0),
    ),
    "light_elevation_deg": Factor(
        "appearance", _spans(-30.0, -16.0, -6.0, 20.0), _spans(-14.0, -8.0), _spans(-45.0, -36.0)
    ),
    "distractor_count": Factor(
        "appearance", Choices((0, 1, 2, 4, 6)), Choices((3, 5)), Choices((7, 8))
    ),
    "distractor_shape": Factor(
        "appearance", Choices(("box", "cylinder", "ellipsoid")), Choices(("capsule",))
    ),
    "camera_azimuth_deg": Factor(
        "camera",
        _spans(-50.0, -38.0, -26.0, 16.0, 28.0, 50.0),
        _spans(-36.0, -28.0, 18.0, 26.0),
        _spans(-70.0, -54.0, 54.0, 70.0),
    ),
    "camera_elevation_deg": Factor(
        "camera", _spans(-7.0, 5.0, 11.0, 24.0), _spans(6.0, 10.0), _spans(-11.0, -8.5, 27.0, 35.0)
    ),
    "camera_distance": Factor(
        "camera",
        _spans(0.8, 1.06, 1.18, 1.42),
        _spans(1.09, 1.15),
        _spans(0.7, 0.77, 1.47, 1.6),
    ),
    "camera_magnification": Factor(
        "camera", _spans(0.7, 0.8, 0.88, 1.08), _spans(0.82, 0.86), _spans(0.58, 0.66, 1.12, 1.17)
    ),
    "start_yaw_rad": Factor(
        "start", _spans(-0.2, -0.12, -0.06, 0.06, 0.12, 0.2), _spans(-0.1, -0.08, 0.08, 0.1)
    ),
    "object": Factor(
        "object",
        Choices(tuple(name for name, entry in OBJECTS.items() if not entry.held_out)),
        Choices(tuple(name for name, entry in OBJECTS.items() if entry.held_out)),
    ),
}
"""`camera_magnification` is how large the workspace appears against the default view: it is drawn
instead of the zoom, so that cameras that stand near take a wider lens and keep the hand in view."""
SPLITS: dict[str, dict[str, Zone]] = {
    "train": {},
    "camera": {"camera": "held out"},
    "appearance": {"appearance": "held out"},
    "object": {"object": "held out"},
    "all": dict.fromkeys(("camera", "appearance", "object", "start"), "held out"),
    "camera-far": {"camera": "far"},
    "appearance-far": {"appearance": "far"},
}
"""Split -> groups of factors that leave the training values, and what they take instead."""


def split_values(split: str, factor: str) -> Values:
    """Return the values a factor takes in a split.

    Raises:
        ValueError: Unknown split or factor.
    """
    check_choice("split", split, tuple(SPLITS))
    check_choice("factor", factor, tuple(FACTORS))
    entry = FACTORS[factor]
    return entry.values(SPLITS[split].get(entry.group, "train"))


def split_objects(split: str) -> tuple[str, ...]:
    """Return the catalogue's objects that belong to a split."""
    values = split_values(split, "object")
    assert isinstance(values, Choices)
    return values.values


def sample_factors(split: str, rng: np.random.Generator) -> dict[str, Any]:
    """Draw a value of every factor of a split, the object apart."""
    return {name: split_values(split, name).draw(rng) for name in FACTORS if name != "object"}


def sample_variation(split: str, rng: np.random.Generator) -> Variation:
    """Draw how an episode of a split looks; where distractors stand is drawn by the task."""
    drawn = sample_factors(split, rng)
    own = 0.0 if "appearance" in SPLITS[split] else OWN_SURFACE_SHARE
    # colour or texture, not both: dark textures would hide the colour
    surface = "own" if rng.random() < own else ("colour", "texture")[rng.integers(2)]
    colour = (drawn.pop("object_hue"), rng.uniform(0.45, 1.0), rng.uniform(0.4, 0.95))
    texture, count = drawn.pop("object_texture"), drawn.pop("distractor_count")
    light = (drawn.pop("light_hue"), drawn.pop("light_saturation"), 1.0)
    drawn.pop("distractor_shape")
    shapes = split_values(split, "distractor_shape")
    assert isinstance(shapes, Choices)
    return Variation(
        object_rgb=colorsys.hsv_to_rgb(*colour) if surface == "colour" else None,
        object_texture=texture if surface == "texture" else None,
        light_rgb=colorsys.hsv_to_rgb(*light),
        camera_zoom=drawn.pop("camera_magnification") * drawn["camera_distance"],
        distractors=tuple(
            Distractor(
                shape=shapes.draw(rng),
                size_m=tuple(rng.uniform(0.012, 0.032, 3)),
                rgb=tuple(rng.uniform(0.05, 0.95, 3)),
            )
            for _ in range(count)
        ),
        **drawn,
    )
