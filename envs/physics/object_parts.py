"""What every entry of the catalogue is made of: its description, its touch, its solid boxes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import mujoco
import numpy as np

GRASP_FRICTION = (1.5, 0.02, 0.0002)
"""Sliding, torsional, rolling friction of every object."""
TOUCH: dict = {
    "friction": GRASP_FRICTION,
    "condim": 4,
    "solref": [0.01, 1.0],
    "solimp": [0.95, 0.98, 0.001, 0.5, 2.0],
    "solmix": 1000.0,
}
"""Contacts of every object, stiffer than MuJoCo's default and, by `solmix`, in force against the
softer pads and table too: what is held creeps less, and the less pads sink in, the less often the
fingers' own hulls, which lie 0.4 mm behind them and are costly to collide, touch as well."""
SEEN_ONLY: dict = {"contype": 0, "conaffinity": 0, "mass": 0, "group": 1}
"""What is drawn and neither collides nor weighs anything."""
ROUND_SHARE = 0.8
"""Half width along x of the box that stands for something round, as a share of its radius."""


@dataclass(frozen=True)
class ObjectSpec:
    """One object.

    Attributes:
        build: Adds the geoms to a body whose origin is the object's centre, and what they need
            (mesh, texture, material) to the spec; every name starts with `object_`. Visible geoms
            are in group 1, those that collide are primitives.
        half_height_m: Distance from the centre to the object's foot.
        grasp_height_m: Height of the grasp point above the centre.
        radius_m: Horizontal distance from the centre that covers the whole footprint.
        upright: Whether the object has an upright pose that it can lose.
        held_out: Never used for training.
    """

    build: Callable[[mujoco.MjSpec, mujoco.MjsBody], None]
    half_height_m: float
    grasp_height_m: float
    radius_m: float
    upright: bool = True
    held_out: bool = False


def add_solid(
    body: mujoco.MjsBody,
    name: str,
    half_size_m: Sequence[float],
    mass_kg: float,
    pos: Sequence[float] = (0.0, 0.0, 0.0),
) -> None:
    """Add a box that collides and is not seen.

    Args:
        body: The object's body.
        name: Name of the geom, without `object_`.
        half_size_m: Half extents along x, y, z in metres.
        mass_kg: Mass of the box.
        pos: Its centre in the body's frame, metres.
    """
    box = {"type": mujoco.mjtGeom.mjGEOM_BOX, "size": half_size_m, "pos": pos, "mass": mass_kg}
    body.add_geom(name=f"object_{name}", group=3, **box, **TOUCH)


def entry(
    build: Callable[[mujoco.MjSpec, mujoco.MjsBody], None],
    size_m: Sequence[float],
    below_top_m: float,
    **flags,
) -> ObjectSpec:
    """Return the catalogue's entry of an object.

    Args:
        build: Adds the geoms, see `ObjectSpec`.
        size_m: Extents along x, y, z in metres.
        below_top_m: Depth of the grasp point below the object's top.
        **flags: `upright` and `held_out` of `ObjectSpec`.
    """
    x, y, z = np.asarray(size_m) / 2
    return ObjectSpec(build, float(z), float(z - below_top_m), float(np.hypot(x, y)), **flags)
