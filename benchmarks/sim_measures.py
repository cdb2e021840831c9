"""The measurements of `sim_speed.py`: plain functions that return figures, one per question."""

from __future__ import annotations

import contextlib
import functools
import gc
import importlib.metadata
import os
import platform
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast
from unittest import mock

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode

import jepa_gym  # noqa: F401  (registers the environments)
from jepa_gym.benchmarks.timing import memory
from jepa_gym.envs.vector import FrankaVectorEnv
from jepa_gym.logs import progress_bar

CONTROL_STEPS_PER_FRAME = 5
"""Stock robosuite at 20 Hz: five control steps are the quarter second of one step of the suite."""
MOVES = np.array([0.3] * 3 + [0.0] * 3 + [1.0], np.float32)
"""Share of the largest action that is drawn; both simulators move about as far."""
VIEW = {"obs_mode": "pixels", "camera": "left", "max_episode_steps": 10**9}
"""One picture a step and no end."""
WARM_UP_RESETS = 50
REACH = "FrankaReach-v0"


def franka_ids() -> list[str]:
    """Return the ids of all Franka tasks."""
    return [env_id for env_id in gym.registry if env_id.startswith("Franka")]


def machine() -> dict[str, Any]:
    """Return what the figures depend on: renderer, cores, load before the run, versions."""
    from jepa_gym.envs.pictures.gl_context import shared_context

    with shared_context().current():
        from OpenGL import GL  # not before: MuJoCo tells it which OpenGL to load

        renderer = cast(bytes, GL.glGetString(GL.GL_RENDERER)).decode()
    return {
        "renderer": renderer,
        "cores": len(_cores()),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "python": platform.python_version(),
        "mujoco": importlib.metadata.version("mujoco"),
    }


def construction() -> dict[str, float]:
    """Return seconds of `gym.make` and first `reset`, for the process's first and second env."""
    start = time.perf_counter()
    import jepa_gym.envs.tasks.reach  # noqa: F401

    times = {"imports_s": time.perf_counter() - start}
    made = []
    for name in ("first_s", "second_s"):
        start = time.perf_counter()
        made.append(gym.make(REACH))
        made[-1].reset(seed=0)
        times[name] = time.perf_counter() - start
    for env in made:
        env.close()
    return times


