"""A planner and its search, which sees actions and costs, never the model that makes the costs.

The search evaluates candidates, keeps the best, and knows when to stop.

Nothing in here waits for the device between iterations, except the check of the early stop, every
`stop_every` iterations, and the clock, if there is a time budget.
"""

from __future__ import annotations

import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch

from jepa_gym.agents.base import ACTION_DIM
from jepa_gym.agents.planners.base import SearchConfig, start
from jepa_gym.agents.planners.bounds import INFINITE, Bounds

CostFunction = Callable[[torch.Tensor], torch.Tensor]
"""Actions (B, S, H, 7) in physical units to costs (B, S); lower is better."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The outcome of one search, for every problem of the batch."""

    actions: torch.Tensor
    """(B, H, 7), the action sequence of the lowest cost found, physical units; of
    `CEMConfig.preset("published")`, the last mean. Zero if its cost is not finite."""
    cost: torch.Tensor
    """(B,), its cost; +inf if no candidate had a finite one."""
    candidates: torch.Tensor
    """(B, M, H, 7), every action sequence that was evaluated, in order."""
    candidate_costs: torch.Tensor
    """(B, M), their costs; +inf where the cost function gave no finite one, and where a problem had
    stopped early."""

    def cheapest(self, count: int) -> torch.Tensor:
        """Return the (B, K, H, 7) cheapest candidates, the best first.

        Args:
            count: K; the plan itself stands in where there are not so many of finite cost.
        """
        found = min(count, self.candidate_costs.shape[1])
        best, costs = top_k(self.candidates, self.candidate_costs, found)
        best = torch.where(costs.isfinite()[:, :, None, None], best, self.actions[:, None])
        more = self.actions[:, None].expand(-1, count - found, -1, -1)
        return torch.cat([self.actions[:, None], best[:, 1:], more], dim=1)


