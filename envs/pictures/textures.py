"""Textures for all surfaces: robosuite's photographs, pictures that we compute, generated ones.

`TRAIN_TEXTURES` and `HELD_OUT_TEXTURES` are photographs of different materials, `FAR_TEXTURES` of
another kind; all may be repeated side by side. `lab` and `breadboard` are what stands behind and
under the robot in DROID's recordings: a room with shelves, and the dark optical table with its grid
of holes. Beside these names there is one for every seed, see `generated`.
"""

from __future__ import annotations

import functools

import imageio.v3
import mujoco
import numpy as np

from jepa_gym.envs.physics.robosuite_assets import asset
from jepa_gym.envs.pictures import generated
from jepa_gym.names import check_choice

SIDE_PX = 256
HOLES_PER_SIDE = 16
"""Of `breadboard`; optical tables have a hole every 25 mm, so that one picture spans 0.4 m."""
_PHOTOGRAPHS = {
    "wood": "light-wood",
    "parquet": "wood-tiles",
    "bricks": "white-bricks",
    "concrete": "gray-plaster",
    "plaster": "yellow-plaster",
    "felt": "gray-felt",
    "steel": "steel-brushed",
    "paint": "blue-wood",
    "planks": "wood-varnished-panels",
    "redwood": "red-wood",
    "brass": "brass-ambra",
    "scratches": "steel-scratched",
    "soil": "dirt",
    "walnut": "dark-wood",
    "greenwood": "green-wood",
    "clay": "clay",
    "flooring": "light-gray-floor-tile",
}
TRAIN_TEXTURES = (
    "wood", "parquet", "planks", "bricks", "concrete", "plaster", "felt", "steel", "paint",
    "redwood", "brass", "scratches",
)  # fmt: skip
HELD_OUT_TEXTURES = ("soil", "walnut", "greenwood", "clay", "flooring")
FAR_TEXTURES = ("marble", "terrazzo", "tiles", "tartan")
TEXTURES = (*TRAIN_TEXTURES, *HELD_OUT_TEXTURES, *FAR_TEXTURES, "lab", "breadboard")
"""All that have a name of their own."""
KEPT = 256
"""Generated pictures that a process remembers, 48 kB each."""


def check_texture(argument: str, name: object) -> None:
    """Raise ValueError if `name`, given as `argument`, is the name of no texture."""
    if isinstance(name, str) and generated.seed_of(name) is not None:
        return
    if isinstance(name, str) and name.startswith(generated.PREFIX):
        raise ValueError(
            f"`{argument}` must be {generated.PREFIX}<seed> with a seed from 0 to "
            f"{generated.SEEDS['far'][1] - 1}, got {name!r}"
        )
    check_choice(argument, name, TEXTURES)


def texture(name: str) -> np.ndarray:
    """Return a texture (S, S, 3) uint8 RGB, read-only, row 0 on top.

    Args:
        name: One of `TEXTURES` (256 pixels a side) or `generated-<seed>` (128 pixels).

    Raises:
        ValueError: Unknown name.
        FileNotFoundError: The installed robosuite lacks the photograph.
    """
    check_texture("texture", name)
    seed = generated.seed_of(name)
    return _named(name) if seed is None else _generated(seed)


@functools.cache
def _named(name: str) -> np.ndarray:
    is_photograph = name in _PHOTOGRAPHS
    return _finished(_photograph(_PHOTOGRAPHS[name]) if is_photograph else _COMPUTED[name]())


@functools.lru_cache(KEPT)
def _generated(seed: int) -> np.ndarray:
    return _finished(generated.generate(seed, _photographs))


def _photographs(seeds: str) -> list[np.ndarray]:
    """Return the photographs that generated textures of a range of `generated.SEEDS` recolour."""
    return [_named(name) for name in (HELD_OUT_TEXTURES if seeds != "train" else TRAIN_TEXTURES)]


def _finished(picture: np.ndarray) -> np.ndarray:
    if picture.dtype.kind == "f":
        picture = np.rint(picture)
    picture = np.clip(picture, 0, 255).astype(np.uint8)
    picture.flags.writeable = False
    return picture


