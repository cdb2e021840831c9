"""The MuJoCo scene: robosuite's Panda and gripper, a table, one object, the cameras.

The robot's base stands at the origin, the table's top is the plane z = 0. The end-effector frame
(site `grip`) sits between the finger pads and is parallel to the base frame when the gripper points
down, so that roll, pitch and yaw are 0 there instead of on the +-pi branch of the flange's frame.
Moves are rotations in the base frame and do not depend on this choice.
"""

from __future__ import annotations

import functools

import mujoco
import numpy as np

from jepa_gym.envs.meshes import visual_meshes
from jepa_gym.envs.objects import object_spec
from jepa_gym.envs.robosuite_assets import assets_folder, check_mujoco_version, robosuite_version

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

CAMERAS = {
    # position, target (m, base frame), vertical field of view (degrees): DROID's left exterior view
    "left": ((1.05, 0.66, 0.52), (0.46, -0.02, 0.19), 46.0),
}
WRIST_FOVY_DEG = 70.0
FINGER_RGBA = (0.12, 0.12, 0.13, 1.0)
"""Dark fingers, as the real hand's rubber pads: their opening must show against table and hand."""


def _arm_spec() -> mujoco.MjSpec:
    """Return the Panda with simplified visuals, no arm collisions, gravity compensated servos."""
    folder = assets_folder()
    tag = f"robosuite {robosuite_version()} mujoco {mujoco.__version__}"
    arm_xml = folder / "robots" / "panda" / "robot.xml"
    hand_xml = folder / "grippers" / "panda_gripper.xml"
    arm = mujoco.MjSpec.from_file(str(arm_xml))
    hand = mujoco.MjSpec.from_file(str(hand_xml))
    for spec, source in ((arm, arm_xml), (hand, hand_xml)):
        meshes = visual_meshes(source, mujoco.MjSpec.from_file(str(source)), tag)
        _replace_visuals(spec, meshes, keep_collisions=spec is hand)
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
    for index, visual in enumerate(meshes):
        name = f"visual_{index}"
        spec.add_mesh(
            name=name,
            uservert=visual.vertices.ravel().tolist(),
            userface=visual.faces.ravel().tolist(),
            inertia=mujoco.mjtMeshInertia.mjMESH_INERTIA_SHELL,
        )
        spec.body(visual.body).add_geom(
            type=mujoco.mjtGeom.mjGEOM_MESH,
            meshname=name,
            rgba=FINGER_RGBA if visual.body.endswith("finger") else visual.rgba,
            contype=0,
            conaffinity=0,
            group=1,
            mass=0,
        )


def _add_servos(spec: mujoco.MjSpec) -> None:
    for joint in ARM_JOINTS:
        spec.joint(joint).damping = [1.0, 0, 0]
        spec.joint(joint).armature = 0.1
        _add_servo(spec, joint, SERVO_STIFFNESS, SERVO_DAMPING, 150.0)
    for joint in FINGER_JOINTS:
        spec.joint(joint).armature = 0.2
        spec.joint(joint).damping = [10.0, 0, 0]
        spec.joint(joint).frictionloss = 0.1
        _add_servo(spec, joint, FINGER_STIFFNESS, 40.0, FINGER_FORCE_N)


def _add_servo(spec: mujoco.MjSpec, joint: str, stiffness: float, damping: float, limit: float):
    spec.add_actuator(
        name=joint,
        target=joint,
        trntype=mujoco.mjtTrn.mjTRN_JOINT,
        gaintype=mujoco.mjtGain.mjGAIN_FIXED,
        biastype=mujoco.mjtBias.mjBIAS_AFFINE,
        gainprm=[stiffness] + [0] * 9,
        biasprm=[0, -stiffness, -damping] + [0] * 7,
        forcelimited=True,
        forcerange=[-limit, limit],
    )


def _look_at(position: np.ndarray, target: np.ndarray, up=(0.0, 0.0, 1.0)) -> list[float]:
    """Return MuJoCo's `xyaxes` of a camera at `position` that looks at `target`."""
    forward = np.subtract(target, position)
    right = np.cross(forward, up)
    right /= np.linalg.norm(right)
    above = np.cross(right, forward)
    return [*right, *(above / np.linalg.norm(above))]


