"""What the gallery shows: contact sheets of tasks, goals, cameras, objects and variations.

A sheet knows its name and its text without rendering; `draw` renders its tiles one after the other.
Names, schedules, objects, factors and splits are those of the code, so that a new one shows up by
itself. Seeds are fixed.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import gymnasium as gym
import numpy as np
from gallery_factors import as_variation, columns, factor_values, texture_names, written
from PIL import Image

import jepa_gym  # noqa: F401  (registers the environments)
from jepa_gym.envs.droid import make_droid
from jepa_gym.envs.physics.objects import OBJECTS
from jepa_gym.envs.pictures.generated import PREFIX
from jepa_gym.envs.pictures.rendering import CAMERA_NAMES, MIN_SIZE_PX
from jepa_gym.envs.pictures.textures import texture
from jepa_gym.envs.splits import FACTORS, SPLITS, split_objects
from jepa_gym.envs.tasks.base import FrankaEnv

Tiles = Iterator[tuple[str, np.ndarray]]

PARTS = ("tasks", "goals", "experts", "cameras", "droid", "objects", "factors", "splits")
SEED = 3
OBJECT = "cup"
"""The object of pictures that are not about objects."""
FILM_FRAMES = 7
SPLIT_EPISODES = 10
SPLIT_PX = 128
"""Height of a split's pictures; that is what models are shown."""
TEXTURE_PX = 96
RANDOM_SEEDS = (11, 12)
SEVERAL_CAMERAS = ("left+wrist", "left+right")
ZOOM = 4
"""How much larger than its tile a close-up's picture is before it is cut out of it."""
HELD_ZOOM = 3
"""The same where the hand is to be seen as well."""
STUDIO = {"object_position": (0.5, 0.0), "start_position": (0.5, 0.0, 0.19)}
"""Where object and hand are in pictures of objects and factors, m."""
CLOSE_UPS = {
    "object_hue": (ZOOM, 0.03),
    "object_texture": (ZOOM, 0.03),
    "object_scale": (ZOOM, 0.03),
    "start_yaw_rad": (HELD_ZOOM, 0.22),
}
"""Factors that are shown in close-ups -> zoom, height (m) of the middle of the picture."""
SMALL = 0.625
"""Share of the tile's height for pictures of factors, of which there are many."""


@dataclass(frozen=True)
class Sheet:
    """A contact sheet.

    Attributes:
        name: Stem of the file.
        part: One of `PARTS`.
        alt: The picture in words.
        draw: From the tiles' height in pixels to (label, picture (Y, X, 3) uint8) pairs.
        columns: Tiles in a row.
    """

    name: str
    part: str
    alt: str
    draw: Callable[[int], Tiles]
    columns: int = 4


def core(env: gym.Env) -> FrankaEnv:
    """Return the environment of the suite inside all wrappers."""
    assert isinstance(env.unwrapped, FrankaEnv)
    return env.unwrapped


def task_ids() -> list[str]:
    """Return the ids of the suite, in the order of registration."""
    return [env_id for env_id in gym.registry if env_id.startswith("Franka")]


def short(env_id: str) -> str:
    """Return an id without its prefix and version."""
    return env_id.removeprefix("Franka").rpartition("-v")[0]


def sheets() -> list[Sheet]:
    """Return all sheets, in the order of the page."""
    found = [
        Sheet("tasks", "tasks", "Start and goal image of every task, side by side.", _draw_tasks)
    ]
    for env_id in task_ids():
        goals = f"Goal images of {env_id}: the suite's sub-goals, random and recorded goals."
        film = f"The scripted expert's episode in {env_id}, step by step, and its goal image."
        draw_goals = functools.partial(_draw_goals, env_id)
        draw_film = functools.partial(_draw_film, env_id)
        found.append(Sheet(f"goals_{env_id}", "goals", goals, draw_goals))
        found.append(Sheet(f"expert_{env_id}", "experts", film, draw_film))
    views, names = ", ".join(CAMERA_NAMES), ", ".join(OBJECTS)
    several = " and ".join(SEVERAL_CAMERAS)
    found += [
        Sheet("cameras", "cameras", f"One moment as seen by {views}.", _draw_cameras, 5),
        Sheet("depth", "cameras", "Its depth, near is bright.", _draw_depth, 5),
        Sheet("several_cameras", "cameras", f"Tiled: {several}.", _draw_several, 2),
        Sheet("droid", "droid", "Every task in the DROID view.", _draw_droid),
        Sheet("objects", "objects", f"On the table: {names}.", _draw_objects, 5),
        Sheet("objects_held", "objects", "The same, grasped and lifted.", _draw_held, 5),
        Sheet(
            "textures",
            "factors",
            f"Textures: {', '.join(f'{name} ({zone})' for zone, name in texture_names())}.",
            _draw_textures,
            10,
        ),
    ]
    for factor in FACTORS:
        if factor != "object":  # shown with the objects
            shown = (f"{written(value)} ({group})" for group, value in factor_values(factor))
            alt = f"{factor}: {', '.join(shown)}."
            draw = functools.partial(_draw_factor, factor)
            found.append(Sheet(f"factor_{factor}", "factors", alt, draw, columns(factor)))
    for split in SPLITS:
        alt = f"First frames of {SPLIT_EPISODES} episodes drawn from the split {split}."
        draw = functools.partial(_draw_split, split)
        found.append(Sheet(f"split_{split}", "splits", alt, draw, 5))
    return found


