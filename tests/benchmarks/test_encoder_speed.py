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
from jepa_gym.benchmarks.encoder_speed import EncoderSpeedConfig, their_model
from jepa_gym.models.presets import video_transformer

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "encoder_speed.py"
TINY = ["--model=vit_tiny", "--frames=4", "--size=64", "--rounds=5", "--threads=1"]


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
    for name, row in figures["rows"].items():
        assert f"{name:13}{row['wall_s']:9.3f}" in result.stdout
    assert figures["cpu_ratio"] > 0.4, "ours takes more than twice the time of transformers"


@pytest.mark.skipif(find_spec("transformers") is None, reason="transformers is not installed")
def test_both_do_the_same_arithmetic(flops_of):
    """Else the ratio would compare unlike models."""
    config = EncoderSpeedConfig(model="vit_tiny", frames=4, size=64)
    ours, theirs = video_transformer("vit_tiny", rope="v2").eval(), their_model(config)
    video = torch.randn(1, 3, 4, 64, 64)
    mine = flops_of(lambda: ours(video))
    other = flops_of(lambda: theirs(video.transpose(1, 2), skip_predictor=True))
    assert mine == pytest.approx(other, rel=0.02)
    weights = [sum(x.numel() for x in model.parameters()) for model in (ours, theirs.encoder)]
    assert weights[0] == weights[1]


def test_help():
    result = subprocess.run([sys.executable, SCRIPT, "--help"], capture_output=True, text=True)
    assert result.returncode == 0 and "--threads" in result.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="Linux tells the peak")
def test_peak_counts_a_buffer():
    held = []
    assert encoder_speed.peak_mib(lambda: held.append(torch.ones(2**24))) > 60  # 64 MiB


def test_says_what_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ImportError, match="pip install transformers"):
        their_model(EncoderSpeedConfig(model="vit_tiny"))


@pytest.mark.parametrize("fields", [{"frames": 3}, {"size": 100}, {"rounds": 0}, {"threads": -1}])
def test_refuses_bad_arguments(fields):
    with pytest.raises(ValueError, match=f"`{next(iter(fields))}` must"):
        EncoderSpeedConfig(**fields)
    with pytest.raises(ValueError, match="no preset 'vit'"):
        EncoderSpeedConfig(model="vit")
