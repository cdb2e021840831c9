"""What the code says about itself: rules, sub-goals and failures of tasks, parts of docstrings."""

from __future__ import annotations

import functools
import inspect
import re
import textwrap
from typing import Any

import gymnasium as gym
from gallery_sheets import task_ids

from jepa_gym.envs.tasks.base import FrankaEnv


@functools.cache
def task(env_id: str, protocol: str = "published") -> Any:
    """Return an environment to read from, one for each id and protocol; nothing is rendered."""
    with gym.make(env_id, obs_mode="state", protocol=protocol) as env:
        return env.unwrapped


def text_of(thing: type) -> str:
    """Return a docstring without its sections of arguments, attributes and errors."""
    text = inspect.getdoc(thing) or ""
    return re.split(r"\n(?:Args|Attributes|Raises|Returns):\n", text)[0].strip()


def success(env: Any) -> str:
    """Return the rule of success, from the first line of the task's docstring."""
    found = re.match(r"[^.:]*: (success .*?)\.$", text_of(type(env)).split("\n")[0])
    if found is None:
        raise ValueError(
            f"The docstring of {type(env).__name__} must begin with 'Name: success if ...'"
        )
    return found[1].removeprefix("success if ").removesuffix(" at the end").rstrip(",")


def positions(env: Any) -> str:
    """Return the clause of the task's docstring on `achieved_goal` and `desired_goal`."""
    text = " ".join(text_of(type(env)).split())
    found = re.search(r"`achieved_goal` is [^.;]*?`desired_goal` .*?(?=[.;]|, so )", text)
    if found is None:
        raise ValueError(
            f"The docstring of {type(env).__name__} must say '`achieved_goal` is ..., "
            "`desired_goal` ...'"
        )
    return found[0]


def subgoals(env_id: str, protocol: str) -> str:
    """Return what a protocol shows of the expert's goal, and for how many steps."""
    schedule = task(env_id, protocol).goal_schedule
    pairs = zip(schedule.names, schedule.steps, strict=True)
    return ", ".join(
        f"{name} ({f'{steps} steps' if steps else 'until the end'})" for name, steps in pairs
    )


def reasons(kind: type) -> list[str]:
    """Return the failures that a task can report, of those that `FrankaEnv` names."""
    listed = re.search(
        r"`failure` \(None, or why it is no success:(.*?)\)", text_of(FrankaEnv), re.S
    )
    if listed is None:
        raise ValueError("The docstring of FrankaEnv must list the values of `failure`")
    source = inspect.getsource(kind)
    if "not_held_failure" in source:
        source += inspect.getsource(kind.not_held_failure)
    known = (" ".join(reason.split()) for reason in re.findall(r'"([^"]+)"', listed[1]))
    return [reason for reason in known if f'"{reason}"' in source]


def takers(option: str) -> str:
    """Return the tasks that take a reset option; those that no task names are everyone's."""
    found = [env_id for env_id in task_ids() if option in task(env_id).OPTIONS]
    return ", ".join(f"`{env_id}`" for env_id in found) or "all"


def entries(thing: type, section: str) -> dict[str, str]:
    """Return name -> text of a section of a docstring."""
    found = re.search(rf"\n{section}:\n(.*?)(?:\n\n|\Z)", inspect.getdoc(thing) or "", re.S)
    if found is None:
        raise ValueError(f"The docstring of {thing.__name__} has no section {section!r}")
    block = textwrap.dedent(found[1])
    parts = re.split(r"^(\w+): ", block, flags=re.M)[1:]
    return {
        name: " ".join(text.split()).removesuffix(".")
        for name, text in zip(parts[::2], parts[1::2], strict=True)
    }
