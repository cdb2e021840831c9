"""One page about a training run or a benchmark's results, with everything in it."""

from __future__ import annotations

import json

import imageio.v3 as iio
import numpy as np
import pytest

from jepa_gym.benchmarks import report
from jepa_gym.benchmarks.run_report import main, write_report

from .test_report import episode


def test_page_of_results_has_table_pictures_and_settings(tmp_path, capsys):
    rows = report.rows([episode("mpc-cem", seed, 0.01 * seed) for seed in range(6)])
    summary = {"rows": rows, "settings": {"torch": "2.13.0"}}
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    for name in ("plot.png", "another.png", "failures.png"):
        iio.imwrite(tmp_path / name, np.zeros((4, 4, 3), np.uint8))
    assert main([str(tmp_path)]) == 0
    assert f"wrote {tmp_path / 'report.html'}" in capsys.readouterr().err
    page = (tmp_path / "report.html").read_text()
    assert "<td>mpc-cem</td>" in page and "2.13.0" in page and "83%" in page
    assert page.index("failures</figcaption>") < page.index("another</figcaption>")
    assert page.count("data:image/png;base64,") == 3 and 'src="http' not in page


def test_page_of_a_training_has_curves_and_card(tmp_path):
    lines = [{"step": n, "loss": 1 / n} for n in (1, 2, 3)] + [
        {"step": 3, "auc": 0.97, "x_cm": 1.0}
    ]
    (tmp_path / "log.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (tmp_path / "settings.json").write_text(json.dumps({"seed": 5}))
    (tmp_path / "README.md").write_text("# a <card>")
    path = write_report(tmp_path, tmp_path / "page.html")
    page = path.read_text()
    assert "<td>auc</td><td>0.97</td>" in page and "# a &lt;card&gt;" in page
    assert page.count("data:image/png;base64,") == 1 and '"seed": 5' in page.replace("&quot;", '"')


def test_other_folders_and_damaged_files_are_named(tmp_path, capsys):
    assert main([str(tmp_path)]) == 1
    assert "has neither summary.json" in capsys.readouterr().err
    (tmp_path / "summary.json").write_text("{")
    with pytest.raises(ValueError, match=r"summary\.json is damaged"):
        write_report(tmp_path)
