"""Model-predictive path integral control: the mean of all candidates, weighted by their costs.

Reference: Williams et al., "Information theoretic MPC" (ICRA 2017). Deviations from it:

* The temperature is relative to the spread of the costs of an iteration, so it fits costs of any
  size. The lowest cost is taken off before the exponential, which never overflows.
* A few iterations refine the standard deviation, too, as in TD-MPC (arXiv 2203.04955).
* The mean is a candidate of every iteration, and the cheapest candidate evaluated is returned.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from jepa_gym.agents.planners.base import SearchConfig
from jepa_gym.agents.planners.bounds import INFINITE, check
from jepa_gym.agents.planners.search import Planner, Search

LARGEST = 1e30
"""Costs are told apart up to here above the lowest one; keeps sums of float32 finite."""
SMALLEST = 1e-30


@dataclass(frozen=True, slots=True, kw_only=True)
class MPPIConfig(SearchConfig):
    """Budget, temperature and bounds of the search."""

    warm_start: int = 1
    """As in `SearchConfig`; the first is the mean of the first iteration."""
    samples: int = 32
    """Candidates an iteration, the mean included."""
    iterations: int = 6
    """Refinements of mean and standard deviation."""
    temperature: float = 0.1
    """Excess over the lowest cost at which a candidate weighs 1/e, as a share of the mean excess;
    towards 0 only the cheapest counts."""
    momentum: float = 0.15
    """Weight of the old mean and standard deviation in the new ones."""

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            ValueError: If a field is out of its range.
        """
        SearchConfig.__post_init__(self)
        check(self, "at least 1", lambda x: x >= 1, "iterations")
        check(self, "at least 2", lambda x: x >= 2, "samples")
        check(self, "above 0", lambda x: 0 < x < INFINITE, "temperature")
        check(self, "in [0, 1)", lambda x: 0 <= x < 1, "momentum")


class MPPI(Planner[MPPIConfig]):
    """Move to the weighted mean of the candidates, a few times over."""

    config_class = MPPIConfig

    def search(self, search: Search, starts: torch.Tensor) -> None:
        """Search from the first of the starts; see `Planner.search`."""
        config, keep = self.config, self.config.momentum
        mean = starts[:, 0]
        std = search.bounds.limit.expand_as(mean)
        for _ in search.iterations(config.iterations):
            noise = search.noise(config.samples)
            noise[:, 0].zero_()  # the mean itself
            sampled, costs = search.evaluate(mean[:, None] + std[:, None] * noise)
            weight = weights(costs, config.temperature)[:, :, None, None]
            new_mean = (weight * sampled).sum(dim=1)
            new_std = (weight * (sampled - new_mean[:, None]).square()).sum(dim=1).sqrt()
            count = costs.isfinite().sum(dim=1)[:, None, None]
            mean = torch.where(count > 0, keep * mean + (1 - keep) * new_mean, mean)
            std = torch.where(count > 1, keep * std + (1 - keep) * new_std, std)
        if search.in_time():
            search.evaluate(mean[:, None])


def weights(costs: torch.Tensor, temperature: float) -> torch.Tensor:
    """Return the weights of candidates, exp(-excess / (temperature * mean excess)), of sum 1.

    Args:
        costs: (B, S), +inf for what must not count.
        temperature: Above 0.

    Returns:
        (B, S), finite for any costs; all 0 where no cost is finite.
    """
    finite = costs.isfinite()
    excess = (costs - costs.amin(dim=1, keepdim=True)).clamp(max=LARGEST)
    excess = torch.where(finite, excess, 0.0)
    mean = excess.sum(dim=1, keepdim=True) / finite.sum(dim=1, keepdim=True).clamp(min=1)
    weight = torch.exp(-excess / (temperature * mean).clamp(min=SMALLEST)) * finite
    return weight / weight.sum(dim=1, keepdim=True).clamp(min=1)
