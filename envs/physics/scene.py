"""The MuJoCo scene: robosuite's Panda and gripper, a table, one object, cameras, textures, clutter.

The robot's base stands at the origin, the table's top is the plane z = 0. The end-effector frame
(site `grip`) sits between the finger pads and is parallel to the base frame when the gripper points
down, so that roll, pitch and yaw are 0 there instead of on the +-pi branch of the flange's frame.
Moves are rotations in the base frame and do not depend on this choice.
"""

from __future__ import annotations

import functools

import mujoco
import numpy as np

from jepa_gym.envs.physics.meshes import VisualMesh, visual_meshes
from jepa_gym.envs.physics.object_parts import SEEN_ONLY
from jepa_gym.envs.physics.objects import object_spec
from jepa_gym.envs.physics.robosuite_assets import (
    asset,
    check_mujoco_version,
    robosuite_version,
)
from jepa_gym.envs.pictures.cameras import CAMERAS, look_at_quat
from jepa_gym.envs.pictures.textures import SIDE_PX, add_material, add_texture

ARM_FILE, HAND_FILE = "robots/panda/robot.xml", "grippers/panda_gripper.xml"
TIMESTEP_S = 1 / 240
ARM_JOINTS = tuple(f"joint{i}" for i in range(1, 8))
FINGER_JOINTS = ("gripper_finger_joint1", "gripper_finger_joint2")
SERVO_STIFFNESS = 8000.0
SERVO_DAMPING = 400.0
"""Position servos on the arm, N m/rad and N m s/rad (2500/160 ends 2 mm short)."""
FINGER_STIFFNESS = 1500.0
FINGER_FORCE_N = 30.0
HOME = (0.0, 0.02, 0.0, -2.36, 0.0, 2.38, np.pi / 4)
"""Joint angles (rad) with the gripper pointing down above the middle of the workspace."""

WALLS = {
    # name: half sizes (m), position (m), orientation whose local z is the face (textures lie in xy)
    "floor": ((3, 3, 0.01), (0, 0, -0.7), (1, 0, 0, 0)),
    "back_wall": ((3, 3, 0.01), (-1.2, 0, 0), (0.5, 0.5, 0.5, 0.5)),
    "side_wall": ((3, 3, 0.01), (0, -1.6, 0), (0, 0, 0.5**0.5, 0.5**0.5)),
    "front_wall": ((3, 3, 0.01), (2.2, 0, 0), (0.5, 0.5, -0.5, -0.5)),
    "near_wall": ((3, 3, 0.01), (0, 1.6, 0), (0.5**0.5, 0.5**0.5, 0, 0)),
}
WALL_RGBA = (0.72, 0.76, 0.78, 1.0)
SURFACES = {"table": (3.0, 3.5), "floor": (3.0, 3.0), "wall": (3.0, 3.0), "unwrapped": (1.0, 1.0)}
"""What is textured in its local xy plane, or by the coordinates of a mesh -> how often the texture
repeats along each side; one picture spans 0.4 m of the table and 2 m of a wall."""
CUBES = ("cube", "robot")
"""What has no texture coordinates, object and arm: the same picture from all six sides."""
CUBE_SIDE_PX = 64
DISTRACTOR_SLOTS = 8
DISTRACTOR_DAMPING = 1e-3
"""N s/m and N m s/rad."""
PARKED_Z_M = -3.0
"""Where distractors that are not in use wait, below the floor."""
WRIST_FOVY_DEG = 70.0
FINGER_RGBA = (0.12, 0.12, 0.13, 1.0)
"""Dark fingers, as the real hand's rubber pads: their opening must show against table and hand."""


def link_meshes(source: str) -> list[VisualMesh]:
    """Return the simplified visual meshes of a model file of robosuite's assets."""
    path = asset(source)
    tag = f"robosuite {robosuite_version()} mujoco {mujoco.__version__}"
    return visual_meshes(path, mujoco.MjSpec.from_file(str(path)), tag)


def _arm_spec() -> mujoco.MjSpec:
    """Return the Panda with simplified visuals, no arm collisions, gravity compensated servos."""
    arm = mujoco.MjSpec.from_file(str(asset(ARM_FILE)))
    hand = mujoco.MjSpec.from_file(str(asset(HAND_FILE)))
    for spec, source in ((arm, ARM_FILE), (hand, HAND_FILE)):
        _replace_visuals(spec, link_meshes(source), keep_collisions=spec is hand)
        for actuator in list(spec.actuators):
            spec.delete(actuator)
        for sensor in list(spec.sensors):
            spec.delete(sensor)
    wrist = arm.body("right_hand")
    wrist.add_frame().attach_body(hand.body("right_gripper"), "gripper_", "")
    for body in arm.bodies:
        body.gravcomp = 1.0
    return arm


