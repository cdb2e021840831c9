"""Train a decoder that draws the latents of a world model, to see what it imagines.

`jepa-gym decode --checkpoint FOLDER --data DATASET --minutes 10`

The world model stays as it is: real frames are encoded and the decoder learns to give their pixels
back. Loss: L1 plus L2. L1 alone draws the median of what a latent allows, and where the arm's place
is not certain the median is the table, without an arm; the square makes such large errors the
expensive ones. L2 alone draws everything a little blurred.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from jepa_gym.checkpoint.beside import DECODER
from jepa_gym.models import FrameDecoder
from jepa_gym.training.data.clips import ClipArrays, ClipSampler
from jepa_gym.training.data.dataset import Dataset
from jepa_gym.training.engine.config import run_recipe
from jepa_gym.training.engine.task import Batch, Progress
from jepa_gym.training.recipes.beside import BesideConfig, Training, train_beside
from jepa_gym.world_model import WorldModel

SQUARE_WEIGHT = 4.0
"""An error of 1/8 of the pixels' range weighs as much in the slope of the square as in L1."""
BACKGROUND_FRAMES = 2000
EVALUATED_FRAMES = 128
SHOWN_FRAMES = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeConfig(BesideConfig):
    """Train a decoder that draws the latents of a world model, which stays as it is.

    `JEPALatent-v0` finds the finished `decoder.safetensors` beside the model.
    """

    minutes: float = 10.0
    """Chooses the number of steps at the start, from a measured rate and evaluations included."""
    batch_size: int = 8
    """Frames per step; many small steps learn most in a given time."""


def train(config: DecodeConfig) -> Progress:
    """Train the decoder and write the best one; see `train_beside`."""
    return train_beside(config, DECODER, "decode", _prepare)


def _prepare(config: DecodeConfig, model: WorldModel, dataset: Dataset) -> Training:
    arrays, sizes = dataset.load_arrays("train"), model.config
    sampler = ClipSampler(arrays, 1, config.batch_size, config.seed)
    decoder = FrameDecoder(sizes.grid, sizes.encoder.latent_dim, sizes.encoder.token_size)
    mean = spread_frames(arrays, BACKGROUND_FRAMES).mean(0, dtype=torch.float32)
    decoder.set_background(mean / 255)
    frames = spread_frames(dataset.load_arrays("validation"), EVALUATED_FRAMES)

    def loss(batch: Batch, step: int) -> dict[str, Tensor]:
        frames = batch["frames"]
        return pixel_losses(decoder(model.encode(frames)[:, 0]), frames[:, 0])

    def test() -> dict[str, float]:
        held_out = spread_frames(dataset.load_arrays("test"), EVALUATED_FRAMES)
        return picture_figures(decoder, model, held_out, config.batch_size)

    return Training(
        decoder,
        test,
        {
            "draw": lambda step, rows: {"frames": sampler.batch(step, rows).frames},
            "loss": loss,
            "evaluate": lambda: picture_figures(decoder, model, frames, config.batch_size),
            "score": "picture_loss",
            "pictures": lambda: {"drawn": drawn_beside(decoder, model, frames[:SHOWN_FRAMES])},
        },
    )


@torch.no_grad()
def drawn_beside(decoder: FrameDecoder, model: WorldModel, frames: Tensor) -> np.ndarray:
    """Return frames (M, Y, X, 3) uint8 beside each other, and below them what the decoder draws."""
    drawn = (255 * decoder(model.encode(frames[:, None])[:, 0])).round().to(torch.uint8).cpu()
    return rearrange([frames, drawn], "rows m y x c -> (rows y) (m x) c").numpy()


@torch.no_grad()
def picture_figures(
    decoder: FrameDecoder, model: WorldModel, frames: Tensor, at_once: int
) -> dict[str, float]:
    """Measure how well frames are given back.

    Args:
        decoder: In evaluation mode.
        model: Gives the latents.
        frames: (M, Y, X, 3) uint8.
        at_once: Frames drawn at a time.

    Returns:
        `picture_loss`, `picture_absolute`, `picture_square` and `picture_psnr_db`; nothing where
        there are no frames.
    """
    if not len(frames):
        return {}
    parts = model.encode(frames[:, None])[:, 0].split(at_once)
    pictures = torch.cat([decoder(part) for part in parts]).cpu()
    figures = {f"picture_{name}": x.item() for name, x in pixel_losses(pictures, frames).items()}
    return figures | {"picture_psnr_db": -10 * math.log10(figures["picture_square"])}


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
        arrays: The split.
        most: How many frames, if it has so many.

    Returns:
        (M, Y, X, 3) uint8.
    """
    episodes, length = arrays.states.shape[:2]
    if not episodes:
        return torch.zeros(0, *arrays.frames.shape[2:], dtype=torch.uint8)
    chosen = np.linspace(0, episodes * length - 1, min(most, episodes * length)).astype(int)
    places = zip(*np.divmod(chosen, length), strict=True)
    return torch.from_numpy(np.concatenate([arrays.clip(e, t, t + 1) for e, t in places]))


def main() -> int:
    """Run the command line."""
    return run_recipe(train, DecodeConfig)


if __name__ == "__main__":
    raise SystemExit(main())
