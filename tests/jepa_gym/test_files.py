"""Files appear complete or not at all; names that were mistyped find their neighbours."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys

import numpy as np
import pytest
import safetensors.torch
import torch

from jepa_gym.checkpoint.start_frames import StartFrames, write_starts
from jepa_gym.commands import one_line
from jepa_gym.files import atomic_write, cache_folder
from jepa_gym.names import did_you_mean


def test_the_file_appears_at_the_end_and_its_folder_with_it(tmp_path):
    path = tmp_path / "new" / "numbers.npz"
    with atomic_write(path) as temporary:
        assert temporary.suffix == ".npz"
        temporary.write_text("all of it")
        assert not path.exists()
    assert path.read_text() == "all of it"
    assert [p.name for p in path.parent.iterdir()] == ["numbers.npz"]


def test_an_error_leaves_what_was_there_and_nothing_else(tmp_path):
    path = tmp_path / "settings.json"
    path.write_text("before")
    with pytest.raises(RuntimeError), atomic_write(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "before"
    assert [p.name for p in tmp_path.iterdir()] == ["settings.json"]


def test_others_may_read_what_a_careful_writer_wrote(tmp_path):
    mask = os.umask(0o022)
    try:
        with atomic_write(tmp_path / "weights") as temporary:
            temporary.touch(mode=0o600)
    finally:
        os.umask(mask)
    assert stat.S_IMODE((tmp_path / "weights").stat().st_mode) == 0o644


def test_did_you_mean():
    assert did_you_mean("cemm", ("cem", "mppi")) == " Did you mean `cem`?"
    assert did_you_mean("zebra", ("cem", "mppi")) == ""


def test_what_dead_processes_left_is_removed(tmp_path):
    """A process that is killed while it writes leaves a file, until the next one writes."""
    code = (
        "import os, sys\nfrom jepa_gym.files import atomic_write\n"
        "with atomic_write(sys.argv[1]) as temporary:\n"
        "    temporary.write_bytes(bytes(1000))\n    os.kill(os.getpid(), 9)\n"
    )
    for name in ("big.bin", "other.bin"):
        subprocess.run([sys.executable, "-c", code, str(tmp_path / name)], check=False)
    (tmp_path / ".big.elsewhere-1-1.tmp.bin").touch()  # of another machine, on a shared disk
    assert len(list(tmp_path.iterdir())) == 2  # the second process removed the first one's
    with atomic_write(tmp_path / "big.bin") as first:
        first.touch()
        with atomic_write(tmp_path / "big.bin") as second:  # takes nothing from a living writer
            assert second == first and first.exists()
            second.write_text("")
        first.touch()
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == [".big.elsewhere-1-1.tmp.bin", "big.bin"]


@pytest.fixture
def small_disk(tmp_path):
    """Return a folder on a disk of 300 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounting a small disk is not allowed here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("write", ["bytes", "pt", "safetensors"])
def test_a_full_disk_is_called_that(small_disk, write):
    path = small_disk / f"numbers.{write}"
    path.write_text("before")
    with pytest.raises(OSError) as caught, atomic_write(path) as temporary:
        if write == "bytes":
            temporary.write_bytes(bytes(10**6))
        elif write == "pt":
            torch.save(torch.zeros(10**6), temporary)
        else:
            safetensors.torch.save_file({"x": torch.zeros(10**6)}, temporary)
    assert caught.value.errno == errno.ENOSPC
    assert "disk is full" in one_line(caught.value) and path.name in one_line(caught.value)
    assert [(p.name, p.read_text()) for p in small_disk.iterdir()] == [(path.name, "before")]


def test_a_full_disk_and_start_frames(small_disk):
    frames = np.random.default_rng(0).integers(0, 256, (2, 400, 400, 3), np.uint8)
    starts = StartFrames(frames, np.zeros((2, 7)), frames, np.zeros((2, 7)))
    with pytest.raises(OSError) as caught:
        write_starts(small_disk, starts)
    assert caught.value.errno == errno.ENOSPC and not list(small_disk.iterdir())


def test_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("JEPA_GYM_CACHE", "/somewhere")
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    assert str(cache_folder()) == "/somewhere"
    monkeypatch.setenv("JEPA_GYM_CACHE", "")
    assert str(cache_folder()) == "/cache/jepa_gym"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/someone")
    assert str(cache_folder()) == "/home/someone/.cache/jepa_gym"
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("os.path.expanduser", lambda path: path)  # as for a user without a home
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert cache_folder().parent == tmp_path
