"""What files hold, as hashes that are remembered while size and time of a file stay the same.

`files.json` beside `dataset.json` lists every file of a dataset with its size, its time of change
and its SHA-256, so that opening a dataset reads nothing twice and a changed file can be named.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from jepa_gym.files import atomic_write, parse_json

FILES_NAME = "files.json"
Files = dict[str, tuple[int, int, str]]
"""Path below the dataset's folder -> size in bytes, time of change in ns, SHA-256."""


def hash_files(folder: Path, paths: Iterable[Path], known: Files, prefix: str = "") -> Files:
    """Hash files, reading only those whose size or time differs from what is known.

    Args:
        folder: What the names are relative to.
        paths: The files, all below `folder` or `folder` itself.
        known: What was found earlier.
        prefix: Put before the names.

    Returns:
        What is found now, sorted by name.
    """
    found: Files = {}
    for path in sorted(paths):
        name, stat = prefix + name_below(folder, path), path.stat()
        size, time_ns, digest = known.get(name, (-1, -1, ""))
        if (size, time_ns) != (stat.st_size, stat.st_mtime_ns):
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        found[name] = (stat.st_size, stat.st_mtime_ns, digest)
    return found


def name_below(folder: Path, path: Path) -> str:
    """Return a file's path from a folder on; its name where the file is given as the folder."""
    return path.name if path == folder else path.relative_to(folder).as_posix()


def combined_hash(files: Files) -> str:
    """Return one SHA-256 over names and contents of files."""
    total = hashlib.sha256()
    for name, (_, _, digest) in files.items():
        total.update(name.encode() + b"\0" + bytes.fromhex(digest))
    return total.hexdigest()


def changed_names(known: Files, found: Files) -> list[str]:
    """Return the files that were added, removed or changed, sorted."""
    return sorted(
        name
        for name in known.keys() | found.keys()
        if name not in known or name not in found or known[name][2] != found[name][2]
    )


def read_files(folder: Path) -> Files:
    """Read `files.json`; a missing or damaged one holds nothing, it is derived from the files."""
    try:
        entries = parse_json((folder / FILES_NAME).read_text())
        return {
            str(name): (int(size), int(time_ns), bytes.fromhex(digest).hex())
            for name, (size, time_ns, digest) in entries.items()
        }
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def write_files(folder: Path, files: Files) -> None:
    """Write `files.json`, where that is allowed; without it the next opening is only slower."""
    with suppress(OSError), atomic_write(folder / FILES_NAME) as path:
        path.write_text(json.dumps(files, indent=0) + "\n")