def add_texture(
    spec: mujoco.MjSpec, name: str, picture: np.ndarray, kind=mujoco.mjtTexture.mjTEXTURE_2D
) -> None:
    """Add a picture (Y, X, 3) uint8 to a scene; a cube's has its six sides below each other."""
    height, width = picture.shape[:2]
    size = {"height": height, "width": width, "nchannel": 3}
    spec.add_texture(name=name, type=kind, **size).data = picture.tobytes()


def add_material(spec: mujoco.MjSpec, name: str, texture_name: str, **look) -> None:
    """Add a material that shows a texture of the scene."""
    material = spec.add_material(name=name, **look)
    material.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = texture_name


def _photograph(name: str) -> np.ndarray:
    """Return robosuite's photograph as a float array (256, 256, 3), averaged over areas.

    By hand, because Pillow's box filter takes whole pixels and so changes the look.
    """
    picture = imageio.v3.imread(asset(f"textures/{name}.png"), mode="RGB").astype(np.float32)
    picture = np.tensordot(_area_weights(picture.shape[0]), picture, (1, 0))
    return np.einsum("xw,ywc->yxc", _area_weights(picture.shape[1]), picture, optimize=True)


def _area_weights(length: int) -> np.ndarray:
    """Return (256, length): row i averages the share of the input that output pixel i covers."""
    edges = np.arange(SIDE_PX + 1) * (length / SIDE_PX)
    start, end = edges[:-1, None], edges[1:, None]
    pixel = np.arange(length)
    cover = np.clip(np.minimum(end, pixel + 1) - np.maximum(start, pixel), 0, None)
    return (cover / cover.sum(1, keepdims=True)).astype(np.float32)


def _noise(rng: np.random.Generator, size_px: float) -> np.ndarray:
    """Return smooth noise (256, 256) that repeats seamlessly, deviation 1, blobs of `size_px`."""
    frequency = np.hypot(np.fft.fftfreq(SIDE_PX)[:, None], np.fft.rfftfreq(SIDE_PX)[None])
    spectrum = np.fft.rfft2(rng.normal(size=(SIDE_PX, SIDE_PX)))
    smooth = np.fft.irfft2(spectrum * np.exp(-2 * (frequency * size_px) ** 2), (SIDE_PX, SIDE_PX))
    return (smooth - smooth.mean()) / smooth.std()


def _blend(share: np.ndarray, low: tuple, high: tuple) -> np.ndarray:
    """Return colours between `low` (share 0) and `high` (share 1) for `share` (...)."""
    return np.array(low) + np.clip(share, 0, 1)[..., None] * (np.array(high) - np.array(low))


def _marble() -> np.ndarray:
    rng = np.random.default_rng(1)
    x, y = np.meshgrid(*[np.arange(SIDE_PX) * (2 * np.pi / SIDE_PX)] * 2)
    bend = 1.3 * _noise(rng, 36) + 0.5 * _noise(rng, 10)
    veins = np.abs(np.sin(x + 2 * y + bend)) ** 0.35
    fine = np.abs(np.sin(3 * x - y + 1.7 * _noise(rng, 24))) ** 0.2
    cloud = 0.05 * _noise(rng, 40) + 0.015 * _noise(rng, 2)
    return _blend(0.75 * veins + 0.25 * fine + cloud, (58, 66, 74), (226, 225, 218))


def _terrazzo() -> np.ndarray:
    """Stone chips of four colours in light cement: cells around random points, cut at the rims."""
    rng = np.random.default_rng(2)
    count = 170
    points, reach = rng.uniform(0, SIDE_PX, (count, 2)), rng.uniform(4, 12, count)
    first, second = np.full((2, SIDE_PX, SIDE_PX), np.inf)
    chip = np.zeros((SIDE_PX, SIDE_PX), int)
    for index, point in enumerate(points):
        apart = np.abs((np.arange(SIDE_PX) - point[:, None] + SIDE_PX / 2) % SIDE_PX - SIDE_PX / 2)
        down, right = apart[0][:, None], apart[1][None]
        distance = 0.45 * (down + right) + 0.55 * np.hypot(down, right) - reach[index]
        chip[distance < first] = index
        second = np.minimum(second, np.maximum(first, distance))
        first = np.minimum(first, distance)
    palette = np.array([(150, 70, 52), (62, 74, 70), (196, 152, 88), (120, 128, 134)])
    cement = _blend(0.5 + 0.15 * _noise(rng, 3), (212, 206, 196), (236, 232, 224))
    stone = palette[chip % 4] + 6 * _noise(rng, 2)[..., None]
    return np.where(((first < 0) & (second - first > 1.5))[..., None], stone, cement)