class Search:
    """The running search of a planner.

    Attributes:
        generator: Source of all randomness.
        device: Where the search runs.
        bounds: Brings candidates into the bounds.
        take_last: Take the last candidate for the plan, whatever it costs, not the cheapest.

    Args:
        cost_fn: Maps actions (B, S, H, 7) to costs (B, S).
        batch_size: Number of problems B.
        generator: Source of all randomness; its device is the device of the search.
        config: Horizon and early stop.
        bounds: What a plan may do.
        budget_s: Seconds from now until the search ends, or None.

    Raises:
        ValueError: If the budget is not above 0, or the bounds are of another batch.
    """

    def __init__(
        self,
        cost_fn: CostFunction,
        batch_size: int,
        generator: torch.Generator,
        config: SearchConfig,
        bounds: Bounds,
        budget_s: float | None,
    ) -> None:
        if budget_s is not None and not budget_s > 0:
            raise ValueError(f"`budget_s` must be above 0 seconds, got {budget_s}.")
        bounds.check_batch(batch_size)
        self.generator, self.device, self.bounds = generator, generator.device, bounds
        self.take_last = False
        self._cost_fn, self._config = cost_fn, config
        self._candidates: list[torch.Tensor] = []
        self._costs: list[torch.Tensor] = []
        self._non_finite = torch.zeros((), dtype=torch.int64, device=self.device)
        self._best = torch.full((batch_size,), INFINITE, device=self.device)
        self._going: torch.Tensor | None = None  # (B,) bool, problems not finished
        self._timed = budget_s is not None
        self._deadline = INFINITE if budget_s is None else self._clock() + budget_s
        self._iteration_s = 0.0

    def noise(self, samples: int) -> torch.Tensor:
        """Draw (1, S, H, 7) from the standard normal.

        All problems of a batch share it, so that a problem's plan does not depend on its
        neighbours.
        """
        shape = (1, samples, self._config.horizon, ACTION_DIM)
        return torch.randn(shape, generator=self.generator, device=self.device)

    def uniform(self, samples: int) -> torch.Tensor:
        """Draw (1, S, H, 7) uniformly within the bounds of each number; shared as `noise`."""
        shape = (1, samples, self._config.horizon, ACTION_DIM)
        draw = torch.rand(shape, generator=self.generator, device=self.device)
        return (2 * draw - 1) * self.bounds.limit

    def iterations(self, count: int) -> Iterator[int]:
        """Count to at most `count`, until the early stop or the end of the time."""
        self._going, checked = None, self._best
        every = self._config.stop_every
        for index in range(count):
            if not self.in_time():
                break
            if every and index and index % every == 0:
                if not self._still_falling(checked):
                    break
                checked = self._best
            began = self._clock()
            yield index
            self._iteration_s = self._clock() - began
        self._going = None

    def in_time(self) -> bool:
        """Tell whether one more iteration would end within the budget; the first always may."""
        return not self._costs or self._clock() + self._iteration_s <= self._deadline

    def evaluate(
        self, actions: torch.Tensor, grad: bool = False, dead_zone: bool = True
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Bring candidates into the bounds and evaluate them.

        Args:
            actions: (B, S, H, 7), physical units.
            grad: Let the costs have a gradient with respect to the actions that are returned.
            dead_zone: Round small changes of the gripper to 0, too.

        Returns:
            The actions (B, S, H, 7) that were evaluated, and their costs (B, S), +inf in the place
            of costs that are not finite.

        Raises:
            ValueError: If the cost function returns another shape.
        """
        bring = self.bounds.allowed if dead_zone else self.bounds.clip
        actions = bring(actions).requires_grad_(grad)
        costs = self._cost_fn(actions)
        if costs.shape != actions.shape[:2]:
            raise ValueError(
                f"The cost function must return costs {tuple(actions.shape[:2])} for actions "
                f"{tuple(actions.shape)}, got {tuple(costs.shape)}."
            )
        finite = costs.isfinite()
        self._non_finite = self._non_finite + (~finite).sum()
        costs = torch.where(finite, costs, torch.inf)
        if self._going is not None:
            costs = torch.where(self._going[:, None], costs, torch.inf)
        self._candidates.append(actions.detach())
        self._costs.append(costs.detach())
        self._best = torch.minimum(self._best, self._costs[-1].amin(dim=1))
        return actions, costs

    def plan(self) -> Plan:
        """Make the plan, and warn, with the count, of costs that were not finite."""
        candidates, costs = torch.cat(self._candidates, dim=1), torch.cat(self._costs, dim=1)
        non_finite = int(self._non_finite)
        if non_finite:
            warnings.warn(
                f"{non_finite} of {costs.numel()} candidate costs were not finite and were left "
                "out; check the model and its inputs.",
                RuntimeWarning,
                stacklevel=3,
            )
        index = costs.argmin(dim=1)
        if self.take_last:
            index = torch.full_like(index, costs.shape[1] - 1)
        rows = torch.arange(len(index), device=index.device)
        cost = costs[rows, index]
        actions = torch.where(cost.isfinite()[:, None, None], candidates[rows, index], 0.0)
        return Plan(actions, cost, candidates, costs)

    def cheapest(self, count: int) -> torch.Tensor:
        """Return the (B, K, H, 7) cheapest candidates so far, the best first."""
        candidates, costs = torch.cat(self._candidates, dim=1), torch.cat(self._costs, dim=1)
        return top_k(candidates, costs, min(count, costs.shape[1]))[0]

    def _still_falling(self, checked: torch.Tensor) -> bool:
        """Finish the problems whose lowest cost hardly fell since a check; tell if any is left."""
        enough = torch.where(
            checked.isfinite(), checked - self._config.stop_gain * checked.abs(), torch.inf
        )
        falling = self._best < enough
        self._going = falling if self._going is None else falling & self._going
        return bool(self._going.any())

    def _clock(self) -> float:
        """Return the time in seconds, once the device has done its work; 0 without a budget."""
        if not self._timed:
            return 0.0
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()


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


def top_k(
    candidates: torch.Tensor, costs: torch.Tensor, count: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the cheapest candidates and their costs, the best first.

    Args:
        candidates: (B, M, H, 7).
        costs: (B, M).
        count: K.

    Returns:
        (B, K, H, 7) and (B, K).
    """
    costs, index = costs.topk(count, dim=1, largest=False)
    rows = torch.arange(len(index), device=index.device)[:, None]
    return candidates[rows, index], costs


def refit(
    best: torch.Tensor,
    costs: torch.Tensor,
    mean: torch.Tensor,
    std: torch.Tensor,
    keep_mean: torch.Tensor | float,
    keep_std: torch.Tensor | float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Move a mean and a standard deviation towards those of the best candidates.

    Args:
        best: (B, K, H, 7), the cheapest candidates; those of infinite cost do not count.
        costs: (B, K).
        mean: (B, H, 7), the old mean.
        std: (B, H, 7), the old standard deviation.
        keep_mean: Weight of the old mean, a number or (7,).
        keep_std: Weight of the old standard deviation, a number or (7,).

    Returns:
        Mean and (unbiased) standard deviation; the old ones where too few costs were finite.
    """
    weight = costs.isfinite().to(best.dtype)[:, :, None, None]
    count = weight.sum(dim=1)  # (B, 1, 1)
    best_mean = (weight * best).sum(dim=1) / count.clamp(min=1)
    squares = (weight * (best - best_mean[:, None]).square()).sum(dim=1)
    best_std = (squares / (count - 1).clamp(min=1)).sqrt()
    new_mean = keep_mean * mean + (1 - keep_mean) * best_mean
    new_std = keep_std * std + (1 - keep_std) * best_std
    return torch.where(count > 0, new_mean, mean), torch.where(count > 1, new_std, std)
