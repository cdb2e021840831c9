"""robosuite's own tasks as scenes with our arm: its objects, placement, reward and success.

robosuite builds the model, draws where things stand and judges success. What it would do in every
step and picture is ours: the arm's servos carry out a blocking move, and our renderer draws (see
`jepa_gym.envs.physics.robosuite_assets` for what is wrong with robosuite's pictures).
"""

from __future__ import annotations

import logging
from typing import Any

import mujoco
import numpy as np

from jepa_gym.envs.physics.arm import Arm, ArmNames
from jepa_gym.envs.physics.robosuite_assets import check_mujoco_version
from jepa_gym.envs.physics.scene import (
    ARM_FILE,
    ARM_JOINTS,
    FINGER_JOINTS,
    HAND_FILE,
    add_cameras,
    add_hand_frame,
    add_visuals,
    link_meshes,
    make_servos,
    simplify,
)

ROBOT, HAND = "robot0_", "gripper0_right_"
MESHES = {ROBOT: ARM_FILE, HAND: HAND_FILE, "fixed_mount0_": "bases/rethink_mount.xml"}
"""Prefix of the names of a part of the robot -> the file that its visual meshes come from."""
HIDDEN_GROUP = 4
"""Of geoms that only keep their names: robosuite looks them up, nobody draws them."""
MODEL_SEED = 0
"""Sizes that robosuite draws when it builds a model are the same in every process."""


class RobosuiteScene:
    """One task of robosuite with a Panda, built once; every reset draws what stands where.

    Args:
        task: Name of a class of robosuite's, such as `"Lift"`.

    Raises:
        ImportError: MuJoCo outside the tested range.
    """

    def __init__(self, task: str) -> None:
        check_mujoco_version()
        self.task = _build(task)
        self.model: mujoco.MjModel = self.task.sim.model._model
        self.data: mujoco.MjData = self.task.sim.data._data
        self.base_m = self.model.body(f"{ROBOT}base").pos.copy()
        self.arm = Arm(self.model, self.data, _names(self.base_m))
        self._kind = mujoco.mjtState.mjSTATE_INTEGRATION

    def reset(self, rng: np.random.Generator) -> None:
        """Draw a new start; everything drawn comes from `rng`."""
        self.task.rng = rng
        sampler = getattr(self.task, "placement_initializer", None)
        for one in (sampler, *getattr(sampler, "samplers", {}).values()):
            if one is not None:
                one.rng = rng
        self.task.reset()
        arm = self.data.qpos[[self.model.joint(ROBOT + name).qposadr[0] for name in ARM_JOINTS]]
        self.arm.hold(arm, float(self.arm.state()[6]))
        mujoco.mj_forward(self.model, self.data)

    def succeeds(self) -> bool:
        """Return whether robosuite calls the present state a success."""
        return bool(self.task._check_success())

    def reward(self) -> float:
        """Return robosuite's reward for the present state."""
        return float(self.task.reward(None))

    def objects(self) -> dict[str, np.ndarray]:
        """Return the task's objects by name -> where to take hold, (3,) in m, base frame.

        It is the object's handle if robosuite names one (nuts, the door), else its body's origin.
        """
        places = {}
        for thing in self.task.model.mujoco_objects:
            handle = thing.important_sites.get("handle")
            at = self.data.site(handle) if handle else self.data.body(thing.root_body)
            places[thing.name] = at.xpos - self.base_m
        return places

    def physics(self) -> np.ndarray:
        """Return the simulator's state (n,) float64."""
        physics = np.zeros(mujoco.mj_stateSize(self.model, self._kind))
        mujoco.mj_getState(self.model, self.data, physics, self._kind)
        return physics

    def set_physics(self, physics: np.ndarray, closing: float) -> None:
        """Restore a simulator state (n,) and the gripper's command."""
        mujoco.mj_setState(self.model, self.data, physics, self._kind)
        mujoco.mj_forward(self.model, self.data)
        # the solver's warm start is part of the state, and mj_forward has just changed it
        mujoco.mj_setState(self.model, self.data, physics, self._kind)
        self.arm.closing = closing


def _build(task: str) -> Any:
    """Return robosuite's environment of a task, its model edited for our arm and renderer."""
    log = logging.getLogger("robosuite_logs")
    log.addFilter(_is_error)  # it gives advice on private settings and on packages of its own
    try:
        import robosuite

        env = robosuite.make(
            task,
            robots="Panda",
            renderer="mujoco",
            has_renderer=False,
            has_offscreen_renderer=False,
            use_camera_obs=False,
            ignore_done=True,
            seed=MODEL_SEED,
        )
        arena = env.model.mujoco_arena
        surface = env.bin1_pos if hasattr(env, "bin1_pos") else arena.table_offset
        env.set_xml_processor(lambda xml: _edited(xml, float(surface[2])))
        env.rng = np.random.default_rng(MODEL_SEED)
        env.reset()  # builds the model again, edited
    finally:
        log.removeFilter(_is_error)
    env.hard_reset = False
    return env


def _is_error(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.ERROR


def _edited(xml: str, table_m: float) -> str:
    """Return robosuite's model with servos, thin meshes, our cameras and our hand frame."""
    spec = mujoco.MjSpec.from_string(xml)
    simplify(spec)
    for prefix, source in MESHES.items():
        _thin(spec, prefix)
        add_visuals(spec, link_meshes(source), prefix)
    torques = {ROBOT + name: f"{ROBOT}torq_j{name[-1]}" for name in ARM_JOINTS}
    closers = {HAND + _short(name): HAND + name for name in FINGER_JOINTS}
    make_servos(
        spec,
        {joint: spec.actuator(name) for joint, name in torques.items()},
        {joint: spec.actuator(name) for joint, name in closers.items()},
    )
    for body in spec.bodies:
        if body.name.startswith((ROBOT, HAND)):
            body.gravcomp = 1.0
    add_hand_frame(spec.body(f"{HAND}right_gripper"))
    base = spec.body(f"{ROBOT}base")
    add_cameras(spec, np.array([*base.pos[:2], table_m]))
    return spec.to_xml()


def _thin(spec: mujoco.MjSpec, prefix: str) -> None:
    """Make visual meshes of a part of the robot invisible points, and forget their files."""
    for geom in spec.geoms:
        if geom.parent.name.startswith(prefix) and geom.group == 1:
            geom.type, geom.meshname, geom.material = mujoco.mjtGeom.mjGEOM_SPHERE, "", ""
            geom.size, geom.group, geom.mass = [1e-4, 0, 0], HIDDEN_GROUP, 0.0
    used = {geom.meshname for geom in spec.geoms}
    for mesh in list(spec.meshes):
        if mesh.name.startswith(prefix) and mesh.name not in used:
            spec.delete(mesh)


def _short(finger: str) -> str:
    """Return the name of a finger's joint, which its actuator's has a word before."""
    return finger.removeprefix("gripper_")


def _names(base_m: np.ndarray) -> ArmNames:
    return ArmNames(
        joints=tuple(ROBOT + name for name in ARM_JOINTS),
        fingers=tuple(HAND + _short(name) for name in FINGER_JOINTS),
        pads=tuple(f"{HAND}finger{i}_pad_collision" for i in (1, 2)),
        base_m=(float(base_m[0]), float(base_m[1]), float(base_m[2])),
    )
