"""One environment's private simulation of one scene, and how a variation is put on it.

The compiled scene is shared by the process; a stage copies it (0.2 ms) and writes a variation into
the copy, so that a reset compiles nothing. Whatever a variation may touch is first restored from
the shared scene: an episode never depends on the one before.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import mujoco
import numpy as np

from jepa_gym.envs.physics.arm import Arm
from jepa_gym.envs.physics.scene import WALLS, scene_model
from jepa_gym.envs.physics.surfaces import Surfaces
from jepa_gym.envs.pictures.cameras import CAMERAS, moved_camera, zoomed_fovy_deg
from jepa_gym.envs.pictures.rendering import FrameRenderer
from jepa_gym.envs.variations import Distractor, Variation

_RESTORED = (
    "geom_type", "geom_matid", "geom_rgba", "geom_size", "geom_pos", "geom_aabb", "geom_rbound",
    "body_gravcomp", "body_mass", "body_inertia", "body_ipos", "body_iquat", "body_subtreemass",
    "body_invweight0", "bvh_aabb", "mesh_vert", "dof_M0", "dof_invweight0", "cam_pos", "cam_quat",
    "cam_fovy", "light_pos", "light_dir", "light_diffuse",
)  # fmt: skip
"""Fields of the model that a variation, or `mj_setConst` after it, may change."""
_FROM_MATERIAL = (0.5, 0.5, 0.5, 1.0)
"""MuJoCo's default colour: it makes a geom take its material's own."""
_GEOM_TYPES = {
    "box": mujoco.mjtGeom.mjGEOM_BOX,
    "cylinder": mujoco.mjtGeom.mjGEOM_CYLINDER,
    "ellipsoid": mujoco.mjtGeom.mjGEOM_ELLIPSOID,
    "capsule": mujoco.mjtGeom.mjGEOM_CAPSULE,
}
_STATE_KIND = mujoco.mjtState.mjSTATE_INTEGRATION
_LAMP_CENTRE = np.array([0.4, 0.0, 0.0])


class Stage:
    """Model, data, arm and renderer of one environment and one kind of scene.

    Args:
        obj: Object of the catalogue.
        kind: One of `SCENE_KINDS`.
        cameras: Names of the cameras that are rendered; empty for none.
        size_px: (height, width) of one picture.
    """

    def __init__(
        self, obj: str, kind: str, cameras: tuple[str, ...], size_px: tuple[int, int]
    ) -> None:
        self.obj, self.kind = obj, kind
        self._reference = scene_model(obj, kind)
        self.model = copy.copy(self._reference)
        self.data = mujoco.MjData(self.model)
        self.arm = Arm(self.model, self.data)
        self.frames = FrameRenderer(self.model, cameras, size_px) if cameras else None
        self.object_body = self.model.body("object").id
        self.object_qpos = self.model.joint("object").qposadr[0]
        self.object_dof = self.model.joint("object").dofadr[0]
        geoms = np.flatnonzero(self.model.geom_bodyid == self.object_body)
        self._visible = geoms[self.model.geom_group[geoms] == 1]
        self._solid = geoms[self.model.geom_contype[geoms] != 0]
        self._arm_geoms = _arm_geoms(self.model, self.object_body)
        self._surfaces = Surfaces(self.model, self.frames)
        self._variation = Variation()

    def close(self) -> None:
        """Free the OpenGL context."""
        if self.frames is not None:
            self.frames.close()
            self.frames = None

    def physics(self) -> np.ndarray:
        """Return the simulator's state (n,) float64, the solver's warm start included."""
        physics = np.zeros(mujoco.mj_stateSize(self.model, _STATE_KIND))
        mujoco.mj_getState(self.model, self.data, physics, _STATE_KIND)
        return physics

    def set_physics(self, physics: np.ndarray) -> None:
        """Restore a simulator state (n,).

        Raises:
            ValueError: It is not finite, larger than what MuJoCo takes, or of another scene.
        """
        size = mujoco.mj_stateSize(self.model, _STATE_KIND)
        if np.shape(physics) != (size,) or not (np.abs(physics) < mujoco.mjMAXVAL).all():
            raise ValueError(
                f"a simulator state of this scene ({self.obj}, {self.kind}) must have shape "
                f"({size},), got {np.shape(physics)}, and be finite and below MuJoCo's bound "
                f"{mujoco.mjMAXVAL:g}. Record it with the same object, without distractors."
            )
        mujoco.mj_setState(self.model, self.data, physics, _STATE_KIND)
        mujoco.mj_forward(self.model, self.data)
        # the solver's warm start is part of the state, and mj_forward has just changed it
        mujoco.mj_setState(self.model, self.data, physics, _STATE_KIND)

    def object_position(self) -> np.ndarray:
        """Return the object's centre (3,) in metres, base frame."""
        return self.data.xpos[self.object_body].copy()

    def object_clearance(self) -> float:
        """Return the height in metres of the object's lowest point above the table."""
        geoms = self._solid  # boxes, so that extents along the axes are exact
        rise = np.abs(self.data.geom_xmat[geoms, 6:]) * self.model.geom_size[geoms]
        return float((self.data.geom_xpos[geoms, 2] - rise.sum(1)).min())

    def object_held(self) -> bool:
        """Return whether both finger pads touch the object."""
        first, second = self.arm.touched_bodies()
        return self.object_body in first & second

    def object_released(self) -> bool:
        """Return whether neither finger pad touches the object."""
        first, second = self.arm.touched_bodies()
        return self.object_body not in first | second

    def object_tilt_cosine(self) -> float:
        """Return the cosine of the angle between the object's axis and the vertical."""
        return float(self.data.xmat[self.object_body, 8])

    def object_velocity(self) -> tuple[float, float]:
        """Return the object's speed in m/s and its turning rate in rad/s."""
        velocity = self.data.qvel[self.object_dof : self.object_dof + 6]
        return float(np.linalg.norm(velocity[:3])), float(np.linalg.norm(velocity[3:]))

    def place_object(self, position: np.ndarray, quat: np.ndarray) -> None:
        """Put the object at `position` (3,) m with orientation `quat` (4,), without simulating."""
        start = self.object_qpos
        self.data.qpos[start : start + 3] = position
        self.data.qpos[start + 3 : start + 7] = quat

    def show(self, variation: Variation) -> None:
        """Make the scene look like `variation`; resets the simulation if sizes change."""
        if variation == self._variation:
            return
        before, self._variation = self._variation, variation
        for name in _RESTORED:
            getattr(self.model, name)[:] = getattr(self._reference, name)
        self._set_cameras(variation)
        self._set_lights(variation)
        self._set_surfaces(variation)
        resized = variation.object_scale != 1.0
        if resized:
            scale_body(self.model, self.object_body, variation.object_scale)
        if self.frames is not None and before.object_scale != variation.object_scale:
            for mesh in set(self.model.geom_dataid[self._visible].tolist()) - {-1}:
                self.frames.upload_mesh(mesh)
        for slot, thing in enumerate(variation.distractors):
            self._set_distractor(slot, thing)
        if resized or variation.distractors:
            extent, centre = self.model.stat.extent, self.model.stat.center.copy()
            mujoco.mj_setConst(self.model, self.data)
            self.model.stat.extent, self.model.stat.center[:] = extent, centre

    def _set_cameras(self, variation: Variation) -> None:
        turn, rise = variation.camera_azimuth_deg, variation.camera_elevation_deg
        distance, zoom = variation.camera_distance, variation.camera_zoom
        if (turn, rise, distance, zoom) == (0.0, 0.0, 1.0, 1.0):
            return
        for name, camera in CAMERAS.items():
            position, quat = moved_camera(camera, turn, rise, distance)
            index = self.model.camera(name).id
            self.model.cam_pos[index], self.model.cam_quat[index] = position, quat
            self.model.cam_fovy[index] = zoomed_fovy_deg(camera, zoom)

    def _set_lights(self, variation: Variation) -> None:
        colour = variation.light * np.array(variation.light_rgb)
        self.model.light_diffuse *= colour
        headlight, reference = self.model.vis.headlight, self._reference.vis.headlight
        headlight.ambient[:] = np.asarray(reference.ambient) * colour
        headlight.diffuse[:] = np.asarray(reference.diffuse) * colour
        turn, rise = variation.light_azimuth_deg, variation.light_elevation_deg
        if (turn, rise) != (0.0, 0.0):
            offset = _turned(self.model.light_pos - _LAMP_CENTRE, turn, rise)
            self.model.light_pos[:] = offset + _LAMP_CENTRE
            self.model.light_dir[:] = _turned(self.model.light_dir, turn, -rise)

    def _set_surfaces(self, variation: Variation) -> None:
        model, material = self.model, self._surfaces.material
        walls = variation.background_texture
        floor = variation.floor_texture or walls
        if variation.table_texture is not None:
            index = material("table", variation.table_texture)
            model.geom_matid[model.geom("table").id] = index
        for name in WALLS:
            surface, shown = ("floor", floor) if name == "floor" else ("wall", walls)
            if shown is not None:
                geom = model.geom(name).id
                model.geom_matid[geom] = material(surface, shown)
                model.geom_rgba[geom] = _FROM_MATERIAL
        if variation.robot_texture is not None:
            model.geom_matid[self._arm_geoms] = material("robot", variation.robot_texture)
        if variation.object_texture is not None:
            for geom in self._visible:
                mesh = model.geom_dataid[geom]
                unwrapped = mesh >= 0 and model.mesh_texcoordadr[mesh] >= 0
                # OpenGL takes no cube texture where a mesh brings its own coordinates
                surface = "unwrapped" if unwrapped else "cube"
                model.geom_matid[geom] = material(surface, variation.object_texture)
            model.geom_rgba[self._visible] = _FROM_MATERIAL
        if variation.object_rgb is not None:
            model.geom_rgba[self._visible, :3] = variation.object_rgb

    def _set_distractor(self, slot: int, thing: Distractor) -> None:
        model = self.model
        geom, body = model.geom(f"distractor_{slot}").id, model.body(f"distractor_{slot}").id
        # the flattest side down: an ellipsoid would not stand on its tip
        half = np.sort(thing.size_m)[::-1] if thing.shape == "ellipsoid" else np.array(thing.size_m)
        round_ = thing.shape in ("cylinder", "capsule")
        if round_:
            radius = half[:2].mean()
            longer = 1.8 if thing.shape == "capsule" else 1.0
            half = np.array([radius, radius, max(half[2], longer * radius)])
        straight = half[2] - half[0] if thing.shape == "capsule" else half[2]
        model.geom_type[geom] = _GEOM_TYPES[thing.shape]
        model.geom_size[geom] = [half[0], straight, 0] if round_ else half
        model.geom_aabb[geom] = [0, 0, 0, *half]
        model.geom_rbound[geom] = np.linalg.norm(half)
        model.geom_rgba[geom] = [*thing.rgb, 1.0]
        model.body_gravcomp[body] = 0.0
        model.bvh_aabb[model.body_bvhadr[body]] = [0, 0, 0, *half]
        # a solid box's inertia; for the round shapes it is a little more than their own
        square = half**2
        model.body_inertia[body] = model.body_mass[body] / 3 * (square.sum() - square)

    def place_distractors(self, places: Sequence[Sequence[float] | np.ndarray]) -> None:
        """Stand the distractors of the present variation on the table at `places` (2,) m each.

        Capsules lie on their side; those that are not used stay parked below the floor.
        """
        for slot, (thing, place) in enumerate(
            zip(self._variation.distractors, places, strict=True)
        ):
            half = self.model.geom_aabb[self.model.geom(f"distractor_{slot}").id, 3:]
            lying = thing.shape == "capsule"
            quat = [0.5**0.5, 0.0, 0.5**0.5, 0.0] if lying else [1.0, 0.0, 0.0, 0.0]
            start = self.model.joint(f"distractor_{slot}").qposadr[0]
            height = half[0] if lying else half[2]
            self.data.qpos[start : start + 7] = [*place, height, *quat]


