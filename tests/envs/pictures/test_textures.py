"""The textures: disjoint sets, the same bytes every time, nothing that looks like another."""

from __future__ import annotations

import itertools
import subprocess
import sys
import zlib

import numpy as np
import pytest

from jepa_gym.envs.pictures.textures import (
    FAR_TEXTURES,
    HELD_OUT_TEXTURES,
    TEXTURES,
    TRAIN_TEXTURES,
    texture,
)


def test_the_sets_are_disjoint_and_complete():
    assert (*TRAIN_TEXTURES, *HELD_OUT_TEXTURES, *FAR_TEXTURES, "lab", "breadboard") == TEXTURES
    assert len(set(TEXTURES)) == len(TEXTURES)


@pytest.mark.parametrize("name", TEXTURES)
def test_each_is_a_read_only_picture_with_structure(name):
    picture = texture(name)
    assert picture.shape == (256, 256, 3) and picture.dtype == np.uint8
    assert texture(name) is picture
    with pytest.raises(ValueError, match="read-only"):
        picture[0, 0] = 0
    assert picture.std((0, 1)).max() > 4


def test_no_two_look_alike():
    """Colour, or the strength of structure at two scales, tells any two of them apart."""

    def looks(name: str) -> np.ndarray:
        picture = texture(name).astype(float)
        coarse = picture.reshape(16, 16, 16, 16, 3).mean((1, 3))
        return np.concatenate([picture.mean((0, 1)), picture.std((0, 1)), coarse.std((0, 1))])

    for one, other in itertools.combinations(TEXTURES, 2):
        assert np.linalg.norm(looks(one) - looks(other)) > 15, (one, other)


@pytest.mark.parametrize("name", ["marble", "terrazzo", "tiles"])
def test_computed_ones_repeat_without_a_seam(name):
    picture = texture(name).astype(float)
    for axis in (0, 1):
        steps = np.abs(np.diff(picture, axis=axis)).mean((1 - axis, 2))
        seam = np.abs(np.take(picture, 0, axis) - np.take(picture, -1, axis)).mean()
        assert seam <= steps.max() * 1.1


def test_holes_of_the_breadboard_form_a_grid():
    picture = texture("breadboard").astype(float).mean(-1)
    cells = picture.reshape(16, 16, 16, 16).transpose(0, 2, 1, 3)
    assert cells[..., 7:9, 7:9].max() < cells[..., 0, 0].min() - 10


def test_another_process_makes_the_same_bytes():
    names = [name for name in TEXTURES if name not in TRAIN_TEXTURES]
    code = (
        "import sys, zlib; from jepa_gym.envs.pictures.textures import texture; "
        "print([zlib.crc32(texture(name).tobytes()) for name in sys.argv[1:]])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, *names], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == str([zlib.crc32(texture(name).tobytes()) for name in names])


def test_unknown_names_get_a_hint():
    with pytest.raises(ValueError, match="Did you mean `marble`"):
        texture("marbel")
    with pytest.raises(ValueError, match="breadboard"):
        texture("zzz")
