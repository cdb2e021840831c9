"""Ways to damage a file, and what must follow: an error that says so, or the same content.

`JEPA_GYM_MUTATIONS=20` makes every test draw twenty times as many.
"""

from __future__ import annotations

import os
import pickle
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

TIMES = int(os.environ.get("JEPA_GYM_MUTATIONS", "1"))
PER_FILE = 25
SLOWEST_S = 20.0


class Evil:
    """Unpickling it would leave a trace."""

    def __reduce__(self):
        return os.mkdir, (os.environ["JEPA_GYM_TRACE"],)


def flip(content, rng):
    """Flip one bit anywhere."""
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)


def flip_start(content, rng):
    """Flip up to three bits where headers and configurations are."""
    for _ in range(rng.randint(1, 3)):
        content[rng.randrange(min(len(content), 4000))] ^= 1 << rng.randrange(8)


def flip_end(content, rng):
    """Flip a bit where archives keep their list."""
    content[-1 - rng.randrange(min(len(content), 600))] ^= 1 << rng.randrange(8)


def cut(content, rng):
    """Lose the end."""
    del content[rng.randrange(len(content)) :]


def lose(content, rng):
    """Lose a piece in the middle."""
    start = rng.randrange(len(content))
    del content[start : start + rng.randint(1, 64)]


def zero(content, rng):
    """A page of zeros, as disks leave it after a crash."""
    start = rng.randrange(len(content))
    end = min(start + 512, len(content))
    content[start:end] = bytes(end - start)


def exchange(content, rng):
    """Exchange one number in text for another one."""
    digits = [place for place, byte in enumerate(content[:4000]) if 48 <= byte <= 57]
    if digits:
        content[rng.choice(digits)] = rng.choice(b"0123456789-eE.")


def grow(content, rng):
    """Make a number in text very long."""
    digits = [place for place, byte in enumerate(content[:4000]) if 48 <= byte <= 57]
    if digits:
        place = rng.choice(digits)
        content[place:place] = str(rng.randrange(10**12)).encode()


def replace_all(content, rng):
    """Something else altogether."""
    content[:] = rng.choice(
        [
            b"",
            b"{}",
            b"[]",
            b"null",
            b"[" * 100_000,
            b"<!DOCTYPE html><html>",
            b"PK\x03\x04" + bytes(60),
            (10**9).to_bytes(8, "little") + b"{" + bytes(50),
            pickle.dumps(Evil()),
        ]
    )


MUTATIONS = (flip, flip, flip_start, flip_end, cut, lose, zero, exchange, grow, replace_all)


def damage(
    folder: Path,
    names: Sequence[str],
    read: Callable[[], Any],
    check: Callable[[Any], bool],
    documented: tuple[type[Exception], ...],
    seed: int = 0,
    count: int = PER_FILE,
) -> int:
    """Damage files of a folder, each alone; `read` raises a documented error, or `check` holds.

    Returns:
        How many were refused.
    """
    rng, refused = random.Random(seed), 0
    for name in names:
        path = folder / name
        content = path.read_bytes()
        for _ in range(count * TIMES):
            mutated, mutation = bytearray(content), rng.choice(MUTATIONS)
            mutation(mutated, rng)
            path.write_bytes(mutated)
            start = time.perf_counter()
            try:
                got = read()
            except documented as error:
                refused += 1
                assert "\n" not in str(error) or "nothing was loaded" in str(error)
            else:
                assert check(got), f"{mutation.__name__} changed {name} silently"
            assert time.perf_counter() - start < SLOWEST_S
        path.write_bytes(content)
    assert check(read())
    return refused


@pytest.fixture
def no_code_runs(tmp_path, monkeypatch):
    """Fail if anything that was read has run code."""
    trace = tmp_path / "trace"
    monkeypatch.setenv("JEPA_GYM_TRACE", str(trace))
    monkeypatch.setenv("JEPA_GYM_CACHE", str(tmp_path / "cache"))
    yield
    assert not trace.exists()
