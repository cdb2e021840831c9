"""What the speed benchmarks share, with a clock that the test sets."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from jepa_gym.benchmarks import timing
from jepa_gym.benchmarks.timing import Measurement, command, comparison, memory


class Clock:
    """Time passes only when a function says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.wall = self.cpu = 0.0
        monkeypatch.setattr(timing.time, "perf_counter", lambda: self.wall)
        monkeypatch.setattr(timing.time, "process_time", lambda: self.cpu)

    def taking(self, *seconds: float, cpu_share: float = 1.0):
        """Return a function whose calls take these seconds, one after the other."""
        rest = iter(seconds)

        def call() -> None:
            passed = next(rest)
            self.wall += passed
            self.cpu += passed * cpu_share

        return call


def test_ratio_is_seconds_of_the_first_over_those_of_the_second(monkeypatch):
    clock = Clock(monkeypatch)
    slow, fast = clock.taking(*[6.0] * 4), clock.taking(*[2.0] * 4, cpu_share=0.5)
    found = comparison({"slow": slow, "fast": fast}, 3)
    assert found["ratio"] == pytest.approx(3) and found["cpu_ratio"] == pytest.approx(6)
    assert found["rows"]["fast"] == pytest.approx({"wall_s": 2.0, "cpu_s": 1.0})


def test_neither_the_warm_up_nor_one_slow_round_counts(monkeypatch):
    clock = Clock(monkeypatch)
    slow, fast = clock.taking(90, 6, 6, 60), clock.taking(90, 2, 50, 2)
    assert comparison({"slow": slow, "fast": fast}, 3)["ratio"] == pytest.approx(3)


def test_functions_take_turns():
    order = []
    comparison({name: lambda name=name: order.append(name) for name in "ab"}, 3)
    assert order == list("abababab")


@pytest.mark.skipif(sys.platform != "linux", reason="Linux tells the memory")
def test_memory_counts_a_buffer():
    before = memory()["VmRSS"]
    held = torch.ones(2**24)  # 64 MiB
    assert memory()["VmRSS"] - before > 60 * 2**20 and len(held)


@dataclass(frozen=True)
class Config(Measurement):
    """Nothing."""

    count: int = 9
    QUICK = {"count": 2}
    LEAST = {"count": 2}


def test_quick_and_ranges():
    assert (Config().count, Config(quick=True).count) == (9, 2)
    for fields in ({"count": 1}, {"rounds": 0}):
        with pytest.raises(ValueError, match=f"`{next(iter(fields))}` must be at least"):
            Config(**fields)


def test_figures_are_written_and_a_missed_bar_is_a_status(tmp_path, capsys):
    path = tmp_path / "figures.json"
    flags = ["--count", "3", "--output", str(path)]
    assert command(lambda config: {"met": config.count == 4}, Config, flags) == 1
    written = json.loads(path.read_text())
    assert written["config"]["count"] == 3 and written["met"] is False
    assert command(lambda config: {}, Config, ["--count", "1"]) == 1
    assert "error: `count` must be at least 2" in capsys.readouterr().err


def test_a_missing_folder_is_made_and_a_full_one_is_one_line(tmp_path, capsys):
    path = tmp_path / "new" / "figures.json"
    assert command(lambda config: {"x": 1}, Config, ["--output", str(path)]) == 0 and path.exists()
    blocked = tmp_path / "file"
    blocked.write_text("")
    flags = ["--output", str(blocked / "figures.json")]
    assert command(lambda config: {"x": 1}, Config, flags) == 1
    assert capsys.readouterr().err.startswith("error: ")


def interrupt(config: Config):
    raise KeyboardInterrupt


def test_ctrl_c_is_one_line_and_130(capsys):
    assert command(interrupt, Config, []) == 130
    assert "Nothing is kept" in capsys.readouterr().err


@pytest.mark.parametrize(
    "name", ["encoder_speed", "imagination_speed", "load_memory", "planning_speed", "sim_speed"]
)
def test_every_speed_benchmark_ends_through_it(name):
    source = (Path(timing.__file__).parent / f"{name}.py").read_text()
    assert "return command(run, " in source and "tyro.cli" not in source


def test_an_output_that_cannot_be_written_is_found_out_before_measuring(tmp_path, capsys):
    (tmp_path / "file").touch()

    def run(config: Measurement) -> dict:
        raise AssertionError("it was measured")

    assert command(run, Measurement, ["--output", str(tmp_path / "file" / "figures.json")]) == 1
    assert capsys.readouterr().err.count("\n") == 1
