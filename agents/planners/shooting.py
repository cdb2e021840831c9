"""Random shooting: draw candidates uniformly, take the cheapest. The baseline of all searches."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from jepa_gym.agents.planners.base import SearchConfig
from jepa_gym.agents.planners.bounds import check
from jepa_gym.agents.planners.search import Planner, Search


@dataclass(frozen=True, slots=True, kw_only=True)
class ShootingConfig(SearchConfig):
    """Budget and bounds of the search."""

    samples: int = 32
    """Candidates drawn in an iteration."""
    iterations: int = 6
    """How many times candidates are drawn; a time budget ends between them."""

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            ValueError: If a field is out of its range.
        """
        SearchConfig.__post_init__(self)
        check(self, "at least 1", lambda x: x >= 1, "samples", "iterations")


class RandomShooting(Planner[ShootingConfig]):
    """Take the cheapest of the starts and of uniform candidates."""

    config_class = ShootingConfig

    def search(self, search: Search, starts: torch.Tensor) -> None:
        """Evaluate the starts and uniform candidates; see `Planner.search`."""
        for index in search.iterations(self.config.iterations):
            drawn = search.uniform(self.config.samples).expand(len(starts), -1, -1, -1)
            search.evaluate(torch.cat([starts, drawn], dim=1) if index == 0 else drawn)
