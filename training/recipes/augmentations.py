"""Random changes of clips, computed where the clips are.

All of them are drawn on the CPU from the seed and the step, for the whole batch, so that every
process changes its rows as one process would; all frames of a clip are changed alike. A world
model's states and actions are in metres: for it only what keeps the geometry is there. Masked
pre-training may crop and mirror, too, as published.

Reference: V-JEPA 2 (arXiv 2506.09985), `app/vjepa/transforms.py`, for crop and mirror.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from jepa_gym.training.data.clips import ClipSampler
from jepa_gym.training.engine.task import Batch

PREFIX = "augment."
"""Of the names that drawn numbers have in a batch."""
APART = 7919
"""Added to a run's seed for what is drawn beside its clips."""
LUMA = (0.299, 0.587, 0.114)
GREY = 127.5
_WORD = 2**32 - 1
ATTEMPTS = 10
"""Draws of a crop before the largest one in the centre is taken, as published."""


@dataclass(frozen=True, slots=True)
class Augmentations:
    """Changes that keep the geometry; 0 switches one off. Strengths are drawn for every clip."""

    colour: float = 0.0
    """Brightness, contrast and saturation are multiplied by 1 - colour .. 1 + colour, and hues are
    turned by up to a quarter of that share of the circle; at most 1."""
    blur: float = 0.0
    """Largest standard deviation of a Gaussian blur, pixels."""
    noise: float = 0.0
    """Largest standard deviation of the noise, of 255."""
    cutout: float = 0.0
    """Largest share of the picture that a grey rectangle hides; below 1."""
    background: float = 0.0
    """Largest weight of another clip's first frame that is mixed in; below 1."""

    def __post_init__(self) -> None:
        """Check ranges."""
        for name, most in (("colour", 1), ("cutout", 0.99), ("background", 0.99)):
            if not 0 <= getattr(self, name) <= most:
                raise ValueError(
                    f"`augment.{name}` must be within 0 .. {most}, got {getattr(self, name)}"
                )
        for name in ("blur", "noise"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(
                    f"`augment.{name}` must be 0 or positive, got {getattr(self, name)}"
                )

    def draw(self, batch: int, generator: torch.Generator) -> Batch:
        """Draw the numbers of a step, (B, ...) each.

        Args:
            batch: B of all processes.
            generator: On the CPU.

        Returns:
            By names that begin with `PREFIX`; nothing for what is switched off.
        """

        def uniform(*shape: int) -> Tensor:
            return torch.rand(batch, *shape, generator=generator)

        drawn = {}
        if self.colour:
            drawn["colour"] = self.colour * (2 * uniform(4) - 1)
        if self.blur:
            drawn["blur"] = self.blur * uniform()
        if self.noise:
            drawn["noise"] = self.noise * uniform()
            drawn["noise_seed"] = torch.randint(2**32, (batch,), generator=generator)
        if self.cutout:
            drawn["cutout"] = torch.cat([self.cutout * uniform(1), uniform(3)], 1)
        if self.background:
            drawn["background"] = self.background * uniform()
        return {PREFIX + name: numbers for name, numbers in drawn.items()}

    def apply(self, batch: Batch, views: int) -> Batch:
        """Change the frames of a batch as was drawn.

        Args:
            batch: `frames` (B, T, Y, X, 3) uint8 with the views side by side, their rows of `draw`,
                and with a background `augment.other` (B, Y, X, 3) uint8, the frames to mix in.
            views: Views side by side, which are blurred each alone.

        Returns:
            The batch without what was drawn, its frames float32 within [0, 255], unless nothing is
            switched on.
        """
        drawn = {k.removeprefix(PREFIX): x for k, x in batch.items() if k.startswith(PREFIX)}
        batch = {name: x for name, x in batch.items() if not name.startswith(PREFIX)}
        if drawn:
            with torch.autocast(batch["frames"].device.type, enabled=False):
                batch["frames"] = self._changed(batch["frames"].float(), drawn, views)
        return batch

    def _changed(self, frames: Tensor, drawn: Batch, views: int) -> Tensor:
        if "background" in drawn:
            weight = _per_clip(drawn["background"])
            frames = torch.lerp(frames, drawn["other"][:, None].float(), weight)
        if "colour" in drawn:
            frames = _coloured(frames, drawn["colour"])
        if "blur" in drawn:
            frames = _blurred(frames, drawn["blur"], self.blur, views)
        if "noise" in drawn:
            frames = frames + _noise(frames, drawn["noise"], drawn["noise_seed"])[:, None]
        if "cutout" in drawn:
            frames = _cut_out(frames, drawn["cutout"])
        return frames.clamp(0, 255)


@dataclass(frozen=True, slots=True)
class PretrainAugmentations(Augmentations):
    """Changes for masked pre-training: those of `Augmentations`, a random crop and a mirror."""

    crop: tuple[float, float] = (1.0, 1.0)
    """Share of each view's area that a random crop keeps, resized to the whole; published 0.3 to
    1. (1, 1) switches it off."""
    aspect: tuple[float, float] = (0.75, 1.35)
    """Width over height of the crop."""
    mirror: float = 0.0
    """Probability that a clip's views are mirrored left to right; published 0.5."""

    def __post_init__(self) -> None:
        """Check ranges."""
        Augmentations.__post_init__(self)
        if not 0 < self.crop[0] <= self.crop[1] <= 1 or not 0 < self.aspect[0] <= self.aspect[1]:
            raise ValueError(
                "`augment.crop` must be two ascending shares in (0, 1] and `augment.aspect` two "
                f"ascending positive numbers, got {self.crop} and {self.aspect}"
            )
        if not 0 <= self.mirror <= 1:
            raise ValueError(f"`augment.mirror` must be within 0 .. 1, got {self.mirror}")

    def draw(self, batch: int, generator: torch.Generator) -> Batch:
        """Draw the numbers of a step; see the base class."""
        drawn = Augmentations.draw(self, batch, generator)
        if self.crop != (1.0, 1.0):
            numbers = torch.rand(batch, ATTEMPTS, 4, generator=generator)
            (low, high), bounds = self.crop, torch.tensor(self.aspect).log()
            numbers[..., 0] = low + (high - low) * numbers[..., 0]
            numbers[..., 1] = (bounds[0] + (bounds[1] - bounds[0]) * numbers[..., 1]).exp()
            drawn[PREFIX + "crop"] = numbers
        if self.mirror:
            drawn[PREFIX + "mirror"] = torch.rand(batch, generator=generator) < self.mirror
        return drawn

    def _changed(self, frames: Tensor, drawn: Batch, views: int) -> Tensor:
        if "crop" in drawn:
            frames = random_resized_crop(frames, drawn["crop"], self.aspect, views)
        if "mirror" in drawn:
            split = rearrange(frames, "b t y (v x) c -> b t y v x c", v=views)
            mirrored = rearrange(split.flip(4), "b t y v x c -> b t y (v x) c")
            frames = torch.where(_per_clip(drawn["mirror"]), mirrored, frames)
        return Augmentations._changed(self, frames, drawn, views)


class Augmenter:
    """Draws and applies the augmentations of a run."""

    def __init__(self, augment: Augmentations, sampler: ClipSampler, views: int) -> None:
        """Prepare.

        Args:
            augment: Which, and how strong.
            sampler: Of the run's clips; frames that are mixed in come from the same episodes.
            views: Views side by side in a frame.
        """
        self.augment, self.sampler, self.views = augment, sampler, views
        self.seed = sampler.seed + APART
        self.others = ClipSampler(sampler.arrays, 1, sampler.batch_size, self.seed)

    def draw(self, step: int, rows: slice) -> Batch:
        """Draw what changes these rows of a step's batch, from seed and step alone."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
        whole = self.augment.draw(self.sampler.batch_size, generator)
        drawn = {name: numbers[rows] for name, numbers in whole.items()}
        if self.augment.background:
            drawn[f"{PREFIX}other"] = self.others.batch(step, rows).frames[:, 0]
        return drawn

    def apply(self, batch: Batch) -> Batch:
        """Change the frames of a batch that has what `draw` drew; see `Augmentations.apply`."""
        return self.augment.apply(batch, self.views)


def still_rows(batch: int, share: float) -> Tensor:
    """Return which clips of a batch are stills, (B,) bool, evenly spread over it."""
    numbers = torch.arange(batch + 1, dtype=torch.float64)
    return (numbers * share + 1e-9).floor().diff() > 0


def random_resized_crop(
    frames: Tensor, numbers: Tensor, aspect: tuple[float, float], views: int = 1
) -> Tensor:
    """Cut a box out of every view of a clip, and resize it to the whole.

    Args:
        frames: (B, T, Y, views * X, 3) float32.
        numbers: (B, attempts, 4): shares of the area, widths over heights, and places in [0, 1) of
            the box between the edges, vertical and horizontal. The first box that fits is taken; if
            none does, the largest within `aspect` in the centre.
        aspect: Bounds of width over height.
        views: Views side by side; all of a clip are cut alike.

    Returns:
        (B, T, Y, views * X, 3), bilinear between pixel centres, not antialiased, as published.
    """
    batch, times, rows, columns = *frames.shape[:3], frames.shape[3] // views
    boxes = crop_boxes(numbers, (rows, columns), aspect)
    tops, lefts, heights, widths = boxes.unbind(1)
    planes = rearrange(frames, "b t y (v x) c -> b (v t c) y x", v=views)
    grids = [
        _sources(first, size, length)
        for first, size, length in ((lefts, widths, columns), (tops, heights, rows))
    ]
    horizontal = grids[0][:, None, :].expand(batch, rows, columns)
    vertical = grids[1][:, :, None].expand(batch, rows, columns)
    grid = torch.stack([horizontal, vertical], -1)
    cut = F.grid_sample(planes, grid, padding_mode="border", align_corners=False)
    return rearrange(cut, "b (v t c) y x -> b t y (v x) c", v=views, t=times)


def crop_boxes(numbers: Tensor, size: tuple[int, int], aspect: tuple[float, float]) -> Tensor:
    """Return boxes (B, 4), top, left, height and width in whole pixels, of `random_resized_crop`.

    Args:
        numbers: As there.
        size: Rows and columns of a view.
        aspect: As there.
    """
    rows, columns = size
    area, ratio = numbers[..., 0] * rows * columns, numbers[..., 1]
    widths, heights = (area * ratio).sqrt().round(), (area / ratio).sqrt().round()
    fits = (widths >= 1) & (widths <= columns) & (heights >= 1) & (heights <= rows)
    tops = (numbers[..., 2] * (rows - heights + 1)).floor()
    lefts = (numbers[..., 3] * (columns - widths + 1)).floor()
    boxes = torch.stack([tops, lefts, heights, widths], -1)  # (B, attempts, 4)
    first = fits.int().argmax(1)  # the first one that fits, or 0
    chosen = boxes.take_along_dim(first[:, None, None], 1)[:, 0]
    height, width = rows, columns
    if columns / rows < aspect[0]:
        height = round(columns / aspect[0])
    elif columns / rows > aspect[1]:
        width = round(rows * aspect[1])
    centre = [(rows - height) // 2, (columns - width) // 2, height, width]
    return torch.where(fits.any(1)[:, None], chosen, boxes.new_tensor(centre))


def _sources(first: Tensor, size: Tensor, length: int) -> Tensor:
    """Return where the pixels of a resized box come from, (B, length), as `F.grid_sample` counts.

    Places outside of the box are moved to its edge.
    """
    steps = (torch.arange(length, device=first.device) + 0.5) / length
    places = size[:, None] * steps - 0.5
    places = first[:, None] + torch.minimum(places.clamp(min=0), size[:, None] - 1)
    return (2 * places + 1) / length - 1


def _per_clip(numbers: Tensor) -> Tensor:
    """Give (B,) numbers the dimensions of (B, T, Y, X, 3)."""
    return numbers.view(-1, 1, 1, 1, 1)


def _coloured(frames: Tensor, strengths: Tensor) -> Tensor:
    """Change brightness, contrast, saturation and hue, in this order, by (B, 4) strengths."""
    luma = torch.tensor(LUMA, device=frames.device)
    brightness, contrast, saturation = (1 + strengths[:, :3]).unbind(1)
    frames = frames * _per_clip(brightness)
    mean = (frames @ luma).mean((1, 2, 3))
    frames = torch.lerp(_per_clip(mean), frames, _per_clip(contrast))
    turn = _hue_turns(strengths[:, 3] * math.pi / 2)  # (B, 3, 3)
    grey = luma.expand(3, 3)  # each row gives the luma
    eye = torch.eye(3, device=frames.device)
    mixing = (grey + saturation[:, None, None] * (eye - grey)) @ turn
    return torch.einsum("btyxc,bdc->btyxd", frames, mixing)


def _hue_turns(angles: Tensor) -> Tensor:
    """Return rotations (B, 3, 3) of colours about the axis of the greys, by (B,) radians."""
    axis = torch.full((3,), 1 / math.sqrt(3), device=angles.device)
    x, y, z = axis
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero]).view(3, 3)
    cosines, sines = angles.cos()[:, None, None], angles.sin()[:, None, None]
    eye = torch.eye(3, device=angles.device)
    return cosines * eye + sines * cross + (1 - cosines) * torch.outer(axis, axis)


def _blurred(frames: Tensor, deviations: Tensor, largest: float, views: int) -> Tensor:
    """Blur each view by a Gaussian of (B,) standard deviations, edges repeated."""
    batch, radius = len(frames), math.ceil(3 * largest)
    places = torch.arange(-radius, radius + 1, device=frames.device)
    kernels = torch.exp(-(places**2) / (2 * deviations.clamp(min=1e-3)[:, None] ** 2))
    kernels = kernels / kernels.sum(1, keepdim=True)  # (B, 2 * radius + 1)
    planes = rearrange(frames, "b t y (v x) c -> (t v c) b y x", v=views)
    for shape, padding in (((-1, 1), (0, 0, radius, radius)), ((1, -1), (radius, radius, 0, 0))):
        weight = kernels.view(batch, 1, *shape)
        planes = F.conv2d(F.pad(planes, padding, mode="replicate"), weight, groups=batch)
    times = frames.shape[1]
    return rearrange(planes, "(t v c) b y x -> b t y (v x) c", t=times, v=views)


def _noise(frames: Tensor, deviations: Tensor, seeds: Tensor) -> Tensor:
    """Return normal noise (B, Y, X, 3) of (B,) standard deviations.

    A hash of the clip's seed and the place, so that every device gives the same without waiting.
    """
    size = frames.shape[2:].numel()
    x = (torch.arange(size, device=frames.device) * 0x9E3779B1 + seeds[:, None]) & _WORD
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        x = ((x ^ (x >> shift)) * factor) & _WORD
    x = x ^ (x >> 16)
    radius = (-2 * (((x >> 16) + 0.5) / 2**16).log()).sqrt()
    normal = radius * ((x & 0xFFFF) * (2 * math.pi / 2**16)).cos()
    return deviations.view(-1, 1, 1, 1) * normal.view(len(frames), *frames.shape[2:])


def _cut_out(frames: Tensor, numbers: Tensor) -> Tensor:
    """Hide a rectangle of each clip: (B, 4) shares of the area, then shape and place in [0, 1)."""
    rows, columns = frames.shape[2:4]
    area, shape, top, left = numbers.unbind(1)
    height = (area.sqrt() * 2 ** (shape - 0.5)).clamp(max=1)
    width = (area / height.clamp(min=1e-6)).clamp(max=1)
    hidden = []
    for place, size, length in ((top, height, rows), (left, width, columns)):
        first = place * (1 - size)
        middles = (torch.arange(length, device=frames.device) + 0.5) / length
        hidden.append((middles >= first[:, None]) & (middles < (first + size)[:, None]))
    box = hidden[0][:, :, None] & hidden[1][:, None, :]  # (B, Y, X)
    return torch.where(box[:, None, :, :, None], GREY, frames)
