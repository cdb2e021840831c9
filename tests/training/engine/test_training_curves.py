"""The curves of runs are drawn from their logs."""

import json
import subprocess
import sys
from pathlib import Path

from PIL import Image

TOOL = Path(__file__).parents[3] / "tools" / "training_curves.py"


def test_curves_of_two_runs_are_drawn(tmp_path):
    for name, score in (("first", "probe_cm"), ("second", "landscape_error")):
        lines = [{"step": 1, "loss": 0.5}, {"step": 2, score: 0.3}, {"step": 2, "loss": 0.4}]
        (tmp_path / name).mkdir()
        (tmp_path / name / "log.jsonl").write_text("\n".join(map(json.dumps, lines)))
    command = [sys.executable, TOOL, "first", "second", "--output", "curves.png"]
    subprocess.run(command, cwd=tmp_path, check=True, timeout=120)
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.width > picture.height > 300
        assert len(picture.convert("RGB").getcolors(10**6)) > 20
    missing = subprocess.run([sys.executable, TOOL, "none"], cwd=tmp_path, capture_output=True)
    assert missing.returncode == 1 and missing.stderr.count(b"\n") == 1
