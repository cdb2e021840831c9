"""What `WorldModel.from_pretrained` reads, from wherever it is."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from jepa_gym.checkpoint import folder as checkpoints
from jepa_gym.checkpoint import vjepa2_ac
from jepa_gym.checkpoint.errors import CheckpointError
from jepa_gym.checkpoint.published_config import hugging_face_config
from jepa_gym.checkpoint.registry import REGISTRY
from jepa_gym.checkpoint.sources import locate
from jepa_gym.config import WorldModelConfig

OFFICIAL_FILE = "vjepa2-ac.pt"
"""Weights of published names in a folder that `export.world_model` wrote."""

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pretrained:
    """What a world model is made of.

    Attributes:
        path: The file or folder of the weights, for messages.
        folder: The folder, where there may be start frames; None for a single file.
        config: The model's configuration.
        tensors: Its state dict.
    """

    path: Path
    folder: Path | None
    config: WorldModelConfig
    tensors: dict[str, Tensor]


def read(
    source: str | Path, encoder: str | Path | None = None, local_files_only: bool = False
) -> Pretrained:
    """Read a world model from wherever it is.

    Args:
        source: As for `WorldModel.from_pretrained`.
        encoder: The same.
        local_files_only: The same.

    Raises:
        FileNotFoundError: When nothing is found.
        CheckpointError: When it cannot be used.
        DownloadError: When a download fails or is not allowed.
    """
    path = locate(source, local_files_only)
    _LOG.debug(f"the world model {source} is {path}")
    folder = path if path.is_dir() else None
    if folder is not None and not (folder / OFFICIAL_FILE).is_file():
        if hugging_face_config(folder):
            raise CheckpointError(
                f"{folder} is a V-JEPA 2 folder of Hugging Face's transformers, which has no "
                "action-conditioned predictor: no world model. Read its encoder with "
                "jepa_gym.checkpoint.published.load(folder, 'encoder') and post-train a predictor"
            )
        return Pretrained(path, folder, *checkpoints.read(folder))
    known = REGISTRY.get(str(source))
    if encoder is None and known is not None:
        encoder = known.encoder
    config, tensors = vjepa2_ac.read(
        path if folder is None else folder / OFFICIAL_FILE,
        None if encoder is None else locate(encoder, local_files_only),
    )
    if folder is not None:
        config = checkpoints.read_config(folder)
    return Pretrained(path, folder, config, tensors)
