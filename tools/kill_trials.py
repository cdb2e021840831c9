"""Kill commands at random moments, start them again, and compare with a run that was left alone.

`python tools/kill_trials.py` runs every command that records, trains or measures once to its end,
and once more with SIGKILL and SIGTERM in turn at random moments, each time started again at once.
What both leave must be the same, SIGTERM must end with status 143, and nobody may see a traceback.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jepa_gym.commands import TERMINATED, run_command

CLI = (sys.executable, "-m", "jepa_gym.cli")
REPOSITORY = Path(__file__).resolve().parents[1]
STEPS = ("--steps", "60", "--save-every", "10", "--eval-every", "20", "--log-every", "1")
STEPS += ("--batch-size", "4", "--threads", "1")
SECONDS = 900.0
"""A single start may take this long."""


@dataclass(frozen=True)
class Config:
    """Kill commands at random moments and compare what they leave with an uninterrupted run."""

    folder: Path
    """Where everything is written; a folder of its own."""
    only: tuple[str, ...] = ()
    """Names of the commands to try; by default all."""
    kills: int = 10
    """Signals sent to each command."""
    seed: int = 0
    """Decides the moments."""


@dataclass(frozen=True)
class Trial:
    """One command, and what of its output must not depend on being killed."""

    words: tuple[str, ...]
    """The command; `{out}` is its output, `{data}` a dataset, `{encoder}` a pre-trained encoder."""
    essence: Callable[[Path], Any]
    """Reads what is compared from the output."""


def episodes(folder: Path) -> dict[str, str]:
    """Return the digests of a dataset's files, without its cache."""
    files = [path for path in folder.rglob("*") if path.is_file() and "cache" not in path.parts]
    # files.json remembers when files were written, so that they need not be read again
    kept = [f for f in files if f.suffix in (".mp4", ".h5", ".json") and f.name != "files.json"]
    return {
        str(path.relative_to(folder)): hashlib.sha256(_timeless(path)).hexdigest()
        for path in sorted(kept)
    }


def _timeless(path: Path) -> bytes:
    """Return a file's bytes; a dataset's index without the name of its folder."""
    if path.name != "dataset.json":
        return path.read_bytes()
    index = json.loads(path.read_text())
    index.get("settings", {}).pop("output", None)
    return json.dumps(index, sort_keys=True).encode()


def run_folder(folder: Path) -> dict[str, Any]:
    """Return a training run's weights and its log without times."""
    weights = {
        path.name: hashlib.sha256(_tensors(path)).hexdigest()
        for path in sorted(folder.glob("*.safetensors"))
    }
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return {"weights": weights, "log": [_without_times(line) for line in lines]}


def _tensors(path: Path) -> bytes:
    """Return the bytes of a safetensors file after its header, whose configuration may differ."""
    content = path.read_bytes()
    return content[8 + int.from_bytes(content[:8], "little") :]


def policy(path: Path) -> str:
    """Return the digest of a policy's weights."""
    files = sorted(path.parent.glob(f"{path.stem}*.safetensors"))
    return hashlib.sha256(b"".join(_tensors(file) for file in files)).hexdigest()


def table(folder: Path) -> list[Any]:
    """Return a benchmark's records without times, sorted."""
    lines = [line for path in folder.glob("*.jsonl") for line in path.read_text().splitlines()]
    records = [_without_times(json.loads(line)) for line in lines]
    return sorted(records, key=lambda record: json.dumps(record, sort_keys=True))


def _without_times(record: dict[str, Any]) -> dict[str, Any]:
    words = ("second", "minute", "time", "_s", "rate_hz", "per_s", "throughput", "wall")
    return {
        key: value
        for key, value in record.items()
        if not any(key.endswith(word) or word in key.split("_") for word in words)
        and "second" not in key
        and "minute" not in key
    }


def trials() -> dict[str, Trial]:
    """Return every command that writes for longer than a moment, at a small size."""
    train = ("--data", "{data}", "--output", "{out}", *STEPS)
    bench = ("--output", "{out}", "--episodes")
    small = ("--tasks", "reach", "pick-place", "--agents", "mpc-cem", "scripted", "--no-videos")
    scripts = REPOSITORY / "benchmarks"
    main_job, experts = str(scripts / "reach_grasp.py"), str(scripts / "experts.py")
    curve = str(scripts / "planner_curve.py")
    return {
        "collect": Trial((*CLI, "collect", "--output", "{out}", "--episodes", "60"), episodes),
        "convert": Trial(
            (*CLI, "convert", "{data}", "{out}", "--image-size", "64", "--frames", "4"), episodes
        ),
        "joint": Trial((*CLI, "joint", *train), run_folder),
        "pretrain": Trial((*CLI, "pretrain", *train), run_folder),
        "posttrain": Trial((*CLI, "posttrain", "--encoder", "{encoder}", *train), run_folder),
        "decode": Trial((*CLI, "decode", "--checkpoint", "default", *train), run_folder),
        "train-rl": Trial(
            (*CLI, "train-rl", "--output", "{out}/policy.safetensors", "--steps", "600"),
            lambda folder: policy(folder / "policy.safetensors"),
        ),
        "reach-grasp": Trial((sys.executable, main_job, *bench, "6", *small), table),
        "experts": Trial((sys.executable, experts, *bench, "3"), table),
        "planner-curve": Trial(
            (sys.executable, curve, *bench, "2", "--paper-episodes", "1", "--planners", "cem"),
            table,
        ),
        "camera-sweep": Trial((*CLI, "camera-sweep", "--output", "{out}", "--quick"), table),
    }


