"""Files appear complete or not at all; names that were mistyped find their neighbours."""

from __future__ import annotations

import os
import stat

import pytest

from jepa_gym.files import atomic_write
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
