"""The catalogue of objects; a new one is a function that adds geoms, and a line in `OBJECTS`.

Extents along x, y, z in millimetres; the gripper closes along y, objects stand along z.

| name | what it is | extents | source | held out |
|---|---|---|---|---|
| box | red box | 44 x 44 x 60 | own | |
| cup | blue cup | 55 x 55 x 80 | own | |
| can | red can of soda | 50 x 50 x 80 | robosuite | |
| bottle | green bottle, held by its neck | 41 x 44 x 120 | robosuite | |
| cereal | box of cereal | 72 x 30 x 108 | robosuite | |
| bread | loaf of bread | 56 x 48 x 56 | robosuite | |
| bowl | violet bowl, held across its rim | 58 x 58 x 36 | own | |
| milk | white carton of milk with a blue band | 36 x 36 x 120 | robosuite | yes |
| lemon | lemon | 58 x 42 x 42 | robosuite | yes |
| mug | teal mug with a handle along x | 71 x 54 x 70 | own | yes |

To the touch every object is made of boxes, also where it is round or hollow to the eye. A flat face
gives a pad up to four contacts, so a grasp off the middle holds too; a cylinder gives it one and
slips away, and pads squeeze through a 3 mm wall.
"""

from __future__ import annotations

import functools

import mujoco
import numpy as np

from jepa_gym.envs.physics.object_meshes import add_mesh, add_robosuite_mesh, tube, turned
from jepa_gym.envs.physics.object_parts import (
    ROUND_SHARE,
    SEEN_ONLY,
    TOUCH,
    ObjectSpec,
    add_solid,
    entry,
)
from jepa_gym.names import check_choice

_BOX = mujoco.mjtGeom.mjGEOM_BOX


def _box(spec: mujoco.MjSpec, body: mujoco.MjsBody) -> None:
    look = {"size": [0.022, 0.022, 0.03], "rgba": [0.85, 0.16, 0.12, 1]}
    body.add_geom(name="object_box", type=_BOX, mass=0.08, group=1, **look, **TOUCH)


CUP_RADIUS_M, CUP_HEIGHT_M, CUP_WALL_M, CUP_SIDES = 0.0275, 0.08, 0.003, 12


def _cup(spec: mujoco.MjSpec, body: mujoco.MjsBody) -> None:
    look = {"rgba": [0.12, 0.35, 0.85, 1], **SEEN_ONLY}
    place = {"size": [CUP_RADIUS_M, 0.003, 0], "pos": [0, 0, -CUP_HEIGHT_M / 2 + 0.003]}
    body.add_geom(name="object_foot", type=mujoco.mjtGeom.mjGEOM_CYLINDER, **place, **look)
    panel = CUP_RADIUS_M * np.tan(np.pi / CUP_SIDES)
    middle = CUP_RADIUS_M - CUP_WALL_M / 2
    for side in range(CUP_SIDES):
        angle = 2 * np.pi * side / CUP_SIDES
        body.add_geom(
            name=f"object_wall_{side}",
            type=_BOX,
            size=[CUP_WALL_M / 2, panel, CUP_HEIGHT_M / 2],
            pos=[middle * np.cos(angle), middle * np.sin(angle), 0],
            quat=[np.cos(angle / 2), 0, 0, np.sin(angle / 2)],
            **look,
        )
    add_solid(body, "core", (ROUND_SHARE * CUP_RADIUS_M, CUP_RADIUS_M, CUP_HEIGHT_M / 2), 0.08)


def _robosuite_solid(
    mesh: str,
    texture: str,
    size_m: tuple[float, float, float],
    mass_kg: float,
    width_share: float,
    spec: mujoco.MjSpec,
    body: mujoco.MjsBody,
) -> None:
    """One of robosuite's meshes around one box, narrowed along x to `width_share`."""
    add_robosuite_mesh(spec, body, mesh, texture, size_m)
    x, y, z = np.asarray(size_m) / 2
    add_solid(body, "core", (width_share * x, y, z), mass_kg)


CAN_SIZE_M = (0.05, 0.05, 0.08)
CEREAL_SIZE_M = (0.072, 0.03, 0.108)
BREAD_SIZE_M = (0.056, 0.048, 0.056)
BOTTLE_SIZE_M = (0.0413, 0.0439, 0.12)
BOTTLE_NECK_HALF_M, BOTTLE_NECK_HEIGHT_M, BOTTLE_BODY_HEIGHT_M = (0.014, 0.0095), 0.026, 0.06
MILK_SIZE_M = (0.036, 0.036, 0.12)
LEMON_SIZE_M = (0.058, 0.042, 0.042)
BOWL_RADIUS_M, BOWL_FOOT_M, BOWL_HEIGHT_M = 0.029, 0.016, 0.036
MUG_RADIUS_M, MUG_HEIGHT_M, MUG_HANDLE_M = 0.027, 0.07, 0.017


def _bottle(spec: mujoco.MjSpec, body: mujoco.MjsBody) -> None:
    """A bottle: body, shoulder and neck.

    The neck's box reaches down into the shoulder, and is wider along x than the neck that is seen,
    so that the pads need not meet it to the millimetre.
    """
    add_robosuite_mesh(spec, body, "bottle", "glass", BOTTLE_SIZE_M)
    x, y, z = np.asarray(BOTTLE_SIZE_M) / 2
    wide, high, neck = BOTTLE_BODY_HEIGHT_M / 2, BOTTLE_NECK_HEIGHT_M / 2, BOTTLE_NECK_HALF_M
    shoulder = z - wide - high
    add_solid(body, "core", (ROUND_SHARE * x, ROUND_SHARE * y, wide), 0.08, (0, 0, wide - z))
    add_solid(body, "shoulder", (0.014, 0.013, shoulder), 0.01, (0, 0, 2 * wide + shoulder - z))
    add_solid(body, "neck", (*neck, high), 0.01, (0, 0, z - high))


