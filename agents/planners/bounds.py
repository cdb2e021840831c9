"""What a plan may do: bounds of every move, and of the place where the moves lead."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from jepa_gym.agents.base import GRIPPER

NORMS = ("box", "ball")
INFINITE = float("inf")


def check(config: Any, rule: str, valid: Callable[[Any], bool], *names: str) -> None:
    """Check fields of a config.

    Args:
        config: Anything with the fields.
        rule: What is allowed, for the error message ("at least 1").
        valid: Tells whether a value is.
        *names: The fields.

    Raises:
        ValueError: If a value is not allowed.
    """
    for name in names:
        if not valid(getattr(config, name)):
            raise ValueError(f"`{name}` must be {rule}, got {getattr(config, name)!r}.")


def check_workspace(workspace: Any) -> None:
    """Check the corners of a workspace.

    Args:
        workspace: (low, high), three metres each, or None.

    Raises:
        ValueError: If it is something else, or a low is not below its high.
    """
    if workspace is None:
        return
    low, high = workspace if len(workspace) == 2 else ((), ())
    if len(low) != 3 or len(high) != 3 or not all(a < b for a, b in zip(low, high, strict=True)):
        raise ValueError(
            "`workspace` must be (low, high), three metres each and every low below its high, got "
            f"{workspace}."
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class MoveLimits:
    """How far one step may go."""

    max_move_m: float = 0.075
    """Bound of a step along each axis, or of its length; see `norm`."""
    norm: str = "box"
    """`box` bounds the move along each axis (L-inf), `ball` its length (L2)."""
    max_rotation_rad: float = 0.3
    """Bound of a step's rotation about each axis."""
    max_gripper: float = 1.0
    """Bound of a step's change of closedness."""
    gripper_dead_zone: float = 0.25
    """Changes of the gripper below this become 0, in [0, max_gripper)."""
    search_rotation: bool = False
    """Search the rotation too; else it is zero."""

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            ValueError: If a field is out of its range.
        """
        check(self, f"one of {NORMS}", lambda x: x in NORMS, "norm")
        lengths = ("max_move_m", "max_rotation_rad", "max_gripper")
        check(self, "above 0", lambda x: 0 < x < INFINITE, *lengths)
        rule = f"in [0, max_gripper={self.max_gripper})"
        check(self, rule, lambda x: 0 <= x < self.max_gripper, "gripper_dead_zone")

    def per_axis(self) -> torch.Tensor:
        """Return the bound (7,) of each number of an action; 0 for a rotation not searched."""
        rotation = self.max_rotation_rad if self.search_rotation else 0.0
        return torch.tensor([self.max_move_m] * 3 + [rotation] * 3 + [self.max_gripper])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Bounds(MoveLimits):
    """Limits of every step, and the workspace that the moves may not leave.

    A hand that starts outside the workspace is not pulled in, it may only not go farther out.
    """

    workspace: tuple[Sequence[float], Sequence[float]] | None = None
    """Lowest and highest x, y, z in metres of the hand, or None for no bound."""
    position: torch.Tensor | None = None
    """(B, 3) metres, where the hand is now; needed with `workspace`."""

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            ValueError: If a field is out of its range, or the workspace has no position.
        """
        MoveLimits.__post_init__(self)
        check_workspace(self.workspace)
        if self.workspace is not None and (
            self.position is None or self.position.ndim != 2 or self.position.shape[1] != 3
        ):
            got = None if self.position is None else tuple(self.position.shape)
            raise ValueError(
                f"`workspace` needs `position` (B, 3) in metres, where the moves start; got {got}."
            )


class Projection:
    """Brings actions into bounds; holds what that needs on the device of the search.

    Attributes:
        limit: (7,), the bound of each number of an action; 0 for a rotation not searched.

    Args:
        bounds: What a plan may do.
        batch_size: Number of problems B.
        device: Where the search runs.

    Raises:
        ValueError: If the bounds' `position` is of another batch.
    """

    def __init__(self, bounds: Bounds, batch_size: int, device: torch.device) -> None:
        self._bounds = bounds
        self.limit = bounds.per_axis().to(device)
        if bounds.workspace is None:
            return
        if len(bounds.position) != batch_size:
            raise ValueError(
                f"`position` must be ({batch_size}, 3), one for each problem, got "
                f"{tuple(bounds.position.shape)}."
            )
        self._place = bounds.position.to(self.limit)
        self._low, self._high = torch.tensor(bounds.workspace).to(self.limit)

    def clip(self, actions: torch.Tensor) -> torch.Tensor:
        """Bring actions into the bounds; the gripper's dead zone is left alone.

        Args:
            actions: (B, S, H, 7), physical units.

        Returns:
            (B, S, H, 7), a new tensor. No number is larger than it was.
        """
        actions = actions.clamp(-self.limit, self.limit)
        if self._bounds.norm == "ball":
            length = actions[..., :3].norm(dim=-1, keepdim=True)
            # the share is rounded down, so that no product of it is longer than the bound
            radius = self._bounds.max_move_m * (1 - 1e-6)
            actions[..., :3] *= (radius / length.clamp(min=1e-12)).clamp(max=1)
        if self._bounds.workspace is not None:
            self._keep_inside(actions)
        return actions

    def allowed(self, actions: torch.Tensor) -> torch.Tensor:
        """Bring actions (B, S, H, 7) into the bounds and out of the gripper's dead zone."""
        actions = self.clip(actions)
        gripper = actions[..., GRIPPER]
        gripper.masked_fill_(gripper.abs() < self._bounds.gripper_dead_zone, 0.0)
        return actions

    def _keep_inside(self, actions: torch.Tensor) -> None:
        """Shorten moves (B, S, H, 7), in place, where they would lead out of the workspace."""
        place = self._place[:, None].expand(*actions.shape[:2], 3)
        for step in range(actions.shape[2]):
            move = actions[:, :, step, :3]
            down, up = (self._low - place).clamp(max=0), (self._high - place).clamp(min=0)
            actions[:, :, step, :3] = move.clamp(down, up)
            place = place + actions[:, :, step, :3]