def _tiles() -> np.ndarray:
    """Glazed tiles, four by four, in blue-green shades with light joints."""
    rng = np.random.default_rng(3)
    count = 4
    tile = SIDE_PX // count
    shade = np.kron(rng.uniform(0, 1, (count, count)), np.ones((tile, tile)))
    glaze = _blend(shade + 0.08 * _noise(rng, 12), (22, 92, 98), (64, 158, 150))
    rim = np.minimum(np.arange(SIDE_PX) % tile, tile - 1 - np.arange(SIDE_PX) % tile)
    joint = np.minimum(rim[:, None], rim[None]) < 2
    cement = _blend(0.5 + 0.3 * _noise(rng, 1), (196, 196, 188), (216, 216, 210))
    return np.where(joint[..., None], cement, glaze)


def _tartan() -> np.ndarray:
    """Woven cloth: coloured threads in both directions, each on top at every second crossing."""
    widths = (22, 8, 30, 4, 12, 4, 30, 8, 10)
    colours = ("red", "green", "red", "gold", "navy", "gold", "red", "green", "red")
    palette = {"red": (150, 28, 34), "green": (24, 70, 44), "gold": (206, 170, 70)}
    palette["navy"] = (22, 30, 66)
    stripes = np.repeat([palette[colour] for colour in colours], widths, axis=0)
    threads = np.resize(stripes, (SIDE_PX // 2, 3)).repeat(2, axis=0)[:SIDE_PX].astype(float)
    row, column = np.indices((SIDE_PX, SIDE_PX)) // 2
    woven = np.where(((row + column) % 2 == 0)[..., None], threads[:, None], threads[None])
    return woven + 7 * np.random.default_rng(4).normal(size=(SIDE_PX, SIDE_PX, 1))


def _breadboard() -> np.ndarray:
    """Dark anodised plate with threaded holes; each has a dull bright rim."""
    rng = np.random.default_rng(5)
    fine = 4  # computed four times finer and averaged: round holes of five pixels
    pitch = SIDE_PX * fine // HOLES_PER_SIDE
    offset = np.arange(pitch) - (pitch - 1) / 2
    radius = np.hypot(offset[:, None], offset[None]) / pitch
    cell = np.where(radius < 0.13, 0.0, np.where(radius < 0.18, 1.15, 0.85))
    cell = cell.reshape(pitch // fine, fine, pitch // fine, fine).mean((1, 3))
    plate = np.tile(cell, (HOLES_PER_SIDE, HOLES_PER_SIDE))
    plate = plate + 0.02 * _noise(rng, 30) + 0.015 * _noise(rng, 1)
    return _blend(plate, (22, 24, 27), (82, 88, 94))


class _Painter:
    """A picture of unit side, origin at the upper left, painted with shapes from back to front."""

    def __init__(self, colour: tuple[int, int, int]) -> None:
        self.picture = np.empty((2 * SIDE_PX, 2 * SIDE_PX, 3))
        self.picture[:] = colour

    def _window(self, left: float, top: float, width: float, height: float) -> tuple:
        """Return the pixels of a rectangle and the places in it, 0 to 1: x (1, W), y (H, 1)."""
        edges = np.rint(np.array([top, top + height, left, left + width]) * 2 * SIDE_PX).astype(int)
        pixels = self.picture[edges[0] : edges[1], edges[2] : edges[3]]
        y, x = ((np.arange(count) + 0.5) / max(count, 1) for count in pixels.shape[:2])
        return pixels, x[None], y[:, None]

    def box(self, left: float, top: float, width: float, height: float, colour: tuple) -> None:
        """Paint a rectangle that is a little darker towards its foot and right side."""
        pixels, x, y = self._window(left, top, width, height)
        pixels[:] = (1.06 - 0.16 * y - 0.06 * x)[..., None] * np.array(colour)

    def disc(self, x: float, y: float, radius_x: float, radius_y: float, colour: tuple) -> None:
        """Paint an ellipse around (x, y), darker towards its foot."""
        pixels, right, down = self._window(x - radius_x, y - radius_y, 2 * radius_x, 2 * radius_y)
        inside = (2 * right - 1) ** 2 + (2 * down - 1) ** 2 < 1
        shade = np.broadcast_to(1.12 - 0.24 * down, inside.shape)[..., None]
        pixels[inside] = (shade * np.array(colour))[inside]

    def averaged(self) -> np.ndarray:
        """Return the picture (256, 256, 3)."""
        return self.picture.reshape(SIDE_PX, 2, SIDE_PX, 2, 3).mean((1, 3))


def _lab() -> np.ndarray:
    """A laboratory: shelves with boxes, a post, a work bench, a chair, a desk by a light wall."""
    rng = np.random.default_rng(6)
    room = _Painter((206, 204, 198))
    _paint_shelves(room, rng)
    room.box(0.45, 0.0, 0.035, 0.86, (46, 78, 98))
    room.box(0.5, 0.0, 0.006, 0.52, (44, 44, 46))
    room.box(0.30, 0.62, 0.24, 0.025, (204, 172, 130))
    for left in (0.31, 0.515):
        room.box(left, 0.645, 0.016, 0.23, (40, 40, 44))
    room.disc(0.665, 0.52, 0.062, 0.13, (128, 132, 136))
    room.disc(0.665, 0.52, 0.046, 0.11, (146, 150, 154))
    room.box(0.655, 0.62, 0.02, 0.22, (70, 72, 76))
    room.disc(0.665, 0.70, 0.095, 0.03, (104, 108, 112))
    room.disc(0.665, 0.86, 0.09, 0.02, (62, 64, 68))
    room.box(0.79, 0.60, 0.21, 0.03, (232, 232, 230))
    room.box(0.97, 0.63, 0.02, 0.24, (190, 190, 190))
    room.box(0.81, 0.63, 0.02, 0.24, (190, 190, 190))
    room.box(0.83, 0.43, 0.15, 0.115, (38, 40, 44))
    room.box(0.84, 0.44, 0.13, 0.095, (74, 96, 124))
    room.box(0.90, 0.545, 0.012, 0.055, (60, 60, 62))
    room.box(0.62, 0.12, 0.2, 0.15, (236, 236, 232))
    room.box(0.63, 0.13, 0.18, 0.13, (186, 198, 204))
    return room.averaged() + 3 * _noise(rng, 30)[..., None] + 2 * _noise(rng, 1)[..., None]


def _paint_shelves(room: _Painter, rng: np.random.Generator) -> None:
    palette = ((164, 124, 88), (188, 150, 112), (214, 212, 206), (86, 110, 140), (140, 60, 48))
    palette += ((70, 72, 74),)
    for shelf, foot in enumerate((0.12, 0.34, 0.55)):
        left = 0.02
        while left < 0.38:
            width, height = rng.uniform(0.03, 0.1), rng.uniform(0.05, 0.15)
            width = min(width, 0.43 - left)
            colour = palette[rng.integers(len(palette))]
            room.box(left, foot - height, width, height, colour)
            room.box(left, foot - 0.6 * height, width, 0.012, tuple(0.8 * np.array(colour)))
            left += width + rng.uniform(0.004, 0.03)
        room.box(0.0, foot, 0.44, 0.014, (150, 154, 156))
        room.box(0.0, foot + 0.014, 0.44, 0.01, (104 + shelf, 106, 108))
    room.box(0.03, 0.60, 0.25, 0.27, (168, 126, 90))
    room.box(0.15, 0.60, 0.014, 0.27, (190, 158, 122))
    for left in (0.0, 0.425):
        room.box(left, 0.0, 0.014, 0.88, (158, 160, 162))


_COMPUTED = {
    "marble": _marble,
    "terrazzo": _terrazzo,
    "tiles": _tiles,
    "tartan": _tartan,
    "lab": _lab,
    "breadboard": _breadboard,
}
