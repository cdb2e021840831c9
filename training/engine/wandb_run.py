"""Weights & Biases, for those who want it beside TensorBoard."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

ID_NAME = "wandb_id"


def import_wandb() -> Any:
    """Return the package.

    Raises:
        ImportError: If it is not installed.
    """
    try:
        import wandb
    except ImportError as error:
        raise ImportError(
            '--wandb needs the package wandb: pip install "jepa-gym[wandb]", or leave the flag out '
            "(TensorBoard has the same)"
        ) from error
    return wandb


class WandbRun:
    """A run of Weights & Biases that goes on when the training does."""

    def __init__(self, project: str, folder: Path, settings: Mapping[str, Any]) -> None:
        """Begin it, or go on with the one of this folder.

        Args:
            project: Its project. `WANDB_MODE=offline` keeps everything in the folder.
            folder: The training's folder.
            settings: The training's settings.
        """
        self._wandb, path = import_wandb(), folder / ID_NAME
        if not path.exists():
            path.write_text(secrets.token_hex(4))
        self._run = self._wandb.init(
            project=project,
            name=folder.name,
            id=path.read_text(),
            resume="allow",
            dir=str(folder),
            config=dict(settings),
            settings=self._wandb.Settings(silent=True),
        )

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Add values."""
        self._run.log(dict(values), step=step)

    def draw(self, step: int, pictures: Mapping[str, np.ndarray]) -> None:
        """Add pictures (Y, X, 3) uint8."""
        images = {name: self._wandb.Image(picture) for name, picture in pictures.items()}
        self._run.log(images, step=step)

    def close(self) -> None:
        """End this part of the run."""
        self._run.finish()
