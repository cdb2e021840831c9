"""Sample-efficient CEM: coloured noise, samples that decay, elites kept within and between calls.

Reference: Pinneri et al., "Sample-efficient cross-entropy method for real-time planning"
(arXiv 2008.06389). Deviations from it:

* Elites kept within a call are not evaluated again, and all elites of finite cost are kept, not a
  share of them that depends on their number.
* What is kept between calls comes in as `init`, so a planner has no memory of its own: an agent
  hands it the `warm_start` cheapest sequences of its last plan, one step on. The last step is done
  twice; the paper draws the last step of elites, not that of the mean, at random.
* The standard deviation starts at the bounds, and the gripper has a dead zone, as in `cem`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from jepa_gym.agents.planners.base import SearchConfig
from jepa_gym.agents.planners.bounds import check
from jepa_gym.agents.planners.search import Planner, Search, refit, top_k


@dataclass(frozen=True, slots=True, kw_only=True)
class ICEMConfig(SearchConfig):
    """Budget, noise and bounds of the search."""

    warm_start: int = 2
    """As in `SearchConfig`; they are candidates of the first iteration, the best is its mean."""
    samples: int = 48
    """Candidates drawn in the first iteration."""
    iterations: int = 6
    """Refinements of mean and standard deviation."""
    top_k: int = 5
    """Cheapest candidates that the next mean and standard deviation are taken from."""
    kept: int = 2
    """The cheapest of them, which compete in the next iteration again: the paper's elites."""
    decay: float = 1.25
    """By how much the samples are divided from iteration to iteration; never below 2 `top_k`."""
    noise_exponent: float = 2.0
    """The noise's power falls with this power of the frequency: 0 is white, larger is smoother over
    the horizon."""
    momentum: float = 0.1
    """Weight of the old mean and standard deviation in the new ones."""

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            ValueError: If a field is out of its range.
        """
        SearchConfig.__post_init__(self)
        check(self, "at least 1", lambda x: x >= 1, "samples", "iterations", "decay")
        rule = f"in [2, samples={self.samples}]"
        check(self, rule, lambda x: 2 <= x <= self.samples, "top_k")
        check(self, f"in [0, top_k={self.top_k}]", lambda x: 0 <= x <= self.top_k, "kept")
        check(self, "at least 0", lambda x: 0 <= x < math.inf, "noise_exponent")
        check(self, "in [0, 1)", lambda x: 0 <= x < 1, "momentum")


class ICEM(Planner[ICEMConfig]):
    """CEM that spends its samples well."""

    config_class = ICEMConfig

    def search(self, search: Search, starts: torch.Tensor) -> None:
        """Search from the first of the starts, with all as candidates."""
        config = self.config
        colour = colouring(config.noise_exponent, config.horizon).to(search.device)
        mean = starts[:, 0]
        std = search.bounds.limit.expand_as(mean)
        kept, kept_costs = starts[:, :0], starts[:, :0, 0, 0]
        for index in search.iterations(config.iterations):
            samples = max(round(config.samples / config.decay**index), 2 * config.top_k)
            noise = torch.einsum("th,bshd->bstd", colour, search.noise(samples))
            parts = [mean[:, None] + std[:, None] * noise]
            if index == 0:
                parts.append(starts)
            if index == config.iterations - 1:
                parts.append(mean[:, None])
            sampled, costs = search.evaluate(torch.cat(parts, dim=1))
            pool, pool_costs = torch.cat([kept, sampled], 1), torch.cat([kept_costs, costs], 1)
            best, best_costs = top_k(pool, pool_costs, config.top_k)
            mean, std = refit(best, best_costs, mean, std, config.momentum, config.momentum)
            kept, kept_costs = best[:, : config.kept], best_costs[:, : config.kept]


def colouring(exponent: float, horizon: int) -> torch.Tensor:
    """Return the matrix (H, H) that makes coloured noise of unit variance from white noise.

    The amplitude of frequency f is f^(-exponent / 2); the constant has that of the lowest one.

    Args:
        exponent: 0 gives the identity.
        horizon: Steps H.
    """
    step = torch.arange(horizon)
    frequency = torch.minimum(step, horizon - step).clamp(min=1).double()
    response = torch.fft.ifft(frequency ** (-exponent / 2)).real
    matrix = response[(step[:, None] - step[None]) % horizon]
    return (matrix / response.norm()).float()
