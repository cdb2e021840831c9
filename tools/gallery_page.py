"""The text of `docs/tasks.md`: tables and rules come from the code, pictures from the sheets."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gallery_facts import entries, positions, reasons, subgoals, success, takers, task, text_of
from gallery_sheets import OBJECT, PARTS, Sheet, task_ids
from gallery_snippets import SNIPPETS

from jepa_gym.envs import droid, splits, variations
from jepa_gym.envs.physics import objects, scene
from jepa_gym.envs.pictures import cameras, rendering
from jepa_gym.envs.pictures.generated import PREFIX
from jepa_gym.envs.pictures.textures import TEXTURES
from jepa_gym.envs.splits import Choices, Textures, Values
from jepa_gym.envs.tasks import base, options
from jepa_gym.envs.tasks.arguments import PROTOCOLS
from jepa_gym.envs.tasks.schedule import GoalSchedule
from jepa_gym.envs.variations import Variation

WIDTH = 100
INTRODUCTION = """
# The Franka suite: tasks, goals, cameras, objects, variations

A Franka Panda stands at a table with one object. A task shows a goal image; success is read from
the simulator. `python tools/gallery.py` writes this page and its pictures from the code, so do not
edit it by hand. Lengths are in metres in the robot's base frame (x forward, y to the robot's left,
z up; the table's top is z = 0), angles in radians unless a name ends in `_deg`. The README has the
[table of units](concepts.md#units).

Contents: [start](#start), [tasks](#tasks), [interface](#interface), [goals](#goals),
[cameras](#cameras), [DROID view](#droid-view), [objects](#objects), [variations](#variations),
[splits](#splits), [many at once](#many-at-once), [branching](#branching).
"""


def page(everything: Sequence[Sheet], folder: str) -> str:
    """Return the page.

    Args:
        everything: All sheets, each of which is shown.
        folder: The pictures' folder, relative to the page.
    """
    pictures = {
        part: {
            sheet.name: f"![{sheet.alt}]({folder}/{sheet.name}.jpg)"
            for sheet in everything
            if sheet.part == part
        }
        for part in PARTS
    }
    blocks = [*paragraphs(INTRODUCTION), *_start(pictures), *_tasks(pictures), *_interface()]
    blocks += [*_goals(pictures), *_cameras(pictures), *_droid(pictures), *_objects(pictures)]
    blocks += [*_variations(pictures), *_splits(pictures), *_many(), *_branching()]
    return "\n\n".join(wrapped(block) for block in blocks) + "\n"


# ---- sections


def _start(pictures: dict) -> list[str]:
    rows = []
    for env_id in task_ids():
        env = task(env_id)
        link = f"[`{env_id}`](#{env_id.lower()})"
        horizon = gym.spec(env_id).max_episode_steps
        rows.append([link, horizon, success(env), positions(env), subgoals(env_id, PROTOCOLS[0])])
    heads = ["id", "steps", "success at the end of the episode", "task positions", "goal images"]
    return [
        "## Start",
        table(heads, rows),
        *pictures["tasks"].values(),
        f"All pictures on this page are frames of the suite; the object is the {OBJECT} where "
        "nothing else is said. The snippets go on from each other:",
        snippet("start"),
    ]


def _tasks(pictures: dict) -> list[str]:
    blocks = ["## Tasks"]
    for env_id in task_ids():
        env = task(env_id)
        text = re.sub(r"\s*See `FrankaEnv`[^.]*\.", "", text_of(type(env)))
        own = ", ".join(f"`{name}`" for name in env.OPTIONS) or "none"
        listed = ", ".join(f'"{reason}"' for reason in reasons(type(env)))
        blocks += [
            f"### {env_id}",
            *paragraphs(text),
            table(
                ["", ""],
                [
                    ["horizon", f"{gym.spec(env_id).max_episode_steps} steps"],
                    *([f"`protocol={name!r}`", subgoals(env_id, name)] for name in PROTOCOLS),
                    ["reset options of its own", own],
                    ['`info["failure"]`', f"None, {listed}"],
                ],
            ),
            "Goal images:",
            pictures["goals"][f"goals_{env_id}"],
            "The scripted expert:",
            pictures["experts"][f"expert_{env_id}"],
        ]
    return blocks


def _interface() -> list[str]:
    text = text_of(base.FrankaEnv)
    bounds = ", ".join(f"{value:g}" for value in task(task_ids()[0]).action_space.high)
    described = entries(base.FrankaEnv, "Args")
    defaults = inspect.signature(base.FrankaEnv).parameters
    points = [
        [f"`{name}`", f"{len(low)}", written(low), written(high), takers(name)]
        for name, (low, high) in options.POINTS.items()
    ]
    blocks = ["## Interface", *paragraphs(text.replace("## ", "### "))[1:]]
    blocks.append(f"Bounds of the action by default: plus and minus ({bounds}).")
    blocks.append("Reset options that are points, in metres:")
    blocks.append(table(["option", "numbers", "from", "to", "tasks"], points))
    blocks.append("### Arguments of `gym.make`")
    rows = [[f"`{name}`", f"`{defaults[name].default!r}`", described[name]] for name in described]
    blocks.append(table(["argument", "default", "what"], rows))
    return blocks


def _goals(pictures: dict) -> list[str]:
    fields = entries(GoalSchedule, "Attributes")
    return [
        "## Goals",
        'There are three sources. `goal_source="expert"` takes the images from a simulated '
        'demonstration, `goal_source="random"` shows one random reachable state that is a success '
        "of the task, and the reset option `recorded` takes start and goal from a recorded "
        "episode. Every goal is checked: what it shows is a success of the task. "
        "The pictures stand with each task; which of them are shown is the protocol's choice, and "
        '`info["goal_shown"]` of a reset names it.',
        snippet("recorded"),
        "### Schedules",
        *paragraphs(text_of(GoalSchedule)),
        table(["attribute of `env.unwrapped.goal_schedule`", "what"], _rows(fields)),
        snippet("schedule"),
    ]


def _cameras(pictures: dict) -> list[str]:
    rows = []
    for name in rendering.CAMERA_NAMES:
        if name in cameras.CAMERAS:
            spec = cameras.CAMERAS[name]
            azimuth = f"{cameras.camera_azimuth_deg(name):.0f}"
            aspect = "square pixels" if spec.aspect is None else f"{spec.aspect:g}"
            place = [written(spec.position), written(spec.target), f"{spec.fovy_deg:g}"]
            rows.append([f"`{name}`", *place, aspect, azimuth])
        else:
            fovy = f"{scene.WRIST_FOVY_DEG:g}"
            rows.append([f"`{name}`", "on the hand", "the fingertips", fovy, "square pixels", ""])
    heads = ["camera", "position, m", "looks at, m", "vertical field of view, degrees"]
    heads += ["width / height of the view", "azimuth, degrees"]
    smallest, largest = rendering.MIN_SIZE_PX, rendering.MAX_SIZE_PX
    return [
        "## Cameras",
        f"Pictures are uint8, (Y, X, 3), RGB, upright, {smallest} to {largest} pixels a side. "
        "Several names joined by `+` are tiled from left to right into one picture. An azimuth "
        "is counted about the point that the camera looks at, from the base's x axis.",
        table(heads, rows),
        *pictures["cameras"].values(),
        snippet("cameras"),
    ]


def _droid(pictures: dict) -> list[str]:
    rows = [[f"`{name}`", f"`{value!r}`"] for name, value in droid.DROID_VIEW.items()]
    return [
        "## DROID view",
        *paragraphs(inspect.getdoc(droid) or ""),
        "`make_droid` takes the arguments of `gym.make` on top of these:",
        table(["argument", "value"], rows),
        *pictures["droid"].values(),
        snippet("droid"),
    ]


def _objects(pictures: dict) -> list[str]:
    rows = [
        [
            f"`{name}`",
            f"{2000 * entry.half_height_m:.0f}",
            f"{2000 * entry.radius_m:.0f}",
            f"{1000 * (entry.half_height_m + entry.grasp_height_m):.0f}",
            "yes" if entry.upright else "no",
            "held out" if entry.held_out else "",
        ]
        for name, entry in objects.OBJECTS.items()
    ]
    heads = ["`obj=`", "height, mm", "diameter of the footprint, mm"]
    heads += ["height of the grasp, mm", "can topple", ""]
    return [
        "## Objects",
        "Every object works in every task. Held-out objects are for tests: no training data may "
        "hold them.",
        table(heads, rows),
        *pictures["objects"].values(),
    ]


def _variations(pictures: dict) -> list[str]:
    plain, fields = Variation(), entries(Variation, "Attributes")
    rows = []
    for name, text in fields.items():
        allowed = f"{_interval(variations.RANGES[name])}" if name in variations.RANGES else ""
        rows.append([f"`{name}`", f"`{getattr(plain, name)!r}`", allowed, text])
    things = entries(variations.Distractor, "Attributes")
    blocks = [
        "## Variations",
        '`reset(options={"variation": {...}})` sets how one episode looks, `gym.make(..., '
        'variation={...})` how all look. `info["variation"]` of a reset holds all of it and can '
        "be given back.",
        table(["factor", "default", "allowed", "what"], rows),
        f"Textures are {', '.join(TEXTURES)} (the last two belong to the DROID view), and "
        f"`{PREFIX}<seed>`: a picture that its seed alone decides, from seeds that training and "
        "tests do not share. A distractor is a dict of:",
        table(["key", "what"], _rows(things)),
        f"`SHAPES` are {', '.join(variations.SHAPES)}.",
        snippet("variation"),
        "### Factors of the splits",
        "Held-out values lie in gaps between the training values, far ones beyond them; none of "
        "the three ever meet. An object's colour is drawn by its hue, the light's by hue and "
        "saturation, the zoom by how large the workspace appears (`camera_magnification`, against "
        "the default view), so that cameras that stand near keep the hand in the picture. "
        f"{splits.NAMED_SHARE:.0%} of the textures that are drawn have a name of their own, all "
        "others are generated.",
    ]
    rows = [
        [f"`{name}`", entry.group, values(entry.train), values(entry.held_out), values(entry.far)]
        for name, entry in splits.FACTORS.items()
    ]
    heads = ["factor", "group", "training", "held out (gaps)", "far (rim)"]
    blocks.append(table(heads, rows))
    blocks.append(pictures["factors"]["textures"])
    for name in splits.FACTORS:
        if f"factor_{name}" in pictures["factors"]:
            blocks += [f"`{name}`:", pictures["factors"][f"factor_{name}"]]
    return blocks


def _splits(pictures: dict) -> list[str]:
    rows = []
    for name, groups in splits.SPLITS.items():
        zones = ", ".join(f"{group}: {zone}" for group, zone in sorted(groups.items())) or "none"
        rows.append([f"`{name}`", zones, ", ".join(splits.split_objects(name))])
    blocks = [
        "## Splits",
        "`gym.make(..., split=...)` draws a look in every reset. A split names the groups of "
        "factors that leave the training values; all others keep to them. Held-out values ask for "
        "new values of a known kind, far ones for extrapolation. Nothing held out is ever part of "
        "training: `jepa-gym collect --split train` records what training may show.",
        table(["`split=`", "groups that leave training", "objects"], rows),
        snippet("split"),
    ]
    for name in splits.SPLITS:
        blocks += [f"`{name}`:", pictures["splits"][f"split_{name}"]]
    return blocks


def _many() -> list[str]:
    return [
        "## Many at once",
        "`reset(seed=s)` seeds environment i with s + i, `reset(seed=[...])` each with its own.",
        snippet("vector"),
    ]


def _branching() -> list[str]:
    return [
        "## Branching",
        "`get_state` returns everything that decides the future, the random generator included; "
        "`set_state` restores it, so that a planner can use the simulator as its model. Step "
        "`env.unwrapped` meanwhile: the step count of Gymnasium's time limit is not part of "
        "the state.",
        snippet("branching"),
    ]


# ---- Markdown


def snippet(name: str) -> str:
    """Return a block of code."""
    return f"```python\n{SNIPPETS[name].strip()}\n```"


def paragraphs(text: str) -> list[str]:
    """Return the paragraphs of a text, headings apart."""
    text = re.sub(r"(^#+ .*$)", r"\1\n", text, flags=re.M)
    return [part.strip() for part in re.split(r"\n\s*\n", text) if part.strip()]


def wrapped(block: str) -> str:
    """Return a block in lines of the page's width if it is prose."""
    if block.startswith(("#", "|", "!", "```")):
        return block
    return textwrap.fill(" ".join(block.split()), WIDTH, break_on_hyphens=False)


def table(heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return a Markdown table."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(
        "| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines
    )


def _rows(described: dict[str, str]) -> list[list[str]]:
    return [[f"`{name}`", text] for name, text in described.items()]


def values(found: Values | None) -> str:
    """Return the values of a factor in words."""
    if found is None:
        return "as held out"
    if isinstance(found, Textures):
        own = ["its own"] if found.plain_share else []
        first, end = found.seeds
        return ", ".join([*own, *found.named, f"generated-{first} to {end - 1}"])
    if isinstance(found, Choices):
        return ", ".join(str(value) for value in found.values)
    return " or ".join(_interval(interval) for interval in found.intervals)


def _interval(interval: tuple[float, float]) -> str:
    return f"{interval[0]:g} to {interval[1]:g}"


def written(numbers: Sequence[float] | np.ndarray) -> str:
    """Return coordinates in words."""
    return "(" + ", ".join(f"{number:g}" for number in numbers) + ")"
