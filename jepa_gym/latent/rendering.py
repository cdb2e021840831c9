"""Pictures of imagined episodes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from jepa_gym.latent.episodes import LatentEpisodes

Decoder = Callable[[Tensor], Tensor]
"""Latents (B, N, D) to pictures (B, Y, X, 3) in [0, 1]."""
BAR_ROWS = 32
BAR_COLOUR = (230, 120, 30)
BORDER_SHARE = 1 / 32
"""Width of the coloured frame over the rows of the picture."""
REAL_COLOUR = (40, 180, 60)
IMAGINED_COLOUR = (220, 40, 40)


def draw(
    episodes: LatentEpisodes, rows: Sequence[int], decoder: Decoder | None
) -> list[np.ndarray]:
    """Draw episodes.

    Args:
        episodes: Running episodes.
        rows: Which of them.
        decoder: If given: the present frame beside the goal, (Y, 2 X, 3) uint8; the present frame
            is the real one, framed green, before the first step, then the decoded latent, framed
            red. Else start and goal with a bar per frame for the energy, (Y + 32, 2 X, 3) uint8.

    Raises:
        RuntimeError: Before the first reset.
        ValueError: When the decoder gives pictures of another shape, or there is neither a picture
            of the goal nor a decoder.
    """
    return [_picture(episodes, row, decoder) for row in rows]


def _picture(episodes: LatentEpisodes, row: int, decoder: Decoder | None) -> np.ndarray:
    start = episodes.start_of(row)
    goal = start.goal
    present_latent, goal_latent, history = episodes.picture(row)
    if not start.goal_is_frame:
        if decoder is None:
            raise ValueError(
                "the goal was given as a latent, so there is no picture of it; give a frame as the "
                "goal, make the environment with decoder=..., or train one with `jepa-gym decode`"
            )
        goal = _decoded(decoder, torch.from_numpy(goal_latent), episodes)
    if decoder is None:
        picture = np.concatenate([start.frame, goal], axis=1)
        return np.concatenate([picture, _bars(history, picture.shape[1])])
    if len(history) == 1:
        present, colour = start.frame.copy(), REAL_COLOUR
    else:
        present, colour = _decoded(decoder, present_latent, episodes), IMAGINED_COLOUR
    width = max(1, round(BORDER_SHARE * len(present)))
    present[:width] = present[-width:] = present[:, :width] = present[:, -width:] = colour
    return np.concatenate([present, goal], axis=1)


def _decoded(decoder: Decoder, latent: Tensor, episodes: LatentEpisodes) -> np.ndarray:
    """Return the picture (Y, X, 3) uint8 of a latent (N, D)."""
    with torch.no_grad():
        pictures = decoder(latent[None].to(episodes.device))
    frame = episodes.model.config.frame
    if tuple(pictures.shape) != (1, frame.height, frame.width, 3):
        raise ValueError(
            f"`decoder` must turn latents (B, N, D) into pictures (B, {frame.height}, "
            f"{frame.width}, 3), got {tuple(pictures.shape)} for one latent"
        )
    return (255 * pictures[0].float().clamp(0, 1)).round().byte().cpu().numpy()


def _bars(history: Sequence[float], columns: int) -> np.ndarray:
    """Return a strip (32, columns, 3) of bars, relative to the largest energy."""
    strip = np.zeros((BAR_ROWS, columns, 3), np.uint8)
    width = max(1, columns // max(len(history), 11))
    for number, energy in enumerate(history):
        rows = round((BAR_ROWS - 2) * energy / max(*history, 1e-9))
        strip[BAR_ROWS - rows :, number * width : (number + 1) * width - 1] = BAR_COLOUR
    return strip
