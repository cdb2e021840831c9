"""Agents that answer Stable-Baselines3's `predict`: random, scripted, planning and learned.

To add an agent, write one file with a subclass of `jepa_gym.agents.base.Agent` and add one line to
`AGENTS`. A planner in `jepa_gym.agents.planners.PLANNERS` is an agent `mpc-<planner>` at once.
"""

from __future__ import annotations

if __name__ == "agents":
    raise ImportError(
        "This folder is the package `jepa_gym.agents`; import it by that name, for example "
        "`from jepa_gym.agents import make_agent`."
    )

from typing import TYPE_CHECKING, Any

from jepa_gym.agents.planners import PLANNERS
from jepa_gym.names import resolve

if TYPE_CHECKING:
    from jepa_gym.agents.base import Agent

MPC_PREFIX = "mpc-"

AGENTS: dict[str, str] = {
    "random": "jepa_gym.agents.random_agent:RandomAgent",
    "hold-still": "jepa_gym.agents.still_agent:StillAgent",
    "smooth-noise": "jepa_gym.agents.smooth_agent:SmoothNoiseAgent",
    "scripted": "jepa_gym.agents.scripted:ScriptedAgent",
    "scripted-noisy": "jepa_gym.agents.scripted:NoisyScriptedAgent",
    "gc-idm": "jepa_gym.agents.inverse_agent:InverseAgent",
    "bc-transformer": "jepa_gym.agents.inverse_agent:BehaviourAgent",
    "instructed": "jepa_gym.agents.instructed:InstructedAgent",
    "imagined-policy": "jepa_gym.agents.imagined_policy:ImaginedPolicyAgent",
    "policy": "jepa_gym.agents.policy:PolicyAgent",
    "sac": "jepa_gym.agents.policy:PolicyAgent",
    "pixel-mpc": "jepa_gym.agents.pixel_agent:PixelAgent",
    "simulator-mpc": "jepa_gym.agents.simulator_agent:SimulatorAgent",
    **{f"{MPC_PREFIX}{planner}": "jepa_gym.agents.mpc:MPCAgent" for planner in PLANNERS},
}
"""Agent names and where their classes live; a module is imported when its agent is made."""


def make_agent(name: str, **kwargs: Any) -> Agent:
    """Make a registered agent.

    Args:
        name: One of `AGENTS`.
        **kwargs: Constructor arguments of that agent: none (`hold-still`), `action_space` and
            `seed` (`random`, `smooth-noise`), `env` (`scripted`, `scripted-noisy`), `env` and
            `seed` (`simulator-mpc`), `model` (`gc-idm`, `bc-transformer`), `model` and `seed`
            (`pixel-mpc`), `model` and `agent` (`instructed`), `model` and `policy`
            (`imagined-policy`), `model`, `config`, `gripper_weight` and more, or a `preset`
            (`mpc-<planner>`), `path` and `allow_pickle` (`policy`, `sac`).

    Returns:
        The agent, ready for `predict`.

    Raises:
        ValueError: If the name is unknown.
    """
    agent_class = resolve(AGENTS, "agent", name)
    if name.startswith(MPC_PREFIX):
        kwargs["planner"] = name.removeprefix(MPC_PREFIX)
        if "preset" in kwargs:
            return agent_class.from_preset(**kwargs)
    return agent_class(**kwargs)


__all__ = ["AGENTS", "PLANNERS", "make_agent"]
