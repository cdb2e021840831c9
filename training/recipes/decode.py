"""Train a decoder that draws the latents of a world model, to see what it imagines.

`jepa-gym decode --checkpoint FOLDER --data DATASET --minutes 10`

The world model stays as it is: real frames are encoded and the decoder learns to give their pixels
back. Loss: L1 plus L2. L1 alone draws the median of what a latent allows, and where the arm's place
is not certain the median is the table, without an arm; the square makes such large errors the
expensive ones. L2 alone draws everything a little blurred.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import tyro
from torch import Tensor

from jepa_gym.checkpoint.decoder import encoder_hash, write_decoder
from jepa_gym.checkpoint.sources import SHIPPED
from jepa_gym.models import FrameDecoder
from jepa_gym.training.data.clips import ClipArrays, ClipSampler
from jepa_gym.training.data.dataset import Dataset
from jepa_gym.training.engine.trainer import Progress, RunConfig, Trainer, run_command
from jepa_gym.training.recipes.finish import provenance
from jepa_gym.world_model import WorldModel

RUN_FOLDER = "decode"
SQUARE_WEIGHT = 4.0
"""An error of 1/8 of the pixels' range weighs as much in the slope of the square as in L1."""
BACKGROUND_FRAMES = 2000
HELD_OUT_FRAMES = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeConfig(RunConfig):
    """Train a decoder that draws the latents of a world model, which stays as it is."""

    checkpoint: str
    """`default`, the folder of a checkpoint, or what else `WorldModel.from_pretrained` takes."""
    output: Path | None = None
    """Folder of the run and of its finished `decoder.safetensors`. By default the run is in
    `decode/` of the checkpoint's folder and the decoder beside the model, where `JEPALatent-v0`
    finds it."""
    minutes: float = 10.0
    """Time budget in minutes, evaluations included; the learning rate decays towards its end."""
    batch_size: int = 8
    """Frames per step; many small steps learn most in a given time."""
    eval_minutes: float = 2.0
    """Minutes between evaluations on held-out episodes."""
    encoder: tyro.conf.Suppress[str] = ""
    """Hash of the encoder, filled in: no run goes on with another one."""


def train(config: DecodeConfig) -> Progress:
    """Train the decoder and write the best one.

    Returns:
        The finished progress.

    Raises:
        ValueError: the dataset shows other views than the model knows, or `output` is missing and
            the checkpoint is shipped or a single file.
    """
    torch.set_num_threads(config.threads)
    model = WorldModel.from_pretrained(config.checkpoint).requires_grad_(False)
    folder = config.output or model.folder
    if folder is None or (config.output is None and config.checkpoint in SHIPPED):
        raise ValueError(
            f"{config.checkpoint!r} is no folder of yours; say where to write with --output"
        )
    run = config.output or folder / RUN_FOLDER
    config = replace(config, output=run, encoder=encoder_hash(model))
    dataset = Dataset.open(config.data, config.skip_corrupt)
    _check_views(dataset, model)
    arrays, held_out = dataset.load_arrays("train"), dataset.load_arrays("validation")
    sampler = ClipSampler(arrays, 1, config.batch_size, config.seed)
    frames = spread_frames(held_out, HELD_OUT_FRAMES)
    latents = model.encode(frames[:, None])[:, 0]
    torch.manual_seed(config.seed)
    settings = model.config
    decoder = FrameDecoder(settings.grid, settings.encoder.latent_dim, settings.encoder.patch_size)
    mean = spread_frames(arrays, BACKGROUND_FRAMES).mean(0, dtype=torch.float32)
    decoder.set_background(mean / 255)

    def loss(step: int) -> dict[str, Tensor]:
        batch = sampler.batch(step).frames
        return pixel_losses(decoder(model.encode(batch)[:, 0]), batch[:, 0])

    def evaluate() -> dict[str, float]:
        pictures = torch.cat([decoder(part) for part in latents.split(config.batch_size)])
        losses = pixel_losses(pictures, frames)
        return {f"held_out_{name}": value.item() for name, value in losses.items()} | {
            "held_out_psnr_db": -10 * math.log10(losses["square"])
        }

    trainer = Trainer(config, decoder, loss, evaluate, score="held_out_loss")
    progress = trainer.run()
    card = provenance("decode", config, dataset, progress, progress.best_figures)
    print(f"wrote {write_decoder(folder, decoder, model, card)}")
    return progress


def pixel_losses(pictures: Tensor, frames: Tensor) -> dict[str, Tensor]:
    """Compute the weighted sum `loss` and its parts.

    Args:
        pictures: (B, Y, X, 3) in [0, 1].
        frames: (B, Y, X, 3) uint8.
    """
    real = frames / 255
    absolute, square = F.l1_loss(pictures, real), F.mse_loss(pictures, real)
    return {
        "loss": absolute + SQUARE_WEIGHT * square,
        "absolute": absolute.detach(),
        "square": square.detach(),
    }


def spread_frames(arrays: ClipArrays, most: int) -> Tensor:
    """Take frames from all over a split.

    Args:
        arrays: the split.
        most: how many frames, if it has so many.

    Returns:
        (M, Y, X, 3) uint8.
    """
    episodes, length = arrays.states.shape[:2]
    chosen = np.linspace(0, episodes * length - 1, min(most, episodes * length)).astype(int)
    places = zip(*np.divmod(chosen, length), strict=True)
    return torch.from_numpy(np.concatenate([arrays.clip(e, t, t + 1) for e, t in places]))


def _check_views(dataset: Dataset, model: WorldModel) -> None:
    shown, known = tuple(dataset.index["cameras"]), model.config.frame.cameras
    if shown != known:
        raise ValueError(
            f"{dataset.folder} shows the views {shown}, the model knows {known}; give data that "
            "was collected with the model's cameras"
        )


def main() -> int:
    """Run the command line."""
    return run_command(train, DecodeConfig)


if __name__ == "__main__":
    raise SystemExit(main())
