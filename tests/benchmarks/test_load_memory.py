"""The memory benchmark at a small size."""

from __future__ import annotations

import pytest

from jepa_gym.benchmarks import load_memory


def test_loading_an_encoder_needs_little_more_than_its_size(tmp_path):
    figures = load_memory.run(load_memory.MemoryConfig(file_gb=0.12, width=256, folder=tmp_path))
    assert figures["file"] > 0.12e9 and figures["equal"]
    assert figures["encoder"] < figures["file"] / 4 and figures["ratio"] <= load_memory.BAR
    assert not list(tmp_path.iterdir())


def test_bad_values_are_refused():
    with pytest.raises(ValueError, match="multiple of 64"):
        load_memory.MemoryConfig(width=100)
    with pytest.raises(ValueError, match="positive"):
        load_memory.MemoryConfig(file_gb=0)
