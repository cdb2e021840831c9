"""What a planner is: a search that sees actions and costs, never the model that makes the costs."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch

from jepa_gym.agents.base import ACTION_DIM

CostFunction = Callable[[torch.Tensor], torch.Tensor]
"""Actions (B, S, H, 7) in physical units to costs (B, S); lower is better."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The outcome of one search, for every problem of the batch."""

    actions: torch.Tensor
    """(B, H, 7), the action sequence of the lowest cost found, physical units."""
    cost: torch.Tensor
    """(B,), its cost; +inf if no candidate had a finite one."""
    candidates: torch.Tensor
    """(B, M, H, 7), every action sequence that was evaluated, in order."""
    candidate_costs: torch.Tensor
    """(B, M), their costs; +inf where the cost function gave no finite one."""


class Planner(Protocol):
    """Search for the action sequence of least cost."""

    def plan(
        self,
        cost_fn: CostFunction,
        batch_size: int,
        generator: torch.Generator,
        init: torch.Tensor | None = None,
    ) -> Plan:
        """Search once for every problem of a batch.

        Args:
            cost_fn: Maps actions (B, S, H, 7) to costs (B, S).
            batch_size: Number of problems B.
            generator: Source of all randomness; its device is the device of the search.
            init: (B, H, 7) sequence to start from, or None to start from zero actions.

        Returns:
            The plan. A problem's plan does not depend on the others in the batch.
        """
        ...


def evaluate(cost_fn: CostFunction, actions: torch.Tensor) -> torch.Tensor:
    """Evaluate candidates, with +inf in the place of costs that are not finite.

    Args:
        cost_fn: Maps actions (B, S, H, 7) to costs (B, S).
        actions: (B, S, H, 7).

    Returns:
        Costs (B, S).

    Raises:
        ValueError: If the cost function returns another shape.
    """
    costs = cost_fn(actions)
    if costs.shape != actions.shape[:2]:
        raise ValueError(
            f"The cost function must return costs {tuple(actions.shape[:2])} for actions "
            f"{tuple(actions.shape)}, got {tuple(costs.shape)}."
        )
    return torch.where(costs.isfinite(), costs, torch.inf)


def lowest(candidates: torch.Tensor, costs: torch.Tensor) -> Plan:
    """Make the plan of the cheapest candidate and warn, with the count, of non-finite costs.

    Args:
        candidates: (B, M, H, 7).
        costs: (B, M), as `evaluate` gives them.

    Returns:
        The plan.
    """
    non_finite = int(costs.isinf().sum())
    if non_finite:
        warnings.warn(
            f"{non_finite} of {costs.numel()} candidate costs were not finite and were left out; "
            "check the model and its inputs.",
            RuntimeWarning,
            stacklevel=3,
        )
    cost, index = costs.min(dim=1)
    rows = torch.arange(len(index), device=index.device)
    return Plan(candidates[rows, index], cost, candidates, costs)


def start(
    init: torch.Tensor | None, batch_size: int, horizon: int, device: torch.device
) -> torch.Tensor:
    """Return the (B, H, 7) float32 sequence a search starts from.

    Args:
        init: (B, H, 7) or None for zero actions.
        batch_size: Number of problems B.
        horizon: Steps H.
        device: Where the search runs.

    Returns:
        (B, H, 7) float32.

    Raises:
        ValueError: If `init` has another shape.
    """
    shape = (batch_size, horizon, ACTION_DIM)
    if init is None:
        return torch.zeros(shape, device=device)
    if init.shape != shape:
        raise ValueError(f"`init` must have shape {shape}, got {tuple(init.shape)}.")
    return init.to(device=device, dtype=torch.float32)
