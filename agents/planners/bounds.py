"""What a plan may do: bounds of every number of an action, and of where the moves lead."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

NORMS = ("box", "ball")
INFINITE = float("inf")

Workspace = tuple[Sequence[float], Sequence[float]]
"""Lowest and highest x, y, z in metres."""


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


class Bounds:
    """Brings actions into the limits of every step, and keeps the hand in a workspace.

    A hand that starts outside the workspace is not pulled in, it may only not go farther out.

    Attributes:
        limit: (7,), the bound of each number of an action; 0 for a rotation not searched.
        dead_zone: (7,), what becomes 0 of each number.

    Args:
        limits: How far one step may go; a planner's config is one.
        workspace: Where the hand may be, or None for anywhere.
        position: (B, 3) metres, where the hand is now; needed with `workspace`.
        device: Where the search runs.

    Raises:
        ValueError: If the workspace has no position, or its corners are none.
    """

    def __init__(
        self,
        limits: MoveLimits,
        workspace: Workspace | None = None,
        position: torch.Tensor | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        rotation = limits.max_rotation_rad if limits.search_rotation else 0.0
        limit = [limits.max_move_m] * 3 + [rotation] * 3 + [limits.max_gripper]
        self.limit = torch.tensor(limit, device=device)
        self.dead_zone = torch.tensor([0.0] * 6 + [limits.gripper_dead_zone], device=device)
        # the share is rounded down, so that no product of it is longer than the bound
        self._radius = limits.max_move_m * (1 - 1e-6) if limits.norm == "ball" else None
        self._place = None
        check_workspace(workspace)
        if workspace is None:
            return
        if position is None or position.ndim != 2 or position.shape[1] != 3:
            got = None if position is None else tuple(position.shape)
            raise ValueError(
                f"`workspace` needs `position` (B, 3) in metres, where the moves start; got {got}."
            )
        self._place = position.to(self.limit)
        self._low, self._high = torch.tensor(workspace).to(self.limit)

    def check_batch(self, batch_size: int) -> None:
        """Raise ValueError if the positions are not one for each of `batch_size` problems."""
        if self._place is not None and len(self._place) != batch_size:
            raise ValueError(
                f"`position` must be ({batch_size}, 3), one for each problem, got "
                f"{tuple(self._place.shape)}."
            )

    def clip(self, actions: torch.Tensor) -> torch.Tensor:
        """Bring actions into the bounds; dead zones are left alone.

        Args:
            actions: (B, S, H, 7), physical units.

        Returns:
            (B, S, H, 7), a new tensor. No number is larger than it was.
        """
        actions = actions.clamp(-self.limit, self.limit)
        if self._radius is not None:
            length = actions[..., :3].norm(dim=-1, keepdim=True)
            actions[..., :3] *= (self._radius / length.clamp(min=1e-12)).clamp(max=1)
        if self._place is not None:
            self._keep_inside(actions, self._place)
        return actions

    def allowed(self, actions: torch.Tensor) -> torch.Tensor:
        """Bring actions (B, S, H, 7) into the bounds and out of the dead zones."""
        actions = self.clip(actions)
        return actions.masked_fill_(actions.abs() < self.dead_zone, 0.0)

    def _keep_inside(self, actions: torch.Tensor, place: torch.Tensor) -> None:
        """Shorten moves (B, S, H, 7), in place, where they would lead out of the workspace."""
        place = place[:, None].expand(*actions.shape[:2], 3)
        for step in range(actions.shape[2]):
            move = actions[:, :, step, :3]
            down, up = (self._low - place).clamp(max=0), (self._high - place).clamp(min=0)
            actions[:, :, step, :3] = move.clamp(down, up)
            place = place + actions[:, :, step, :3]