# ---- drawing


def _draw_tasks(tile: int) -> Tiles:
    for env_id in task_ids():
        with gym.make(env_id, obj=OBJECT, image_size=tile) as env:
            observation, _ = env.reset(seed=SEED)
            yield f"{short(env_id)}: start", observation["pixels"]
            yield f"{short(env_id)}: goal", core(env).subgoals[-1].pixels


def _draw_goals(env_id: str, tile: int) -> Tiles:
    with gym.make(env_id, obj=OBJECT, image_size=tile, protocol="suite") as env:
        env.reset(seed=SEED)
        schedule = core(env).goal_schedule
        goals = zip(schedule.names, core(env).subgoals, strict=True)
        for index, (name, subgoal) in enumerate(goals):
            yield f"expert {index + 1}: {name}", subgoal.pixels
        env.reset(seed=SEED + 1)
        states = [core(env).get_state()["physics"]]
        for _ in _play(env):
            pass
        states.append(core(env).get_state()["physics"])
        recorded = dict(zip(("start", "goal"), states, strict=True))
        observation, _ = env.reset(seed=SEED, options={"recorded": recorded})
        recorded_goal = observation["goal_pixels"]
    with gym.make(env_id, obj=OBJECT, image_size=tile, goal_source="random") as env:
        for index, seed in enumerate(RANDOM_SEEDS):
            observation, _ = env.reset(seed=seed)
            yield f"random {index + 1}", observation["goal_pixels"]
    yield "recorded", recorded_goal


def _play(env: gym.Env) -> Iterator[tuple[dict, dict]]:
    """Yield observation and info of the expert's steps.

    Raises:
        RuntimeError: If the expert fails.
    """
    truncated, info = False, {}
    while not truncated:
        observation, _, _, truncated, info = env.step(core(env).expert_action())
        yield observation, info
    if not info["is_success"]:
        task = type(core(env)).__name__
        raise RuntimeError(f"The expert failed in {task}: {info['failure']}. Change `SEED`.")


def _draw_film(env_id: str, tile: int) -> Tiles:
    with gym.make(env_id, obj=OBJECT, image_size=tile) as env:
        observation, info = env.reset(seed=SEED)
        episode = [(observation["pixels"], info["is_success"])]
        episode += [(seen["pixels"], info["is_success"]) for seen, info in _play(env)]
        last = len(episode) - 1
        while last > 1 and episode[last - 2][1]:
            last -= 1  # nothing moves any more
        for step in sorted(set(np.linspace(0, last, FILM_FRAMES).round().astype(int).tolist())):
            picture, success = episode[step]
            yield f"step {step}{': success' if success else ''}", picture
        yield "goal image", core(env).subgoals[-1].pixels


def _at_the_object(camera: str, tile: int, depth: bool = False) -> dict[str, np.ndarray]:
    """Return the observation of a camera when the expert has just closed on the object."""
    with gym.make("FrankaGrasp-v0", obj=OBJECT, image_size=tile, camera=camera, depth=depth) as env:
        observation, info = env.reset(seed=SEED)
        while not info["is_held"]:
            observation, *_, info = env.step(core(env).expert_action())
    return observation


def _draw_cameras(tile: int) -> Tiles:
    for name in CAMERA_NAMES:
        yield name, _at_the_object(name, tile)["pixels"]


def _draw_several(tile: int) -> Tiles:
    for names in SEVERAL_CAMERAS:
        yield names, _at_the_object(names, tile)["pixels"]


