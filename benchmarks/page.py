"""One self-contained HTML page of results: tables, pictures and videos are in the file itself."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Sequence
from pathlib import Path

from jepa_gym.files import atomic_write

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1b1b1b; max-width: 1200px; margin: 2em auto;
  padding: 0 1em }
h1 { font-size: 1.6em } h2 { font-size: 1.2em; margin-top: 2em }
table { border-collapse: collapse; display: block; overflow-x: auto; white-space: nowrap }
th, td { padding: .25em .7em; border-bottom: 1px solid #ddd; text-align: left }
th { background: #f3f3f3 } img, video { max-width: 100% } pre { white-space: pre-wrap }
figure { margin: 1em 0 } figcaption { color: #555; font-size: .9em }
"""


def heading(text: str) -> str:
    """Return a section's heading."""
    return f"<h2>{html.escape(text)}</h2>"


def paragraph(text: str) -> str:
    """Return a paragraph."""
    return f"<p>{html.escape(text)}</p>"


def preformatted(text: str) -> str:
    """Return text with its line breaks."""
    return f"<pre>{html.escape(text)}</pre>"


def table(rows: Iterable[Sequence[str]]) -> str:
    """Return a table; the first row holds the titles of the columns."""
    first, *others = [[html.escape(cell) for cell in row] for row in rows]
    head = "".join(f"<th>{cell}</th>" for cell in first)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in others)
    return f"<table><tr>{head}</tr>{body}</table>"


def media(path: Path, caption: str) -> str:
    """Return a picture or a video with its caption.

    Args:
        path: PNG or MP4 file.
        caption: What it shows.
    """
    if path.suffix == ".png":
        return picture(path.read_bytes(), caption)
    data = base64.b64encode(path.read_bytes()).decode()
    return _figure(
        f'<video controls loop muted src="data:video/mp4;base64,{data}"></video>', caption
    )


def picture(png: bytes, caption: str) -> str:
    """Return a picture, given as the content of a PNG file, with its caption."""
    data = base64.b64encode(png).decode()
    return _figure(
        f'<img alt="{html.escape(caption)}" src="data:image/png;base64,{data}">', caption
    )


def _figure(shown: str, caption: str) -> str:
    return f"<figure>{shown}<figcaption>{html.escape(caption)}</figcaption></figure>"


def write_page(path: Path, title: str, parts: Iterable[str]) -> None:
    """Write the page, complete or not at all.

    Args:
        path: HTML file to write.
        title: Of the page.
        parts: What the functions above return.
    """
    told, body = html.escape(title), "\n".join(parts)
    page = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{told}</title>'
        f"<style>{STYLE}</style></head><body><h1>{told}</h1>\n{body}\n</body></html>\n"
    )
    with atomic_write(path) as file:
        file.write_text(page, encoding="utf-8")
