"""The gallery shows everything there is, is up to date, and its snippets run."""

from __future__ import annotations

import re
import sys
from importlib import import_module
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from PIL import Image

import jepa_gym  # noqa: F401  (registers the environments)
from jepa_gym.envs.physics.objects import OBJECTS
from jepa_gym.envs.pictures.rendering import CAMERA_NAMES
from jepa_gym.envs.pictures.textures import TEXTURES
from jepa_gym.envs.splits import FACTORS, SPLITS
from jepa_gym.envs.tasks.options import POINTS
from jepa_gym.envs.variations import Variation

REPOSITORY = Path(__file__).resolve().parents[1]
DOCS = REPOSITORY / "docs"
PAGE = DOCS / "tasks.md"
MAX_PICTURES_BYTES = 2.5e6
"""Every version of the pictures stays in the history."""
IDS = [name for name in gym.registry if name.startswith("Franka")]
RENEW = "run `python tools/gallery.py`"


@pytest.fixture(scope="module")
def gallery():
    """The script as a module; its own modules lie beside it."""
    sys.path.insert(0, str(REPOSITORY / "tools"))
    try:
        yield import_module("gallery")
    finally:
        sys.path.remove(str(REPOSITORY / "tools"))


def linked() -> list[Path]:
    return [DOCS / name for name in re.findall(r"!\[.+?\]\((.+?)\)", PAGE.read_text())]


def test_page_is_up_to_date(gallery, tmp_path: Path) -> None:
    gallery.run(gallery.GalleryConfig(output=tmp_path, only=("page",)))
    assert (tmp_path / "tasks.md").read_text() == PAGE.read_text(), RENEW


def test_page_names_everything() -> None:
    text = PAGE.read_text()
    names = [*IDS, *OBJECTS, *CAMERA_NAMES, *SPLITS, *FACTORS, *POINTS]
    names += Variation().to_dict()
    assert not [name for name in names if f"`{name}`" not in text], RENEW
    assert not [name for name in TEXTURES if name not in text], RENEW
    alts = " ".join(re.findall(r"!\[(.+?)\]\(", text))
    assert not [name for name in (*IDS, *OBJECTS, *TEXTURES) if name not in alts]


def test_pictures_are_there_and_not_blank() -> None:
    pictures = linked()
    assert len(pictures) == len(set(pictures))
    assert set(pictures) == set((DOCS / "pictures").iterdir()), RENEW
    for path in pictures:
        with Image.open(path) as picture:
            pixels = np.asarray(picture.reduce(4), np.float32)
        assert pixels.std(axis=(0, 1)).min() > 10, path.name
    assert sum(path.stat().st_size for path in pictures) < MAX_PICTURES_BYTES


def test_snippets_run(capsys) -> None:
    names: dict = {}
    for code in re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL):
        exec(compile(code, str(PAGE), "exec"), names)
        names["env"].close()
    printed = capsys.readouterr().out
    assert "success: True failure: None" in printed
    assert "(96, 256, 3) (96, 256)" in printed and "(2, 7)" in printed


def test_same_call_writes_the_same_bytes(gallery, tmp_path: Path) -> None:
    found = []
    for name in "ab":
        config = gallery.GalleryConfig(output=tmp_path / name, tile=32, only=("tasks", "droid"))
        paths = gallery.run(config)
        assert sorted(path.name for path in paths) == ["droid.jpg", "tasks.jpg"]
        assert sorted(config.output.rglob("*.*")) == sorted(paths)
        found.append([path.read_bytes() for path in paths])
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [({"tile": 8}, "16 to 256"), ({"tile": 512}, "16 to 256"), ({"only": ()}, "at least one")],
)
def test_bad_arguments_are_named(gallery, arguments: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        gallery.GalleryConfig(**arguments)


def test_help_names_the_parts(gallery, monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", ["gallery.py", "--help"])
    with pytest.raises(SystemExit) as stop:
        gallery.main()
    assert stop.value.code == 0
    printed = capsys.readouterr().out
    assert all(part in printed for part in gallery.ALL_PARTS)
