"""A first look: one film with the real episode beside the imagined one."""

from __future__ import annotations

import imageio.v3 as iio
import numpy as np
import pytest

from jepa_gym.benchmarks.look import Arguments, main, play


def test_films_real_beside_imagined(tmp_path, capsys):
    path = tmp_path / "look.mp4"
    flags = ["--task", "reach", "--obj", "box", "--agent", "imagined-policy", "--seed", "4"]
    assert main([*flags, "--output", str(path)]) == 0
    assert f"wrote {path}" in capsys.readouterr().err
    frames = iio.imread(path, plugin="pyav")
    assert len(frames) == 11 + 4 and frames[0].std() > 20
    gif = tmp_path / "look.gif"
    assert main([*flags, "--output", str(gif)]) == 0
    assert iio.imread(gif).shape[0] >= 11


def test_imagines_from_the_first_frame_alone():
    seen = play(Arguments(task="reach", obj="box", agent="imagined-policy", seed=4))
    assert len(seen.real) == len(seen.imagined) == len(seen.success) == 11
    assert seen.energies["real"][0] == pytest.approx(seen.energies["imagined"][0])
    assert seen.energies["real"] != seen.energies["imagined"]
    assert np.abs(seen.real[-1].astype(int) - seen.imagined[-1]).mean() < 30


def test_refuses_what_it_does_not_know():
    with pytest.raises(ValueError, match="`task` must be among"):
        Arguments(task="juggle")
    with pytest.raises(ValueError, match=r"must end in .mp4 or .gif"):
        Arguments(output="film.avi")  # type: ignore[arg-type]
