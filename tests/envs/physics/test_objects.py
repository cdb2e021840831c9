"""The catalogue of objects: what an entry promises, and that the gripper can work with it."""

from __future__ import annotations

import hashlib

import gymnasium as gym
import mujoco
import numpy as np
import pytest

import jepa_gym  # noqa: F401
from jepa_gym.envs.physics.object_meshes import MAX_TEXTURE_PX, tube, turned
from jepa_gym.envs.physics.object_parts import GRASP_FRICTION
from jepa_gym.envs.physics.objects import OBJECTS, object_spec
from jepa_gym.envs.physics.scene import scene_model

PRIMITIVES = {
    mujoco.mjtGeom.mjGEOM_BOX,
    mujoco.mjtGeom.mjGEOM_SPHERE,
    mujoco.mjtGeom.mjGEOM_CAPSULE,
    mujoco.mjtGeom.mjGEOM_CYLINDER,
    mujoco.mjtGeom.mjGEOM_ELLIPSOID,
}
STEP_S = 0.25
LOOKS = {"box": "97051024", "cup": "f053e560"}
"""Digest of the visible geoms: a world model that is shipped was trained on this look."""


@pytest.fixture
def stage():
    """Return environments with one object each, reset, closed at the end of the test."""
    made = []

    def build(obj: str):
        env = gym.make("FrankaGrasp-v0", obj=obj, obs_mode="state")
        made.append(env)
        env.reset(seed=0)
        return env.unwrapped

    yield build
    for env in made:
        env.close()


def geoms_of(model: mujoco.MjModel) -> np.ndarray:
    return np.flatnonzero(model.geom_bodyid == model.body("object").id)


def corners(model: mujoco.MjModel, geoms: np.ndarray) -> np.ndarray:
    """Return the corners (N, 3) of the geoms' bounding boxes in the object's frame, metres."""
    signs = np.stack(np.meshgrid([-1, 1], [-1, 1], [-1, 1]), axis=-1).reshape(-1, 3)
    found = []
    for geom in geoms:
        rotation = np.zeros(9)
        mujoco.mju_quat2Mat(rotation, model.geom_quat[geom])
        box = model.geom_aabb[geom]
        points = box[:3] + signs * box[3:]
        if model.geom_type[geom] == mujoco.mjtGeom.mjGEOM_MESH:  # its box is tight in its own axes
            mesh = model.geom_dataid[geom]
            start = model.mesh_vertadr[mesh]
            points = model.mesh_vert[start : start + model.mesh_vertnum[mesh]]
        found.append(points @ rotation.reshape(3, 3).T + model.geom_pos[geom])
    return np.concatenate(found)


def tilt_deg(env) -> float:
    axis = env.data.body("object").xmat.reshape(3, 3)[2, 2]
    return float(np.degrees(np.arccos(np.clip(axis, -1, 1))))


def move(env, x=0.0, y=0.0, z=0.0, closing=0.0) -> None:
    env.arm.move(np.array([x, y, z, 0, 0, 0, closing]), STEP_S)


def test_catalogue_has_training_and_held_out_objects():
    held_out = {name for name, entry in OBJECTS.items() if entry.held_out}
    assert len(OBJECTS) >= 10
    assert len(held_out) >= 3
    assert {"box", "cup"} <= set(OBJECTS) - held_out


@pytest.mark.parametrize("obj", OBJECTS)
def test_entry_keeps_its_contract(obj):
    model = scene_model(obj)
    geoms = geoms_of(model)
    assert all(model.geom(geom).name.startswith("object_") for geom in geoms)
    visible = geoms[model.geom_group[geoms] == 1]
    solid = geoms[(model.geom_contype[geoms] != 0) | (model.geom_conaffinity[geoms] != 0)]
    assert len(visible)
    assert len(solid)
    assert set(geoms) == set(visible) | set(solid)
    assert all(model.geom_group[geom] == 3 for geom in set(solid) - set(visible))
    assert set(model.geom_type[solid]) <= PRIMITIVES
    assert (model.geom_condim[solid] == 4).all()
    assert np.allclose(model.geom_friction[solid], GRASP_FRICTION)
    assert 0.03 <= model.body_mass[model.body("object").id] <= 0.2
    # nq, nv, nu, na as in recorded data
    assert (model.nq, model.nv, model.nu, model.na) == (16, 15, 9, 0)


