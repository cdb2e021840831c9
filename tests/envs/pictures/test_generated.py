"""Generated textures: decided by their seed, many, quick, without a seam."""

from __future__ import annotations

import subprocess
import sys
import time
import zlib

import numpy as np
import pytest

from jepa_gym.envs.pictures.generated import SEEDS, range_of, seed_of
from jepa_gym.envs.pictures.textures import texture

STARTS = {name: first for name, (first, _) in SEEDS.items()}


def some(zone: str, count: int) -> list[np.ndarray]:
    return [texture(f"generated-{STARTS[zone] + number}") for number in range(count)]


def test_names_have_one_form_only():
    assert seed_of("generated-0") == 0 and seed_of("generated-123") == 123
    last = SEEDS["far"][1] - 1
    assert seed_of(f"generated-{last}") == last and range_of(last) == "far"
    bad = ("generated-", "generated-01", "generated-1.0", "generated-٣", "wood", "7")
    assert [seed_of(name) for name in (*bad, f"generated-{last + 1}")] == [None] * 7


@pytest.mark.parametrize("zone", SEEDS)
def test_pictures_are_read_only_and_all_different(zone):
    pictures = some(zone, 100)
    for picture in pictures:
        assert picture.shape == (128, 128, 3) and picture.dtype == np.uint8
        assert not picture.flags.writeable
    assert len({picture.tobytes() for picture in pictures}) == 100
    means = np.array([picture.mean((0, 1)) for picture in pictures])
    assert (means.std(0) > 25).all(), "colours vary"
    rough = np.array([picture.astype(float).std() for picture in pictures])
    assert (rough < 20).any() and (rough > 45).any(), "from plain to strong patterns"


def test_those_that_are_no_photographs_repeat_without_a_seam():
    """Their first and last rows differ no more than the strongest step inside."""
    seams = 0
    for picture in some("train", 200):
        values = picture.astype(float)
        for axis in (0, 1):
            steps = np.abs(np.diff(values, axis=axis)).mean((1 - axis, 2))
            seam = np.abs(np.take(values, 0, axis) - np.take(values, -1, axis)).mean()
            seams += bool(seam > 1.2 * steps.max() + 4)
    assert seams < 0.15 * 400


def test_another_process_makes_the_same_bytes():
    names = [f"generated-{first + number}" for first in STARTS.values() for number in range(30)]
    code = (
        "import sys, zlib; from jepa_gym.envs.pictures.textures import texture; "
        "print([zlib.crc32(texture(name).tobytes()) for name in sys.argv[1:]])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, *names], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == str([zlib.crc32(texture(name).tobytes()) for name in names])


def test_a_picture_is_quick_and_kept():
    some("train", 30)
    names = [f"generated-{number}" for number in range(5000, 5100)]
    start = time.process_time()
    first = [texture(name) for name in names]
    assert time.process_time() - start < 100 * 0.01, "a reset shows up to five"
    assert all(texture(name) is picture for name, picture in zip(names, first, strict=True))
