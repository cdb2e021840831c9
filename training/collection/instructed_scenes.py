"""Record scenes, and what they look like after an instruction: `jepa-gym instructed-scenes`.

`jepa-gym instructed-scenes --checkpoint default --output data/instructed --scenes 3000`

A scene is drawn as episodes are: an object on the table, the hand anywhere, or with the object in
it. For every instruction that makes sense there, the simulator puts the arm where the instruction
leads and nothing else changes. Kept are the world model's latents of both pictures, both states and
the kind of instruction; the words are drawn in training. Scene n is decided by its seed alone, and
a recording that was interrupted goes on where it stopped.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from jepa_gym.checkpoint.beside import encoder_hash
from jepa_gym.checkpoint.safetensors_file import write_safetensors
from jepa_gym.commands import run_command
from jepa_gym.envs.physics.workbench import WORKSPACE_HIGH_M, WORKSPACE_LOW_M
from jepa_gym.envs.splits import split_objects
from jepa_gym.envs.tasks.arguments import check_choices, check_split_has
from jepa_gym.envs.tasks.episode import GoalError
from jepa_gym.envs.tasks.grasp import GOAL_LIFT_M
from jepa_gym.envs.tasks.manipulation import GRIP_S, ObjectTaskEnv
from jepa_gym.envs.tasks.sampling import sample_hand_position, sample_object_place
from jepa_gym.files import atomic_write, parse_json
from jepa_gym.instructions import BESIDE, KINDS, MOVES, region
from jepa_gym.logs import progress_bar
from jepa_gym.training.collection.config import DEFAULT_OBJECTS, FIRST_HELD_OUT_SEED
from jepa_gym.training.collection.explorers import exploration_env
from jepa_gym.training.data.workers import work
from jepa_gym.world_model import WorldModel

_LOG = logging.getLogger(__name__)

HELD_SHARE = 0.25
"""Share of the scenes that begin with the object in the hand."""
CLOSED_SHARE = 0.25
"""Share of the other scenes whose empty hand is closed."""
NEAR_SHARE = 0.5
"""Share of them that begin with the hand near the object, as before a grasp."""
INDEX_NAME = "scenes.json"
FREE_SETTINGS = ("output", "scenes", "workers", "checkpoint")


@dataclass(frozen=True, slots=True, kw_only=True)
class ScenesConfig:
    """Record scenes and what they look like after every instruction, as latents."""

    checkpoint: str = "default"
    """World model whose latents are kept."""
    output: Path
    """Folder of the scenes."""
    scenes: int = 3000
    """Number of scenes that the folder shall hold; each has about ten instructions."""
    objects: tuple[str, ...] = ()
    """Taken in turn. By default box and cup, with `split` all objects of the split."""
    split: str | None = None
    """Draw looks, cameras and distractors from this split; without it the scene is plain."""
    seed: int = 400_000
    """Seed of the first scene."""
    workers: int = max(1, os.cpu_count() or 1)
    """Processes."""

    def __post_init__(self) -> None:
        """Check ranges and names, before anything is written.

        Raises:
            ValueError: If a value is out of its range or there is no such name.
        """
        if self.scenes < 1 or self.workers < 1:
            raise ValueError("`scenes` and `workers` must be at least 1")
        if self.seed < 0 or self.seed + self.scenes > FIRST_HELD_OUT_SEED:
            raise ValueError(
                f"seeds {self.seed} to {self.seed + self.scenes - 1} must lie in "
                f"[0, {FIRST_HELD_OUT_SEED}): later seeds are kept for evaluation"
            )
        check_choices(split=self.split)
        if not self.objects:
            chosen = DEFAULT_OBJECTS if self.split is None else split_objects(self.split)
            object.__setattr__(self, "objects", chosen)
        for obj in self.objects:
            check_split_has(self.split, obj)


def follow(env: ObjectTaskEnv, kind: str) -> bool:
    """Put the arm where an instruction leads from the present state.

    Args:
        env: The environment; it is changed.
        kind: Of `jepa_gym.instructions.KINDS`.

    Returns:
        Whether the instruction makes sense here; if not, the state is as it was or broken.
    """
    state = env.arm.state()
    held = env.object_clearance() > 0.01 and env.object_held()
    if kind in (*BESIDE, *MOVES):
        place = region(kind, state[:3], env.grasp_point()).centre
        if not ((place >= WORKSPACE_LOW_M) & (place <= WORKSPACE_HIGH_M)).all():
            return False
        if held and (kind in BESIDE or not _room_below(env, kind)):
            return False
        if held:
            env.carry(place)
        else:
            env.place_arm(place, closedness=float(round(state[6])))
            if env.object_clearance() < -0.001 or _touches(env):
                return False
        return True
    if kind in ("open", "close"):
        closed = kind == "close"
        if held or (state[6] > 0.5) == closed:
            return False
        env.place_arm(state[:3], closedness=float(closed))
        return True
    if kind == "put down":
        if not held:
            return False
        env.carry(state[:3] - [0, 0, env.object_clearance() - 0.001])
        env.arm.grip(0.0)
        env.arm.settle(GRIP_S)
        return True
    if held:
        return False
    env.simulate_grasp()
    if kind == "lift":
        env.carry(env.arm.state()[:3] + [0, 0, GOAL_LIFT_M])
    return True


def _room_below(env: ObjectTaskEnv, kind: str) -> bool:
    return MOVES[kind][2] >= 0 or env.object_clearance() > -MOVES[kind][2] + 0.005


def _touches(env: ObjectTaskEnv) -> bool:
    offset = env.arm.state()[:3] - env.object_position()
    return bool(np.linalg.norm(offset[:2]) < 0.07 and offset[2] < 0.05)


def begin(env: ObjectTaskEnv, seed: int) -> None:
    """Draw a scene: an object on the table or in the hand, and the hand."""
    env.reset(seed=seed)
    rng = env.np_random
    env.place_object(*sample_object_place(env))
    if rng.random() < HELD_SHARE:
        env.simulate_grasp()
        high = [*WORKSPACE_LOW_M[:2], 0.06]
        env.carry(rng.uniform(high, WORKSPACE_HIGH_M))
        return
    closedness = float(rng.random() < CLOSED_SHARE)
    place = sample_hand_position(env)
    if rng.random() < NEAR_SHARE:
        near = env.grasp_point() + rng.uniform([-0.12, -0.12, 0.10], [0.12, 0.12, 0.24])
        place = np.clip(near, WORKSPACE_LOW_M, WORKSPACE_HIGH_M)
    env.place_arm(place, closedness=closedness)
    env.scatter_distractors()


def pictures(env: ObjectTaskEnv) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Yield each kind of instruction that makes sense now, with picture and state (7,) after it."""
    before = env.get_state()
    for kind in KINDS:
        try:
            if follow(env, kind):
                yield kind, env.frame(), env.arm.state()
        except (GoalError, ValueError):
            pass  # the arm does not reach that place, or the grasp slips: nothing to show
        env.set_state(before)


