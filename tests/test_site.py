"""The pages of docs/ build as a site without a warning, and the site needs no network."""

from __future__ import annotations

import os
import re
import shutil
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
    for page in tmp_path.glob("*.html"):
        fetched = r"<(?:script|link|img)[^>]+(?:src|href)=\"(https?:[^\"]+)"
        assert not re.findall(fetched, page.read_text()), page.name
    assert "MPCAgent" in (tmp_path / "reference.html").read_text()
    for page in (REPOSITORY / "docs").glob("*.md"):
        assert (tmp_path / f"{page.stem}.html").is_file()
    search_from_a_folder(tmp_path)


def search_from_a_folder(site: Path) -> None:
    """Search in a browser that has opened the site as a file."""
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("no browser: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page()
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto((site / "index.html").as_uri())
        page.keyboard.press("/")
        page.locator("input.md-search__input").type("extrinsics")
        page.locator(".md-search-result__item").first.wait_for(timeout=20_000)
        browser.close()
    assert all(url.startswith(("file:", "data:")) for url in asked), asked


def test_every_page_is_in_the_navigation() -> None:
    listed = set(re.findall(r": ([\w-]+\.md)$", (REPOSITORY / "mkdocs.yml").read_text(), re.M))
    assert listed == {page.name for page in (REPOSITORY / "docs").glob("*.md")}
