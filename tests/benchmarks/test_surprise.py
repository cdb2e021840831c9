"""The benchmark of surprise: tables, a small real run with a tiny model, and its errors."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from jepa_gym.benchmarks import surprise
from jepa_gym.benchmarks.surprise import Arguments, main, rows, table
from jepa_gym.config import EncoderConfig, FrameSpec, PredictorConfig, WorldModelConfig
from jepa_gym.world_model import WorldModel


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    config = WorldModelConfig(
        frame=FrameSpec(height=32, width=64),
        encoder=EncoderConfig(
            kind="vit", embed_dim=16, depth=1, num_heads=1, latent_dim=16, patch_size=16
        ),
        predictor=PredictorConfig(embed_dim=16, depth=1, num_heads=1),
    )
    WorldModel(config).eval().save_pretrained(folder, {})
    return folder


@pytest.mark.parametrize(
    "fields", [{"pairs": 0}, {"ordinary": 0}, {"kinds": ("melts",)}, {"objects": ("sphere",)}]
)
def test_refuses_bad_arguments(fields):
    with pytest.raises(ValueError, match=f"`{next(iter(fields))}` must"):
        Arguments(**fields)


def record(kind, obj, possible, impossible):
    return {"kind": kind, "object": obj, "possible": possible, "impossible": impossible}


def test_rows_are_by_the_most_surprising_frame():
    records = [
        record("vanishes", "box", [0.0, 1.0], [0.0, 5.0]),
        record("vanishes", "cup", [3.0, 0.0], [3.0, 2.0]),
        record("floats", "box", [1.0, 2.0], [6.0, 2.0]),
    ]
    lines = {(line["kind"], line["object"]): line for line in rows(records)}
    assert next(iter(lines)) == ("vanishes", "all") and list(lines)[-1][0] == "all"
    vanishes = lines["vanishes", "all"]
    assert vanishes["auc"] == pytest.approx((1 + 1 + 1 + 0.5) / 4) and vanishes["twins"] == 0.5
    assert vanishes["ci95"][0] < vanishes["auc"] < vanishes["ci95"][1]
    assert lines["all", "all"]["pairs"] == 3 and lines["all", "box"]["auc"] == 1.0
    assert ("floats", "box") not in lines  # one object only: the row of all says it
    assert "vanishes" in table(list(lines.values()))


def test_run_writes_scores_pictures_and_goes_on(model, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(surprise, "run_jobs", one_process)
    flags = ["--model", str(model), "--kinds", "vanishes", "changes-colour", "--objects", "box"]
    flags += ["--pairs", "1", "--ordinary", "4", "--output", str(tmp_path / "out")]
    assert main(flags) == 0
    records = [json.loads(line) for line in (tmp_path / "out/pairs.jsonl").read_text().splitlines()]
    assert [r["kind"] for r in records] == ["vanishes", "changes-colour"]
    for found in records:
        before = found["moment"] - found["first"]
        assert found["possible"][:before] == found["impossible"][:before]
        assert found["possible"][before:] != found["impossible"][before:]
        assert np.isfinite(found["impossible"]).all()
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"vanishes-box.png", "changes-colour-box.png", "usual.npz", "summary.json"} <= names
    assert "AUC" in capsys.readouterr().out
    assert main(flags) == 0
    assert main([*flags, "--development"]) == 1
    assert "`first seed` was 1000000 and is 500000" in capsys.readouterr().err


def one_process(jobs, results, run, workers, what):
    """Run in this process what `run_jobs` runs in others, where not finished."""
    known = results.finished([job.identity for job in jobs])
    for number, job in enumerate(jobs):
        if known[number] is None:
            known[number] = job.identity | run(job)
            results.append(known[number])
    return known


def test_a_model_of_droid_gets_its_states(model):
    watching = surprise.watcher(str(model))
    seen = []

    class Spy:
        frame = replace(watching.frame, state_convention="droid")

        def watch(self, frames, states):
            seen.append(states)

    state = np.array([[0.5, 0.0, 0.2, 0.0, 0.0, 0.0, 0.3]], np.float32)
    clip = surprise.violations.Clip(np.zeros((1, 32, 64, 3), np.uint8), state)
    surprise.watch(Spy(), clip)
    assert seen[0][0, 2] > 0.25 and abs(seen[0][0, 3]) > 3  # the flange, roll near pi
