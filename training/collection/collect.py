"""Record episodes in the simulator: `jepa-gym collect --output data/franka`.

Episode number n is decided by seed n alone, so a collection that was interrupted goes on where it
stopped and ends with the same dataset, however many processes did the work.
"""

from __future__ import annotations

import multiprocessing
import os
import platform
import signal
from dataclasses import asdict, dataclass
from pathlib import Path

import mujoco
import numpy as np
import tyro
from scipy.spatial.transform import Rotation
from tqdm import tqdm

import jepa_gym
from jepa_gym.envs.physics.robosuite_assets import robosuite_version
from jepa_gym.envs.pictures.rendering import parse_cameras
from jepa_gym.training.collection.explorers import KINDS, ExplorationEnv, start_episode
from jepa_gym.training.data.dataset import write_index
from jepa_gym.training.data.episodes import Episode, write_episode

FIRST_HELD_OUT_SEED = 1_000_000
"""Seeds from here on belong to evaluation; training data never uses them."""
CHUNK = 8


@dataclass(frozen=True, slots=True)
class CollectConfig:
    """Record a dataset of short exploration episodes; run it again to resume or to add episodes."""

    output: Path
    """Folder of the dataset."""
    episodes: int = 5000
    """Number of episodes the dataset shall hold."""
    steps: int = 15
    """Moves per episode; an episode has one frame more."""
    objects: tuple[str, ...] = ("box", "cup")
    """Objects, taken in turn."""
    camera: str = "left+wrist"
    """Camera names joined by +."""
    image_size: int = 128
    """Height and width in pixels of one camera's picture."""
    step_s: float = 0.25
    """Simulated seconds per move."""
    max_move_m: float = 0.075
    """Largest move per axis."""
    seed: int = 0
    """Seed of the first episode."""
    workers: int = max(1, os.cpu_count() or 1)
    """Processes."""

    def __post_init__(self) -> None:
        """Check ranges."""
        if self.episodes < 1 or self.steps < 1 or self.workers < 1:
            raise ValueError("`episodes`, `steps` and `workers` must be at least 1")
        if not self.objects:
            raise ValueError("`objects` must name at least one object")
        if self.seed < 0 or self.seed + self.episodes > FIRST_HELD_OUT_SEED:
            raise ValueError(
                f"episode seeds {self.seed} to {self.seed + self.episodes - 1} must lie in "
                f"[0, {FIRST_HELD_OUT_SEED}): later seeds are kept for evaluation"
            )


def record_episode(env: ExplorationEnv, seed: int, steps: int) -> Episode:
    """Play and return one episode of `steps` moves (T = steps + 1 frames) from `seed`."""
    kind, policy = start_episode(env, seed)
    frames, states, physics, cameras = [], [], [], []
    actions, rewards, success = [], [], []

    def observe() -> None:
        frames.append(env.render())
        states.append(env.arm.state())
        physics.append(env.get_state()["physics"])
        cameras.append([_camera_pose(env, name) for name in env.cameras])

    observe()
    for step in range(steps):
        action = np.clip(policy(step), env.action_space.low, env.action_space.high)
        _, reward, _, _, info = env.step(action)
        actions.append(action)
        rewards.append(reward)
        success.append(info["is_success"])
        observe()
    tiled = np.stack(frames).reshape(steps + 1, env.image_size[0], len(env.cameras), -1, 3)
    return Episode(
        frames={name: tiled[:, :, index] for index, name in enumerate(env.cameras)},
        states=np.stack(states),
        extrinsics={
            name: np.stack([poses[index] for poses in cameras])
            for index, name in enumerate(env.cameras)
        },
        actions=np.stack(actions),
        rewards=np.array(rewards),
        success=np.array(success),
        sim_state=np.stack(physics),
        timestamps_s=np.arange(steps + 1) * env.step_s,
        metadata={"step_s": env.step_s, "kind": kind, "object": env.obj, "seed": seed},
    )


