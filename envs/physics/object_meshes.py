"""What objects look like beyond primitives: robosuite's textured meshes, and turned shapes.

Every mesh has at most 1,000 faces and every texture at most 128 pixels a side: on a CPU renderer
both are paid in every picture. Nothing here collides or has mass.

Turned shapes are built by hand, 40 lines: trimesh would take 1.3 s to import in every process, and
order the triangles, and so shade the objects, differently.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

import imageio.v3 as imageio
import mujoco
import numpy as np

from jepa_gym.envs.physics.object_parts import SEEN_ONLY
from jepa_gym.envs.physics.robosuite_assets import asset
from jepa_gym.envs.pictures.textures import add_material, add_texture

MAX_TEXTURE_PX = 128
SIDES = 28
"""Sides of a turned shape."""
TUBE_SIDES = 8
Mesh = tuple[np.ndarray, np.ndarray]
"""Vertices (V, 3) in metres and faces (F, 3), counter-clockwise seen from outside."""


def add_robosuite_mesh(
    spec: mujoco.MjSpec,
    body: mujoco.MjsBody,
    mesh: str,
    texture: str,
    size_m: Sequence[float],
) -> None:
    """Add robosuite's object mesh to `body`, centred, with its own texture coordinates.

    Args:
        spec: The scene; gets mesh, texture and material.
        body: Gets one visible geom.
        mesh: Name in robosuite's `objects/meshes`, without ending.
        texture: Name in robosuite's `textures`, without ending.
        size_m: Extents along x, y, z in metres to which the mesh is scaled.

    Raises:
        FileNotFoundError: The installed robosuite lacks one of the files.
    """
    path = asset(f"objects/meshes/{mesh}.msh")
    # MuJoCo's own mesh format: four counts, then the vertices
    count = int(np.fromfile(path, np.int32, 1)[0])
    vertices = np.fromfile(path, np.float32, 3 * count, offset=16).reshape(count, 3)
    low, high = vertices.min(0), vertices.max(0)
    scale = np.asarray(size_m) / (high - low)
    spec.add_mesh(
        name="object_mesh",
        file=str(path),
        scale=scale,
        inertia=mujoco.mjtMeshInertia.mjMESH_INERTIA_SHELL,
    )
    add_texture(spec, "object_skin", _picture(asset(f"textures/{texture}.png")))
    add_material(spec, "object_skin", "object_skin")
    _add_visible(body, "object_mesh", pos=-scale * (low + high) / 2, material="object_skin")


def add_mesh(
    spec: mujoco.MjSpec, body: mujoco.MjsBody, parts: Sequence[Mesh], rgba: Sequence[float]
) -> None:
    """Add one visible geom of one colour that joins the meshes `parts` (body's frame)."""
    starts = np.cumsum([0] + [len(vertices) for vertices, _ in parts[:-1]])
    faces = [part + start for (_, part), start in zip(parts, starts, strict=True)]
    spec.add_mesh(
        name="object_mesh",
        uservert=np.concatenate([vertices for vertices, _ in parts]).ravel().tolist(),
        userface=np.concatenate(faces).ravel().tolist(),
        inertia=mujoco.mjtMeshInertia.mjMESH_INERTIA_SHELL,
    )
    _add_visible(body, "object_mesh", rgba=rgba)


def turned(profile: Sequence[tuple[float, float]]) -> Mesh:
    """Return a shape turned about the z axis.

    Args:
        profile: Points (radius, height) in metres, from the middle of the outside's foot over the
            rim to the middle of the inside; 0 only as the first and the last radius.
    """
    points = np.asarray(profile, np.float64)
    angles = 2 * np.pi * np.arange(SIDES) / SIDES
    ring = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    rings = [np.column_stack([radius * ring, np.full(SIDES, z)]) for radius, z in points[1:-1]]
    ends = [[0.0, 0.0, points[0, 1]], [0.0, 0.0, points[-1, 1]]]
    vertices = np.concatenate([*rings, ends])
    foot, middle = len(vertices) - 2, len(vertices) - 1
    here, there = np.arange(SIDES), (np.arange(SIDES) + 1) % SIDES
    last = (len(rings) - 1) * SIDES
    bottom = np.stack([np.full(SIDES, foot), there, here], axis=1)
    top = np.stack([last + here, last + there, np.full(SIDES, middle)], axis=1)
    return vertices, np.concatenate([bottom, _sleeve(len(rings), SIDES), top])


def tube(path: np.ndarray, radius_m: float) -> Mesh:
    """Return an open tube around the points `path` (P, 2): x, z in metres in the plane y = 0."""
    tangent = np.gradient(path, axis=0)
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
    angles = 2 * np.pi * np.arange(TUBE_SIDES) / TUBE_SIDES
    centre = np.column_stack([path[:, 0], np.zeros(len(path)), path[:, 1]])
    normal = np.column_stack([-tangent[:, 1], np.zeros(len(path)), tangent[:, 0]])
    across = np.cos(angles)[:, None] * [0.0, 1.0, 0.0]
    rings = centre[:, None] + radius_m * (
        across[None] + np.sin(angles)[None, :, None] * normal[:, None]
    )
    return rings.reshape(-1, 3), _sleeve(len(path), TUBE_SIDES)


def _sleeve(rings: int, sides: int) -> np.ndarray:
    """Return the faces (F, 3) between `rings` rings of `sides` vertices each, one after another."""
    here, there = np.arange(sides), (np.arange(sides) + 1) % sides
    faces = []
    for lower in range(0, (rings - 1) * sides, sides):
        upper = lower + sides
        faces.append(np.stack([lower + here, lower + there, upper + there], axis=1))
        faces.append(np.stack([lower + here, upper + there, upper + here], axis=1))
    return np.concatenate(faces)


def _add_visible(body: mujoco.MjsBody, mesh: str, **look) -> None:
    kind = mujoco.mjtGeom.mjGEOM_MESH
    body.add_geom(name="object_visual", type=kind, meshname=mesh, **SEEN_ONLY, **look)


@functools.cache
def _picture(path: Path) -> np.ndarray:
    """Return a PNG (Y, X, 3) uint8, each side averaged down to at most `MAX_TEXTURE_PX`.

    By hand, because another filter (Pillow's box rounds to whole pixels elsewhere) would change the
    look that models were trained on.
    """
    picture = imageio.imread(path, mode="RGB").astype(np.float32)
    for axis in (0, 1):
        length = picture.shape[axis]
        count = min(length, MAX_TEXTURE_PX)
        starts = np.arange(count) * length // count
        widths = np.diff(np.append(starts, length))
        shape = [-1 if other == axis else 1 for other in range(3)]
        picture = np.add.reduceat(picture, starts, axis=axis) / widths.reshape(shape)
    return np.round(picture).astype(np.uint8)