@pytest.mark.parametrize("obj", OBJECTS)
def test_sizes_are_as_declared(obj):
    model, entry = scene_model(obj), OBJECTS[obj]
    geoms = geoms_of(model)
    solid = geoms[model.geom_contype[geoms] != 0]
    seen, felt = corners(model, geoms[model.geom_group[geoms] == 1]), corners(model, solid)
    for points in (seen, felt):
        assert points[:, 2].min() == pytest.approx(-entry.half_height_m, abs=1e-4)
        assert points[:, 2].max() == pytest.approx(entry.half_height_m, abs=1e-4)
        assert np.ptp(points[:, 1]) <= 0.07
    assert np.linalg.norm(felt[:, :2], axis=1).max() <= entry.radius_m + 1e-3
    assert abs(entry.grasp_height_m) < entry.half_height_m
    # the palm is 31 mm above the grasp point
    assert entry.half_height_m - entry.grasp_height_m < 0.028


@pytest.mark.parametrize("obj", OBJECTS)
def test_looks_are_cheap(obj):
    model = scene_model(obj)
    for mesh in range(model.nmesh):
        if model.mesh(mesh).name.startswith("object_"):
            assert model.mesh_facenum[mesh] <= 1000
    for texture in range(model.ntex):
        if model.tex(texture).name.startswith("object_"):
            assert model.tex_height[texture] <= MAX_TEXTURE_PX
            assert model.tex_width[texture] <= MAX_TEXTURE_PX


@pytest.mark.parametrize("obj", LOOKS)
def test_look_of_the_trained_objects_is_unchanged(obj):
    model = scene_model(obj)
    geoms = [geom for geom in geoms_of(model) if model.geom_group[geom] == 1]
    look = [model.geom_type, model.geom_size, model.geom_pos, model.geom_quat, model.geom_rgba]
    numbers = [np.round(np.asarray(part, np.float64)[geoms], 5) + 0.0 for part in look]
    digest = hashlib.sha256(b"".join(part.tobytes() for part in numbers)).hexdigest()
    assert digest[:8] == LOOKS[obj]


@pytest.mark.parametrize("obj", OBJECTS)
def test_stands_still(stage, obj):
    env = stage(obj)
    env.place_arm(np.array([0.45, 0.1, 0.3]))
    env.place_object(np.array([0.5, -0.1, OBJECTS[obj].half_height_m]), 0.2)
    before = env.object_position()
    mujoco.mj_step(env.model, env.data, round(2 / env.model.opt.timestep))
    assert np.linalg.norm(env.object_position() - before) < 1e-3
    assert tilt_deg(env) < 0.5


@pytest.mark.parametrize("obj", OBJECTS)
@pytest.mark.parametrize("yaw", [-0.25, 0.25])
def test_is_held_carried_and_put_back(stage, obj, yaw):
    env = stage(obj)
    half = OBJECTS[obj].half_height_m
    env.place_arm(np.array([0.45, 0.1, 0.3]))
    env.place_object(np.array([0.5, 0.0, half]), yaw)
    env.place_arm(env.grasp_point() + [0.003, 0.003, 0.0])
    for _ in range(2):
        move(env, closing=1.0)
    for _ in range(2):
        move(env, z=0.06)
    for index in range(20):
        move(env, **{"xyz"[index % 3]: 0.05 * (-1) ** (index // 3)})
        assert env.object_held()
    assert tilt_deg(env) < 5
    for _ in range(4):
        move(env, z=float(np.clip(half + 0.001 - env.object_position()[2], -0.075, 0.075)))
    assert env.object_held()
    move(env, closing=-1.0)
    move(env)
    assert not env.object_held()
    assert env.object_position()[2] == pytest.approx(half, abs=1e-3)
    assert tilt_deg(env) < 1


def test_unknown_names_get_a_suggestion():
    with pytest.raises(ValueError, match="Did you mean `lemon`"):
        object_spec("lemmon")
    with pytest.raises(ValueError, match=r"must be one of .*'bottle'"):
        object_spec("piano")


@pytest.mark.parametrize(
    "shape",
    [
        turned([(0, -1), (1, -1), (1, 1), (0, 1)]),
        tube(np.stack([np.linspace(0, 5, 6), np.zeros(6)], axis=1), 0.5),
    ],
    ids=["turned", "tube"],
)
def test_surfaces_face_outward(shape):
    vertices, faces = shape
    assert (faces.min(), faces.max()) == (0, len(vertices) - 1)
    first, second, third = (vertices[faces[:, corner]] for corner in range(3))
    normals = np.cross(second - first, third - first)
    assert ((normals * (first + second + third)).sum(1) > 0).all()