def _camera_pose(env: ExplorationEnv, name: str) -> np.ndarray:
    """Return the camera's pose (6,): position (m) and extrinsic xyz angles (rad), base frame."""
    camera = env.data.camera(name)
    angles = Rotation.from_matrix(camera.xmat.reshape(3, 3)).as_euler("xyz")
    return np.concatenate([camera.xpos, angles])


def _record_chunk(job: tuple[CollectConfig, str, tuple[int, ...]]) -> int:
    config, obj, seeds = job
    env = ExplorationEnv(obj, config.camera, config.image_size, config.step_s, config.max_move_m)
    try:
        for seed in seeds:
            write_episode(_folder(config, seed), record_episode(env, seed, config.steps))
    finally:
        env.close()
    return len(seeds)


def _folder(config: CollectConfig, seed: int) -> Path:
    return config.output / "episodes" / f"{seed:06d}"


def _ignore_interrupt() -> None:
    """Leave Ctrl-C to the parent, which ends the pool; a half-written episode is never kept."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _open_jobs(config: CollectConfig) -> list[tuple[CollectConfig, str, tuple[int, ...]]]:
    open_seeds: dict[str, list[int]] = {}
    for seed in range(config.seed, config.seed + config.episodes):
        if not _folder(config, seed).exists():
            open_seeds.setdefault(config.objects[seed % len(config.objects)], []).append(seed)
    return [
        (config, obj, tuple(seeds[start : start + CHUNK]))
        for obj, seeds in open_seeds.items()
        for start in range(0, len(seeds), CHUNK)
    ]


def collect(config: CollectConfig) -> dict:
    """Record all missing episodes and write `dataset.json`.

    Returns:
        The content of `dataset.json`.

    Raises:
        KeyboardInterrupt: On Ctrl-C; finished episodes are kept, the same command goes on.
    """
    cameras = parse_cameras(config.camera)
    (config.output / "episodes").mkdir(parents=True, exist_ok=True)
    for left_over in (config.output / "episodes").glob(".*.tmp"):
        _remove(left_over)
    jobs = _open_jobs(config)
    done = config.episodes - sum(len(seeds) for _, _, seeds in jobs)
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "LP_NUM_THREADS"):
        os.environ.setdefault(variable, "1")  # one thread per process: they share the cores
    context = multiprocessing.get_context("spawn")
    with (
        tqdm(total=config.episodes, initial=done, unit="episode", desc="collect") as bar,
        context.Pool(config.workers, _ignore_interrupt) as pool,
    ):
        try:
            for count in pool.imap_unordered(_record_chunk, jobs):
                bar.update(count)
        except KeyboardInterrupt:
            pool.terminate()
            print(f"\nInterrupted. Finished episodes are kept in {config.output}; run it again.")
            raise
    return write_index(config.output, _description(config, cameras))


def _remove(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    folder.rmdir()


def _description(config: CollectConfig, cameras: tuple[str, ...]) -> dict:
    settings = asdict(config) | {"output": config.output.name, "objects": list(config.objects)}
    del settings["workers"]
    return {
        "cameras": list(cameras),
        "image_size": config.image_size,
        "step_s": config.step_s,
        "max_move_m": config.max_move_m,
        "units": {
            "state": "x y z (m, robot base), roll pitch yaw (rad, extrinsic xyz), closedness 0-1",
            "action": "dx dy dz (m, base), Euler xyz of R(t+1) R(t)^T (rad), change of closedness",
            "time": "s",
        },
        "kinds": KINDS,
        "settings": settings,
        "versions": {
            "jepa_gym": jepa_gym.__version__,
            "mujoco": mujoco.__version__,
            "robosuite": robosuite_version(),
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
    }


def main() -> int:
    """Run the command line."""
    try:
        index = collect(tyro.cli(CollectConfig, description=CollectConfig.__doc__))
    except KeyboardInterrupt:
        return 130
    print(f"{index['settings']['episodes']} episodes, content hash {index['content_hash'][:16]}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
