"""Gradient descent through the cost: Adam from several starts, bounds by projection.

Reference: Adam (arXiv 1412.6980); gradient planners through world models, jepa-wms
(arXiv 2512.24497). Deviations from the latter: the optimiser really is Adam, there are several
starts, the learning rate falls to 0, and the cheapest sequence evaluated is returned.

The gripper's dead zone has no gradient: each number is moved by the gradient at what the dead zone
made of it. Adam moves in units of the bounds, so metres and the gripper advance alike.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from jepa_gym.agents.planners.base import SearchConfig
from jepa_gym.agents.planners.bounds import check
from jepa_gym.agents.planners.search import Planner, Search

BETAS = (0.9, 0.999)
"""Decay of the first and of the second moment, as in the paper on Adam."""
EPSILON = 1e-8
"""Added to the root of the second moment, as there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GradientConfig(SearchConfig):
    """Budget, step size and bounds of the search."""

    samples: int = 8
    """Starts: `init`, then others drawn uniformly within the bounds."""
    iterations: int = 24
    """Steps of Adam."""
    learning_rate: float = 0.2
    """Size of the first step, as a share of the bounds; it falls linearly to 0."""

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            ValueError: If a field is out of its range.
        """
        SearchConfig.__post_init__(self)
        check(self, "at least 1", lambda x: x >= 1, "samples", "iterations")
        check(self, "in (0, 1]", lambda x: 0 < x <= 1, "learning_rate")


class Gradient(Planner[GradientConfig]):
    """Follow the gradient of the cost from several starts; needs a cost that has one."""

    config_class = GradientConfig

    def search(self, search: Search, starts: torch.Tensor) -> None:
        """Search from the starts, and from random ones up to `samples`.

        Raises:
            ValueError: If the cost has no gradient.
        """
        config = self.config
        with torch.inference_mode(False), torch.enable_grad():
            others = search.uniform(max(config.samples - starts.shape[1], 0))
            others = others.expand(len(starts), -1, -1, -1)
            points = torch.cat([starts, others], dim=1)[:, : config.samples]
            limit = search.bounds.limit
            scale = limit.clamp(min=torch.finfo(torch.float32).tiny)
            shares = search.bounds.clip(points) / scale  # of the bounds
            first = second = torch.zeros_like(shares)
            for index in search.iterations(config.iterations):
                actions, costs = search.evaluate(shares * limit, grad=True)
                gradient = _gradient(actions, costs) * limit
                first = BETAS[0] * first + (1 - BETAS[0]) * gradient
                second = BETAS[1] * second + (1 - BETAS[1]) * gradient.square()
                mean, square = (
                    moment / (1 - beta ** (index + 1))
                    for moment, beta in zip((first, second), BETAS, strict=True)
                )
                rate = config.learning_rate * (1 - index / config.iterations)
                moved = shares - rate * mean / (square.sqrt() + EPSILON)
                shares = search.bounds.clip(moved * limit) / scale


def _gradient(actions: torch.Tensor, costs: torch.Tensor) -> torch.Tensor:
    """Return the gradient (B, S, H, 7) of each cost (B, S), 0 where it is not finite."""
    if not costs.requires_grad:
        raise ValueError(
            "This planner follows the gradient of the cost, and the cost has none: it was computed "
            "without torch, or in torch.no_grad() or torch.inference_mode(). Plan with a sampling "
            "planner, such as `cem`, or let the cost be differentiated."
        )
    (gradient,) = torch.autograd.grad(costs, actions, torch.ones_like(costs))
    return gradient.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
