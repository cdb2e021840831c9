"""What all searches begin with: the settings that every planner has, and the first sequences."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from jepa_gym.agents.base import ACTION_DIM
from jepa_gym.agents.planners.bounds import MoveLimits, check


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchConfig(MoveLimits):
    """What every planner's config has: horizon, limits of a step, warm start and early stop."""

    horizon: int = 1
    """Steps H of a plan."""
    warm_start: int = 0
    """Cheapest sequences of a plan that an agent hands, one step on, to its next search as `init`;
    0 starts each search anew."""
    stop_every: int = 0
    """Check every so many iterations whether to stop early; 0 never does. A problem is finished
    when its lowest cost has fallen by less than `stop_gain` since the check before; what its search
    finds later is ignored, and the search ends when all problems are finished."""
    stop_gain: float = 0.01
    """Least fall of the lowest cost, as a share of it, that keeps a search going."""

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            ValueError: If a field is out of its range.
        """
        MoveLimits.__post_init__(self)
        check(self, "at least 1", lambda x: x >= 1, "horizon")
        check(self, "at least 0", lambda x: x >= 0, "warm_start", "stop_every")
        check(self, "in [0, 1)", lambda x: 0 <= x < 1, "stop_gain")


def start(
    init: torch.Tensor | None, batch_size: int, horizon: int, device: torch.device
) -> torch.Tensor:
    """Return the (B, K, H, 7) float32 sequences a search starts from.

    Args:
        init: (B, H, 7), (B, K, H, 7), or None for zero actions.
        batch_size: Number of problems B.
        horizon: Steps H.
        device: Where the search runs.

    Returns:
        (B, K, H, 7) float32.

    Raises:
        ValueError: If `init` has another shape or is not finite.
    """
    shape = (batch_size, horizon, ACTION_DIM)
    if init is None:
        return torch.zeros(shape, device=device)[:, None]
    several = init if init.ndim == 4 else init[:, None]
    if several.shape != (batch_size, several.shape[1] or 1, horizon, ACTION_DIM):
        raise ValueError(
            f"`init` must have shape {shape}, or ({batch_size}, K, {horizon}, {ACTION_DIM}) for K "
            f"sequences, got {tuple(init.shape)}."
        )
    if not bool(init.isfinite().all()):
        raise ValueError("`init` must be finite; start from None if there is no plan yet.")
    return several.to(device=device, dtype=torch.float32)


def shifted(sequences: torch.Tensor) -> torch.Tensor:
    """Move plans (..., H, 7) one step on, the last step done twice.

    Reference: the shift initialisation of iCEM (arXiv 2008.06389).
    """
    return torch.cat([sequences[..., 1:, :], sequences[..., -1:, :]], dim=-2)
