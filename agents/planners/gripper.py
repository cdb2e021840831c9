"""The gripper's special cases; everything else treats it as one more number of an action.

A gripper is no axis like the others. Its closedness ends at stops; a small change of it does
nothing or lets go of what is held; and closing just as far as a goal image shows would touch the
object without squeezing it, so that the sign of a planned change counts more than its size (as the
maintainers of V-JEPA 2 advise, issue 54 of their repository).

Reference: V-JEPA 2 (arXiv 2506.09985); official repository, `notebooks/utils/mpc_utils.py`.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch

from jepa_gym.agents.base import ACTION_DIM, GRIPPER

Gripper = Literal["full", "exact", "published"]
"""How a planned change is carried out: `full` opens or closes fully, by its sign; `exact` does it
as planned; both up to the stops, in imagination, too. `published` does it as planned, and the stops
are the robot's business."""
MODES: tuple[Gripper, ...] = get_args(Gripper)
NO_CHANGE = 0.05
"""Planned changes below this are not carried out by `full`."""
PUBLISHED_BOUND = 0.75
"""Bound of a step's change in the official search."""
PUBLISHED_DEAD_ZONE = 0.25
"""Changes below this become 0 in the official search's result."""
PUBLISHED_MOMENTUM = 0.15
"""Weight of the gripper's old mean and standard deviation in the official search's new ones."""
PUBLISHED_STD = 1.0
"""Standard deviation of the gripper's change that the official search starts with."""


def beside(others: float, gripper: float) -> tuple[float, ...]:
    """Return the seven numbers of an action's dimensions: one for the pose, one for the gripper."""
    return (others,) * GRIPPER + (gripper,)


def published_std(limit: torch.Tensor) -> torch.Tensor:
    """Return the standard deviations (7,) that the official search starts with.

    Args:
        limit: (7,), the bounds of an action, which they are but for the gripper.
    """
    std = limit.clone()
    std[GRIPPER] = PUBLISHED_STD
    return std


def up_to_the_stops(
    closedness: torch.Tensor, actions: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Integrate the gripper's closedness, and shorten changes that go beyond its stops.

    Args:
        closedness: (B,) in [0, 1], now.
        actions: (B, S, H, 7).

    Returns:
        The actions with the changes that can be carried out, and the closedness (B, S) in [0, 1]
        after the last one.

    Raises:
        ValueError: If the actions have not seven numbers.
    """
    if actions.shape[-1] != ACTION_DIM:
        raise ValueError(f"`actions` must end in {ACTION_DIM}, got {tuple(actions.shape)}.")
    actions = actions.clone()
    predicted = closedness[:, None].expand(actions.shape[:2])
    for step in range(actions.shape[2]):
        after = (predicted + actions[:, :, step, GRIPPER]).clamp(0, 1)
        actions[:, :, step, GRIPPER] = after - predicted
        predicted = after
    return actions, predicted


def carried_out(action: torch.Tensor, closedness: torch.Tensor, mode: Gripper) -> torch.Tensor:
    """Return the actions (B, 7) that the robot is told, a new tensor.

    Args:
        action: (B, 7), as planned.
        closedness: (B,) in [0, 1], now.
        mode: See `Gripper`.
    """
    if mode == "published":
        return action.clone()
    action = up_to_the_stops(closedness, action[:, None, None])[0][:, 0, 0]
    if mode == "full":
        change = action[:, GRIPPER]
        action[:, GRIPPER] = torch.where(change.abs() < NO_CHANGE, 0, change.sign())
    return action
