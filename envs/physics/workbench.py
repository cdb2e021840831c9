"""What the code of a task works with: arm, table and object, and pictures of them."""

from __future__ import annotations

import mujoco
import numpy as np

from jepa_gym.envs.physics.arm import Arm
from jepa_gym.envs.physics.objects import object_spec
from jepa_gym.envs.physics.stage import Stage
from jepa_gym.envs.pictures.cameras import camera_aspect
from jepa_gym.envs.pictures.rendering import CAMERA_NAMES, FrameRenderer
from jepa_gym.envs.rotations import matrix
from jepa_gym.envs.variations import Variation
from jepa_gym.names import check_choice

WORKSPACE_LOW_M = np.array([0.34, -0.20, 0.02])
WORKSPACE_HIGH_M = np.array([0.64, 0.20, 0.34])
"""Where starts and goals are drawn and where the cameras keep the hand in view, base frame."""


class Workbench:
    """Arm, table and one object in their present look.

    A look is put on a stage; there is one for each kind of scene that was shown, made when it is
    needed first.

    Args:
        obj: Object of the catalogue.
        cameras: Names of the cameras, tiled from left to right.
        image_size: (height, width) of one camera's picture.
        renders: Whether pictures are wanted at all.
    """

    def __init__(
        self, obj: str, cameras: tuple[str, ...], image_size: tuple[int, int], *, renders: bool
    ) -> None:
        self.obj, self.object_spec = obj, object_spec(obj)
        self.cameras, self.image_size = cameras, image_size
        self._rendered = cameras if renders else ()
        self._stages: dict[str, Stage] = {}
        self.closed = False
        self.stage: Stage
        self.variation: Variation

    def use(self, variation: Variation) -> None:
        """Make the scene look like `variation`; what was simulated before is lost or hidden."""
        kind = variation.kind
        if kind not in self._stages:
            self._stages[kind] = Stage(self.obj, kind, self._rendered, self.image_size)
        self.stage, self.variation = self._stages[kind], variation
        self.stage.show(variation)

    @property
    def model(self) -> mujoco.MjModel:
        """The MuJoCo model of the present episode, private to this environment."""
        return self.stage.model

    @property
    def data(self) -> mujoco.MjData:
        """The MuJoCo simulation of the present episode."""
        return self.stage.data

    @property
    def arm(self) -> Arm:
        """The arm of the present episode."""
        return self.stage.arm

    def frame(self) -> np.ndarray:
        """Return a new picture of the present state, (Y, X, 3) uint8."""
        return self._renderer().render(self.data)

    def depth_frame(self) -> np.ndarray:
        """Return depth along the optical axis in metres, (Y, X) float32, of the present state."""
        return self._renderer().depth(self.data)

    def project(self, points: np.ndarray, camera: str) -> np.ndarray:
        """Return where points are in a camera's picture, whether anything hides them or not.

        Args:
            points: (..., 3) metres, base frame, in front of the camera.
            camera: Name of a camera of the scene.

        Returns:
            (..., 2) column and row in pixels of a picture of `image_size`; whole numbers are the
            middles of pixels.

        Raises:
            ValueError: If there is no such camera.
        """
        check_choice("camera", camera, CAMERA_NAMES)
        height, width = self.image_size
        seen = self.data.camera(camera)
        slope = np.tan(np.deg2rad(self.model.camera(camera).fovy[0]) / 2)
        right, up, back = np.moveaxis((points - seen.xpos) @ seen.xmat.reshape(3, 3), -1, 0)
        across = right / -back / (slope * (camera_aspect(camera) or width / height))
        above = up / -back / slope
        return np.stack([(1 + across) * width / 2, (1 - above) * height / 2], axis=-1) - 0.5

    def object_position(self) -> np.ndarray:
        """Return the object's centre (3,) in metres, base frame."""
        return self.stage.object_position()

    def object_half_height(self) -> float:
        """Return the distance in metres from the object's centre to its foot, in its size now."""
        return self.object_spec.half_height_m * self.variation.object_scale

    def object_held(self) -> bool:
        """Return whether both finger pads touch the object."""
        return self.stage.object_held()

    def object_clearance(self) -> float:
        """Return the height in metres of the object's lowest point above the table."""
        return self.stage.object_clearance()

    def place_object(self, position: np.ndarray, yaw: float) -> None:
        """Put the object at `position` (3,) in metres, turned by `yaw` rad, without simulating."""
        self.stage.place_object(position, np.array([np.cos(yaw / 2), 0, 0, np.sin(yaw / 2)]))
        mujoco.mj_forward(self.model, self.data)

    def place_arm(self, position: np.ndarray, closedness: float = 0.0, yaw: float = 0.0) -> None:
        """Put the hand at `position` (3,) in metres, pointing down.

        Raises:
            ValueError: If the arm cannot reach it.
        """
        error = self.arm.place(position, matrix(np.array([0.0, 0.0, yaw])), closedness)
        if error > 2e-3:
            raise ValueError(
                f"The arm cannot reach {np.round(position, 3)}: inverse kinematics ends "
                f"{error * 100:.1f} cm away. Choose a point inside the workspace "
                f"{WORKSPACE_LOW_M} to {WORKSPACE_HIGH_M} m."
            )

    def close(self) -> None:
        """Free what the pictures took; safe to call twice."""
        self.closed = True
        for stage in self._stages.values():
            stage.close()

    def _renderer(self) -> FrameRenderer:
        if self.stage.frames is None:
            raise RuntimeError(
                "This environment has no renderer: it was closed, or made with "
                'obs_mode="state" and no render_mode.'
            )
        return self.stage.frames
