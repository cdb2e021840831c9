"""Networks that stand beside a model: files of their own in its folder, trained on its latents.

They work on the latents of one encoder. They would give something for those of any other of the
same sizes as well, so a file holds a hash of the encoder, and is refused beside another one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import nn

from jepa_gym.checkpoint.errors import CheckpointError
from jepa_gym.checkpoint.fill import fill
from jepa_gym.checkpoint.safetensors_file import write_safetensors
from jepa_gym.checkpoint.weights import open_weights
from jepa_gym.config import check_size
from jepa_gym.models import (
    BehaviourTransformer,
    FrameDecoder,
    InstructionModel,
    InverseModel,
    LatentPolicy,
    SuccessDetector,
)
from jepa_gym.world_model import WorldModel

Network = TypeVar("Network", bound=nn.Module)


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


@dataclass(frozen=True, slots=True)
class Beside(Generic[Network]):
    """One kind of network: what its file is called, and how it is made."""

    file: str
    """Name of the file in the model's folder."""
    called: str
    """What it is."""
    command: str
    """What trains it."""
    make: Callable[..., Network]
    """Makes one from the sizes that it tells of itself in `sizes`."""

    def write(
        self, folder: str | Path, network: Network, model: WorldModel, card: dict[str, Any]
    ) -> Path:
        """Write the file; it appears complete or not at all.

        Args:
            folder: Created when missing; in that of the model's checkpoint it is found by itself.
            network: Trained on the model's latents.
            model: The model.
            card: What is told about the training (JSON types).

        Returns:
            The path of the file.
        """
        path = Path(folder) / self.file
        metadata = {
            "sizes": json.dumps(network.sizes),
            "encoder": encoder_hash(model),
            "card": json.dumps(card),
        }
        write_safetensors(path, network.state_dict(), metadata)
        return path

    def read(self, folder: str | Path, model: WorldModel) -> Network:
        """Read a model's network, in eval mode and on the model's device.

        Args:
            folder: Holds the file.
            model: The model whose latents it is for.

        Raises:
            FileNotFoundError: When there is none.
            CheckpointError: When it is damaged, another network, or of another model.
        """
        path = Path(folder) / self.file
        weights = open_weights(path)
        try:
            sizes, trained_on = json.loads(weights.metadata["sizes"]), weights.metadata["encoder"]
            for name, value in sizes.items():
                for size in value if isinstance(value, list) else [value]:
                    check_size(name, size)
            with torch.device("meta"):
                network = self.make(
                    **{k: tuple(x) if isinstance(x, list) else x for k, x in sizes.items()}
                )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise CheckpointError(
                f"{path} is no {self.called} that this version can read ({error!r}); delete it, "
                f"and train another one with `{self.command}`"
            ) from None
        if trained_on != encoder_hash(model):
            raise CheckpointError(
                f"{path} was trained on the latents of another model than "
                f"{model.folder or 'this one'}; train this model's own with `{self.command}`, or "
                "take the file away"
            )
        fill(network, weights.copy(weights.sizes), path)
        return network.to(model.device).eval()

    def own(self, model: WorldModel) -> Network | None:
        """Read that in the folder that a model was loaded from; None where there is none.

        Raises:
            CheckpointError: When it cannot be used.
        """
        if model.folder is None or not (model.folder / self.file).is_file():
            return None
        return self.read(model.folder, model)


DECODER = Beside("decoder.safetensors", "decoder", "jepa-gym decode", FrameDecoder)
"""Draws latents."""
INVERSE = Beside("inverse.safetensors", "inverse model", "jepa-gym amortise", InverseModel)
"""Proposes the next action on the way to a goal."""
BEHAVIOUR = Beside(
    "behaviour.safetensors",
    "behaviour transformer",
    "jepa-gym amortise --network transformer",
    BehaviourTransformer,
)
"""Chooses the next action on the way to a goal, alone."""
INSTRUCTION = Beside(
    "instruction.safetensors", "instruction model", "jepa-gym instruct", InstructionModel
)
"""Turns an instruction in words into a goal."""
SUCCESS = Beside(
    "success.safetensors", "success detector", "jepa-gym success-detector", SuccessDetector
)
"""Tells whether a frame is at the goal."""
POLICY = Beside("policy.safetensors", "policy", "jepa-gym imagine-policy", LatentPolicy)
"""Moves the hand towards a goal, trained in imagination."""
KINDS: tuple[Beside[Any], ...] = (DECODER, INVERSE, BEHAVIOUR, INSTRUCTION, SUCCESS, POLICY)
"""All of them."""
