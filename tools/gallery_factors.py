"""Which values of the factors of variation the gallery shows, and how a reset shows them."""

from __future__ import annotations

import colorsys
from typing import Any

import numpy as np

from jepa_gym.envs.pictures.generated import PREFIX
from jepa_gym.envs.pictures.textures import TEXTURES
from jepa_gym.envs.splits import FACTORS, Choices, Ranges, Textures

GENERATED_SHOWN = 10
"""Generated textures of a zone that are shown."""


def factor_values(factor: str) -> list[tuple[str, Any]]:
    """Return the (zone, value) pairs of a factor that are shown.

    Numbers show the middle of each interval, in ascending order; choices show every value, textures
    one with a name and a generated one of each zone.
    """
    entry = FACTORS[factor]
    zones = [("train", entry.train), ("held out", entry.held_out), ("far", entry.far)]
    found: list[tuple[str, Any]] = []
    for zone, shown in zones:
        if isinstance(shown, Textures):
            found += [(zone, shown.named[0]), (zone, f"{PREFIX}{shown.seeds[0]}")]
        elif isinstance(shown, Choices):
            found += [(zone, value) for value in shown.values]
        elif shown is not None:
            found += [(zone, sum(interval) / 2) for interval in shown.intervals]
    numbers = isinstance(entry.train, Ranges)
    return sorted(found, key=lambda pair: pair[1]) if numbers else found


def texture_names() -> list[tuple[str, str]]:
    """Return the (zone, name) pairs of all textures that are shown as they are."""
    found = [("in no split", name) for name in TEXTURES]
    entry = FACTORS["table_texture"]
    for zone, shown in (("train", entry.train), ("held out", entry.held_out), ("far", entry.far)):
        assert isinstance(shown, Textures)
        found = [(zone, name) if name in shown.named else (old, name) for old, name in found]
        seeds = range(shown.seeds[0], shown.seeds[0] + GENERATED_SHOWN)
        found += [(zone, f"{PREFIX}{seed}") for seed in seeds]
    return found


def as_variation(factor: str, value: Any) -> dict[str, Any]:
    """Return what `reset(options={"variation": ...})` takes to show a factor at a value."""
    thing = {"size_m": (0.02, 0.025, 0.04)}
    if factor == "object_hue":
        return {"object_rgb": colorsys.hsv_to_rgb(value, 0.8, 0.85)}
    if factor == "light_hue":
        return {"light_rgb": colorsys.hsv_to_rgb(value, 0.3, 1.0)}
    if factor == "light_saturation":
        return {"light_rgb": colorsys.hsv_to_rgb(0.08, value, 1.0)}
    if factor == "camera_magnification":
        return {"camera_zoom": value}
    if factor == "floor_texture":
        return {"camera_distance": 1.5, factor: value}  # from afar the floor shows
    if factor == "distractor_count":
        colours = [colorsys.hsv_to_rgb(hue, 0.7, 0.75) for hue in np.linspace(0.1, 0.9, value)]
        places = [(x, y) for y in (-0.2, 0.2, -0.34, 0.34) for x in (0.4, 0.62)]
        pairs = zip(places[:value], colours, strict=True)
        return {"distractors": [thing | {"position": at, "rgb": rgb} for at, rgb in pairs]}
    if factor == "distractor_shape":
        place = {"position": (0.6, -0.14), "rgb": (0.8, 0.6, 0.2)}
        return {"distractors": [thing | place | {"shape": value}]}
    return {factor: value}


def columns(factor: str) -> int:
    """Return the number of tiles in a row of a factor's sheet."""
    count = len(factor_values(factor))
    return 6 if count > 8 or count == 6 else 4


def written(value: Any) -> str:
    """Return a value in words."""
    return f"{value:g}" if isinstance(value, float) else str(value)