def prepare(folder: Path) -> None:
    """Record the dataset and pre-train the encoder that trainings start from, once."""
    folder.mkdir(parents=True, exist_ok=True)
    data, encoder = str(folder / "data"), str(folder / "encoder")
    for words in (
        ("collect", "--output", data, "--episodes", "200"),
        # few tokens: the landscape that chooses a checkpoint is searched for every one of them
        ("pretrain", "--data", data, "--output", encoder, *STEPS, "--encoder.patch-size", "32"),
    ):
        subprocess.run([*CLI, *words], check=True, stderr=subprocess.DEVNULL)


def main_run(config: Config) -> int:
    """Try the commands and print a line for each; the status is 1 if one of them failed."""
    every = trials()
    names = config.only or tuple(every)
    if unknown := set(names) - set(every):
        raise ValueError(f"`--only` must be among {sorted(every)}, got {sorted(unknown)}")
    prepare(config.folder)
    failed = 0
    for name in names:
        try:
            print(f"{name}: {try_one(name, every[name], config)}", flush=True)
        except RuntimeError as error:
            failed += 1
            print(f"{name}: FAILED: {error}", flush=True)
    return int(failed > 0)


def try_one(name: str, trial: Trial, config: Config) -> str:
    """Run one command alone and with kills.

    Returns:
        What was seen, for a table.

    Raises:
        RuntimeError: If a start crashed, or the outputs differ.
    """
    moments = random.Random(f"{config.seed} {name}")
    alone, killed = config.folder / f"{name}-alone", config.folder / f"{name}-killed"
    for folder in (alone, killed):
        shutil.rmtree(folder, ignore_errors=True)
    began = time.monotonic()
    _start(trial, alone, config, None, None)
    duration = time.monotonic() - began
    sent = finished = 0
    while sent < config.kills:
        number = signal.SIGKILL if sent % 2 == 0 else signal.SIGTERM
        if _start(trial, killed, config, number, moments.uniform(0.3, max(1.0, 0.6 * duration))):
            sent += 1
            continue
        finished += 1  # it came to its end before the signal: begin again
        _compare(name, trial, alone, killed)
        shutil.rmtree(killed)
    _start(trial, killed, config, None, None)
    _compare(name, trial, alone, killed)
    return f"{sent} kills, {finished + 1} runs came to their end, all equal ({duration:.0f} s each)"


def _start(
    trial: Trial, out: Path, config: Config, number: signal.Signals | None, after_s: float | None
) -> bool:
    """Start the command; return whether it was killed before its end."""
    places = {name: str(config.folder / name) for name in ("data", "encoder")} | {"out": str(out)}
    words = [word.format(**places) for word in trial.words]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env
    )
    try:
        text, _ = process.communicate(timeout=SECONDS if after_s is None else after_s)
    except subprocess.TimeoutExpired:
        if number is None:
            process.kill()
            raise RuntimeError(f"{' '.join(words)} did not end in {SECONDS:.0f} s") from None
        process.send_signal(number)
        text, _ = process.communicate(timeout=60)
        expected = (-signal.SIGKILL,) if number == signal.SIGKILL else (TERMINATED, -signal.SIGTERM)
        if process.returncode not in (*expected, 0) or "Traceback" in text:
            raise RuntimeError(
                f"status {process.returncode} after {number.name}; it said: {text[-2000:]}"
            ) from None
        return process.returncode != 0
    if process.returncode or "Traceback" in text:
        raise RuntimeError(f"status {process.returncode} without a signal: {text[-2000:]}")
    return False


def _compare(name: str, trial: Trial, alone: Path, killed: Path) -> None:
    first, second = trial.essence(alone), trial.essence(killed)
    if not first:
        raise RuntimeError(f"nothing to compare was found in {alone}")
    if first != second:
        raise RuntimeError(f"{name} left something else after kills: compare {alone} and {killed}")


def main() -> int:
    """Run the command line."""
    return run_command(main_run, Config)


if __name__ == "__main__":
    sys.exit(main())
