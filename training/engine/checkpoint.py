"""The resumable state of a run: one file that appears complete or not at all.

::

    RUN/checkpoints/step-000001200.safetensors    tensors, and in the metadata everything else

A file holds the latest and the best weights, the optimiser's moments, the losses summed since the
last line of the log, progress, plan, settings, and the length of the log at that moment, so that
none of them can disagree with another. Random states are not needed: everything random follows from
the seed and the step.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from torch import Tensor, nn

from jepa_gym.checkpoint.errors import CheckpointError
from jepa_gym.checkpoint.safetensors_file import read_safetensors, write_safetensors
from jepa_gym.training.engine.sharding import shared_like

FOLDER_NAME = "checkpoints"
LOCK_NAME = ".lock"
_NAME = re.compile(r"step-(\d{9})\.safetensors")
FORMAT = 1


class DamagedStateError(ValueError):
    """A checkpoint cannot be read."""


class Checkpoints:
    """The checkpoints of one run."""

    def __init__(self, run: Path, keep: int) -> None:
        """Use the checkpoints in a run's folder.

        Args:
            run: The run's folder; nothing is written before the first `save`.
            keep: Newest checkpoints to keep.
        """
        self.folder, self.keep = run / FOLDER_NAME, keep
        self._lock = FileLock(run / LOCK_NAME, timeout=0)

    def lock(self) -> None:
        """Claim the run's folder for this process, and remove what dead ones left unfinished.

        Raises:
            ValueError: If another living process trains in this folder.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire()
        except Timeout as error:
            raise ValueError(
                f"{self.folder.parent} is being trained in by another process: wait for it, or "
                "choose another --output"
            ) from error
        for path in self.folder.iterdir():
            if _NAME.fullmatch(path.name) is None:
                path.unlink()

    def unlock(self) -> None:
        """Give the run's folder free."""
        self._lock.release()

    def paths(self) -> list[Path]:
        """List the checkpoints, oldest first."""
        found = self.folder.iterdir() if self.folder.is_dir() else ()
        return sorted(path for path in found if _NAME.fullmatch(path.name))

    def save(self, step: int, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> Path:
        """Write a checkpoint and remove those that are too old.

        Args:
            step: Steps taken.
            tensors: By name.
            facts: JSON types.

        Returns:
            The file.
        """
        path = self.folder / f"step-{step:09d}.safetensors"
        text = json.dumps({"format": FORMAT, **facts}, sort_keys=True)
        write_safetensors(path, tensors, {"facts": text})
        for old in self.paths()[: -self.keep]:
            old.unlink()
        return path

    def load(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Read the newest checkpoint; None where there is none.

        Returns:
            Its tensors, on the CPU, and its facts.

        Raises:
            DamagedStateError: If it cannot be read, or its content is not what was written.
        """
        paths = self.paths()
        if not paths:
            return None
        then = f"the run then goes on from {paths[-2].name}" if paths[1:] else "start again"
        return read_checkpoint(paths[-1], f"delete it ({then})")


def read_checkpoint(path: Path, advice: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read one checkpoint.

    Args:
        path: The file.
        advice: What to do if it is damaged.

    Returns:
        Its tensors, on the CPU, and its facts.

    Raises:
        DamagedStateError: If it cannot be read, or its content is not what was written.
    """
    try:
        tensors, metadata = read_safetensors(path)
        facts = json.loads(metadata["facts"])
    except (CheckpointError, KeyError, ValueError) as error:
        raise DamagedStateError(f"{path} is damaged ({error}): {advice}") from error
    if facts["format"] != FORMAT:
        raise DamagedStateError(
            f"{path} was written by another version of jepa-gym (format {facts['format']}, here "
            f"{FORMAT}): finish the run there, or delete {path.parent}"
        )
    return tensors, facts


def part_of(tensors: Mapping[str, Tensor], kind: str) -> dict[str, Tensor]:
    """Return one part of a checkpoint's tensors: `module`, `best` or `optimizer`, by its names."""
    start = f"{kind}."
    return {name.removeprefix(start): x for name, x in tensors.items() if name.startswith(start)}


def optimizer_tensors(optimizer: torch.optim.Optimizer, module: nn.Module) -> dict[str, Tensor]:
    """Return an optimiser's state by the names of the parameters: `exp_avg.encoder.norm.bias`."""
    return {
        f"{key}.{name}": value
        for name, parameter in module.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def load_optimizer(
    optimizer: torch.optim.Optimizer, module: nn.Module, tensors: Mapping[str, Tensor]
) -> None:
    """Put back what `optimizer_tensors` returned."""
    parameters = dict(module.named_parameters())
    for full, value in tensors.items():
        key, _, name = full.partition(".")
        parameter = parameters[name]
        # In memory of its own and laid out as the parameter: a view of the file, aligned otherwise,
        # may round otherwise.
        if value.ndim:
            own = torch.empty_like(parameter).copy_(shared_like(value, parameter))
        else:
            own = value.clone()
        optimizer.state[parameter][key] = own.to(parameter.device)
