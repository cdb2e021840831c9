"""The published ways from camera frames to encoder input, batched on tensors of any device.

Frames are uint8 (B, T, Y, X, 3). `droid_crop` and `square_crop` give float32 frames in [0, 255],
not rounded, as V-JEPA 2-AC was trained on; `normalise` makes encoder input of them, and
`WorldModel.encode` takes them after `.round().to(torch.uint8)`. `evaluation_transform` does all at
once for the video encoder. Resampling is bilinear between pixel centres (half-pixel offsets,
edges repeated) and never antialiased, whatever the reduction: the crops in float32, the evaluation
in OpenCV's fixed-point arithmetic, to the same whole numbers.

Reference: V-JEPA 2 (arXiv 2506.09985); `src/datasets/utils/video/transforms.py`,
`app/vjepa_droid/transforms.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
DROID_ASPECT = (0.75, 1.35)
"""Bounds of width over height in the training of V-JEPA 2-AC."""


def normalise(
    frames: Tensor,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
) -> Tensor:
    """Standardise colours and put the channels first.

    Args:
        frames: (B, T, Y, X, 3) uint8, or float in [0, 255].
        mean: Of red, green, blue; in [0, 1].
        std: Likewise.

    Returns:
        (B, 3, T, Y, X) float32.

    Raises:
        ValueError: When the shape is another.
    """
    _check_shape(frames)
    shift, scale = (255 * torch.tensor(list(x), device=frames.device) for x in (mean, std))
    return rearrange((frames.float() - shift) / scale, "b t y x c -> b c t y x")


def evaluation_transform(frames: Tensor, crop: int = 256) -> Tensor:
    """Apply the transform of the published evaluations: `evaluation_crop`, then `normalise`.

    Args:
        frames: (B, T, Y, X, 3) uint8.
        crop: Side of the result, pixels.

    Returns:
        (B, 3, T, crop, crop) float32, ImageNet-normalised.

    Raises:
        TypeError: When the frames are not uint8.
        ValueError: When shape or crop is not allowed.
    """
    return normalise(evaluation_crop(frames, crop))


def evaluation_crop(frames: Tensor, crop: int = 256) -> Tensor:
    """Resize and cut out the centre, as the published evaluations do.

    The short side becomes int(crop * 256 / 224) (292 for 256), the long side is scaled alike and
    rounded down; pixels stay whole numbers, those of OpenCV's `resize`. The crop starts at half of
    the surplus, where a half pixel is rounded to the even number. Frames whose short side fits
    already are not resized.

    Args:
        frames: (B, T, Y, X, 3) uint8.
        crop: Side of the result, pixels.

    Returns:
        (B, T, crop, crop, 3) uint8.

    Raises:
        TypeError: When the frames are not uint8.
        ValueError: When shape or crop is not allowed.
    """
    _check(frames, crop)
    rows, columns = frames.shape[2:4]
    short = crop * 256 // 224
    if min(rows, columns) != short:
        rows, columns = (short * side // min(rows, columns) for side in (rows, columns))
        frames = _resize_uint8(frames, (rows, columns))
    top, left = round((rows - crop) / 2), round((columns - crop) / 2)
    return frames[:, :, top : top + crop, left : left + crop]


def spatial_crops(frames: Tensor, crop: int = 256, count: int = 3) -> Tensor:
    """Resize the short side to `crop`, and cut squares spread along the long side.

    The published evaluations look at videos so from several sides.

    Args:
        frames: (B, T, Y, X, 3) uint8.
        crop: Side of the result, pixels.
        count: Squares, from the left (or top) edge to the right (or bottom) one.

    Returns:
        (B, count, T, crop, crop, 3) uint8.

    Raises:
        TypeError: When the frames are not uint8.
        ValueError: When shape, crop or count is not allowed.
    """
    _check(frames, crop)
    if count < 2:
        raise ValueError(f"`count` must be at least 2, got {count}; one is that of evaluation_crop")
    rows, columns = frames.shape[2:4]
    if min(rows, columns) != crop:
        rows, columns = (crop * side // min(rows, columns) for side in (rows, columns))
        frames = _resize_uint8(frames, (rows, columns))
    axis = 2 if rows > columns else 3
    starts = [(max(rows, columns) - crop) * n // (count - 1) for n in range(count)]
    return torch.stack([frames.narrow(axis, start, crop) for start in starts], 1)


def droid_crop(frames: Tensor, size: int = 256) -> Tensor:
    """Crop and squash as V-JEPA 2-AC was trained on DROID.

    Training asks for a random crop larger than the picture, so that its fallback always applies:
    the whole picture, or its centre where width over height leaves `DROID_ASPECT`, squashed to a
    square. 1280x720 pixels give their central 972x720. The side that is cut is rounded to the
    nearest pixel, the offset rounded down.

    Args:
        frames: (B, T, Y, X, 3) uint8.
        size: Side of the result, pixels.

    Returns:
        (B, T, size, size, 3) float32 in [0, 255].

    Raises:
        TypeError: When the frames are not uint8.
        ValueError: When shape or size is not allowed.
    """
    return _centre_crop(frames, size, DROID_ASPECT)


def square_crop(frames: Tensor, size: int = 256) -> Tensor:
    """Cut out the central square and resize it, as at deployment (scale 1, aspect 1).

    A square picture of the right size stays as it is. (The published code places the square at
    random where the sides differ by just one pixel; here it stays in the centre, rounded down.)

    Args:
        frames: (B, T, Y, X, 3) uint8.
        size: Side of the result, pixels.

    Returns:
        (B, T, size, size, 3) float32 in [0, 255].

    Raises:
        TypeError: When the frames are not uint8.
        ValueError: When shape or size is not allowed.
    """
    return _centre_crop(frames, size, (1.0, 1.0))


def _centre_crop(frames: Tensor, size: int, aspect: tuple[float, float]) -> Tensor:
    """Cut the centre, width over height within `aspect`, and resize it to a square."""
    _check(frames, size)
    rows, columns = frames.shape[2:4]
    height, width = rows, columns
    if columns / rows < aspect[0]:
        height = round(columns / aspect[0])
    elif columns / rows > aspect[1]:
        width = round(rows * aspect[1])
    top, left = (rows - height) // 2, (columns - width) // 2
    cut = frames[:, :, top : top + height, left : left + width]
    return _resize(cut, (size, size))


def _resize(frames: Tensor, size: tuple[int, int]) -> Tensor:
    """Resample (B, T, Y, X, 3) to `size`, float32."""
    images = rearrange(frames, "b t y x c -> (b t) c y x").float()
    images = F.interpolate(images, size, mode="bilinear", align_corners=False)
    return rearrange(images, "(b t) c y x -> b t y x c", b=len(frames))


def _resize_uint8(frames: Tensor, size: tuple[int, int]) -> Tensor:
    """Resample uint8 (B, T, Y, X, 3) to `size` with the whole numbers of OpenCV's INTER_LINEAR.

    Weights have 11 bits; columns first, exactly, then rows, dropping 4 and 16 bits on the way. At
    the left and right edge the weights are those of one pixel; above and below, of the edge twice.
    """
    (top, bottom, upper, lower), (left, right, west, east) = (
        [x.to(frames.device) for x in _weights(old, new)]
        for old, new in zip(frames.shape[2:4], size, strict=True)
    )
    west = torch.where(left == right, 2048, west)
    east = torch.where(left == right, 0, east)
    pixels = frames.int()
    pixels = pixels[:, :, :, left] * west[:, None] + pixels[:, :, :, right] * east[:, None]
    pixels >>= 4
    upper, lower = upper[:, None, None], lower[:, None, None]
    pixels = (pixels[:, :, top] * upper >> 16) + (pixels[:, :, bottom] * lower >> 16)
    return (pixels + 2 >> 2).to(torch.uint8)


def _weights(old: int, new: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return two source indices of each new pixel and their weights out of 2048, (new,) each."""
    position = (torch.arange(new, dtype=torch.float64) + 0.5) * (1 / (new / old)) - 0.5
    position = position.float()
    first = position.floor()
    share = position - first
    before, after = ((2048 * x).round().int() for x in (1 - share, share))
    first = first.long()
    return first.clamp(0, old - 1), (first + 1).clamp(0, old - 1), before, after


def _check_shape(frames: Tensor) -> None:
    if frames.ndim != 5 or frames.shape[-1] != 3 or 0 in frames.shape:
        raise ValueError(
            "`frames` must be (B, T, Y, X, 3), colours last and none of them empty, "
            f"got {tuple(frames.shape)}"
        )


def _check(frames: Tensor, size: int) -> None:
    if frames.dtype != torch.uint8:
        raise TypeError(f"`frames` must be uint8 in [0, 255], got {frames.dtype}")
    _check_shape(frames)
    if size < 1:
        raise ValueError(f"the side of the result must be at least 1 pixel, got {size}")
