"""Record what the expert would have done where an inverse model comes to be: `jepa-gym correct`.

`jepa-gym correct --checkpoint FOLDER --output data/corrections --episodes 1000`

The inverse model beside a world model acts towards ONE goal image; at every step the task's
scripted expert, which knows the simulator, says what it would do, and `jepa-gym amortise
--corrections data/corrections` learns that (DAgger, arXiv 1011.0686). In every episode the expert
also acts itself, in a share of the steps that is drawn, so that later parts of a task are seen,
too. Episode number n is decided by seed n and the world model alone; a recording that was
interrupted goes on where it stopped.
"""

from __future__ import annotations

import json
import logging
import os
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch

from jepa_gym import TASKS, make_env
from jepa_gym.agents.inverse_agent import InverseAgent
from jepa_gym.checkpoint.beside import encoder_hash
from jepa_gym.commands import run_command
from jepa_gym.envs.splits import split_objects
from jepa_gym.envs.tasks.arguments import check_choices, check_split_has
from jepa_gym.envs.tasks.manipulation import ObjectTaskEnv
from jepa_gym.files import atomic_write
from jepa_gym.logs import progress_bar
from jepa_gym.names import check_choice
from jepa_gym.training.collection.config import DEFAULT_OBJECTS, FIRST_HELD_OUT_SEED
from jepa_gym.training.data.corrections import INDEX_NAME, read_index, write_correction
from jepa_gym.training.data.workers import work
from jepa_gym.world_model import WorldModel

_LOG = logging.getLogger(__name__)

