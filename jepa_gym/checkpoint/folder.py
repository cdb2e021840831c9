"""Checkpoint folders: config.json, model.safetensors, README.md and real start frames.

A decoder may stand beside them, see `decoder_files`.

The configuration is also kept inside the weights file, so that a folder with mixed-up files is
noticed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from safetensors.torch import save_file
from torch import Tensor

from jepa_gym.checkpoint.published import load_published
from jepa_gym.checkpoint.weights import SAFETENSORS_FILE as WEIGHTS_FILE
from jepa_gym.checkpoint.weights import CheckpointError, check_tensors, open_weights
from jepa_gym.config import WorldModelConfig

__all__ = ["CheckpointError", "StartFrames", "check_tensors", "load_published"]

CONFIG_FILE = "config.json"
CARD_FILE = "README.md"
STARTS_FILE = "start_frames.npz"
SHIPPED = ("default",)


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
        count = len(self.frames)
        for name in ("frames", "goal_frames"):
            value = getattr(self, name)
            if value.dtype != np.uint8 or value.ndim != 4 or value.shape != self.frames.shape:
                raise CheckpointError(
                    f"`{name}` must be (M, Y, X, 3) uint8, got {value.shape} {value.dtype}"
                )
        for name in ("states", "goal_states"):
            value = getattr(self, name)
            if value.shape != (count, 7) or not np.isfinite(value).all():
                raise CheckpointError(
                    f"`{name}` must be ({count}, 7) finite numbers, got shape {value.shape}"
                )
        if not count:
            raise CheckpointError("start frames must hold at least one start")

    def __len__(self) -> int:
        return len(self.frames)


def resolve(source: str | Path) -> Path:
    """Return the folder of a checkpoint.

    Args:
        source: ``default`` for the shipped one, or a folder.

    Raises:
        FileNotFoundError: When there is no such folder.
    """
    shipped = str(source) in SHIPPED
    folder = Path(__file__).parents[1] / "assets" / str(source) if shipped else Path(source)
    if not folder.is_dir():
        raise FileNotFoundError(
            f"no checkpoint folder at {folder}; give one of {SHIPPED} or a folder that holds "
            f"{CONFIG_FILE} and {WEIGHTS_FILE}"
        )
    return folder


def write(
    folder: Path, config: WorldModelConfig, tensors: dict[str, Tensor], card: dict[str, Any]
) -> None:
    """Write a checkpoint; each file appears complete or not at all.

    Args:
        folder: Created when missing; other files in it stay.
        config: The model's configuration.
        tensors: Its state dict.
        card: What the model card tells.
    """
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(config.to_dict(), indent=2) + "\n"
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    metadata = {"format": "pt", "config": text}
    replace_file(folder / WEIGHTS_FILE, lambda path: save_file(tensors, path, metadata=metadata))
    replace_file(folder / CONFIG_FILE, lambda path: path.write_text(text))
    replace_file(
        folder / CARD_FILE, lambda path: path.write_text(render_card(config, tensors, card))
    )


def read(folder: Path) -> tuple[WorldModelConfig, dict[str, Tensor]]:
    """Read configuration and weights.

    Raises:
        FileNotFoundError: When a file is missing.
        CheckpointError: When one is damaged or they do not belong together.
    """
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        if not (folder / name).is_file():
            raise FileNotFoundError(
                f"checkpoint {folder} has no {name}; give 'default' for the shipped model, or a "
                f"folder with {CONFIG_FILE} and {WEIGHTS_FILE} as `save_pretrained` writes it"
            )
    config, values = read_config(folder)
    weights = open_weights(folder / WEIGHTS_FILE)
    if "config" in weights.metadata and json.loads(weights.metadata["config"]) != values:
        raise CheckpointError(
            f"{WEIGHTS_FILE} and {CONFIG_FILE} in {folder} belong to different models; "
            "restore both from the same save"
        )
    return config, weights.copy(weights.sizes)


def read_config(folder: Path) -> tuple[WorldModelConfig, dict[str, Any]]:
    """Read config.json: the configuration, and the same as plain JSON types.

    Raises:
        FileNotFoundError: When there is none.
        CheckpointError: When it is damaged or none of ours.
    """
    try:
        values = json.loads((folder / CONFIG_FILE).read_text())
        return WorldModelConfig.from_dict(values), values
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"{folder / CONFIG_FILE} cannot be used: {error}") from error


def write_starts(folder: Path, starts: StartFrames) -> None:
    """Write the start frames of a checkpoint."""
    arrays = {item.name: getattr(starts, item.name) for item in fields(starts)}

    def save(path: Path) -> None:
        with path.open("wb") as file:
            np.savez_compressed(file, **arrays, split="held-out")

    folder.mkdir(parents=True, exist_ok=True)
    replace_file(folder / STARTS_FILE, save)


def read_starts(folder: Path) -> StartFrames:
    """Read the start frames of a checkpoint.

    Raises:
        FileNotFoundError: When the checkpoint has none.
        CheckpointError: When they are damaged.
    """
    path = folder / STARTS_FILE
    if not path.is_file():
        raise FileNotFoundError(
            f"checkpoint {folder} has no {STARTS_FILE}, from which latent episodes start"
        )
    try:
        with path.open("rb") as raw, np.load(raw) as file:
            return StartFrames(**{item.name: file[item.name] for item in fields(StartFrames)})
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise CheckpointError(f"{path} cannot be used: {error}") from error


def render_card(config: WorldModelConfig, tensors: dict[str, Tensor], card: dict[str, Any]) -> str:
    """Return the model card as Markdown."""
    parameters = sum(x.numel() for name, x in tensors.items() if "running_" not in name)
    facts = {
        "parameters": f"{parameters:,}",
        "encoder": f"{config.encoder.kind} {config.encoder.name}".rstrip(),
        "tokens per frame": config.num_tokens,
        "frame": f"{config.frame.height}x{config.frame.width}, {' + '.join(config.frame.cameras)}",
        "step, seconds": config.frame.step_s,
    }
    lines = ["# jepa-gym world model", "", *_items(facts), "", "## Training", "", *_items(card)]
    return "\n".join(lines) + "\n"


def _items(values: dict[str, Any], indent: str = "") -> list[str]:
    lines = []
    for key, value in values.items():
        if isinstance(value, dict):
            lines += [f"{indent}- **{key}**", *_items(value, indent + "  ")]
        else:
            lines.append(f"{indent}- **{key}**: {value}")
    return lines


def replace_file(path: Path, save: Callable[[Path], Any]) -> None:
    """Let `save` write a temporary file beside `path`, then rename it to `path`."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        save(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
