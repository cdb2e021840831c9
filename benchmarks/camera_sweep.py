"""The published camera sweep: what a world model sees from elsewhere than where it was trained.

`python benchmarks/camera_sweep.py` records one random motion, shows the very same states to the
model from several azimuths, infers every move from its two frames, and fits the real moves to the
inferred ones. It prints a table and writes, under `results/camera_sweep/`, one JSON line a camera
with all its moves (`cameras.jsonl`), `summary.json` and `plot.png`.

Reference: V-JEPA 2 (arXiv 2506.09985), appendix B.4: 35 to 85 degrees, 201 steps of 5 cm in the
plane, a 2x2 matrix per camera. Ours differs: an azimuth is that of the simulated camera about its
target, from the base's x axis; the camera's own place is measured too; context and correction of
what is imagined are those of the planning agent (see `infer_actions`).
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jepa_gym.benchmarks import camera_report, report
from jepa_gym.benchmarks.episodes import HELD_OUT_SEEDS, environment, world_model
from jepa_gym.benchmarks.options import at_least, fill
from jepa_gym.benchmarks.results import Record, Results, write_json
from jepa_gym.benchmarks.runner import run_jobs
from jepa_gym.benchmarks.settings import settings_of
from jepa_gym.commands import run_command

_LOG = logging.getLogger(__name__)

ANGLES_DEG = tuple(float(angle) for angle in range(35, 86, 5))
QUICK_ANGLES_DEG = (35.0, 60.0, 85.0)
STEPS = 201
QUICK_STEPS = 41
MOVE_M = 0.05
DIRECTIONS = 1000
"""Directions drawn for one move; a quarter of them lead inside even from a corner."""
HEIGHT_M = 0.20
"""Height of the hand, above what stands on the table."""

MOVES = ("inferred_m", "real_m")
"""What `cameras.jsonl` tells beside the rows of the summary."""


@dataclass(frozen=True)
class Arguments:
    """Show one random motion from several camera angles; fit real to inferred moves for each."""

    angles: tuple[float, ...] | None = None
    """Azimuths of the camera about its target, degrees: 35 to 85 in steps of 5, with --quick 3. Its
    own place, where the model was trained, is added."""
    steps: int | None = None
    """Moves of 5 cm: 201, with --quick 41."""
    seed: int = 0
    """Held-out seed of scene and motion, the same for every camera."""
    checkpoint: str = "default"
    """World model: the shipped one, or a folder. It decides which views there are."""
    output: Path = Path("results/camera_sweep")
    """Folder for the results. What is finished there is not run again."""
    overwrite: bool = False
    """Delete results in the folder of another model, version, environment or motion."""
    workers: int = 2
    """Processes of one thread each."""
    quick: bool = False
    """A look in half a minute."""

    def __post_init__(self) -> None:
        """Check ranges and fill in angles and steps.

        Raises:
            ValueError: If a number is out of its range.
        """
        angles = self.angles or (QUICK_ANGLES_DEG if self.quick else ANGLES_DEG)
        if len(set(angles)) < 2 or not (np.abs(angles) <= 180).all():
            raise ValueError(
                f"`angles` must be two or more different numbers in [-180, 180], got {angles}."
            )
        object.__setattr__(self, "angles", tuple(sorted(set(angles))))
        fill(self, steps=QUICK_STEPS if self.quick else STEPS)
        at_least(self, steps=3, seed=0, workers=1)


@dataclass(frozen=True, slots=True)
class Motion:
    """What was recorded once: T + 1 moments of T moves."""

    physics: np.ndarray
    """(T + 1, K), the simulator's state, for `set_state`."""
    states: np.ndarray
    """(T + 1, 7) float32."""


@dataclass(frozen=True, slots=True)
class CameraJob:
    """One camera to look from."""

    angle_deg: float
    offset_deg: float
    """Angle beyond that of the camera's own place, in [-180, 180)."""
    seed: int
    motion: Motion
    checkpoint: str

    @property
    def identity(self) -> Record:
        """What tells it from the other cameras of the motion."""
        return {"angle_deg": self.angle_deg}

    def __str__(self) -> str:
        return f"The camera at {self.angle_deg:g} degrees"


def swept_camera(cameras: Sequence[str]) -> str:
    """Return the exterior camera that angles are told of: the first; others turn with it.

    Raises:
        ValueError: If there is none.
    """
    from jepa_gym.envs.pictures.cameras import CAMERAS

    exterior = [name for name in cameras if name in CAMERAS]
    if not exterior:
        raise ValueError(
            f"The checkpoint sees {'+'.join(cameras)}, and there is no camera to turn; give one "
            f"that sees one of {', '.join(CAMERAS)}."
        )
    return exterior[0]


