"""What a planner is: a search that sees actions and costs, never the model that makes the costs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch

from jepa_gym.agents.base import ACTION_DIM
from jepa_gym.agents.planners.bounds import Bounds, MoveLimits, check
from jepa_gym.agents.planners.search import CostFunction, Plan, Search


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


Config = TypeVar("Config", bound=SearchConfig)


class Planner(ABC, Generic[Config]):
    """Search for the action sequence of least cost; a subclass says only how it searches.

    Args:
        config: Budget and bounds of the search, or None for the defaults of `config_class`.
    """

    config_class: type[Config]

    def __init__(self, config: Config | None = None) -> None:
        self.config = self.config_class() if config is None else config

    def plan(
        self,
        cost_fn: CostFunction,
        batch_size: int,
        generator: torch.Generator,
        init: torch.Tensor | None = None,
        *,
        bounds: Bounds | None = None,
        budget_s: float | None = None,
    ) -> Plan:
        """Search once for every problem of a batch.

        Args:
            cost_fn: Maps actions (B, S, H, 7) to costs (B, S).
            batch_size: Number of problems B.
            generator: Source of all randomness; its device is the device of the search.
            init: Where to start: one sequence (B, H, 7), or several (B, K, H, 7), the best first,
                of which a planner uses as many as it can. None starts from zero actions.
            bounds: What a plan may do, in place of the limits of the planner's config.
            budget_s: Seconds after which the best plan so far is returned. The clock is read
                between iterations, and none is begun that would end too late if it took as long as
                the one before; the first is always carried out.

        Returns:
            The plan. A problem's plan does not depend on the others in the batch, unless the time
            was up.

        Raises:
            ValueError: If an argument does not fit.
        """
        if bounds is None:
            bounds = Bounds(self.config, device=generator.device)
        starts = start(init, batch_size, self.config.horizon, generator.device)
        search = Search(cost_fn, batch_size, generator, self.config, bounds, budget_s)
        self.search(search, starts)
        return search.plan()

    @abstractmethod
    def search(self, search: Search, starts: torch.Tensor) -> None:
        """Search; what a subclass writes. `search` keeps the best of what is evaluated.

        Args:
            search: Evaluates candidates, and counts the iterations.
            starts: (B, K, H, 7), where to start, the best first.
        """


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
