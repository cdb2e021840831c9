"""Sampling, then gradient: CEM finds the valley, Adam its bottom."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from jepa_gym.agents.planners.base import SearchConfig
from jepa_gym.agents.planners.bounds import check
from jepa_gym.agents.planners.cem import CEM, CEMConfig
from jepa_gym.agents.planners.gradient import Gradient, GradientConfig
from jepa_gym.agents.planners.search import Planner, Search


@dataclass(frozen=True, slots=True, kw_only=True)
class HybridConfig(SearchConfig):
    """Budgets of both halves, and the bounds of the search."""

    samples: int = 32
    """As in `CEMConfig`."""
    iterations: int = 3
    """As in `CEMConfig`."""
    top_k: int = 5
    """As in `CEMConfig`."""
    gradient_starts: int = 4
    """Cheapest candidates that the gradient is followed from."""
    gradient_iterations: int = 16
    """As `iterations` in `GradientConfig`."""
    learning_rate: float = 0.1
    """As in `GradientConfig`."""

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            ValueError: If a field is out of its range.
        """
        SearchConfig.__post_init__(self)
        names = ("gradient_starts", "gradient_iterations")
        check(self, "at least 1", lambda x: x >= 1, *names)
        self.sampling()
        self.gradient()

    def sampling(self) -> CEMConfig:
        """Return the config of the first half."""
        return CEMConfig(
            **self._shared(),
            samples=self.samples,
            iterations=self.iterations,
            top_k=self.top_k,
        )

    def gradient(self) -> GradientConfig:
        """Return the config of the second half."""
        return GradientConfig(
            **self._shared(),
            samples=self.gradient_starts,
            iterations=self.gradient_iterations,
            learning_rate=self.learning_rate,
        )

    def _shared(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in SearchConfig.__dataclass_fields__}


class Hybrid(Planner[HybridConfig]):
    """Follow the gradient from the cheapest candidates of CEM; needs a cost that has one."""

    config_class = HybridConfig

    def search(self, search: Search, starts: torch.Tensor) -> None:
        """Search with one planner, then with the other; see `Planner.search`.

        Raises:
            ValueError: If the cost has no gradient.
        """
        CEM(self.config.sampling()).search(search, starts)
        Gradient(self.config.gradient()).search(
            search, search.cheapest(self.config.gradient_starts)
        )