def _milk(spec: mujoco.MjSpec, body: mujoco.MjsBody) -> None:
    add_robosuite_mesh(spec, body, "milk", "ceramic", MILK_SIZE_M)
    x, y, z = np.asarray(MILK_SIZE_M) / 2
    place = {"size": [x + 0.0003, y + 0.0003, 0.012], "pos": [0, 0, -0.018]}
    body.add_geom(name="object_band", type=_BOX, rgba=[0.15, 0.3, 0.75, 1], **place, **SEEN_ONLY)
    add_solid(body, "core", (x, y, z), 0.1)


def _lemon(spec: mujoco.MjSpec, body: mujoco.MjsBody) -> None:
    """A lemon: a block for the pads, and a narrower, higher one to lie on."""
    add_robosuite_mesh(spec, body, "lemon", "lemon", LEMON_SIZE_M)
    x, y, z = np.asarray(LEMON_SIZE_M) / 2
    add_solid(body, "core", (0.75 * x, y, 0.6 * z), 0.04)
    add_solid(body, "foot", (0.5 * x, 0.6 * y, z), 0.02)


def _bowl(spec: mujoco.MjSpec, body: mujoco.MjsBody) -> None:
    """A bowl: a block under the rim, and the foot."""
    rim, foot, z = BOWL_RADIUS_M, BOWL_FOOT_M, BOWL_HEIGHT_M / 2
    outside = [(0.0, -z), (foot, -z), (0.8 * rim, -0.3 * z), (0.95 * rim, 0.35 * z), (rim, z)]
    inside = [(rim - 0.003, z), (0.84 * rim, 0.35 * z), (0.65 * rim, -0.3 * z), (0.0, -0.7 * z)]
    add_mesh(spec, body, [turned(outside + inside)], (0.5, 0.3, 0.68, 1))
    slab = 0.006
    add_solid(body, "core", (ROUND_SHARE * rim, rim, slab), 0.05, (0, 0, z - slab))
    add_solid(body, "foot", (foot, foot, z), 0.04)


def _mug(spec: mujoco.MjSpec, body: mujoco.MjsBody) -> None:
    """A mug, its handle along x, out of the fingers' way."""
    radius, wall, z = MUG_RADIUS_M, 0.003, MUG_HEIGHT_M / 2
    outside = [(0.0, -z), (0.94 * radius, -z), (radius, -z + 0.003), (radius, z)]
    inside = [(radius - wall, z), (radius - wall, -z + 0.006), (0.0, -z + 0.004)]
    thick, angles = 0.0035, np.linspace(-np.pi / 2, np.pi / 2, 10)
    reach, rise = MUG_HANDLE_M - thick, 0.6 * z
    arc = np.stack([radius - 0.001 + (reach + 0.001) * np.cos(angles), rise * np.sin(angles)], 1)
    add_mesh(spec, body, [turned(outside + inside), tube(arc, thick)], (0.1, 0.52, 0.5, 1))
    add_solid(body, "core", (ROUND_SHARE * radius, radius, z), 0.09)
    half = (MUG_HANDLE_M + (1 - ROUND_SHARE) * radius) / 2
    add_solid(body, "handle", (half, thick, rise), 0.01, (radius + MUG_HANDLE_M - half, 0, 0))


_can = functools.partial(_robosuite_solid, "can", "soda", CAN_SIZE_M, 0.1, ROUND_SHARE)
_cereal = functools.partial(_robosuite_solid, "cereal", "cereal", CEREAL_SIZE_M, 0.08, 1.0)
_bread = functools.partial(_robosuite_solid, "bread", "bread", BREAD_SIZE_M, 0.06, 0.92)
_MUG_SIZE_M = (2 * (MUG_RADIUS_M + MUG_HANDLE_M), 2 * MUG_RADIUS_M, MUG_HEIGHT_M)
_CUP_SIZE_M = (ROUND_SHARE * 2 * CUP_RADIUS_M, 2 * CUP_RADIUS_M, CUP_HEIGHT_M)

OBJECTS: dict[str, ObjectSpec] = {
    "box": entry(_box, (0.044, 0.044, 0.06), 0.02),
    "cup": entry(_cup, _CUP_SIZE_M, 0.02),
    "can": entry(_can, CAN_SIZE_M, 0.02),
    "bottle": entry(_bottle, BOTTLE_SIZE_M, 0.013),
    "cereal": entry(_cereal, CEREAL_SIZE_M, 0.02),
    "bread": entry(_bread, BREAD_SIZE_M, 0.022, upright=False),
    "bowl": entry(_bowl, (2 * BOWL_RADIUS_M,) * 2 + (BOWL_HEIGHT_M,), 0.012),
    "milk": entry(_milk, MILK_SIZE_M, 0.022, held_out=True),
    "lemon": entry(_lemon, LEMON_SIZE_M, 0.02, upright=False, held_out=True),
    "mug": entry(_mug, _MUG_SIZE_M, 0.02, held_out=True),
}


def object_spec(name: str) -> ObjectSpec:
    """Return the catalogue's entry `name`.

    Raises:
        ValueError: If the catalogue has no such object; the message lists the names.
    """
    check_choice("obj", name, OBJECTS)
    return OBJECTS[name]
