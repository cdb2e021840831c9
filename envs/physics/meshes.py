"""The Panda's visual meshes, simplified once and kept in the user's cache.

On a CPU renderer vertices, not pixels, are the cost: the original 168 k faces render at 25
frames/s. All visual geoms of one link that share a colour are merged and simplified together.
"""

from __future__ import annotations

import hashlib
import io
import warnings
from contextlib import suppress
from dataclasses import dataclass, fields
from importlib.metadata import version
from pathlib import Path

import fast_simplification
import mujoco
import numpy as np

from jepa_gym.files import atomic_write, cache_folder

FACES_PER_LINK = 700
MIN_FACES = 24
FORMAT = 4
"""Raise it whenever the simplification changes, so that old caches are not read."""


@dataclass(frozen=True)
class VisualMesh:
    """One mesh in its body's frame: `vertices` (V, 3) float32 m, `faces` (F, 3) int32."""

    body: str
    rgba: tuple[float, ...]
    vertices: np.ndarray
    faces: np.ndarray


_FIELDS = [field.name for field in fields(VisualMesh)]


def visual_meshes(source: Path, spec: mujoco.MjSpec, tag: str) -> list[VisualMesh]:
    """Return the simplified visual (group 1) meshes of `spec`, from the cache where possible.

    Args:
        source: The XML file that `spec` was read from; names the cache entry.
        spec: The full model, compiled only if the cache has no entry, or a damaged one.
        tag: Versions that the meshes depend on beside the simplifier's, part of the entry's name.
    """
    tag = f"{tag} {version('fast-simplification')} {FORMAT} {FACES_PER_LINK} {MIN_FACES}"
    key = hashlib.sha256(source.read_bytes() + tag.encode()).hexdigest()[:16]
    path = cache_folder() / "meshes" / f"{source.stem}-{key}.npz"
    if path.is_file():
        with suppress(Exception):  # damage shows itself as half a dozen unrelated types
            return _load(path)
    meshes = _simplify(spec.compile())
    _save(path, meshes)
    return meshes


def _load(path: Path) -> list[VisualMesh]:
    with np.load(io.BytesIO(path.read_bytes())) as stored:
        rows = [[stored[f"{i}_{name}"] for name in _FIELDS] for i in range(int(stored["count"]))]
    return [VisualMesh(str(body), tuple(rgba.tolist()), *mesh) for body, rgba, *mesh in rows]


def _save(path: Path, meshes: list[VisualMesh]) -> None:
    arrays = {
        f"{i}_{name}": np.asarray(value)
        for i, mesh in enumerate(meshes)
        for name, value in vars(mesh).items()
    }
    content = io.BytesIO()  # the archive's own error at a full disk would hide the first
    np.savez_compressed(content, count=np.array(len(meshes)), **arrays)
    try:
        with atomic_write(path) as temporary:
            temporary.write_bytes(content.getvalue())
    except OSError as error:
        warnings.warn(
            f"The simplified meshes could not be kept in {path.parent} ({error}); every process "
            "will simplify them again. Set JEPA_GYM_CACHE to a writable folder.",
            stacklevel=2,
        )


def _simplify(model: mujoco.MjModel) -> list[VisualMesh]:
    groups: dict[tuple[str, tuple[float, ...]], list[tuple[np.ndarray, np.ndarray]]] = {}
    for geom in range(model.ngeom):
        if model.geom_group[geom] != 1 or model.geom_type[geom] != mujoco.mjtGeom.mjGEOM_MESH:
            continue
        material = model.geom_matid[geom]
        rgba = model.geom_rgba[geom] if material < 0 else model.mat_rgba[material]
        body = model.body(model.geom_bodyid[geom]).name
        groups.setdefault((body, tuple(float(v) for v in rgba)), []).append(
            _geom_in_body_frame(model, geom)
        )
    faces_of_body: dict[str, int] = {}
    for (body, _), parts in groups.items():
        faces_of_body[body] = faces_of_body.get(body, 0) + sum(len(faces) for _, faces in parts)
    meshes = []
    for (body, rgba), parts in groups.items():
        offsets = np.cumsum([0] + [len(vertices) for vertices, _ in parts[:-1]])
        vertices = np.concatenate([part for part, _ in parts]).astype(np.float32)
        faces = np.concatenate(
            [part + offset for (_, part), offset in zip(parts, offsets, strict=True)]
        ).astype(np.int32)
        vertices, faces = _weld(vertices, faces)
        target = max(MIN_FACES, round(FACES_PER_LINK * len(faces) / faces_of_body[body]))
        if len(faces) > target:
            vertices, faces = fast_simplification.simplify(vertices, faces, target_count=target)[:2]
        meshes.append(VisualMesh(body, rgba, vertices, faces.astype(np.int32)))
    return meshes


def _weld(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Join vertices closer than 0.01 mm.

    OBJ files split them per face, and a simplifier would tear the surface apart there.
    """
    _, first, index = np.unique(
        np.round(vertices, 5), axis=0, return_index=True, return_inverse=True
    )
    faces = index.reshape(-1)[faces].astype(np.int32)
    proper = (faces != np.roll(faces, 1, axis=1)).all(axis=1)
    return np.ascontiguousarray(vertices[first]), np.ascontiguousarray(faces[proper])


def _geom_in_body_frame(model: mujoco.MjModel, geom: int) -> tuple[np.ndarray, np.ndarray]:
    """Return vertices (V, 3) in the body's frame and faces (F, 3) of a compiled mesh geom."""
    mesh = model.geom_dataid[geom]
    start, count = model.mesh_vertadr[mesh], model.mesh_vertnum[mesh]
    rotation = np.zeros(9)
    mujoco.mju_quat2Mat(rotation, model.geom_quat[geom])
    vertices = model.mesh_vert[start : start + count] @ rotation.reshape(3, 3).T
    start, count = model.mesh_faceadr[mesh], model.mesh_facenum[mesh]
    return vertices + model.geom_pos[geom], model.mesh_face[start : start + count].copy()
