from __future__ import annotations

import json
import math
import sys
from dataclasses import dataclass, field, replace
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
from jepa_gym.training.engine.schedules import Schedule, half_cosine
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


@pytest.mark.parametrize(
    ("recipe", "name", "phases"),
    [
        (pretrain, "published", (12_000, 228_000, 0)),
        (pretrain, "published-cooldown", (0, 0, 12_000)),
        (pretrain, "vjepa1", (12_000, 0, 78_000)),
        (posttrain, "published", (4_500, 85_500, 4_500)),
    ],
)
def test_presets_fit_their_recipes(recipe, name, phases):
    words = expanded([f"--config={name}", "--data", "d", "--output", "o"], recipe.PRESETS)
    words += ["--encoder", "e"] if recipe is posttrain else []
    kind = posttrain.PosttrainConfig if recipe is posttrain else pretrain.PretrainConfig
    config = tyro.cli(kind, args=words)
    assert config.steps and config.schedule.phases(config.steps) == phases
    assert config.schedule.phases(21 * 5)[0] == round(105 * phases[0] / sum(phases))
    assert config.gradient_clip == (10.0 if name == "vjepa1" else None)


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


def test_settings_that_an_earlier_version_did_not_have_mean_their_defaults():
    run = RunConfig(Path("d"), Path("o"))
    before = plain(run)
    del before["final_weight_decay"], before["schedule"]["stretch"]
    assert changed_settings(run, before) == []
    other = replace(run, final_weight_decay=0.4, schedule=Schedule(stretch=1.25))
    assert len(changed_settings(other, before)) == 2


def test_a_stretched_cosine_is_that_of_v_jepa_1():
    """Its published schedules: 112,500 steps planned, of which 90,000 are taken."""
    schedule = Schedule(
        warmup=8 / 75, decay=67 / 75, start=2e-4, final=1e-6, shape="cosine", stretch=1.25
    )
    assert schedule.phases(90_000) == (12_000, 0, 78_000)
    rates = [schedule.rate(step, 90_000, peak=6.25e-4) for step in (0, 11_999, 62_250, 89_999)]
    halfway, end = (6.25e-4 + 1e-6) / 2, 1e-6 + 6.24e-4 * (1 + math.cos(math.pi * 78 / 100.5)) / 2
    assert rates == pytest.approx([2e-4, 6.25e-4, halfway, end], rel=1e-3)
    assert schedule.course(90_000, 90_000) == pytest.approx(0.8)
    assert half_cosine(0.04, 0.4, 0.5) == pytest.approx(0.22)


def test_a_cooldown_falls_all_along():
    cooldown = Schedule(warmup=0, decay=1, final=1e-6, stretch=1.25)
    rates = [cooldown.rate(step, 12_000, peak=5.25e-4) for step in (0, 6_000, 12_000)]
    assert rates == pytest.approx([5.25e-4, 3.154e-4, 1.058e-4], rel=1e-3)
    for steps in range(1, 200):
        assert sum(Schedule(warmup=8 / 75, decay=67 / 75).phases(steps)) == steps
    with pytest.raises(ValueError, match="stretch"):
        Schedule(stretch=0.5)
