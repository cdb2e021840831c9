"""The camera sweep: its motion, a short real run, its line and its errors."""

from __future__ import annotations

import json

import gymnasium as gym
import numpy as np
import pytest

from jepa_gym.benchmarks import camera_sweep
from jepa_gym.benchmarks.camera_report import trend
from jepa_gym.benchmarks.camera_sweep import Arguments, main, record_motion, swept_camera
from jepa_gym.envs.pictures.cameras import camera_azimuth_deg


@pytest.fixture(scope="module")
def env():
    return gym.make("FrankaReach-v0", obs_mode="state").unwrapped


def test_published_angles_and_steps_are_the_default():
    arguments = Arguments()
    assert arguments.angles == (35, 40, 45, 50, 55, 60, 65, 70, 75, 80, 85)
    assert arguments.steps == 201
    quick = Arguments(quick=True)
    assert len(quick.angles) < 5 and quick.steps < 50
    assert Arguments(angles=(60.0, 40.0), steps=9, quick=True).angles == (40.0, 60.0)


@pytest.mark.parametrize(
    "fields",
    [{"angles": (50.0, 50.0)}, {"angles": (50.0, np.nan)}, {"angles": (0.0, 181.0)}]
    + [{"steps": 2}, {"seed": -1}, {"workers": 0}],
)
def test_refuses_bad_arguments(fields):
    with pytest.raises(ValueError, match=f"`{next(iter(fields))}` must"):
        Arguments(**fields)


def test_motion_is_random_flat_upright_and_repeatable(env):
    motion = record_motion(env, 1, 30)
    assert motion.states.shape == (31, 7) and len(motion.physics) == 31
    lengths = np.linalg.norm(np.diff(motion.states[:, :2], axis=0), axis=1)
    np.testing.assert_allclose(lengths, 0.05, atol=0.003)
    assert np.ptp(motion.states[:, 2]) < 0.003 and np.abs(motion.states[:, 3:6]).max() < 0.01
    again = record_motion(env, 1, 30)
    assert (again.physics == motion.physics).all() and (again.states == motion.states).all()
    assert np.abs(record_motion(env, 2, 30).states - motion.states).max() > 0.05


def test_motion_needs_long_enough_moves():
    with pytest.raises(ValueError, match=r"bounded by 0\.03 m"):
        record_motion(gym.make("FrankaReach-v0", max_move_m=0.03).unwrapped, 0, 5)


def test_a_camera_that_stands_still_is_turned():
    assert swept_camera(("wrist", "left")) == "left"
    with pytest.raises(ValueError, match="sees wrist"):
        swept_camera(("wrist",))


def test_line_through_rotations_that_pass_180_degrees():
    rows = [
        {"angle_deg": a, "rotation_deg": (a + 100 + 180) % 360 - 180} for a in (0.0, 60.0, 120.0)
    ]
    line = trend(rows, own_deg=50.0)
    assert line["slope"] == pytest.approx(1)
    assert line["at_own_place_deg"] == pytest.approx(150)
    assert line["largest_residual_deg"] == pytest.approx(0, abs=1e-9)


def test_real_run_writes_everything(tmp_path, capsys):
    flags = ["--angles", "40", "60", "--steps", "6", "--workers", "1", "--output", str(tmp_path)]
    assert main(flags) == 0
    printed = capsys.readouterr()
    assert "rotation of W" in printed.out and "3 cameras" in printed.err
    summary = json.loads((tmp_path / "summary.json").read_text())
    own = camera_azimuth_deg("left")
    assert [row["angle_deg"] for row in summary["rows"]] == [40, own, 60]
    assert summary["settings"]["own_angle_deg"] == pytest.approx(49.05, abs=0.01)
    assert {"slope", "at_own_place_deg"} <= set(summary["trend"])
    lines = [json.loads(line) for line in (tmp_path / "cameras.jsonl").read_text().splitlines()]
    assert len(lines) == 3 and all(line["moves"] == 6 for line in lines)
    assert lines[0]["real_m"] == lines[1]["real_m"] == lines[2]["real_m"]
    assert lines[0]["inferred_m"] != lines[1]["inferred_m"]
    assert (tmp_path / "plot.png").stat().st_size > 10_000
    at_home = summary["rows"][1]
    assert at_home["explained"] > 0.8, "the shipped model does not see moves any more"


def test_a_sweep_goes_on_where_it_stopped_and_refuses_another_motion(tmp_path, capsys):
    flags = ["--steps", "5", "--workers", "1", "--output", str(tmp_path)]
    assert main(["--angles", "40", "60", *flags]) == 0
    table = capsys.readouterr().out
    assert main(["--angles", "40", "60", *flags]) == 0
    again = capsys.readouterr()
    assert "3 of 3 cameras were finished before" in again.err
    assert table == again.out
    assert main(["--angles", "40", "60", "--seed", "1", *flags]) == 1
    assert "`env_seed` was 1000000 and is 1000001" in capsys.readouterr().err


def test_a_failing_camera_is_named(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(camera_sweep, "measure_camera", _fail)
    flags = ["--quick", "--steps", "3", "--workers", "1", "--output", str(tmp_path)]
    assert main(flags) == 1
    error = capsys.readouterr().err
    assert "The camera at 35 degrees failed with RuntimeError: no light" in error
    assert "0 finished cameras are kept" in error


def _fail(job):
    raise RuntimeError("no light")


def test_missing_checkpoint_is_an_error_before_anything_is_written(tmp_path, capsys):
    output = tmp_path / "results"
    assert main(["--checkpoint", str(tmp_path / "nothing"), "--output", str(output)]) == 1
    assert str(tmp_path / "nothing") in capsys.readouterr().err
    assert not output.exists()


def test_a_place_that_no_move_leads_from_is_an_error():
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match=r"No move of 0\.05 m from"):
        camera_sweep._next_place(rng, np.zeros(2), np.full(2, -0.01), np.full(2, 0.01))
