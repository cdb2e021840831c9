"""The encoder's speed benchmark: a tiny real run whose figures agree with each other."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from jepa_gym.benchmarks import encoder_speed
from jepa_gym.benchmarks.encoder_speed import EncoderSpeedConfig

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "encoder_speed.py"
TINY = ["--model=vit_tiny", "--frames=2", "--size=32", "--rounds=2", "--threads=1"]


@pytest.mark.skipif(find_spec("transformers") is None, reason="transformers is not installed")
def test_tiny_run(tmp_path):
    output = tmp_path / "speed.json"
    result = subprocess.run(
        [sys.executable, SCRIPT, *TINY, "--output", output],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    figures = json.loads(output.read_text())
    assert figures["threads"] == 1 and figures["config"]["model"] == "vit_tiny"
    for name in ("jepa_gym", "transformers"):
        assert len(figures["wall_s"][name]) == len(figures["cpu_s"][name]) == 2
        assert f"{name:13}{figures['median_wall_s'][name]:9.3f}" in result.stdout
    medians = figures["median_wall_s"]
    assert figures["ratio"] == pytest.approx(medians["transformers"] / medians["jepa_gym"])
    assert f"ratio {figures['ratio']:.2f}" in result.stdout


def test_help():
    result = subprocess.run([sys.executable, SCRIPT, "--help"], capture_output=True, text=True)
    assert result.returncode == 0 and "--threads" in result.stdout


def test_turns(monkeypatch):
    order = []
    forwards = {name: lambda name=name: order.append(name) for name in "ab"}
    for seconds in encoder_speed.timings(forwards, 3):
        assert {name: len(values) for name, values in seconds.items()} == {"a": 3, "b": 3}
    assert order == list("ababab")


@pytest.mark.skipif(sys.platform != "linux", reason="Linux tells the peak")
def test_peak_counts_a_buffer():
    held = []
    assert encoder_speed.peak_mib(lambda: held.append(torch.ones(2**24))) > 60  # 64 MiB


def test_says_what_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ImportError, match="pip install transformers"):
        encoder_speed.their_model(EncoderSpeedConfig(model="vit_tiny"))


@pytest.mark.parametrize("fields", [{"frames": 3}, {"size": 100}, {"rounds": 0}, {"threads": -1}])
def test_refuses_bad_arguments(fields):
    with pytest.raises(ValueError, match=f"`{next(iter(fields))}` must"):
        EncoderSpeedConfig(**fields)
    with pytest.raises(ValueError, match="no preset 'vit'"):
        EncoderSpeedConfig(model="vit")
