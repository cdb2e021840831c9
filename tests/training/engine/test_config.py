from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import tyro

from jepa_gym.training.engine.config import (
    RunConfig,
    changed_settings,
    expanded,
    plain,
    run_recipe,
    write_settings,
)
from jepa_gym.training.engine.schedules import Schedule
from jepa_gym.training.recipes import posttrain, pretrain


@dataclass(frozen=True, slots=True)
class Recipe(RunConfig):
    """A recipe."""

    betas: tuple[float, float] = (0.5, 0.75)
    schedule: Schedule = field(default_factory=lambda: Schedule(warmup=7))
    bf16: bool = False


def test_saved_settings_can_be_read_again(tmp_path):
    config = Recipe(Path("d"), tmp_path, steps=3, gradient_clip=None, tf32=False)
    write_settings(config)
    words = expanded(["--config", str(tmp_path / "settings.json"), "--seed", "4"], {})
    again = tyro.cli(Recipe, args=words)
    assert plain(again) == plain(config) | {"seed": 4}


@pytest.mark.parametrize("recipe", [pretrain.PretrainConfig, posttrain.PosttrainConfig])
def test_published_presets_fit_their_recipes(recipe):
    presets = (pretrain if recipe is pretrain.PretrainConfig else posttrain).PRESETS
    words = expanded(
        ["--config=published", "--data", "d", "--output", "o", "--steps", "21"], presets
    )
    words += ["--encoder", "e"] if recipe is posttrain.PosttrainConfig else []
    config = tyro.cli(recipe, args=words)
    assert config.steps == 21 and config.gradient_clip is None
    assert config.schedule.phases(21) == (1, 19, 1)


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "did you mean|no such file"), ("{", "no settings in JSON"), ("[1]", "JSON object")],
)
def test_files_that_hold_no_settings(tmp_path, content, message):
    path = tmp_path / "publishd"
    if content is not None:
        path.write_text(content)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        expanded(["--config", str(path)], {"published": {}})


@pytest.mark.parametrize(
    ("flags", "status", "message"),
    [
        (["--steps", "0"], 1, "`steps` must be positive"),
        (["--device", "gpu"], 1, "`device` must be auto"),
        (["--schedule.warmup", "1.5"], 1, "whole number of steps"),
        (["--config", "nothing"], 1, "there is no such file"),
    ],
)
def test_mistakes_are_one_line(monkeypatch, capsys, flags, status, message):
    monkeypatch.setattr(sys, "argv", ["jepa-gym toy", "--data", "d", "--output", "o", *flags])
    assert run_recipe(lambda config: pytest.fail("ran"), Recipe) == status
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ") and message in error and "\n" not in error


def test_unknown_settings_in_a_file_are_unknown_flags(tmp_path, monkeypatch):
    (tmp_path / "s.json").write_text(json.dumps({"data": "d", "output": "o", "stepz": 3}))
    monkeypatch.setattr(sys, "argv", ["jepa-gym toy", "--config", str(tmp_path / "s.json")])
    with pytest.raises(SystemExit) as stop:
        run_recipe(lambda config: pytest.fail("ran"), Recipe)
    assert stop.value.code == 2


def test_what_differs_is_named():
    one, other = Recipe(Path("d"), Path("o")), Recipe(Path("e"), Path("p"), seed=1, threads=9)
    assert changed_settings(one, plain(other)) == ["seed was 1, is 0"]


@pytest.mark.parametrize("name", ["minutes", "batch_size", "eval_every", "threads", "keep"])
def test_ranges(name):
    with pytest.raises(ValueError, match=name):
        RunConfig(Path("d"), Path("o"), **{name: 0})


def test_schedule():
    schedule = Schedule(warmup=4, decay=0.5, start=0.1, final=0.2)
    rates = [schedule.rate(step, 20, peak=1.0) for step in range(20)]
    assert rates[:4] == pytest.approx([0.325, 0.55, 0.775, 1.0])
    assert rates[4:11] == [1.0] * 7
    assert rates[-1] == pytest.approx(0.28)
    assert Schedule(warmup=0).rate(0, 10, 1.0) == 1
    with pytest.raises(ValueError, match="longer than the run of 5"):
        Schedule(warmup=4, decay=4).phases(5)
    with pytest.raises(ValueError, match="must not be negative"):
        Schedule(final=-1)
