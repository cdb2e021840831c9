"""Checkpoint folders: config.json, model.safetensors and README.md.

Start frames and networks on the latents may stand beside them, see `start_frames` and `beside`.

The weights file holds the configuration, too. So a folder with mixed-up files is noticed, and one
without config.json, as a save that was killed leaves it, can be read.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import Tensor

from jepa_gym.checkpoint.errors import CheckpointError
from jepa_gym.checkpoint.safetensors_file import DIGEST_KEY, METADATA_KEY, write_safetensors
from jepa_gym.checkpoint.weights import SAFETENSORS_FILE, open_weights
from jepa_gym.config import WorldModelConfig
from jepa_gym.files import atomic_write

CONFIG_FILE = "config.json"
CARD_FILE = "README.md"
_METADATA = {"format", "config", DIGEST_KEY, METADATA_KEY}
_EARLIER_NAME = ("encoder.spread.", "encoder.output_norm.")
"""Beginning of names of tensors in files of earlier versions, and today."""


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
    text = json.dumps(config.to_dict(), indent=2) + "\n"
    (folder / CONFIG_FILE).unlink(missing_ok=True)  # that of other weights
    write_safetensors(folder / SAFETENSORS_FILE, tensors, {"config": text})
    with atomic_write(folder / CONFIG_FILE) as temporary:
        temporary.write_text(text)
    with atomic_write(folder / CARD_FILE) as temporary:
        temporary.write_text(render_card(config, tensors, card))


def read(folder: Path) -> tuple[WorldModelConfig, dict[str, Tensor]]:
    """Read configuration and weights.

    Raises:
        FileNotFoundError: When a file is missing.
        CheckpointError: When one is damaged or they do not belong together.
    """
    _require(folder, SAFETENSORS_FILE)
    weights = open_weights(folder / SAFETENSORS_FILE)
    own = weights.metadata.get("config")
    if own is None or (folder / CONFIG_FILE).is_file():
        config = read_config(folder)
    else:
        config = _parsed(own, weights.path)
    unknown = sorted(weights.metadata.keys() - _METADATA)
    if unknown:
        raise CheckpointError(
            f"{weights.path} is damaged, or written by another version of jepa-gym: its metadata "
            f"have the unknown keys {unknown}; copy or download it again"
        )
    if own is not None and _parsed(own, weights.path) != config:
        raise CheckpointError(
            f"{SAFETENSORS_FILE} and {CONFIG_FILE} in {folder} belong to different models; "
            f"restore both from the same save, or delete {CONFIG_FILE}: the weights hold their own"
        )
    tensors = weights.copy(weights.sizes)
    return config, {name.replace(*_EARLIER_NAME): x for name, x in tensors.items()}


def read_config(folder: Path) -> WorldModelConfig:
    """Read config.json.

    Raises:
        FileNotFoundError: When there is none.
        CheckpointError: When it is damaged or none of ours.
    """
    _require(folder, CONFIG_FILE)
    return _parsed((folder / CONFIG_FILE).read_bytes(), folder / CONFIG_FILE)


def _require(folder: Path, name: str) -> None:
    if not (folder / name).is_file():
        raise FileNotFoundError(
            f"checkpoint {folder} has no {name}; give 'default' for the shipped model, or a "
            f"folder with {CONFIG_FILE} and {SAFETENSORS_FILE} as `save_pretrained` writes it"
        )


def _parsed(text: str | bytes, path: Path) -> WorldModelConfig:
    try:
        return WorldModelConfig.from_dict(json.loads(text))
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(
            f"{path} cannot be used: {' '.join(str(error).split())}; restore it from where the "
            "checkpoint is from"
        ) from None


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
