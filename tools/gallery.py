"""Write the gallery: `docs/tasks.md` and its pictures, from the code.

`python tools/gallery.py` renders every task, goal, camera, object, variation and split, and writes
the page that shows them. Names, numbers and rules on the page are read from the code. The same code
gives the same bytes on the same machine.
"""

from __future__ import annotations

import io
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import gallery_page
import numpy as np
import tyro
from gallery_sheets import PARTS, Sheet, sheets
from PIL import Image, ImageDraw, ImageFont
from tqdm import tqdm

from jepa_gym.files import atomic_write

Part = Literal[
    "page", "tasks", "goals", "experts", "cameras", "droid", "objects", "factors", "splits"
]
ALL_PARTS: tuple[Part, ...] = ("page", *PARTS)
REPOSITORY = Path(__file__).resolve().parents[1]
PICTURES = "pictures"
QUALITY = 80
GAP_PX = 4
BACKGROUND, INK = (255, 255, 255), (30, 30, 30)
MIN_TILE_PX, MAX_TILE_PX = 16, 256


@dataclass(frozen=True)
class GalleryConfig:
    """Render the pictures of docs/tasks.md and write the page."""

    output: Path = REPOSITORY / "docs"
    """Folder for `tasks.md` and `pictures/`."""
    tile: int = 256
    """Height of one picture in a contact sheet, pixels."""
    only: tuple[Part, ...] = ALL_PARTS
    """What to write."""

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            ValueError: A number is out of its range, or nothing is to be written.
        """
        if not MIN_TILE_PX <= self.tile <= MAX_TILE_PX:
            raise ValueError(f"`tile` must be {MIN_TILE_PX} to {MAX_TILE_PX} px, got {self.tile}")
        if not self.only:
            raise ValueError("`only` must name at least one part")


def run(config: GalleryConfig) -> list[Path]:
    """Write what `config.only` names and return the files."""
    everything = sheets()
    wanted = [sheet for sheet in everything if sheet.part in config.only]
    files = []
    with tqdm(wanted, "gallery", unit="picture") as bar:
        for sheet in bar:
            bar.set_postfix_str(sheet.name)
            path = config.output / PICTURES / f"{sheet.name}.jpg"
            with atomic_write(path) as temporary:
                temporary.write_bytes(encode(compose(sheet, config.tile)))
            files.append(path)
    if "page" in config.only:
        path = config.output / "tasks.md"
        with atomic_write(path) as temporary:
            temporary.write_text(gallery_page.page(everything, PICTURES))
        files.append(path)
    return files


def compose(sheet: Sheet, tile: int) -> np.ndarray:
    """Return the sheet (Y, X, 3) uint8: its tiles row by row, each under its label."""
    tiles = list(sheet.draw(tile))
    height, width = tiles[0][1].shape[:2]
    font = ImageFont.load_default(size=max(6, height // 16))
    label_px = max(8, height // 11)
    columns = min(sheet.columns, len(tiles))
    if len(tiles) == columns + 1:
        columns += 1  # no row for a single tile
    rows = -(-len(tiles) // columns)
    page_size = (columns * (width + GAP_PX) - GAP_PX, rows * (height + label_px + GAP_PX) - GAP_PX)
    canvas = Image.new("RGB", page_size, BACKGROUND)
    pen = ImageDraw.Draw(canvas)
    for index, (label, picture) in enumerate(tiles):
        row, column = divmod(index, columns)
        left, top = column * (width + GAP_PX), row * (height + label_px + GAP_PX)
        pen.text((left + 2, top + label_px / 2), label, fill=INK, font=font, anchor="lm")
        canvas.paste(Image.fromarray(np.ascontiguousarray(picture)), (left, top + label_px))
    return np.asarray(canvas)


def encode(picture: np.ndarray) -> bytes:
    """Return a picture (Y, X, 3) uint8 as JPEG."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=QUALITY, optimize=True, progressive=True)
    return buffer.getvalue()


def main() -> int:
    """Command line."""
    files = run(tyro.cli(GalleryConfig, description=__doc__))
    size = sum(path.stat().st_size for path in files)
    print(f"{len(files)} files, {size / 1e6:.2f} MB, in {files[0].parent}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
