"""Camera calibration: the moves that a world model sees between frames, against the real ones.

A model of an uncalibrated camera guesses where the robot's axes point. `infer_actions` asks it for
the move between two frames, the minimum of the energy over one imagined step; `fit_actions` finds
the matrix that maps such moves to the real ones, by least squares; `ActionFit.apply` corrects moves
that the model plans. Seen from another side, the matrix is nearly a rotation.

Reference: V-JEPA 2 (arXiv 2506.09985), appendix B.4, where W is 2x2, for moves in the plane.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from jepa_gym.agents.base import ACTION_DIM
from jepa_gym.agents.cost import CostSettings, PlanCost
from jepa_gym.training.recipes.landscape import best_of_grid

BOX_POINTS = 5
"""Grid points per axis of the first, coarse look at the whole box."""
ROUNDS = 5
"""Rounds of three points per axis, each of half the spacing: 1.2 mm for a box of +-7.5 cm."""
PAIRS_AT_ONCE = 32
"""Pairs of frames that are encoded together; bounds the memory."""
RANK_TOLERANCE = 1e-6


@dataclass(frozen=True, slots=True)
class ActionFit:
    """The linear map from inferred to real moves, and how good it is."""

    matrix: np.ndarray
    """W (d, d): real ~= W @ inferred."""
    condition_number: float
    """Largest over smallest singular value of W; 1 for a rotation with a scale."""
    rotation_deg: float
    """Angle of the proper rotation nearest to W: in (-180, 180], counterclockwise from above, for
    d = 2; in [0, 180], about whatever axis, for d = 3."""
    error_before_m: float
    """Mean distance of the inferred moves from the real ones."""
    error_after_m: float
    """The same after the fit, on the moves that it was made from."""
    explained: float
    """Share of the real moves' squared length that the fit accounts for: 1 is all; near 0 the model
    sees nothing of the moves, and rotation and condition number mean nothing."""
    n: int
    """Number of moves."""

    def apply(self, actions: np.ndarray) -> np.ndarray:
        """Correct moves as the model sees them; they are not clipped to any bounds.

        Args:
            actions: (..., d) moves in metres, or (..., 7) actions, whose first d entries change.

        Returns:
            A new array of the same shape, float64.

        Raises:
            ValueError: If the last dimension is another, or a number is not finite.
        """
        actions, width = np.array(actions, np.float64), len(self.matrix)
        if actions.ndim < 1 or actions.shape[-1] not in (width, ACTION_DIM):
            raise ValueError(
                f"`actions` must be (..., {width}) moves or (..., {ACTION_DIM}) actions, "
                f"got shape {actions.shape}."
            )
        if not np.isfinite(actions).all():
            raise ValueError("`actions` must be finite numbers.")
        actions[..., :width] = actions[..., :width] @ self.matrix.T
        return actions


def fit_actions(inferred: np.ndarray, real: np.ndarray) -> ActionFit:
    """Fit real ~= W @ inferred by least squares, without a constant.

    Args:
        inferred: (N, d) moves that a model inferred, d = 2 (x, y) or 3, in metres; N > d.
        real: (N, d) moves that were made.

    Returns:
        The fit.

    Raises:
        ValueError: If shapes disagree, numbers are not finite, or the moves are too few or do not
            span d directions.
    """
    inferred, real = np.asarray(inferred, np.float64), np.asarray(real, np.float64)
    if inferred.ndim != 2 or inferred.shape[1] not in (2, 3) or real.shape != inferred.shape:
        raise ValueError(
            "`inferred` and `real` must both be (N, 2) or both (N, 3), in metres, "
            f"got {inferred.shape} and {real.shape}."
        )
    count, width = inferred.shape
    if count <= width:
        raise ValueError(
            f"{count} moves determine no {width}x{width} matrix and its error: give at least "
            f"{width + 1}, better 50 or more."
        )
    for name, moves in (("inferred", inferred), ("real", real)):
        wrong = count - int(np.isfinite(moves).all(axis=1).sum())
        if wrong:
            raise ValueError(f"`{name}` has {wrong} moves that are not finite: leave them out.")
        rank = int(np.linalg.matrix_rank(moves, tol=RANK_TOLERANCE * np.sqrt(count)))
        if rank < width:
            raise ValueError(
                f"The `{name}` moves span {rank} of {width} directions: give moves along all of "
                "them. If they were inferred, the model does not tell these directions apart."
            )
    matrix = np.linalg.lstsq(inferred, real, rcond=None)[0].T
    rest = inferred @ matrix.T - real
    return ActionFit(
        matrix=matrix,
        condition_number=float(np.linalg.cond(matrix)),
        rotation_deg=_rotation_deg(matrix),
        error_before_m=float(np.linalg.norm(inferred - real, axis=1).mean()),
        error_after_m=float(np.linalg.norm(rest, axis=1).mean()),
        explained=float(1 - np.square(rest).sum() / np.square(real).sum()),
        n=count,
    )


def _rotation_deg(matrix: np.ndarray) -> float:
    """Return the angle of the proper rotation nearest to a (2, 2) or (3, 3) matrix, in degrees."""
    left, _, right = np.linalg.svd(matrix)
    left[:, -1] *= np.sign(np.linalg.det(left @ right))  # no reflection
    nearest = left @ right
    if len(nearest) == 2:
        return float(np.degrees(np.arctan2(nearest[1, 0], nearest[0, 0])))
    return float(np.degrees(np.arccos(np.clip((np.trace(nearest) - 1) / 2, -1, 1))))


@torch.inference_mode()
def infer_actions(
    model: Any,
    frames: Tensor | np.ndarray,
    states: Tensor | np.ndarray,
    next_frames: Tensor | np.ndarray,
    axes: int = 2,
    offset_free: bool = True,
) -> np.ndarray:
    """Return the move that the model sees between frames: the least energy after one step.

    The search is a grid over the box of allowed moves, refined around its best point, with a
    parabola through the last neighbours. Hand orientation and gripper are taken as unchanged.

    Args:
        model: A world model, as `jepa_gym.world_model.WorldModel`.
        frames: (N, C, Y, X, 3) uint8, C >= 1 frames of context, the last is where the move starts.
        states: (N, C, 7) of `frames`.
        next_frames: (N, Y, X, 3) uint8, after the move.
        axes: Search the first 2 (x, y) or all 3 axes; the move along z is else taken to be zero.
        offset_free: Correct what is imagined by what the model gets wrong about holding still, as
            `jepa_gym.agents.mpc.MPCAgent` does.

    Returns:
        (N, axes) moves in metres, base frame, within the model's bound per axis.

    Raises:
        TypeError: If the frames are not uint8.
        ValueError: If shapes disagree or an energy is not finite.
    """
    frames, states, next_frames = (torch.as_tensor(x) for x in (frames, states, next_frames))
    if axes not in (2, 3):
        raise ValueError(f"`axes` must be 2 or 3, got {axes}.")
    if frames.ndim != 5 or frames.shape[1] < 1 or next_frames.shape != frames[:, 0].shape:
        raise ValueError(
            "`frames` must be (N, C, Y, X, 3) with C >= 1 and `next_frames` (N, Y, X, 3), "
            f"got {tuple(frames.shape)} and {tuple(next_frames.shape)}."
        )
    if states.shape != (*frames.shape[:2], ACTION_DIM) or not bool(states.isfinite().all()):
        raise ValueError(
            f"`states` must be {(*frames.shape[:2], ACTION_DIM)} finite numbers, "
            f"got shape {tuple(states.shape)}."
        )
    moves = [
        _infer(model, *parts, axes, offset_free)
        for parts in zip(
            frames.split(PAIRS_AT_ONCE),
            states.float().split(PAIRS_AT_ONCE),
            next_frames.split(PAIRS_AT_ONCE),
            strict=True,
        )
    ]
    return torch.cat(moves).double().numpy()


def _infer(
    model: Any, frames: Tensor, states: Tensor, next_frames: Tensor, axes: int, offset_free: bool
) -> Tensor:
    """Infer the moves (P, axes) of a few checked pairs; see `infer_actions`."""
    latents, goals = model.encode(frames), model.encode(next_frames[:, None])[:, 0]
    settings = CostSettings(offset_free=offset_free, stops=False)
    energies = PlanCost(model, latents, states, goals, None, 1, settings)

    def cost(actions: Tensor) -> Tensor:
        costs = energies(actions[:, :, None])
        if not bool(costs.isfinite().all()):
            raise ValueError(
                "The world model gave an energy that is not finite; check that checkpoint and "
                "frames are sound."
            )
        return costs

    return _least(cost, len(states), axes, model.config.frame.max_move_m)


def _least(cost: Callable[[Tensor], Tensor], count: int, axes: int, bound_m: float) -> Tensor:
    """Return the translations (P, axes) of least cost in the box of +-`bound_m`."""
    spacing = 2 * bound_m / (BOX_POINTS - 1)
    best = best_of_grid(cost, torch.zeros(count, ACTION_DIM), spacing, BOX_POINTS, axes)
    for _ in range(ROUNDS):
        spacing /= 2
        best = best_of_grid(cost, best, spacing, 3, axes, bound_m)
    steps = spacing * torch.eye(ACTION_DIM)[:axes]  # one row per axis
    costs = cost(best[:, None] + torch.cat([torch.zeros(1, ACTION_DIM), steps, -steps]))
    here, after, before = costs[:, :1], costs[:, 1 : axes + 1], costs[:, axes + 1 :]
    bend = (before - 2 * here + after).clamp_min(1e-12)
    shift = spacing * ((before - after) / (2 * bend)).clamp(-0.5, 0.5)
    return (best[:, :axes] + shift).clamp(-bound_m, bound_m)
