"""The file of a frame decoder: decoder.safetensors, in the folder of the model it belongs to.

A decoder draws the latents of one encoder. It would draw something from those of any other of the
same sizes as well, so its file holds a hash of the encoder, and is refused beside another one.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch

from jepa_gym.checkpoint.errors import CheckpointError
from jepa_gym.checkpoint.fill import fill
from jepa_gym.checkpoint.safetensors_file import write_safetensors
from jepa_gym.checkpoint.weights import open_weights
from jepa_gym.config import check_size
from jepa_gym.models import FrameDecoder
from jepa_gym.world_model import WorldModel

DECODER_FILE = "decoder.safetensors"


def encoder_hash(model: WorldModel) -> str:
    """Hash what decides a model's latents: grid and weights of its encoder.

    Returns:
        SHA-256 as hexadecimal digits; the same on every device.
    """
    config = model.config  # the digest stands for the weights of a foreign encoder
    total = hashlib.sha256(f"{config.grid} {config.encoder.digest}".encode())
    for name, tensor in sorted(model.encoder.state_dict().items()):
        total.update(f"{name} {tuple(tensor.shape)}".encode())
        total.update(tensor.contiguous().flatten().view(torch.uint8).cpu().numpy())
    return total.hexdigest()


def write_decoder(
    folder: str | Path, decoder: FrameDecoder, model: WorldModel, card: dict[str, Any]
) -> Path:
    """Write decoder.safetensors; it appears complete or not at all.

    Args:
        folder: Created when missing; in that of the model's checkpoint it is found by itself.
        decoder: Trained on the model's latents.
        model: The model.
        card: What is told about the training (JSON types).

    Returns:
        The path of the file.
    """
    path = Path(folder) / DECODER_FILE
    metadata = {
        "sizes": json.dumps(decoder.sizes),
        "encoder": encoder_hash(model),
        "card": json.dumps(card),
    }
    write_safetensors(path, decoder.state_dict(), metadata)
    return path


def read_decoder(folder: str | Path, model: WorldModel) -> FrameDecoder:
    """Read a model's decoder, in eval mode and on the model's device.

    Args:
        folder: Holds decoder.safetensors.
        model: The model whose latents are to be drawn.

    Raises:
        FileNotFoundError: When there is no decoder.
        CheckpointError: When it is damaged, no decoder, or of another model.
    """
    path = Path(folder) / DECODER_FILE
    weights = open_weights(path)
    try:
        sizes, trained_on = json.loads(weights.metadata["sizes"]), weights.metadata["encoder"]
        for name, value in sizes.items():
            for size in value if name == "grid" else [value]:
                check_size(name, size)
        with torch.device("meta"):
            decoder = FrameDecoder(**sizes | {"grid": tuple(sizes["grid"])})
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(
            f"{path} is no decoder that this version can read ({error!r}); delete it, and train "
            "another one with `jepa-gym decode`"
        ) from None
    if trained_on != encoder_hash(model):
        raise CheckpointError(
            f"{path} was trained on the latents of another model than "
            f"{model.folder or 'this one'}; train this model's own with `jepa-gym decode`, or "
            "take the file away"
        )
    fill(decoder, weights.copy(weights.sizes), path)
    return decoder.to(model.device).eval()


def own_decoder(model: WorldModel) -> FrameDecoder | None:
    """Read the decoder in the folder that a model was loaded from; None where there is none.

    Raises:
        CheckpointError: When it cannot be used.
    """
    if model.folder is None or not (model.folder / DECODER_FILE).is_file():
        return None
    return read_decoder(model.folder, model)
