"""Exterior cameras: where they stand, how they see, and how variations move them.

MuJoCo's cameras look along their own -z with y up; DROID records poses in OpenCV's convention, x to
the right of the picture, y down and z forward (`droid_extrinsics`).
"""

from __future__ import annotations

from dataclasses import dataclass

import mujoco
import numpy as np

from jepa_gym.envs.rotations import euler


@dataclass(frozen=True)
class CameraSpec:
    """An exterior camera.

    Attributes:
        position: (x, y, z) m, base frame.
        target: The point it looks at, (x, y, z) m; variations move the camera about it.
        fovy_deg: Vertical field of view.
        aspect: Width / height of the field of view; None: that of the picture (square pixels).
    """

    position: tuple[float, float, float]
    target: tuple[float, float, float]
    fovy_deg: float
    aspect: float | None = None


CAMERAS = {
    "left": CameraSpec((1.05, 0.66, 0.52), (0.46, -0.02, 0.19), 46.0),
    "right": CameraSpec((1.05, -0.66, 0.52), (0.46, 0.02, 0.19), 46.0),
    "front": CameraSpec((1.32, 0.0, 0.50), (0.46, 0.0, 0.19), 46.0),
    # DROID's left exterior camera: low, near, wide, 1280x720 cropped to 972x720 and squashed; a
    # little more from the front than in the published example, so that the gripper's opening shows
    "droid": CameraSpec((0.70, 0.52, 0.26), (0.49, -0.01, 0.19), 56.0, aspect=1.35),
}
"""Exterior cameras by name; `wrist`, on the hand, is added by the scene."""


def look_at_quat(position, target, up=(0.0, 0.0, 1.0)) -> np.ndarray:
    """Return the quaternion (4,) of a camera at `position` (3,) that looks at `target` (3,)."""
    forward = np.subtract(target, position)
    right = np.cross(forward, up)
    right /= np.linalg.norm(right)
    above = np.cross(right, forward)
    above /= np.linalg.norm(above)
    quat = np.zeros(4)
    axes = np.stack([right, above, np.cross(right, above)], axis=1)
    mujoco.mju_mat2Quat(quat, axes.ravel())
    return quat


def camera_azimuth_deg(name: str) -> float:
    """Return the default azimuth of an exterior camera about its target, degrees from base x."""
    camera = CAMERAS[name]
    offset = np.subtract(camera.position, camera.target)
    return float(np.rad2deg(np.arctan2(offset[1], offset[0])))


def camera_aspect(name: str) -> float | None:
    """Return width / height of a camera's field of view, None for square pixels."""
    return CAMERAS[name].aspect if name in CAMERAS else None


def droid_extrinsics(position: np.ndarray, rotation: np.ndarray) -> np.ndarray:
    """Return a camera's pose (6,) float64 as DROID's `camera_extrinsics`, in the base frame.

    Position in metres, then the extrinsic xyz Euler angles (rad) of the axes of OpenCV: a point at
    depth z that is seen x to the right of the middle and y below it has these coordinates.

    Args:
        position: (3,) m, `MjData.cam_xpos`.
        rotation: (3, 3) or its 9 numbers, `MjData.cam_xmat`: MuJoCo's axes, z backward and y up.
    """
    return np.array([*position, *euler(np.reshape(rotation, (3, 3)) * [1.0, -1.0, -1.0])])


def moved_camera(
    camera: CameraSpec, azimuth_deg: float, elevation_deg: float, distance: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return position (3,) m and quaternion (4,) of a camera moved on a sphere about its target.

    Args:
        camera: The camera at its default place.
        azimuth_deg: Degrees to turn about the vertical axis, counter-clockwise from above.
        elevation_deg: Degrees to rise.
        distance: Factor on the distance to the target.
    """
    offset = np.subtract(camera.position, camera.target)
    radius = float(np.linalg.norm(offset))
    azimuth = np.arctan2(offset[1], offset[0]) + np.deg2rad(azimuth_deg)
    elevation = np.arcsin(offset[2] / radius) + np.deg2rad(elevation_deg)
    level, rise = np.cos(elevation), np.sin(elevation)
    direction = np.array([level * np.cos(azimuth), level * np.sin(azimuth), rise])
    position = np.asarray(camera.target) + radius * distance * direction
    return position, look_at_quat(position, camera.target)


def zoomed_fovy_deg(camera: CameraSpec, zoom: float) -> float:
    """Return a camera's vertical field of view at `zoom` times its default focal length."""
    return float(np.rad2deg(2 * np.arctan(np.tan(np.deg2rad(camera.fovy_deg) / 2) / zoom)))