def _replace_visuals(spec: mujoco.MjSpec, meshes: list, *, keep_collisions: bool) -> None:
    for geom in list(spec.geoms):
        if geom.group == 1 or not keep_collisions:
            spec.delete(geom)
    used = {geom.meshname for geom in spec.geoms}
    for mesh in list(spec.meshes):
        if mesh.name not in used:
            spec.delete(mesh)
    for material in list(spec.materials):
        spec.delete(material)
    for site in list(spec.sites):
        spec.delete(site)
    add_visuals(spec, meshes)


def add_visuals(spec: mujoco.MjSpec, meshes: list[VisualMesh], prefix: str = "") -> None:
    """Add simplified meshes to the bodies that they belong to, whose names have a prefix."""
    for index, visual in enumerate(meshes):
        name = f"{prefix}visual_{index}"
        spec.add_mesh(
            name=name,
            uservert=visual.vertices.ravel().tolist(),
            userface=visual.faces.ravel().tolist(),
            inertia=mujoco.mjtMeshInertia.mjMESH_INERTIA_SHELL,
        )
        spec.body(prefix + visual.body).add_geom(
            type=mujoco.mjtGeom.mjGEOM_MESH,
            meshname=name,
            rgba=FINGER_RGBA if visual.body.endswith("finger") else visual.rgba,
            **SEEN_ONLY,
        )


def make_servos(
    spec: mujoco.MjSpec,
    arm: dict[str, mujoco.MjsActuator],
    fingers: dict[str, mujoco.MjsActuator],
) -> None:
    """Make actuators position servos that carry out a move, and a grasp, within a step.

    Args:
        spec: The scene.
        arm: Joint of the arm -> its actuator.
        fingers: Joint of a finger -> its actuator.
    """
    for name, actuator in arm.items():
        joint = spec.joint(name)
        joint.damping, joint.armature = [1.0, 0, 0], 0.1
        _make_servo(actuator, SERVO_STIFFNESS, SERVO_DAMPING, 150.0)
    for name, actuator in fingers.items():
        joint = spec.joint(name)
        joint.damping, joint.armature, joint.frictionloss = [10.0, 0, 0], 0.2, 0.1
        _make_servo(actuator, FINGER_STIFFNESS, 40.0, FINGER_FORCE_N)


def _make_servo(actuator: mujoco.MjsActuator, stiffness: float, damping: float, limit: float):
    actuator.gaintype = mujoco.mjtGain.mjGAIN_FIXED
    actuator.biastype = mujoco.mjtBias.mjBIAS_AFFINE
    actuator.gainprm = [stiffness] + [0] * 9
    actuator.biasprm = [0, -stiffness, -damping] + [0] * 7
    actuator.ctrllimited = False
    actuator.forcelimited, actuator.forcerange = True, [-limit, limit]


def _add_actuators(spec: mujoco.MjSpec) -> None:
    added = {
        joint: spec.add_actuator(name=joint, target=joint, trntype=mujoco.mjtTrn.mjTRN_JOINT)
        for joint in (*ARM_JOINTS, *FINGER_JOINTS)
    }
    arm = {joint: added[joint] for joint in ARM_JOINTS}
    make_servos(spec, arm, {joint: added[joint] for joint in FINGER_JOINTS})


def _add_world(spec: mujoco.MjSpec) -> None:
    world = spec.worldbody
    spec.add_texture(
        name="table",
        type=mujoco.mjtTexture.mjTEXTURE_2D,
        builtin=mujoco.mjtBuiltin.mjBUILTIN_CHECKER,
        rgb1=[0.62, 0.54, 0.45],
        rgb2=[0.57, 0.49, 0.40],
        width=64,
        height=64,
    )
    add_material(spec, "table", "table", texrepeat=[8, 8])
    world.add_geom(
        name="table",
        type=mujoco.mjtGeom.mjGEOM_BOX,
        size=[0.6, 0.7, 0.02],
        pos=[0.4, 0, -0.02],
        material="table",
        friction=[1.0, 0.01, 0.0001],
        group=1,
    )
    for name, (size, pos, quat) in WALLS.items():
        place = {"size": size, "pos": pos, "quat": quat}
        kind = mujoco.mjtGeom.mjGEOM_BOX
        world.add_geom(name=name, type=kind, rgba=WALL_RGBA, **place, **SEEN_ONLY)
    for name, pos, diffuse in (("key", [0.9, 0.9, 1.8], 0.6), ("fill", [0.2, -1.0, 1.5], 0.3)):
        world.add_light(
            name=name, pos=pos, dir=[0.4 - pos[0], -pos[1], -pos[2]], diffuse=[diffuse] * 3,
            specular=[0.1] * 3, castshadow=False,
        )  # fmt: skip
    add_cameras(spec)