EXPERT_SHARE = (0.0, 0.6)
"""Bounds of the share of an episode's steps in which the expert acts itself."""
NOISE_M = 0.004
"""Standard deviation of what is added to moves in half of the episodes."""
AT_OBJECT_M, ALIGNED_M = 0.012, 0.010
"""Up to where this expert closes the gripper and descends, seen from the point of the grasp; the
suite's own goes back for the last millimetres."""
FREE_SETTINGS = ("output", "episodes", "workers", "checkpoint")
"""What may differ when a recording is continued; the encoder's hash stands for the checkpoint."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CorrectConfig:
    """Let an inverse model act and record what the scripted expert would have done instead."""

    checkpoint: str
    """Folder of a world model with an inverse model beside it."""
    output: Path
    """Folder of the corrections."""
    episodes: int = 1000
    """Number of episodes that the folder shall hold."""
    tasks: tuple[str, ...] = ("grasp", "reach-with-object", "pick-place")
    """Taken in turn: reach, grasp, reach-with-object, pick-place."""
    objects: tuple[str, ...] = ()
    """Taken in turn. By default box and cup, with `split` all objects of the split."""
    split: str | None = None
    """Draw looks, cameras and distractors from this split; without it the scene is plain."""
    seed: int = 300_000
    """Seed of the first episode."""
    workers: int = max(1, os.cpu_count() or 1)
    """Processes."""

    def __post_init__(self) -> None:
        """Check ranges and names, before anything is written.

        Raises:
            ValueError: If a value is out of its range or there is no such name.
        """
        if self.episodes < 1 or self.workers < 1 or not self.tasks:
            raise ValueError("`episodes` and `workers` must be at least 1, with at least one task")
        if self.seed < 0 or self.seed + self.episodes > FIRST_HELD_OUT_SEED:
            raise ValueError(
                f"episode seeds {self.seed} to {self.seed + self.episodes - 1} must lie in "
                f"[0, {FIRST_HELD_OUT_SEED}): later seeds are kept for evaluation"
            )
        check_choices(split=self.split)
        for task in self.tasks:
            check_choice("task", task, TASKS)
        if not self.objects:
            chosen = DEFAULT_OBJECTS if self.split is None else split_objects(self.split)
            object.__setattr__(self, "objects", chosen)
        for obj in self.objects:
            check_split_has(self.split, obj)

    def setting_of(self, number: int) -> tuple[str, str]:
        """Return task and object of episode `number`, counted from 0."""
        others = number // len(self.tasks)
        return self.tasks[number % len(self.tasks)], self.objects[others % len(self.objects)]


def correct(config: CorrectConfig) -> int:
    """Record all missing episodes.

    Returns:
        How many there are.

    Raises:
        ValueError: If the folder holds corrections of other settings or of another encoder, or the
            model has no inverse model beside it.
    """
    agent = InverseAgent(config.checkpoint)
    settings = {k: v for k, v in asdict(config).items() if k not in FREE_SETTINGS}
    settings |= {"encoder": encoder_hash(agent.model)}
    settings = json.loads(json.dumps(settings))
    path = config.output / INDEX_NAME
    if path.is_file():
        known = read_index(config.output)
        if known != settings:
            other = [k for k in settings if known.get(k) != settings[k]]
            raise ValueError(
                f"{config.output} was recorded with another {', '.join(other)}: give the same "
                "settings to go on, or another --output"
            )
    else:
        with atomic_write(path) as temporary:
            temporary.write_text(json.dumps(settings, indent=1, sort_keys=True) + "\n")
    missing = [n for n in range(config.episodes) if not _path(config, n).is_file()]
    missing.sort(key=lambda number: (config.setting_of(number), number))
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(variable, "1")  # one thread per process: they share the cores
    with progress_bar(
        total=config.episodes,
        initial=config.episodes - len(missing),
        unit="episode",
        desc="correct",
    ) as bar:
        workers = min(config.workers, len(missing) or 1)
        for _ in work(partial(record_correction, config), missing, workers):
            bar.update()
    return config.episodes


def record_correction(config: CorrectConfig, number: int) -> None:
    """Record one episode.

    Args:
        config: The recording.
        number: Of the episode, counted from 0.
    """
    agent = _agent(config.checkpoint)
    env = _environment(config.checkpoint, *config.setting_of(number), config.split)
    seed = config.seed + number
    rng = np.random.default_rng((seed, 2))
    expert_share = rng.uniform(*EXPERT_SHARE)
    noise_m = float(rng.choice([0.0, NOISE_M]))
    observation, _ = env.reset(seed=seed)
    core: Any = env.unwrapped
    if isinstance(core, ObjectTaskEnv):
        core.at_object_m, core.aligned_m = AT_OBJECT_M, ALIGNED_M
    space: Any = env.action_space
    seen: dict[str, list[torch.Tensor]] = {k: [] for k in ("latents", "goals", "states", "actions")}
    done = False
    while not done:
        wanted = np.clip(core.expert_action(), space.low, space.high)
        latents, goals = agent.model.observe({k: x[None] for k, x in observation.items()})
        states = torch.as_tensor(observation["observation"], dtype=torch.float32)[None]
        proposed = agent.proposer(latents, states.to(latents.device), goals).actions
        step = {"latents": latents, "goals": goals, "states": states}
        step["actions"] = torch.as_tensor(wanted, dtype=torch.float32)[None]
        for name, value in step.items():
            seen[name].append(value.cpu())
        action = wanted if rng.random() < expert_share else proposed[0].cpu().numpy()
        action = action.astype(np.float64)
        action[:3] += rng.normal(0, noise_m, 3)
        action = np.clip(action, space.low, space.high).astype(np.float32)
        observation, _, terminated, truncated, _ = env.step(action)
        done = terminated or truncated
    write_correction(
        config.output, _path(config, number).stem, {k: torch.cat(x) for k, x in seen.items()}
    )


def _path(config: CorrectConfig, number: int) -> Path:
    return config.output / f"{config.seed + number:06d}.safetensors"


@lru_cache(maxsize=1)
def _agent(checkpoint: str) -> InverseAgent:
    torch.set_num_threads(1)
    return InverseAgent(checkpoint)


@lru_cache(maxsize=1)
def _environment(checkpoint: str, task: str, obj: str, split: str | None) -> gym.Env:
    model: WorldModel = _agent(checkpoint).model
    return make_env(model, task, obj=obj, split=split, protocol="one", obs_mode="both")


def _run(config: CorrectConfig) -> None:
    _LOG.info(f"{config.output}: {correct(config)} corrected episodes")


def main() -> int:
    """Run the command line."""
    return run_command(_run, CorrectConfig)


if __name__ == "__main__":
    raise SystemExit(main())
