"""Composition and difference of states: the one definition of what an action does.

State: x y z (metres, robot base), roll pitch yaw (radians, extrinsic xyz), gripper closedness.
Action: the translation, the extrinsic-xyz Euler angles of R(t+1) R(t)^T, the change of closedness.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_LOCK = 1e-9
"""Cosine of the pitch below which roll and yaw are not separable; yaw is then set to 0."""


def compose(state: Tensor, action: Tensor) -> Tensor:
    """Return the state an action leads to.

    Args:
        state: (..., 7).
        action: (..., 7), broadcastable against `state`.

    Returns:
        (..., 7) with closedness clipped to [0, 1].
    """
    position = state[..., :3] + action[..., :3]
    turned = _product(matrix_from_euler(action[..., 3:6]), matrix_from_euler(state[..., 3:6]))
    gripper = (state[..., 6:] + action[..., 6:]).clamp(0.0, 1.0)
    return torch.cat([position, euler_from_matrix(turned), gripper], dim=-1)


def difference(start: Tensor, end: Tensor) -> Tensor:
    """Return the action that leads from one state to another.

    Args:
        start: (..., 7).
        end: (..., 7), broadcastable against `start`.
    """
    turn = _product(matrix_from_euler(end[..., 3:6]), matrix_from_euler(start[..., 3:6]).mT)
    moved = end - start
    return torch.cat([moved[..., :3], euler_from_matrix(turn), moved[..., 6:]], dim=-1)


def matrix_from_euler(angles: Tensor) -> Tensor:
    """Return the (..., 3, 3) matrices Rz(yaw) Ry(pitch) Rx(roll) of (..., 3) angles in radians."""
    (sr, sp, sy), (cr, cp, cy) = angles.sin().unbind(-1), angles.cos().unbind(-1)
    rows = [
        torch.stack([cy * cp, cy * sp * sr - sy * cr, cy * sp * cr + sy * sr], -1),
        torch.stack([sy * cp, sy * sp * sr + cy * cr, sy * sp * cr - cy * sr], -1),
        torch.stack([-sp, cp * sr, cp * cr], -1),
    ]
    return torch.stack(rows, -2)


def euler_from_matrix(matrix: Tensor) -> Tensor:
    """Return the (..., 3) roll, pitch, yaw in radians of (..., 3, 3) rotations.

    Roll and yaw lie in [-pi, pi], pitch in [-pi/2, pi/2].
    """
    cosine = torch.hypot(matrix[..., 2, 1], matrix[..., 2, 2])
    locked = cosine < _LOCK
    roll = torch.where(
        locked,
        torch.atan2(-matrix[..., 1, 2], matrix[..., 1, 1]),
        torch.atan2(matrix[..., 2, 1], matrix[..., 2, 2]),
    )
    pitch = torch.atan2(-matrix[..., 2, 0], cosine)
    yaw = torch.atan2(matrix[..., 1, 0], matrix[..., 0, 0])
    return torch.stack([roll, pitch, torch.where(locked, torch.zeros_like(yaw), yaw)], -1)


def _product(first: Tensor, second: Tensor) -> Tensor:
    """Multiply rotations in their own precision: autocast would round them to 8 bits."""
    with torch.autocast(first.device.type, enabled=False):
        return first @ second


def centred(states: Tensor, mean: Tensor) -> Tensor:
    """Return states minus a mean, the angles wrapped to [-pi, pi).

    A gripper that points down has a roll near pi that flips between +pi and -pi; the wrapped
    difference does not.

    Args:
        states: (..., 7).
        mean: (7,).
    """
    moved = states - mean
    angles = torch.remainder(moved[..., 3:6] + math.pi, 2 * math.pi) - math.pi
    return torch.cat([moved[..., :3], angles, moved[..., 6:]], dim=-1)


def statistics(states: Tensor, floor: float = 0.01) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of states, the mean of angles taken on the circle.

    Args:
        states: (..., 7).
        floor: Least standard deviation, for dimensions that hardly vary.

    Returns:
        Two (7,) tensors, to become `state_mean` and `state_std` of a configuration.
    """
    flat = states.reshape(-1, states.shape[-1])
    mean = flat.mean(0)
    angles = flat[:, 3:6]
    mean[3:6] = torch.atan2(angles.sin().mean(0), angles.cos().mean(0))
    return mean, centred(flat, mean).std(0, unbiased=False).clamp_min(floor)