def record_motion(env: Any, seed: int, moves: int) -> Motion:
    """Move the hand at random in a horizontal plane, upright, 5 cm at a time.

    Args:
        env: A task of the suite, without its horizon.
        seed: Of scene and directions.
        moves: Number of moves T.

    Returns:
        The motion.

    Raises:
        ValueError: If `max_move_m` does not allow moves of 5 cm.
    """
    from jepa_gym.envs.physics.workbench import WORKSPACE_HIGH_M, WORKSPACE_LOW_M

    if env.max_move_m < MOVE_M:
        raise ValueError(
            f"The sweep moves {MOVE_M} m at a time, the checkpoint's actions are bounded by "
            f"{env.max_move_m} m: give a checkpoint with longer moves."
        )
    env.reset(seed=seed)
    rng = np.random.default_rng(seed)
    low, high = WORKSPACE_LOW_M[:2], WORKSPACE_HIGH_M[:2]
    target = np.array([*(low + high) / 2, HEIGHT_M])
    env.place_arm(target)
    physics, states = [env.get_state()["physics"]], [env.arm.state()]
    for _ in range(moves):
        target[:2] = _next_place(rng, target[:2], low, high)
        state = states[-1]
        action = np.concatenate([target - state[:3], -state[3:6], [0.0]])
        env.step(np.clip(action, env.action_space.low, env.action_space.high))
        physics.append(env.get_state()["physics"])
        states.append(env.arm.state())
    return Motion(np.stack(physics), np.stack(states).astype(np.float32))


def _next_place(
    rng: np.random.Generator, place: np.ndarray, low: np.ndarray, high: np.ndarray
) -> np.ndarray:
    """Return the place (2,) that lies 5 cm away in a random direction, inside the bounds."""
    for _ in range(DIRECTIONS):
        angle = rng.uniform(0, 2 * np.pi)
        following = place + MOVE_M * np.array([np.cos(angle), np.sin(angle)])
        if (following >= low).all() and (following <= high).all():
            return following
    raise ValueError(f"No move of {MOVE_M} m from {place} ends between {low} and {high} m.")


def measure_camera(job: CameraJob) -> Record:
    """Show the motion to the model from one camera and fit real to inferred moves.

    Args:
        job: The camera.

    Returns:
        What was measured (JSON types).
    """
    from jepa_gym.benchmarks.calibration import fit_actions, infer_actions

    model, motion = world_model(job.checkpoint), job.motion
    env: Any = environment(job.checkpoint, "reach").unwrapped
    env.reset(seed=job.seed, options={"variation": {"camera_azimuth_deg": job.offset_deg}})
    turned, frames = env.get_state(), []
    for physics in motion.physics:
        env.set_state(turned | {"physics": physics})
        frames.append(env.frame())
    frames, context = np.stack(frames), model.config.context_frames
    ends = np.arange(context, len(frames))
    seen = ends[:, None] + np.arange(-context, 0)  # (N, C)
    inferred = infer_actions(model, frames[seen], motion.states[seen], frames[ends])
    real = (motion.states[ends] - motion.states[ends - 1])[:, :2]
    fit = fit_actions(inferred, real)
    return {
        "rotation_deg": fit.rotation_deg,
        "condition_number": fit.condition_number,
        "error_before_m": fit.error_before_m,
        "error_after_m": fit.error_after_m,
        "explained": fit.explained,
        "matrix": fit.matrix.tolist(),
        "moves": fit.n,
        "inferred_m": inferred.round(5).tolist(),
        "real_m": real.round(5).tolist(),
    }


def make_jobs(arguments: Arguments, own_deg: float) -> list[CameraJob]:
    """Record the motion and return the cameras to see it from, by ascending angle.

    Raises:
        ValueError: If the model's actions are too short for the motion.
    """
    seed, source = HELD_OUT_SEEDS + arguments.seed, arguments.checkpoint
    moves = (arguments.steps or STEPS) + world_model(source).config.context_frames - 1
    motion = record_motion(environment(source, "reach").unwrapped, seed, moves)
    return [
        CameraJob(angle, (angle - own_deg + 180) % 360 - 180, seed, motion, source)
        for angle in sorted({*(arguments.angles or ()), own_deg})
    ]


def run(arguments: Arguments) -> list[Record]:
    """Run the sweep, write its files and print its table.

    Args:
        arguments: What to run.

    Returns:
        One row a camera.

    Raises:
        BenchmarkError: If a camera fails; the finished ones are kept.
        ResultsError: If the folder has results that must not be mixed with these.
        ValueError: If the checkpoint does not suit the sweep.
    """
    from jepa_gym.envs.pictures.cameras import camera_azimuth_deg

    begin, output = time.perf_counter(), arguments.output
    settings = settings_of(arguments.checkpoint)
    views = world_model(arguments.checkpoint).config.frame.cameras
    camera = swept_camera(views)
    own_deg = camera_azimuth_deg(camera)
    jobs = make_jobs(arguments, own_deg)
    settings |= {
        "env_seed": jobs[0].seed,
        "steps": arguments.steps,
        "turned_camera": camera,
        "own_angle_deg": own_deg,
    }
    with Results(output, "cameras.jsonl", settings, arguments.overwrite) as results:
        records = run_jobs(jobs, results, measure_camera, arguments.workers, "cameras")
        rows = [{k: v for k, v in record.items() if k not in MOVES} for record in records]
        trend = camera_report.trend(rows, own_deg)
        print(camera_report.table(rows, trend, own_deg))
        if "wrist" in views:
            _LOG.info("the wrist's view does not turn; it shows moves too")
        camera_report.write_plot(rows, trend, own_deg, output / "plot.png")
        asked = report.arguments_of(arguments, begin)
        summary = report.summary(rows, results.settings, asked) | {"trend": trend}
        write_json(summary, output / "summary.json")
    _LOG.info(f"{len(rows)} cameras in {asked['wall_s']:.0f} s; results in {output}")
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line with the given flags, or those of the process; return the status."""
    return run_command(run, Arguments, arguments)


if __name__ == "__main__":
    sys.exit(main())