def _draw_depth(tile: int) -> Tiles:
    for name in CAMERA_NAMES:
        depth = _at_the_object(name, tile, depth=True)["depth"]
        near, far = float(depth.min()), float(np.percentile(depth, 98))
        grey = np.clip((far - depth) / (far - near), 0, 1) * 255
        picture = np.repeat(grey.astype(np.uint8)[..., None], 3, axis=2)
        yield f"{name}: {near:.2f} to {far:.2f} m", picture


def _draw_droid(tile: int) -> Tiles:
    for env_id in task_ids():
        with make_droid(env_id, obj=OBJECT, image_size=tile) as env:
            observation, _ = env.reset(seed=SEED)
            yield short(env_id), observation["pixels"]


def _draw_objects(tile: int) -> Tiles:
    for name, entry in OBJECTS.items():
        with gym.make("FrankaGrasp-v0", obj=name, image_size=ZOOM * tile) as env:
            observation, _ = env.reset(seed=SEED, options=STUDIO)
            label = f"{name} (held out)" if entry.held_out else name
            yield label, close_up(env, observation["pixels"], _above(env, 0.045))


def _draw_held(tile: int) -> Tiles:
    for name, entry in OBJECTS.items():
        with gym.make("FrankaGrasp-v0", obj=name, image_size=HELD_ZOOM * tile) as env:
            env.reset(seed=SEED, options=STUDIO)
            subgoal = core(env).subgoals[-1]
            hand = subgoal.state[:3].astype(np.float64)
            label = f"{name} (held out)" if entry.held_out else name
            yield label, close_up(env, subgoal.pixels, hand, HELD_ZOOM)


def _draw_textures(tile: int) -> Tiles:
    side = min(tile, TEXTURE_PX)
    for zone, name in texture_names():
        picture = Image.fromarray(texture(name)).resize((side, side), Image.Resampling.BOX)
        yield f"{name.removeprefix(PREFIX)} ({zone})", np.asarray(picture)


def _draw_factor(factor: str, tile: int) -> Tiles:
    zoom, height_m = CLOSE_UPS.get(factor, (1, 0.0))
    obj = "box" if zoom > 1 else OBJECT  # a box has the plainest faces
    size = max(MIN_SIZE_PX, round(SMALL * zoom * tile))
    with gym.make("FrankaGrasp-v0", obj=obj, image_size=size) as env:
        for group, value in factor_values(factor):
            options = STUDIO | {"variation": as_variation(factor, value)}
            observation, _ = env.reset(seed=SEED, options=options)
            picture = observation["pixels"]
            if zoom > 1:
                picture = close_up(env, picture, _above(env, height_m), zoom)
            yield f"{written(value)} ({group})", picture


def _draw_split(split: str, tile: int) -> Tiles:
    objects = split_objects(split)
    for episode in range(SPLIT_EPISODES):
        obj = objects[episode % len(objects)]
        size = min(tile, SPLIT_PX)
        with gym.make("FrankaPickPlace-v0", obj=obj, image_size=size, split=split) as env:
            observation, _ = env.reset(seed=SEED + episode)
            yield f"{split}: {obj}", observation["pixels"]


def close_up(env: gym.Env, picture: np.ndarray, point: np.ndarray, zoom: int = ZOOM) -> np.ndarray:
    """Return the part of a picture around a point.

    Args:
        env: An environment with one exterior camera.
        picture: (Y, Y, 3) uint8, taken by that camera.
        point: (3,) m, base frame.
        zoom: Side of the picture over that of the part.
    """
    inner = core(env)
    model, data = inner.model, inner.data
    camera = model.camera(inner.cameras[0]).id
    offset = (point - data.cam_xpos[camera]) @ data.cam_xmat[camera].reshape(3, 3)
    side = picture.shape[0]
    focal = side / 2 / np.tan(np.deg2rad(model.cam_fovy[camera]) / 2)
    column, row = np.array([offset[0], -offset[1]]) / -offset[2] * focal + side / 2
    part = side // zoom
    top, left = (int(np.clip(middle - part / 2, 0, side - part)) for middle in (row, column))
    return picture[top : top + part, left : left + part]


def _above(env: gym.Env, height_m: float) -> np.ndarray:
    """Return the point (3,) in m that lies so high above the object's place on the table."""
    return np.array([*core(env).object_position()[:2], height_m])
