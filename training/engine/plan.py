"""What a run will do: how many steps, and what `--dry-run` tells before anything is written."""

from __future__ import annotations

import json
import math
import resource
import time
from collections import Counter
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from jepa_gym.files import atomic_write
from jepa_gym.training.engine.checkpoint import load_optimizer, optimizer_tensors
from jepa_gym.training.engine.distributed import agreed

if TYPE_CHECKING:
    from jepa_gym.training.engine.config import RunConfig
    from jepa_gym.training.engine.trainer import Trainer

PLAN_NAME = "plan.json"
WARM_UP_STEPS = 2
MOST_STEPS = 50
UNDONE_STEPS = 10**9
"""Length of the run that the measured steps belong to; their learning rates do not matter."""
LONGEST_S = 10.0
SHARE_OF_BUDGET = 0.05
EVALUATIONS = 8
"""Of a run whose configuration does not say how often."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How long a run is, fixed at its start."""

    steps: int
    """Optimiser steps."""
    minutes: float | None = None
    """The budget that chose them; None where --steps did."""
    step_s: float | None = None
    """Measured time of a step, seconds."""
    evaluation_s: float | None = None
    """Measured time of an evaluation, seconds."""


def write_plan(folder: Path, plan: Plan) -> None:
    """Write plan.json to the run's folder."""
    with atomic_write(folder / PLAN_NAME) as path:
        path.write_text(json.dumps(asdict(plan), indent=1) + "\n")


def choose_steps(trainer: Trainer, recorded: Plan | None, measured: bool = False) -> Plan:
    """Choose the number of steps: `--steps`, else what was recorded, else a measurement's.

    Args:
        trainer: The run.
        recorded: The plan of the run that is resumed.
        measured: Whether to measure in any case.

    Returns:
        The plan; the same on every process.
    """
    config = trainer.config
    step_s = recorded.step_s if recorded else None
    evaluation_s = recorded.evaluation_s if recorded else None
    if measured or not (config.steps or step_s):
        step_s, evaluation_s = agreed(_measure(trainer))
    if config.steps:
        plan = Plan(config.steps, None, step_s, evaluation_s)
    elif recorded and recorded.minutes == config.minutes:
        plan = replace(recorded, step_s=step_s, evaluation_s=evaluation_s)
    else:
        steps = _fitting(config.minutes * 60, step_s or 0, evaluation_s or 0, config.eval_every)
        plan = Plan(steps, config.minutes, step_s, evaluation_s)
    config.schedule.phases(plan.steps)  # refuses a run that is too short
    return plan


def evaluation_interval(config: RunConfig, steps: int) -> int:
    """Return the steps between two evaluations of a run."""
    return config.eval_every or math.ceil(steps / EVALUATIONS)


def _fitting(budget_s: float, step_s: float, evaluation_s: float, eval_every: int | None) -> int:
    """Return how many steps, with their evaluations, fit into a time; at least one."""
    if eval_every:
        return max(1, int(budget_s / (step_s + evaluation_s / eval_every)))
    return max(1, int((budget_s - EVALUATIONS * evaluation_s) / step_s))


def _measure(trainer: Trainer) -> tuple[float, float]:
    """Take some steps and an evaluation, and undo them; return the seconds of each."""
    before = {name: x.detach().clone() for name, x in trainer.module.state_dict().items()}
    moments = optimizer_tensors(trainer.optimizer, trainer.module)
    moments = {name: x.detach().clone() for name, x in moments.items()}
    limit = min(LONGEST_S, max(0.2, SHARE_OF_BUDGET * 60 * trainer.config.minutes))
    began = time.monotonic()
    trainer.evaluate()
    evaluation_s = time.monotonic() - began
    for _ in range(WARM_UP_STEPS):
        trainer.take_step(UNDONE_STEPS)
    _wait(trainer)
    began = time.monotonic()
    counted, enough = 0, False
    while counted < MOST_STEPS and not enough:
        trainer.take_step(UNDONE_STEPS)
        _wait(trainer)
        counted += 1
        enough = agreed(time.monotonic() - began > limit)
    step_s = (time.monotonic() - began) / counted
    trainer.module.load_state_dict(before)
    trainer.optimizer.state.clear()
    load_optimizer(trainer.optimizer, trainer.module, moments)
    trainer.progress.step = trainer.counted = 0
    return step_s, evaluation_s


def _wait(trainer: Trainer) -> None:
    if trainer.here.device.type == "cuda":
        torch.cuda.synchronize(trainer.here.device)


def describe(trainer: Trainer, plan: Plan) -> str:
    """Return what `--dry-run` prints."""
    config, here = trainer.config, trainer.here
    rows = trainer.share[0]
    batch = trainer.task.draw(0, rows)
    shapes = ", ".join(
        f"{name} {'x'.join(map(str, x.shape))} {str(x.dtype).removeprefix('torch.')}"
        for name, x in batch.items()
    )
    sizes: Counter[str] = Counter()
    for name, parameter in trainer.module.named_parameters():
        sizes[".".join(name.split(".")[:-2][:2]) or name] += parameter.numel()
    total, trained = sizes.total(), sum(p.numel() for p in trainer.parameters)
    rise, constant, fall = config.schedule.phases(plan.steps)
    every = evaluation_interval(config, plan.steps)
    evaluations = math.ceil(plan.steps / every)
    seconds = plan.steps * (plan.step_s or 0) + evaluations * (plan.evaluation_s or 0)
    end = time.strftime("%a %H:%M", time.localtime(time.time() + seconds))
    state = 4 * total + 16 * trained  # weights; gradients, two moments, the best weights
    parts = ", ".join(f"{name} {size:,}" for name, size in sizes.items())
    lines = {
        "output": f"{config.output}, nothing is written by a dry run",
        "device": f"{here.device}, {here.count} process(es), {config.threads} thread(s), "
        + ("bfloat16" if config.bf16 else "float32"),
        "batch": f"{config.batch_size} clips a step, in {config.accumulate} part(s) a process; "
        f"one part: {shapes}",
        "parameters": f"{total:,}, of which {trained:,} are trained ({parts})",
        "memory": f"{state / 2**20:,.0f} MiB for weights, gradients, moments and best weights; "
        f"largest so far {_peak_bytes(here.device) / 2**20:,.0f} MiB",
        "steps": f"{plan.steps}: {rise} warming up, {constant} constant, {fall} decaying; "
        f"evaluated every {every}",
        "time": f"{plan.step_s or 0:.3g} s a step and {plan.evaluation_s or 0:.3g} s an evaluation "
        f"(measured): {seconds / 60:.1f} minutes, done {end}",
    }
    return "\n".join(f"{name:<11} {text}" for name, text in lines.items())


def _peak_bytes(device: torch.device) -> int:
    """Return the most memory that was in use, of the GPU or of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
