from __future__ import annotations

import json
import os
import signal
import socket
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from jepa_gym.training.data.dataset import split_of, write_index
from jepa_gym.training.data.episodes import Episode, write_episode

SIZE = 16
INDEX = {"cameras": ["left", "wrist"], "image_size": SIZE, "step_s": 0.25, "max_move_m": 0.075}


def make_episode(seed: int, steps: int = 12) -> Episode:
    """A hand that drifts through the workspace and opens and closes; frames show where it is."""
    rng = np.random.default_rng(seed)
    moves = rng.uniform(-0.075, 0.075, (steps, 3))
    moves[0] = rng.uniform(-0.2, 0.2, 3)
    states = np.zeros((steps, 7))
    states[:, :3] = np.cumsum(moves, axis=0)
    states[:, 3:6] = [3.1, 0.0, 0.2]
    states[:, 6] = rng.integers(0, 2, steps)
    frames = np.zeros((steps, SIZE, SIZE, 3), np.uint8)
    frames[:] = (127 + 200 * states[:, None, None, :3]).clip(0, 255)
    frames[states[:, 6] > 0.5, :8] = 255
    return Episode(
        frames={"left": frames, "wrist": frames[:, ::-1].copy()},
        states=states,
        extrinsics={"left": np.zeros((steps, 6)), "wrist": np.zeros((steps, 6))},
        actions=rng.normal(size=(steps - 1, 7)),
        rewards=-np.ones(steps - 1),
        success=np.zeros(steps - 1, bool),
        sim_state=rng.normal(size=(steps, 5)),
        timestamps_s=0.25 * np.arange(steps),
        metadata={"step_s": 0.25, "kind": "random"},
    )


def make_dataset(folder: Path, train: int, validation: int = 0, test: int = 0) -> Path:
    ids = [f"{number:06d}" for number in range(2000)]
    for split, count in (("train", train), ("validation", validation), ("test", test)):
        for name in [i for i in ids if split_of(i) == split][:count]:
            write_episode(folder / "episodes" / name, make_episode(int(name)))
    write_index(folder, INDEX)
    return folder


@pytest.fixture(scope="session")
def dataset_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("data") / "franka", 12, validation=16, test=4)


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def read_log(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def forked(run: Callable[[], object]) -> int:
    """Start a process that runs a function; with one thread each, forking is safe."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of forking
        child = os.fork()
    if child:
        return child
    try:
        run()
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def ended(child: int, patience_s: float = 280.0) -> int:
    """Wait for a process; return its exit status, negative for the signal that ended it."""
    deadline = time.monotonic() + patience_s
    while not (status := os.waitpid(child, os.WNOHANG))[0]:
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGABRT)  # it hangs
        time.sleep(0.01)
    return os.waitstatus_to_exitcode(status[1])


def in_two(monkeypatch: pytest.MonkeyPatch, run: Callable[[], object]) -> list[int]:
    """Run a function in two processes, as torchrun starts them; return their exit statuses."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    settings = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    with monkeypatch.context() as patch:
        for key, value in settings.items():
            patch.setenv(key, value)
        children = []
        for rank in range(2):
            patch.setenv("RANK", str(rank))
            children.append(forked(run))
    return [ended(child) for child in children]
