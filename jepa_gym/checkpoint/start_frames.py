"""Start frames of a checkpoint: held-out real frames from which latent episodes start."""

from __future__ import annotations

import io
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from jepa_gym.checkpoint.errors import CheckpointError
from jepa_gym.files import atomic_write
from jepa_gym.states import unit_problem

STARTS_FILE = "start_frames.npz"


@dataclass(frozen=True)
class StartFrames:
    """Held-out real frames a latent episode starts from.

    Attributes:
        frames: (M, Y, X, 3) uint8.
        states: (M, 7) float32.
        goal_frames: (M, Y, X, 3) uint8.
        goal_states: (M, 7) float32.
    """

    frames: np.ndarray
    states: np.ndarray
    goal_frames: np.ndarray
    goal_states: np.ndarray

    def __post_init__(self) -> None:
        count = len(self.frames) if self.frames.ndim else 0
        for name in ("frames", "goal_frames"):
            value = getattr(self, name)
            if value.dtype != np.uint8 or value.ndim != 4 or value.shape != self.frames.shape:
                raise CheckpointError(
                    f"`{name}` must be (M, Y, X, 3) uint8, got {value.shape} {value.dtype}"
                )
        for name in ("states", "goal_states"):
            value = getattr(self, name)
            numbers = np.issubdtype(value.dtype, np.floating) and np.isfinite(value).all()
            if value.shape != (count, 7) or not numbers:
                raise CheckpointError(
                    f"`{name}` must be ({count}, 7) finite numbers, got shape {value.shape} "
                    f"{value.dtype}"
                )
            problem = unit_problem(value) if count else "there must be at least one start"
            if problem is not None:
                raise CheckpointError(f"`{name}`: {problem}")

    def __len__(self) -> int:
        return len(self.frames)


def write_starts(folder: str | Path, starts: StartFrames) -> None:
    """Write the start frames of a checkpoint, complete or not at all."""
    arrays = {item.name: getattr(starts, item.name) for item in fields(starts)}
    archive = io.BytesIO()  # numpy leaves a file that it could not write half open
    np.savez_compressed(archive, **arrays, split=np.array("held-out"))
    with atomic_write(Path(folder) / STARTS_FILE) as temporary:
        temporary.write_bytes(archive.getbuffer())


def read_starts(folder: str | Path) -> StartFrames:
    """Read the start frames of a checkpoint.

    Raises:
        FileNotFoundError: When the checkpoint has none.
        CheckpointError: When they are damaged.
    """
    path = Path(folder) / STARTS_FILE
    if not path.is_file():
        raise FileNotFoundError(
            f"checkpoint {folder} has no {STARTS_FILE}, from which latent episodes start"
        )
    try:
        with path.open("rb") as raw, np.load(raw) as file:
            return StartFrames(**{item.name: file[item.name] for item in fields(StartFrames)})
    except Exception as error:  # damaged archives make numpy, zipfile and tokenize raise anything
        raise CheckpointError(
            f"{path} is damaged ({' '.join(str(error).split())[:200]}); delete it and copy it "
            "again from where the checkpoint is from, or write it anew with write_starts"
        ) from None
