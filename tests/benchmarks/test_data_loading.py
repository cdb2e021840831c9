from __future__ import annotations

import json

from jepa_gym.benchmarks import data_loading


def test_toy_run(tmp_path, capsys):
    output = tmp_path / "loading.json"
    toy = ["--episodes=1", "--batches=1", "--height=32", "--image-size=16", "--batch-size=2"]
    toy += ["--step-s=0.2", "--readers", "0", "1", "--large-gb=0.1", "--large-batches=2"]
    assert data_loading.main([*toy, "--seconds=4.5", "--output", str(output)]) in (0, 1)
    figures = json.loads(output.read_text())
    assert list(figures["rows"]) == [
        *("cache, 0 readers", "on-the-fly, 0 readers", "on-the-fly, 1 readers")
    ]
    assert all(
        row["clips_per_s"] > 0 and 0 <= row["waiting"] < 1 for row in figures["rows"].values()
    )
    assert figures["large"]["growth"] >= 0 and "0.1 GB set" in capsys.readouterr().out
