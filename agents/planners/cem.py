"""The cross-entropy method over sequences of 7-D end-effector moves.

Reference: V-JEPA 2 (arXiv 2506.09985), section 4 and the planner of the official repository.
Deviations from it:

* The mean is evaluated as a sample in every iteration and once more at the end, and the cheapest
  sequence evaluated is returned; the official planner returns the last mean, never evaluated.
* All problems of a batch share one draw of noise, so that a problem's plan does not depend on its
  neighbours.
* The gripper's change is bounded by 1 (officially 0.75). Small changes are rounded to 0 in every
  candidate, not in the result alone, so that what is done has been evaluated: a tiny opening would
  let go of what is held.
* The small default budget spends its evaluations on iterations rather than on samples: 32 x 6 costs
  what 64 x 3 costs and ends closer to the optimum of a smooth cost.
* Rotation can be searched; as officially, it is not by default.

`CEMConfig.preset("published")` has none of them (a problem planned alone shares its noise with no
other); `MPCAgent.from_preset("published")` is the agent that goes with it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from jepa_gym.agents.base import ACTION_DIM
from jepa_gym.agents.planners.base import SearchConfig
from jepa_gym.agents.planners.bounds import check
from jepa_gym.agents.planners.gripper import (
    PUBLISHED_BOUND,
    PUBLISHED_DEAD_ZONE,
    PUBLISHED_MOMENTUM,
    beside,
    published_std,
)
from jepa_gym.agents.planners.search import Planner, Search, refit, top_k
from jepa_gym.names import did_you_mean


@dataclass(frozen=True, slots=True, kw_only=True)
class CEMConfig(SearchConfig):
    """Budget, momenta and bounds of the search.

    The bounds of a step are the initial standard deviations, too.
    """

    samples: int = 32
    """Candidates an iteration, the mean included."""
    iterations: int = 6
    """Refinements of mean and standard deviation."""
    top_k: int = 5
    """Cheapest candidates that the next mean and standard deviation are taken from."""
    momentum_mean: float | tuple[float, ...] = 0.15
    """Weight of the old mean in the new one; a number, or seven, one for each of an action's."""
    momentum_std: float | tuple[float, ...] = 0.15
    """Weight of the old standard deviation in the new one, likewise."""
    as_published: bool = False
    """Plan as the official code: samples are drawn without the mean, the gripper's with a standard
    deviation of its own, dead zones are applied to the result alone, and the result is the last
    mean. Its cost is evaluated once, in the end, to be told; it decides nothing."""

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            ValueError: If a field is out of its range.
        """
        SearchConfig.__post_init__(self)
        check(self, "at least 1", lambda x: x >= 1, "samples", "iterations")
        rule = f"in [2, samples={self.samples}]"
        check(self, rule, lambda x: 2 <= x <= self.samples, "top_k")
        rule = f"in [0, 1), one number or {ACTION_DIM}"
        check(self, rule, _is_momentum, "momentum_mean", "momentum_std")

    @classmethod
    def preset(cls, name: str) -> CEMConfig:
        """Return a named budget.

        Args:
            name: `default` (32 samples, 6 iterations); `paper`, the paper's budget of 800 samples
                and 10 iterations for the search of this module; `published`, the same budget for
                the official search, without any deviation.

        Returns:
            The config.

        Raises:
            ValueError: If the name is unknown.

        Reference:
            V-JEPA 2 (arXiv 2506.09985), appendix B: 800 samples, 10 iterations, top 10, horizon 1,
            moves within 0.075 m. It gives no momenta: those of `published` are of the official
            notebook, the one place that plans with 0.075 m.
        """
        paper = cls(
            samples=800,
            iterations=10,
            top_k=10,
            max_gripper=PUBLISHED_BOUND,
            gripper_dead_zone=PUBLISHED_DEAD_ZONE,
        )
        momentum_std = beside(0.75, PUBLISHED_MOMENTUM)
        presets = {
            "default": cls(),
            "paper": paper,
            "published": replace(paper, momentum_std=momentum_std, as_published=True),
        }
        if name not in presets:
            hint = did_you_mean(name, presets)
            raise ValueError(f"Unknown preset `{name}`.{hint} Presets: {', '.join(presets)}.")
        return presets[name]


def _is_momentum(value: float | tuple[float, ...]) -> bool:
    """Tell whether a value is a momentum, or seven."""
    several = value if isinstance(value, tuple) else (value,) * ACTION_DIM
    return len(several) == ACTION_DIM and all(0 <= number < 1 for number in several)


class CEM(Planner[CEMConfig]):
    """Refit a diagonal normal to the cheapest candidates, a few times over."""

    config_class = CEMConfig

    def search(self, search: Search, starts: torch.Tensor) -> None:
        """Search from the first of the starts; see `Planner.search`."""
        config, published = self.config, self.config.as_published
        keep_mean, keep_std = (
            torch.tensor(momentum, device=search.device)
            for momentum in (config.momentum_mean, config.momentum_std)
        )
        limit = search.bounds.limit
        mean = starts[:, 0]
        std = (published_std(limit) if published else limit).expand_as(mean)
        for _ in search.iterations(config.iterations):
            noise = search.noise(config.samples)
            if not published:
                noise[:, 0].zero_()  # the mean itself
            sampled = mean[:, None] + std[:, None] * noise  # (B, S, H, 7)
            sampled, costs = search.evaluate(sampled, dead_zone=not published)
            best, best_costs = top_k(sampled, costs, config.top_k)
            mean, std = refit(best, best_costs, mean, std, keep_mean, keep_std)
        search.take_last = published
        if published or search.in_time():
            search.evaluate(mean[:, None])
