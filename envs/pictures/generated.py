"""Textures without end: `generated-<seed>` is a picture that its seed alone decides.

A seed draws a family (noise, stripes, dots, a recoloured photograph, ...) and everything in it.
Seeds lie in three ranges that never meet: training; held out, other pictures of the same families
and other photographs; and beyond, families that training never shows (`SEEDS`). All repeat without
a seam, photographs apart. A picture takes about a millisecond, since its noise is interpolated
from small grids instead of filtered.
"""

from __future__ import annotations

import colorsys
import functools
from collections.abc import Callable, Sequence

import numpy as np

SIDE_PX = 128
PREFIX = "generated-"
SEEDS = {
    "train": (0, 100_000_000),
    "held out": (100_000_000, 200_000_000),
    "far": (200_000_000, 300_000_000),
}
"""Range of seeds -> its first seed and the one behind its last."""
PHOTOGRAPH_SHARE = 0.15
HARD_SHARE = 0.4
"""Share of pictures with few colours and sharp edges between them."""
_OCTAVES = (2, 4, 8, 16, 32)


def seed_of(name: str) -> int | None:
    """Return the seed of a generated texture's name, None if it is no such name."""
    digits = name.removeprefix(PREFIX)
    if digits == name or not (digits.isascii() and digits.isdigit()) or digits != str(int(digits)):
        return None
    return int(digits) if int(digits) < SEEDS["far"][1] else None


def range_of(seed: int) -> str:
    """Return the key of `SEEDS` that a seed belongs to."""
    return next(name for name, (low, high) in SEEDS.items() if low <= seed < high)


def generate(seed: int, photographs: Callable[[str], Sequence[np.ndarray]]) -> np.ndarray:
    """Return the picture (128, 128, 3) int16, about 0 to 255, of a seed.

    Args:
        seed: In one of the ranges of `SEEDS`.
        photographs: Returns the pictures (256, 256, 3) that a range of seeds may recolour.
    """
    rng, kind = np.random.default_rng(seed), range_of(seed)
    families = _FAR_FAMILIES if kind == "far" else _FAMILIES
    if kind != "far" and rng.random() < PHOTOGRAPH_SHARE:
        share, hard = _photograph(rng, photographs(kind)), False
    else:
        share = families[rng.integers(len(families))](rng)
        hard = rng.random() < HARD_SHARE
    picture = _coloured(rng, np.clip(share, 0.0, 1.0), hard)
    grain = rng.uniform(0, 8) * _noise(rng, 32) + rng.uniform(0, 10) * _noise(rng, 4)
    return picture + np.rint(grain).astype(np.int16)[..., None]


# ---- colours


def _coloured(rng: np.random.Generator, share: np.ndarray, hard: bool) -> np.ndarray:
    """Return the picture (128, 128, 3) int16 of values 0 to 1 in colours drawn for it."""
    palette = _palette(rng, int(rng.integers(2, 6 if hard else 5)))
    steps = np.linspace(0, 1, 256)
    if hard:
        table = palette[np.minimum((steps * len(palette)).astype(int), len(palette) - 1)]
    else:
        places = np.linspace(0, 1, len(palette))
        table = np.stack([np.interp(steps, places, column) for column in palette.T], axis=1)
    # `take` is five times as fast as an index
    return np.rint(table).astype(np.int16).take((share * 255).astype(np.uint8), axis=0)


def _palette(rng: np.random.Generator, count: int) -> np.ndarray:
    """Return colours (count, 3), 0 to 255: of one hue, of near ones, or of any."""
    spread = rng.choice([0.0, 0.12, 1.0])
    hues = rng.random() + spread * rng.uniform(-0.5, 0.5, count)
    saturations = np.clip(rng.uniform(0, 0.9) + rng.uniform(-0.2, 0.2, count), 0, 1)
    low = rng.uniform(0.2, 0.7)
    values = rng.uniform(low, min(1.0, low + rng.uniform(0.1, 0.7)), count)
    rows = zip(hues % 1.0, saturations, values, strict=True)
    return 255 * np.array([colorsys.hsv_to_rgb(*row) for row in rows])


# ---- noise


def _noise(rng: np.random.Generator, rows: int, columns: int | None = None) -> np.ndarray:
    """Return smooth noise (128, 128) of about unit deviation, `rows` x `columns` blobs."""
    columns = rows if columns is None else columns
    return _spread(rows) @ rng.standard_normal((rows, columns)) @ _spread(columns).T


@functools.cache
def _spread(count: int) -> np.ndarray:
    """Return the matrix (128, count) that interpolates `count` values around a circle."""
    place = (np.arange(SIDE_PX) + 0.5) * count / SIDE_PX
    left = np.floor(place).astype(int)
    part = place - left
    part = part * part * (3 - 2 * part)
    matrix = np.zeros((SIDE_PX, count))
    rows = np.arange(SIDE_PX)
    matrix[rows, left % count] += np.sqrt(1 - part)
    matrix[rows, (left + 1) % count] += np.sqrt(part)
    return matrix


def _rough(rng: np.random.Generator) -> np.ndarray:
    """Return noise (128, 128) of unit deviation over several scales, drawn out one way or not."""
    fade, stretch = rng.uniform(0.3, 0.95), rng.choice([1, 1, 2, 4])
    field = np.zeros((SIDE_PX, SIDE_PX))
    for level, count in enumerate(_OCTAVES[rng.integers(3) :]):
        field += fade**level * _noise(rng, count, min(64, count * stretch))
    field = field.T if rng.random() < 0.5 else field
    return (field - field.mean()) / field.std()