def record_scene(config: ScenesConfig, seed: int) -> None:
    """Record one scene."""
    model = _model(config.checkpoint)
    env = _environment(config.checkpoint, _object(config, seed), config.split)
    try:
        begin(env, seed)
    except GoalError:  # the drawn place of a held object is out of the arm's reach
        env.place_arm(sample_hand_position(env))
    start, state = env.frame(), torch.from_numpy(env.arm.state()).float()
    found = list(pictures(env))
    frames = np.stack([start, *(frame for _, frame, _ in found)])
    latents = model.encode(frames[:, None])[:, 0].half().cpu()
    kinds = torch.tensor([KINDS.index(kind) for kind, *_ in found])
    states = torch.from_numpy(np.stack([after for *_, after in found])).float()
    named = env.obj.encode()
    kept = {"start": latents[0], "state": state, "goals": latents[1:], "kinds": kinds}
    kept["goal_states"] = states
    kept["object"] = torch.tensor(list(named), dtype=torch.uint8)
    write_safetensors(_path(config, seed), kept, {})


def record(config: ScenesConfig) -> int:
    """Record all missing scenes.

    Returns:
        How many there are.

    Raises:
        ValueError: If the folder holds scenes of other settings or of another encoder.
    """
    settings = {k: v for k, v in asdict(config).items() if k not in FREE_SETTINGS}
    settings["encoder"] = encoder_hash(WorldModel.from_pretrained(config.checkpoint))
    settings = json.loads(json.dumps(settings))
    path = config.output / INDEX_NAME
    if path.is_file() and (known := parse_json(path.read_text())) != settings:
        other = ", ".join(k for k in settings if known.get(k) != settings[k])
        raise ValueError(
            f"{config.output} was recorded with another {other}: give the same settings to go on, "
            "or another --output"
        )
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(settings, indent=1, sort_keys=True) + "\n")
    seeds = range(config.seed, config.seed + config.scenes)
    missing = [seed for seed in seeds if not _path(config, seed).is_file()]
    missing.sort(key=lambda seed: (_object(config, seed), seed))
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # the processes share the cores
    done = config.scenes - len(missing)
    with progress_bar(total=config.scenes, initial=done, unit="scene", desc="scenes") as bar:
        workers = min(config.workers, len(missing) or 1)
        for _ in work(partial(record_scene, config), missing, workers):
            bar.update()
    return config.scenes


def _object(config: ScenesConfig, seed: int) -> str:
    return config.objects[seed % len(config.objects)]


def _path(config: ScenesConfig, seed: int) -> Path:
    return config.output / f"{seed:06d}.safetensors"


@lru_cache(maxsize=1)
def _model(checkpoint: str) -> WorldModel:
    torch.set_num_threads(1)
    return WorldModel.from_pretrained(checkpoint)


@lru_cache(maxsize=1)
def _environment(checkpoint: str, obj: str, split: str | None) -> ObjectTaskEnv:
    frame: Any = _model(checkpoint).config.frame
    return exploration_env(
        "grasp", obj=obj, split=split, camera="+".join(frame.cameras), image_size=frame.height
    )


def _run(config: ScenesConfig) -> None:
    _LOG.info(f"{config.output}: {record(config)} scenes")


def main() -> int:
    """Run the command line."""
    return run_command(_run, ScenesConfig)


if __name__ == "__main__":
    raise SystemExit(main())
