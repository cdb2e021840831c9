"""Recorded episodes as Rerun's files, read back by Rerun itself."""

from __future__ import annotations

import numpy as np
import pytest

from jepa_gym.cli import main
from jepa_gym.training.data.dataset import write_index
from jepa_gym.training.data.episodes import write_episode

from ..conftest import INDEX, make_episode


@pytest.fixture
def data(tmp_path):
    for number in range(2):
        write_episode(tmp_path / "own" / "episodes" / f"{number:06d}", make_episode(number))
    write_index(tmp_path / "own", INDEX)
    return tmp_path / "own"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_everything_of_an_episode_is_in_its_file(data, tmp_path):
    dataframe = pytest.importorskip("rerun.dataframe")
    output = tmp_path / "rerun"
    assert main(["convert", str(data), str(output), "--to", "rerun"]) == 0
    files = sorted(output.iterdir())
    assert [path.name for path in files] == ["000000.rrd", "000001.rrd"]
    episode = make_episode(0)
    found = dataframe.load_recording(files[0])
    table = found.view(index="time", contents="/**").select().read_all()
    column = next(name for name in table.column_names if "/state/x:Scalar" in name)
    values = [value[0] for value in table[column].to_pylist() if value]
    np.testing.assert_allclose(values, episode.states[:, 0])
    names = " ".join(table.column_names)
    for entity in ("/camera/left", "/camera/wrist", "/world/hand", "/action/gripper", "/success"):
        assert f"{entity}:" in names
    before = files[0].stat().st_mtime_ns
    assert main(["convert", str(data), str(output), "--to", "rerun"]) == 0
    assert files[0].stat().st_mtime_ns == before, "what is there is not written again"


def test_flags_of_datasets_are_refused(data, tmp_path, capsys):
    flags = ["--to", "rerun", "--frames", "4"]
    assert main(["convert", str(data), str(tmp_path / "out"), *flags]) == 1
    assert "--to rerun writes episodes as they are: leave out ['frames']" in capsys.readouterr().err