# ---- families: values (128, 128), about 0 to 1


def _grid() -> tuple[np.ndarray, np.ndarray]:
    """Return x (1, 128) and y (128, 1) of the pixels, 0 to 1."""
    place = (np.arange(SIDE_PX) + 0.5) / SIDE_PX
    return place[None], place[:, None]


def _apart(right: np.ndarray, down: np.ndarray) -> np.ndarray:
    """Return the lengths (128, 128) of offsets; `np.hypot` takes ten times as long."""
    return np.sqrt(right * right + down * down)


def _plain(rng: np.random.Generator) -> np.ndarray:
    return rng.random() + 0.04 * _rough(rng)


def _clouds(rng: np.random.Generator) -> np.ndarray:
    return 0.5 + rng.uniform(0.15, 0.35) * _rough(rng)


def _gradient(rng: np.random.Generator) -> np.ndarray:
    x, y = _grid()
    right, down = ((1, 0), (0, 1), (1, 1), (1, -1))[rng.integers(4)]
    wave = np.cos(2 * np.pi * (right * x + down * y + rng.random()))
    return 0.5 + 0.5 * wave + rng.uniform(0, 0.1) * _rough(rng)


def _stripes(rng: np.random.Generator) -> np.ndarray:
    x, y = _grid()
    right, down = rng.integers(-8, 9, 2)
    phase = (right or 4) * x + down * y + rng.choice([0.0, 0.1, 0.4]) * _noise(rng, 4)
    share = phase % 1.0
    return np.abs(2 * share - 1) if rng.random() < 0.7 else share


def _checks(rng: np.random.Generator) -> np.ndarray:
    """A board of two colours, or a patchwork of many."""
    columns, rows = 2 * rng.integers(1, 9, 2)
    cells = np.indices((rows, columns)).sum(0) % 2.0
    if rng.random() < 0.5:
        cells = rng.random((rows, columns))
    place = np.arange(SIDE_PX)
    return cells[np.ix_(place * rows // SIDE_PX, place * columns // SIDE_PX)]


def _dots(rng: np.random.Generator) -> np.ndarray:
    """Discs in rows, each second row shifted or not."""
    x, y = _grid()
    count = int(2 * rng.integers(1, 8))
    shift = rng.choice([0.0, 0.5]) * (np.floor(y * count) % 2)
    offset = _apart((x * count + shift) % 1.0 - 0.5, (y * count) % 1.0 - 0.5)
    return (rng.uniform(0.15, 0.45) - offset) * SIDE_PX / count / 2 + 0.5


def _photograph(rng: np.random.Generator, pictures: Sequence[np.ndarray]) -> np.ndarray:
    """The lightness of a photograph, part of it, turned."""
    picture = np.rot90(pictures[rng.integers(len(pictures))], rng.integers(4))
    top, left = rng.integers(0, 129, 2)
    grey = picture[top : top + SIDE_PX, left : left + SIDE_PX].mean(-1)
    return 0.5 + 0.25 * (grey - grey.mean()) / max(grey.std(), 1e-6)


_FAMILIES = (_plain, _clouds, _clouds, _gradient, _stripes, _checks, _dots)


def _mosaic(rng: np.random.Generator) -> np.ndarray:
    """Cells around random points, each of one colour, with dark joints."""
    x, y = _grid()
    points = rng.random((int(rng.integers(8, 40)), 2))
    first, second = np.full((2, SIDE_PX, SIDE_PX), np.inf)
    shade = np.zeros((SIDE_PX, SIDE_PX))
    for right, down in points:
        distance = _apart((x - right + 0.5) % 1.0 - 0.5, (y - down + 0.5) % 1.0 - 0.5)
        shade[distance < first] = rng.random()
        second = np.minimum(second, np.maximum(first, distance))
        first = np.minimum(first, distance)
    return np.where(second - first < 0.015, 0.0, shade)


def _zigzag(rng: np.random.Generator) -> np.ndarray:
    x, y = _grid()
    teeth, rows = rng.integers(2, 9, 2)
    fold = np.abs(2 * ((x * teeth) % 1.0) - 1)
    return np.abs(2 * ((y * rows + rng.uniform(0.3, 1) * fold) % 1.0) - 1)


def _rings(rng: np.random.Generator) -> np.ndarray:
    x, y = _grid()
    count = rng.integers(1, 4)
    radius = _apart((x * count) % 1.0 - 0.5, (y * count) % 1.0 - 0.5)
    return 0.5 + 0.5 * np.cos(2 * np.pi * rng.uniform(2, 8) * radius)


def _scales(rng: np.random.Generator) -> np.ndarray:
    """Fish scales: rows of discs, each lying on the row above, shifted by half a disc."""
    x, y = _grid()
    count = int(2 * rng.integers(1, 7))
    row = np.floor(y * count)
    down = y * count - row
    right = (x * count + 0.5 * (row % 2)) % 1.0 - 0.5
    upper = _apart(right, down)
    lower = _apart((right + 1.0) % 1.0 - 0.5, down + 1.0)
    return np.where(upper < 0.56, upper / 0.56, lower - 0.56)


_FAR_FAMILIES = (_mosaic, _zigzag, _rings, _scales)