def add_cameras(spec: mujoco.MjSpec, origin_m: np.ndarray | None = None) -> None:
    """Add the exterior cameras around a table whose frame has its origin at `origin_m` (3,)."""
    origin = np.zeros(3) if origin_m is None else origin_m
    for name, camera in CAMERAS.items():
        quat = look_at_quat(camera.position, camera.target)
        place = origin + camera.position
        spec.worldbody.add_camera(name=name, pos=place, quat=quat, fovy=camera.fovy_deg)


def add_hand_frame(hand: mujoco.MjsBody) -> None:
    """Add the `grip` site (axes parallel to the base when pointing down) and the wrist camera."""
    hand.add_site(name="grip", pos=[0, 0, 0.097], quat=[0, 0.5**0.5, 0.5**0.5, 0], group=4)
    position, target = np.array([0.0, -0.09, 0.05]), np.array([0.0, 0.0, 0.108])
    quat = look_at_quat(position, target, up=(0.0, 1.0, 0.0))
    hand.add_camera(name="wrist", pos=position, quat=quat, fovy=WRIST_FOVY_DEG)


def _add_textures(spec: mujoco.MjSpec) -> None:
    """Add one empty texture and its material per surface; a stage fills them when they are shown.

    A texture for each picture would not do: there is no end of them.
    """
    for surface, repeat in SURFACES.items():
        add_texture(spec, f"surface_{surface}", np.zeros((SIDE_PX, SIDE_PX, 3), np.uint8))
        add_material(spec, f"surface_{surface}", f"surface_{surface}", texrepeat=repeat)
    sides = np.zeros((6 * CUBE_SIDE_PX, CUBE_SIDE_PX, 3), np.uint8)
    for surface in CUBES:
        add_texture(spec, f"surface_{surface}", sides, mujoco.mjtTexture.mjTEXTURE_CUBE)
        add_material(spec, f"surface_{surface}", f"surface_{surface}")


def _add_distractors(spec: mujoco.MjSpec) -> None:
    for slot in range(DISTRACTOR_SLOTS):
        body = spec.worldbody.add_body(
            name=f"distractor_{slot}", pos=[0.2 * slot, 0, PARKED_Z_M], gravcomp=1.0
        )
        # a little damping stops what rolls; rolling friction would double the contacts' cost
        kind = mujoco.mjtJoint.mjJNT_FREE
        body.add_joint(name=f"distractor_{slot}", type=kind, damping=[DISTRACTOR_DAMPING, 0, 0])
        body.add_geom(
            name=f"distractor_{slot}",
            type=mujoco.mjtGeom.mjGEOM_BOX,
            size=[0.02, 0.02, 0.02],
            mass=0.06,
            friction=[1.0, 0.02, 0.002],
            group=1,
        )


def simplify(spec: mujoco.MjSpec) -> None:
    """Choose an integrator that is stable with stiff servos, and rendering for a CPU."""
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    spec.visual.quality.shadowsize = 0
    spec.visual.quality.offsamples = 0
    # the near plane is znear * extent: left to itself it cuts the fingers out of the wrist's view
    spec.stat.extent = 1.0
    spec.visual.map.znear = 0.01
    spec.visual.map.zfar = 10.0


SCENE_KINDS = ("plain", "textured", "cluttered")
"""The default look; the same with textures; that with distractors as well."""


@functools.cache
def scene_model(obj: str, kind: str = "plain") -> mujoco.MjModel:
    """Return the compiled scene with the catalogue's object `obj`; one compilation per process.

    Treat the result as read-only: all environments of the process copy it.

    Args:
        obj: Object of the catalogue.
        kind: One of `SCENE_KINDS`; a plain scene spends nothing on what variations need.

    Raises:
        ValueError: Unknown object.
        ImportError: MuJoCo outside the tested range, or no robosuite.
    """
    check_mujoco_version()
    entry = object_spec(obj)
    spec = _arm_spec()
    spec.option.timestep = TIMESTEP_S
    spec.option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
    spec.option.impratio = 10
    simplify(spec)
    spec.visual.headlight.ambient = [0.35, 0.35, 0.35]
    spec.visual.headlight.diffuse = [0.35, 0.35, 0.35]
    spec.visual.headlight.specular = [0.0, 0.0, 0.0]
    spec.stat.center = [0.4, 0, 0.2]
    _add_actuators(spec)
    _add_world(spec)
    add_hand_frame(spec.body("gripper_right_gripper"))
    body = spec.worldbody.add_body(name="object", pos=[0.5, 0, entry.half_height_m])
    body.add_freejoint(name="object")
    entry.build(spec, body)
    if kind != "plain":
        _add_textures(spec)
    if kind == "cluttered":
        _add_distractors(spec)
    return spec.compile()