def frames(size_px: int, count: int) -> dict[str, Any]:
    """Compare the suite with stock robosuite: the same quarter seconds, one picture after each."""
    rows = {
        "stock robosuite": _stock(size_px, max(3, count // 5)),
        "suite, left": _suite("left", size_px, count),
        "suite, left+wrist": _suite("left+wrist", size_px, count),
    }
    base = rows["stock robosuite"]["frames_per_cpu_s"]
    for figures in rows.values():
        figures["ratio_to_stock"] = figures["frames_per_cpu_s"] / base
    return {"image_size": size_px, "rows": rows}


def _measure(step: Callable[[], Any], count: int, name: str) -> dict[str, float]:
    step()
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in progress_bar(range(count), name, unit="frame", leave=False):
        step()
    return {
        "frames_per_s": count / (time.perf_counter() - wall),
        "frames_per_cpu_s": count / (time.process_time() - cpu),
    }


def _reach(camera: str, size_px: int) -> tuple[gym.Env, Callable[[], Any]]:
    """Return `FrankaReach-v0` without end and a function that makes one random move."""
    env = gym.make(REACH, **(VIEW | {"camera": camera, "image_size": size_px}))
    env.reset(seed=0)
    env.action_space.seed(0)
    return env, lambda: env.step(env.action_space.sample() * MOVES)


def _suite(camera: str, size_px: int, count: int) -> dict[str, float]:
    env, step = _reach(camera, size_px)
    figures = _measure(step, count, f"{camera}, {size_px} px")
    env.close()
    return figures


def _stock(size_px: int, count: int) -> dict[str, float]:
    """Measure robosuite's `Lift` with random moves, one frame per quarter second."""
    import robosuite

    env = robosuite.make(
        "Lift",
        robots="Panda",
        has_renderer=False,
        has_offscreen_renderer=True,
        use_camera_obs=False,
        control_freq=20,
        hard_reset=False,
        ignore_done=True,
    )
    env.reset()
    rng = np.random.default_rng(0)

    def step() -> None:
        action = 0.3 * rng.uniform(-1, 1, env.action_dim)
        for _ in range(CONTROL_STEPS_PER_FRAME):
            env.step(action)
        env.sim.render(size_px, size_px, camera_name="agentview")

    figures = _measure(step, count, f"stock robosuite, {size_px} px")
    env.close()
    return figures


def share(count: int) -> dict[str, Any]:
    """Return where a step's milliseconds go, and what bare physics and bare pictures take.

    The parts are timed in place by thin wrappers, not by a profiler, which would charge Python too
    much. The floor is what would remain if kinematics, observation and Python were free.
    """
    import mujoco

    from jepa_gym.envs.physics.arm import Arm
    from jepa_gym.envs.pictures.rendering import FrameRenderer

    spent: dict[str, float] = defaultdict(float)
    places = [
        (mujoco, "mj_step", "physics"),
        (mujoco, "mj_forward", "physics"),
        (Arm, "solve", "inverse kinematics"),
        (FrameRenderer, "render", "pictures"),
    ]
    parts = list(dict.fromkeys(part for *_, part in places))
    env, step = _reach("left", 128)
    step()
    rows = []
    with contextlib.ExitStack() as stack:
        for owner, name, part in places:
            stack.enter_context(mock.patch.object(owner, name, _timed(owner, name, part, spent)))
        for _ in progress_bar(range(count), "share of time", unit="frame", leave=False):
            spent.clear()
            start = time.perf_counter()
            step()
            known = [spent[part] for part in parts]
            rows.append([*known, time.perf_counter() - start - sum(known)])
    # medians: what else the machine does lengthens a few steps, and hits any part of them
    medians = np.median(rows, axis=0) * 1e3
    shares = dict(zip([*parts, "observation and Python"], medians.tolist(), strict=True))
    base: Any = env.unwrapped
    physics: Any = mujoco
    substeps = round(base.step_s / base.model.opt.timestep)
    floor = {
        "bare physics": _milliseconds(lambda: physics.mj_step(base.model, base.data, substeps)),
        "bare picture": _milliseconds(base.frame),
    }
    env.close()
    return {"step_ms": sum(shares.values()), "share_ms": shares, "floor_ms": floor}


def _timed(owner: Any, name: str, part: str, spent: dict[str, float]) -> Callable[..., Any]:
    original = getattr(owner, name)

    def timed(*args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        try:
            return original(*args, **kwargs)
        finally:
            spent[part] += time.perf_counter() - start

    return timed


def _milliseconds(function: Callable[[], Any], repeats: int = 100) -> float:
    """Return the median time of one call."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return float(np.median(times) * 1e3)


def resets(env_id: str, count: int) -> dict[str, float | None]:
    """Return median and 95th percentile of `reset` with pictures, and the memory it leaves.

    `growth_mib` is the resident memory after `count` resets less that after a warm-up; None where
    the system has no `/proc`.
    """
    env = gym.make(env_id)
    for seed in range(WARM_UP_RESETS):
        env.reset(seed=seed)
    before, wall, cpu = _resident_mib(), np.zeros(count), np.zeros(count)
    for seed in progress_bar(range(count), f"{env_id}.reset()", unit="reset", leave=False):
        start = time.perf_counter(), time.process_time()
        env.reset(seed=seed)
        wall[seed], cpu[seed] = time.perf_counter() - start[0], time.process_time() - start[1]
    after = _resident_mib()
    env.close()
    return {
        "median_ms": float(np.median(wall) * 1e3),
        "p95_ms": float(np.quantile(wall, 0.95) * 1e3),
        "median_cpu_ms": float(np.median(cpu) * 1e3),
        "growth_mib": None if before is None or after is None else after - before,
    }


def _resident_mib() -> float | None:
    gc.collect()
    resident = memory().get("VmRSS")
    return None if resident is None else resident / 2**20


def vector(counts: Sequence[int], frames_each: int, rounds: int) -> dict[str, Any]:
    """Return frames per second of one env and of several in processes, on two cores.

    All stand at once and take turns of `frames_each` frames. A ratio is the median over the rounds
    of the ratio within one, so that a machine that gets slower or faster meanwhile moves no ratio.
    The row "2, unsynchronised" is what two processes reach that meet once in a turn only.
    """
    with _two_cores() as cores, contextlib.ExitStack() as stack:
        one = functools.partial(gym.make, REACH, **VIEW)
        many = functools.partial(_ManySteps, REACH, frames_each // 2)
        envs: dict[str, gym.Env | gym.vector.VectorEnv] = {"1, no process": one()}
        envs["2, unsynchronised"] = FrankaVectorEnv([many] * 2, AutoresetMode.NEXT_STEP)
        for count in counts:
            envs[str(count)] = gym.make_vec(REACH, num_envs=count, **VIEW)
            if hasattr(os, "sched_setaffinity"):
                pinned = gym.make_vec(REACH, num_envs=count, pin_cores=True, **VIEW)
                envs[f"{count}, pinned"] = pinned
        for env in envs.values():
            stack.callback(env.close)
            env.reset(seed=0)
            env.action_space.seed(0)
            _rate(env, 3 * getattr(env, "num_envs", 1), 1)
        steps_each = {"2, unsynchronised": frames_each // 2}
        rates = np.array(
            [
                [_rate(env, frames_each, steps_each.get(name, 1)) for name, env in envs.items()]
                for _ in progress_bar(range(rounds), "in processes", unit="round", leave=False)
            ]
        )
    ratios = np.median(rates / rates[:, :1], axis=0)
    rows = {
        name: {"frames_per_s": float(rate), "ratio": float(ratio)}
        for name, rate, ratio in zip(envs, np.median(rates, axis=0), ratios, strict=True)
    }
    return {"cores": cores, "rows": rows}


class _ManySteps(gym.Wrapper):
    """Take `count` random moves a step."""

    def __init__(self, env_id: str, count: int) -> None:
        super().__init__(gym.make(env_id, **VIEW))
        self._count = count

    def step(self, action: np.ndarray):
        for _ in range(self._count - 1):
            self.env.step(self.action_space.sample() * MOVES)
        return self.env.step(action)


def _rate(env: gym.Env | gym.vector.VectorEnv, frames_wanted: int, frames_a_step: int) -> float:
    """Return frames per second of `env` without resets, which the table of resets shows."""
    count = getattr(env, "num_envs", 1) * frames_a_step
    steps = -(-frames_wanted // count)
    start = time.perf_counter()
    for _ in range(steps):
        env.step(env.action_space.sample() * MOVES)
    return steps * count / (time.perf_counter() - start)


def _cores() -> set[int]:
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


@contextlib.contextmanager
def _two_cores() -> Iterator[int]:
    """Keep this process and its children on two cores where the system can; yield their number."""
    before = _cores()
    if not hasattr(os, "sched_setaffinity"):
        yield len(before)
        return
    try:
        os.sched_setaffinity(0, set(sorted(before)[:2]))
        yield min(2, len(before))
    finally:
        os.sched_setaffinity(0, before)