def _arm_geoms(model: mujoco.MjModel, object_body: int) -> np.ndarray:
    """Return the geoms that are seen of the arm, its dark fingers apart."""
    is_arm = (model.geom_group == 1) & (model.geom_type == mujoco.mjtGeom.mjGEOM_MESH)
    is_arm &= model.geom_bodyid != object_body
    geoms = np.flatnonzero(is_arm)
    return geoms[[not model.body(model.geom_bodyid[i]).name.endswith("finger") for i in geoms]]


def _turned(offsets: np.ndarray, azimuth_deg: float, elevation_deg: float) -> np.ndarray:
    """Return vectors (n, 3) turned about the vertical axis and raised towards it, same lengths."""
    level = np.linalg.norm(offsets[:, :2], axis=1)
    azimuth = np.arctan2(offsets[:, 1], offsets[:, 0]) + np.deg2rad(azimuth_deg)
    elevation = np.arctan2(offsets[:, 2], level) + np.deg2rad(elevation_deg)
    length = np.linalg.norm(offsets, axis=1)
    level = length * np.cos(elevation)
    parts = [level * np.cos(azimuth), level * np.sin(azimuth), length * np.sin(elevation)]
    return np.stack(parts, axis=1)


def scale_body(model: mujoco.MjModel, body: int, scale: float) -> None:
    """Scale all geoms of a body that hangs on nothing else, in place; its mass is kept.

    `mj_setConst` must follow, for what the compiler derives from sizes and masses.
    """
    geoms = np.flatnonzero(model.geom_bodyid == body)
    for name in ("geom_size", "geom_pos", "geom_aabb", "geom_rbound"):
        getattr(model, name)[geoms] *= scale
    model.body_ipos[body] *= scale
    model.body_inertia[body] *= scale**2
    start, count = model.body_bvhadr[body], model.body_bvhnum[body]
    model.bvh_aabb[start : start + count] *= scale
    for mesh in set(model.geom_dataid[geoms].tolist()) - {-1}:
        start, count = model.mesh_vertadr[mesh], model.mesh_vertnum[mesh]
        model.mesh_vert[start : start + count] *= scale
        start, count = model.mesh_bvhadr[mesh], model.mesh_bvhnum[mesh]
        model.bvh_aabb[start : start + count] *= scale
