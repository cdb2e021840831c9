"""The catalogue of objects; a new one is a function that adds geoms and a line in `OBJECTS`."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass

import mujoco
import numpy as np

GRASP_FRICTION = (1.5, 0.02, 0.0002)
"""Sliding, torsional, rolling friction of every object."""


@dataclass(frozen=True)
class ObjectSpec:
    """One object.

    Attributes:
        build: adds the geoms (named, collidable) to a body whose origin is the object's centre.
        half_height_m: distance from the centre to the object's foot.
        grasp_height_m: height of the grasp point above the centre.
    """

    build: Callable[[mujoco.MjsBody], None]
    half_height_m: float
    grasp_height_m: float


def _box(body: mujoco.MjsBody) -> None:
    body.add_geom(
        name="object_box",
        type=mujoco.mjtGeom.mjGEOM_BOX,
        size=[0.022, 0.022, 0.03],
        rgba=[0.85, 0.16, 0.12, 1],
        mass=0.08,
        friction=GRASP_FRICTION,
        condim=4,
        group=1,
    )


CUP_RADIUS_M, CUP_HEIGHT_M, CUP_WALL_M, CUP_SIDES = 0.0275, 0.08, 0.003, 12


def _cup(body: mujoco.MjsBody) -> None:
    """A cup, hollow to the eye and solid to the touch: pads would squeeze through a 3 mm wall."""
    colour = [0.12, 0.35, 0.85, 1]
    body.add_geom(
        name="object_foot",
        type=mujoco.mjtGeom.mjGEOM_CYLINDER,
        size=[CUP_RADIUS_M, 0.003, 0],
        pos=[0, 0, -CUP_HEIGHT_M / 2 + 0.003],
        mass=0,
        contype=0,
        conaffinity=0,
        group=1,
        rgba=colour,
    )
    panel = CUP_RADIUS_M * np.tan(np.pi / CUP_SIDES)
    middle = CUP_RADIUS_M - CUP_WALL_M / 2
    for side in range(CUP_SIDES):
        angle = 2 * np.pi * side / CUP_SIDES
        turn = [np.cos(angle / 2), 0, 0, np.sin(angle / 2)]
        body.add_geom(
            name=f"object_wall_{side}",
            type=mujoco.mjtGeom.mjGEOM_BOX,
            size=[CUP_WALL_M / 2, panel, CUP_HEIGHT_M / 2],
            pos=[middle * np.cos(angle), middle * np.sin(angle), 0],
            quat=turn,
            mass=0,
            contype=0,
            conaffinity=0,
            group=1,
            rgba=colour,
        )
        if side < CUP_SIDES // 2:
            body.add_geom(
                name=f"object_core_{side}",
                type=mujoco.mjtGeom.mjGEOM_BOX,
                size=[CUP_RADIUS_M, panel, CUP_HEIGHT_M / 2],
                quat=turn,
                mass=0.08 / (CUP_SIDES // 2),
                friction=GRASP_FRICTION,
                condim=4,
                group=3,
            )


OBJECTS: dict[str, ObjectSpec] = {
    "box": ObjectSpec(_box, half_height_m=0.03, grasp_height_m=0.01),
    "cup": ObjectSpec(_cup, half_height_m=CUP_HEIGHT_M / 2, grasp_height_m=0.02),
}


def object_spec(name: str) -> ObjectSpec:
    """Return the catalogue's entry `name`; ValueError with the allowed names otherwise."""
    if name not in OBJECTS:
        near = difflib.get_close_matches(str(name), OBJECTS, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"`obj` must be one of {sorted(OBJECTS)}, got {name!r}.{hint}")
    return OBJECTS[name]
