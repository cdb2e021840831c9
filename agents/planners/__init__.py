"""Planners: search for the action sequence of least cost.

To add a planner, write one file with a frozen config and a subclass of
`jepa_gym.agents.planners.search.Planner`, and add one line to `PLANNERS`; the tests of
`tests/agents/test_planners.py` and the agent `mpc-<name>` come with it. The subclass says only how
it searches: bounds, time budget, early stop and bad costs are taken care of.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jepa_gym.names import resolve

if TYPE_CHECKING:
    from jepa_gym.agents.planners.search import Planner

PLANNERS: dict[str, str] = {
    "cem": "jepa_gym.agents.planners.cem:CEM",
    "icem": "jepa_gym.agents.planners.icem:ICEM",
    "mppi": "jepa_gym.agents.planners.mppi:MPPI",
    "gradient": "jepa_gym.agents.planners.gradient:Gradient",
    "random": "jepa_gym.agents.planners.shooting:RandomShooting",
    "hybrid": "jepa_gym.agents.planners.hybrid:Hybrid",
}
"""Planner names and where their classes live."""


def make_planner(name: str, config: Any = None) -> Planner[Any]:
    """Make a registered planner.

    Args:
        name: One of `PLANNERS`.
        config: The planner's own config, or None for its defaults.

    Returns:
        The planner.

    Raises:
        ValueError: If the name is unknown.
    """
    return resolve(PLANNERS, "planner", name)(config)


__all__ = ["PLANNERS", "make_planner"]
