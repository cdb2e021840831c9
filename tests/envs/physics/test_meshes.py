"""The cache of simplified meshes: rebuilt when damaged, shared by processes, never in the way."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import warnings
from pathlib import Path

import mujoco
import numpy as np
import pytest

from jepa_gym.envs.physics import meshes
from jepa_gym.envs.physics.meshes import visual_meshes

XML = """
<mujoco>
  <asset><mesh name="tip" vertex="0 0 0  .1 0 0  0 .1 0  0 0 .1"/></asset>
  <worldbody>
    <body name="hand"><geom type="mesh" mesh="tip" group="1" rgba="1 0 0 1"/></body>
  </worldbody>
</mujoco>
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "arm.xml"
    path.write_text(XML)
    return path


@pytest.fixture
def cache(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.setenv("JEPA_GYM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "meshes"


def made(source: Path, tag: str = "") -> list[meshes.VisualMesh]:
    return visual_meshes(source, mujoco.MjSpec.from_file(str(source)), tag)


def equal(one: list[meshes.VisualMesh], two: list[meshes.VisualMesh]) -> bool:
    return all(
        (a.body, a.rgba) == (b.body, b.rgba)
        and np.array_equal(a.vertices, b.vertices)
        and np.array_equal(a.faces, b.faces)
        for a, b in zip(one, two, strict=True)
    )


@pytest.fixture
def no_simplifier(monkeypatch):
    """Fail if anything is simplified instead of read."""
    monkeypatch.setattr(meshes, "_simplify", lambda model: pytest.fail("the cache was not read"))


def test_the_second_time_it_is_read(source, cache, request):
    first = made(source)
    assert first[0].body == "hand" and len(first[0].faces) == 4
    request.getfixturevalue("no_simplifier")
    assert equal(first, made(source))


def test_versions_are_part_of_the_name(source, cache, monkeypatch):
    made(source)
    made(source, "mujoco 9")
    monkeypatch.setattr(meshes, "version", lambda name: f"{name} 99")
    made(source)
    assert len(list(cache.iterdir())) == 3


def test_a_damaged_file_is_built_again(source, cache, monkeypatch):
    good = made(source)
    (path,) = cache.iterdir()
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    damaged = [b"", content[:100], content[:-1], b"no archive", b"\0" * len(content)]
    for place in rng.integers(0, len(content), 40):
        changed = bytearray(content)
        changed[place] ^= 1 << rng.integers(8)
        damaged.append(bytes(changed))
    for bad in damaged:
        path.write_bytes(bad)
        assert equal(good, made(source))
    path.write_bytes(b"no archive")
    made(source)
    assert path.read_bytes() == content


def test_a_full_disk_is_a_warning_that_says_so(source, cache, monkeypatch):
    def full(self, data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.warns(UserWarning, match=r"No space left on device.*Set JEPA_GYM_CACHE"):
        assert made(source)[0].body == "hand"
    assert list(cache.iterdir()) == []


def test_a_cache_that_cannot_be_written_is_a_warning(source, cache, monkeypatch):
    cache.parent.write_text("a file where the folder should be")
    with pytest.warns(UserWarning, match="could not be kept"):
        made(source)


def test_processes_share_a_fresh_cache_without_a_home(source, tmp_path):
    code = (
        "import sys, mujoco; from pathlib import Path\n"
        "from jepa_gym.envs.physics.meshes import visual_meshes\n"
        "source = Path(sys.argv[1])\n"
        "print(len(visual_meshes(source, mujoco.MjSpec.from_file(str(source)), '')))"
    )
    inherited = {
        name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ
    }
    environ = inherited | {"TMPDIR": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "fresh")}
    started = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", code, str(source)],
            env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for _ in range(4)
    ]  # fmt: skip
    for process in started:
        assert process.communicate(timeout=60) == ("1\n", ""), process.returncode
    assert len(list((tmp_path / "fresh" / "jepa_gym" / "meshes").iterdir())) == 1


def test_nothing_is_said_when_all_is_well(source, cache):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made(source)
