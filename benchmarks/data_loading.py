"""How long training waits for its clips, and the memory that reading them takes.

`python benchmarks/data_loading.py` records episodes of 1280 x 720 pixels at 15 Hz, as raw DROID has
them, and draws batches from the cache and decoded on the fly, alone and beside a step that computes
on one thread. Then it reads batches of a set of 200 GB, a file with nothing on the disk, and
watches the memory of that process.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch

from jepa_gym.benchmarks.results import Record
from jepa_gym.benchmarks.timing import Measurement, command, memory
from jepa_gym.training.data.clips import ClipArrays, ClipSampler
from jepa_gym.training.data.dataset import Dataset, split_of
from jepa_gym.training.data.episodes import Episode, write_episode
from jepa_gym.training.data.make_index import IndexConfig, make_index

WAITING_BAR = 0.1
RECORDED_S, WINDOW = 1 / 15, 16
LARGE_SHAPE = (16, 128, 256, 3)
"""(T, Y, X, 3) of a window of the large set."""
_READ = "import sys; from jepa_gym.benchmarks import data_loading as d; d.read_large(sys.argv)"


@dataclass(frozen=True)
class LoadingConfig(Measurement):
    """Measure how clips are read."""

    episodes: int = 12
    """Recorded episodes of the training split."""
    seconds: float = 9.0
    """Length of an episode."""
    height: int = 720
    """Of the recorded pictures, pixels; they are 16 : 9."""
    image_size: int = 256
    """Of the pictures in a clip, pixels."""
    frames: int = 8
    """Of a clip."""
    batch_size: int = 8
    """Clips of a batch."""
    batches: int = 12
    """Batches of each measurement."""
    step_s: float = 1.0
    """Seconds that a step computes."""
    readers: tuple[int, ...] = (0, 1, 2)
    """Threads that decode on the fly."""
    large_gb: float = 200.0
    """Size of the large set."""
    large_batches: int = 300
    """Batches of 16 windows that are read of it."""

    QUICK: ClassVar[dict[str, int]] = {
        "episodes": 3, "batches": 3, "height": 180, "rounds": 1, "large_batches": 20,
    }  # fmt: skip
    LEAST: ClassVar[dict[str, float]] = {
        "episodes": 1, "seconds": 4.3, "height": 32, "image_size": 8, "frames": 2, "batch_size": 1,
        "batches": 1, "step_s": 0, "large_gb": 0.01, "large_batches": 1,
    }  # fmt: skip


def record(folder: Path, config: LoadingConfig) -> None:
    """Write episodes whose pictures move, with their index."""
    rows, columns = config.height // 2 * 2, config.height * 16 // 9 // 2 * 2
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (rows // 8 + 1, columns // 8 + 1, 3), dtype=np.uint8)
    picture = coarse.repeat(8, 0).repeat(8, 1)[:rows, :columns]
    count = int(config.seconds / RECORDED_S)
    names = (f"{number:06d}" for number in range(10**6))
    training = (name for name in names if split_of(name) == "train")
    for number, name in zip(range(config.episodes), training, strict=False):
        shifts = 3 * np.arange(count) + 40 * number
        states = np.zeros((count, 7))
        states[:, 0] = 0.3 + 0.01 * np.sin(np.arange(count))
        episode = Episode(
            frames={"left": np.stack([np.roll(picture, shift, 1) for shift in shifts])},
            states=states,
            timestamps_s=RECORDED_S * np.arange(count),
            metadata={"step_s": RECORDED_S},
        )
        write_episode(folder / "episodes" / name, episode)
    make_index(IndexConfig(data=(folder,), image_size=config.image_size, frames=WINDOW, workers=1))


def waiting(sampler: ClipSampler, batches: int, step_s: float) -> dict[str, float]:
    """Draw batches beside a step that computes on one thread.

    Args:
        sampler: Draws the batches.
        batches: How many, after one that is not counted.
        step_s: Seconds that a step computes; 0 draws only.

    Returns:
        `clips_per_s`, and `waiting`, the share of the time that was spent waiting for a batch.
    """
    sampler.batch(0)
    left, began, waited = torch.randn(256, 256), time.perf_counter(), 0.0
    for number in range(1, batches + 1):
        asked = time.perf_counter()
        sampler.batch(number)
        waited += (done := time.perf_counter()) - asked
        while time.perf_counter() - done < step_s:
            left = torch.nn.functional.normalize(left @ left)
    total = time.perf_counter() - began
    return {"clips_per_s": batches * sampler.batch_size / total, "waiting": waited / total}


def read_large(arguments: Sequence[str]) -> None:
    """Read batches of the file in argument 1, as many as argument 2 says; print the memory."""
    frames = np.load(arguments[1], mmap_mode="r")
    count = len(frames)
    states = np.zeros((count, LARGE_SHAPE[0], 7), np.float32)
    arrays = ClipArrays(frames, np.arange(count), ("",) * count, states, states[:, 1:])
    sampler = ClipSampler(arrays, LARGE_SHAPE[0], 16, seed=0)
    sampler.batch(0)
    before, peak = memory()["VmRSS"], 0
    for number in range(1, int(arguments[2]) + 1):
        sampler.batch(number)
        peak = max(peak, memory()["VmRSS"])
    read = int(arguments[2]) * 16 * int(np.prod(LARGE_SHAPE))
    print(json.dumps({"before": before, "growth": peak - before, "read": read}))


def run(config: LoadingConfig) -> Record:
    """Record, measure, print and return the figures."""
    torch.set_num_threads(1)
    found: Record = {"rows": {}}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "set"
        record(folder, config)
        ways: list[tuple[str, int]] = [("cache", 0)]
        ways += [("on-the-fly", count) for count in config.readers]
        for way, readers in ways:
            arrays = Dataset.open(folder, decode=way, readers=readers).load_arrays("train")
            sampler = ClipSampler(arrays, config.frames, config.batch_size, seed=0)
            alone = waiting(sampler, config.batches, 0)
            beside = waiting(sampler, config.batches, config.step_s)
            row = {"clips_per_s": alone["clips_per_s"], "waiting": beside["waiting"]}
            found["rows"][f"{way}, {readers} readers"] = row
            print(
                f"{way:<10} {readers} readers: {row['clips_per_s']:8.1f} clips/s alone, waiting "
                f"{row['waiting']:6.1%} of the time beside steps of {config.step_s:g} s"
            )
        large = Path(name) / "large.npy"
        windows = max(1, int(config.large_gb * 1e9 / np.prod(LARGE_SHAPE)))
        np.lib.format.open_memmap(large, "w+", np.uint8, (windows, *LARGE_SHAPE))
        arguments = [sys.executable, "-c", _READ, str(large), str(config.large_batches)]
        found["large"] = json.loads(subprocess.check_output(arguments, text=True))
    print(
        f"{config.large_gb:g} GB set: {found['large']['read'] / 1e9:.2f} GB were read, resident "
        f"memory grew by {found['large']['growth'] / 1e6:.0f} MB from "
        f"{found['large']['before'] / 1e6:.0f} MB"
    )
    share = found["rows"]["cache, 0 readers"]["waiting"]
    print(f"waiting from the cache {share:.1%}, bar {WAITING_BAR:.0%}: {share <= WAITING_BAR}")
    return found | {"bar": WAITING_BAR, "met": share <= WAITING_BAR}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return 1 if the bar is missed."""
    return command(run, LoadingConfig, arguments)


if __name__ == "__main__":
    sys.exit(main())
