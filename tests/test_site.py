"""The pages of docs/ build as a site without a warning, and the site needs no network."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
pytest.importorskip("mkdocs", reason='pip install "jepa-gym[docs]"')


def test_builds_strictly_and_opens_offline(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-d", str(tmp_path)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    result = subprocess.run(
        command, cwd=REPOSITORY, capture_output=True, text=True, env=environment
    )
    assert result.returncode == 0, result.stderr
    home = (tmp_path / "index.html").read_text()
    fetched = re.findall(r"<(?:script|link|img)[^>]+(?:src|href)=\"(https?:[^\"]+)", home)
    assert not fetched
    assert "MPCAgent" in (tmp_path / "reference.html").read_text()
    for page in (REPOSITORY / "docs").glob("*.md"):
        assert (tmp_path / f"{page.stem}.html").is_file()


def test_every_page_is_in_the_navigation() -> None:
    listed = set(re.findall(r": ([\w-]+\.md)$", (REPOSITORY / "mkdocs.yml").read_text(), re.M))
    assert listed == {page.name for page in (REPOSITORY / "docs").glob("*.md")}