def _camera_quat(xyaxes: list[float]) -> np.ndarray:
    x, y = np.array(xyaxes[:3]), np.array(xyaxes[3:])
    quat = np.zeros(4)
    mujoco.mju_mat2Quat(quat, np.stack([x, y, np.cross(x, y)], axis=1).ravel())
    return quat


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
    table = spec.add_material(name="table", texrepeat=[8, 8])
    table.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = "table"
    world.add_geom(
        name="table",
        type=mujoco.mjtGeom.mjGEOM_BOX,
        size=[0.6, 0.7, 0.02],
        pos=[0.4, 0, -0.02],
        material="table",
        friction=[1.0, 0.01, 0.0001],
        group=1,
    )
    for name, size, pos in (
        ("floor", [3, 3, 0.01], [0, 0, -0.7]),
        ("back_wall", [0.01, 3, 3], [-1.2, 0, 0]),
        ("side_wall", [3, 0.01, 3], [0, -1.6, 0]),
        ("front_wall", [0.01, 3, 3], [2.2, 0, 0]),
        ("near_wall", [3, 0.01, 3], [0, 1.6, 0]),
    ):
        world.add_geom(
            name=name,
            type=mujoco.mjtGeom.mjGEOM_BOX,
            size=size,
            pos=pos,
            rgba=[0.72, 0.76, 0.78, 1],
            contype=0,
            conaffinity=0,
            group=1,
        )
    for name, pos, diffuse in (("key", [0.9, 0.9, 1.8], 0.6), ("fill", [0.2, -1.0, 1.5], 0.3)):
        world.add_light(
            name=name, pos=pos, dir=[0.4 - pos[0], -pos[1], -pos[2]], diffuse=[diffuse] * 3,
            specular=[0.1] * 3, castshadow=False,
        )  # fmt: skip
    for name, (position, target, fovy) in CAMERAS.items():
        quat = _camera_quat(_look_at(np.array(position), np.array(target)))
        world.add_camera(name=name, pos=position, quat=quat, fovy=fovy)


def _add_hand_frame(spec: mujoco.MjSpec) -> None:
    """Add the `grip` site (axes parallel to the base when pointing down) and the wrist camera."""
    hand = spec.body("gripper_right_gripper")
    hand.add_site(name="grip", pos=[0, 0, 0.097], quat=[0, 0.5**0.5, 0.5**0.5, 0], group=4)
    position, target = np.array([0.0, -0.09, 0.05]), np.array([0.0, 0.0, 0.108])
    quat = _camera_quat(_look_at(position, target, up=(0.0, 1.0, 0.0)))
    hand.add_camera(name="wrist", pos=position, quat=quat, fovy=WRIST_FOVY_DEG)


@functools.cache
def scene_model(obj: str) -> mujoco.MjModel:
    """Return the compiled scene with the catalogue's object `obj`; one compilation per process.

    Treat the result as read-only: all environments of the process share it.

    Raises:
        ValueError: unknown object.
        ImportError: MuJoCo outside the tested range, or no robosuite.
    """
    check_mujoco_version()
    entry = object_spec(obj)
    spec = _arm_spec()
    spec.option.timestep = TIMESTEP_S
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    spec.option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
    spec.option.impratio = 10
    spec.visual.quality.shadowsize = 0
    spec.visual.quality.offsamples = 0
    spec.visual.headlight.ambient = [0.35, 0.35, 0.35]
    spec.visual.headlight.diffuse = [0.35, 0.35, 0.35]
    spec.visual.headlight.specular = [0.0, 0.0, 0.0]
    # the near plane is znear * extent: left to itself it cuts the fingers out of the wrist's view
    spec.stat.extent = 1.0
    spec.stat.center = [0.4, 0, 0.2]
    spec.visual.map.znear = 0.01
    spec.visual.map.zfar = 10.0
    spec.visual.global_.offwidth = 1024
    spec.visual.global_.offheight = 1024
    _add_servos(spec)
    _add_world(spec)
    _add_hand_frame(spec)
    body = spec.worldbody.add_body(name="object", pos=[0.5, 0, entry.half_height_m])
    body.add_freejoint(name="object")
    entry.build(body)
    return spec.compile()
