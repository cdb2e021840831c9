"""Rotations as NumPy arrays; `jepa_gym.poses` has the same for batches of tensors.

Written by hand because SciPy takes 44 and 130 us for one rotation instead of 1, and every step of
an environment needs several.
"""

from __future__ import annotations

import math

import mujoco
import numpy as np


def euler(matrix: np.ndarray) -> tuple[float, float, float]:
    """Return roll, pitch, yaw (rad, extrinsic xyz) of a rotation, (3, 3) or its 9 numbers."""
    m = np.ravel(matrix)
    cosine = math.hypot(m[7], m[8])
    if cosine < 1e-9:  # the hand points along x: roll and yaw turn about the same axis
        return math.atan2(-m[5], m[4]), math.atan2(-m[6], cosine), 0.0
    return math.atan2(m[7], m[8]), math.atan2(-m[6], cosine), math.atan2(m[3], m[0])


def matrix(angles: np.ndarray) -> np.ndarray:
    """Return the rotation (3, 3) of roll, pitch, yaw (rad, extrinsic xyz)."""
    quat, flat = np.zeros(4), np.zeros(9)
    mujoco.mju_euler2Quat(quat, np.asarray(angles, np.float64), "XYZ")
    mujoco.mju_quat2Mat(flat, quat)
    return flat.reshape(3, 3)
