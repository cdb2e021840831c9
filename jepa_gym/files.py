"""Files that appear complete or not at all, and the folder for what can be made again."""

from __future__ import annotations

import errno
import json
import os
import platform
import re
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

CACHE_VARIABLE = "JEPA_GYM_CACHE"
_HOST = re.sub(r"\W", "", platform.node())[:32]
_TEMPORARY = re.compile(rf"\..*\.{_HOST}-(\d+)-\d+\.tmp(\.\w+)?")
_NEARLY_NOTHING = 1 << 16


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; it is renamed to `path` when the block ends well.

    The folder is made when it is missing. The temporary name keeps the ending of `path`, because
    some writers choose their format by it. An error in the block removes the temporary file and
    leaves an earlier `path` as it was. What killed processes of this machine left in the folder is
    removed.

    Args:
        path: The file that is to appear.

    Raises:
        OSError: With `errno.ENOSPC` when the disk is full, whatever the writer in the block raised.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_left_overs(path.parent)
    writer = f"{_HOST}-{os.getpid()}-{threading.get_ident()}"
    temporary = path.with_name(f".{path.stem}.{writer}.tmp{path.suffix}")
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())  # some writers make files that nobody else may read
        temporary.replace(path)
    except Exception as error:
        full = os.strerror(errno.ENOSPC)
        if full in str(error) or shutil.disk_usage(path.parent).free < _NEARLY_NOTHING:
            raise OSError(errno.ENOSPC, full, str(path)) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def cache_folder() -> Path:
    """Return the folder for downloads and other files that can be made again; it need not exist.

    It is the one in the variable `JEPA_GYM_CACHE`, else `$XDG_CACHE_HOME/jepa_gym`, else
    `~/.cache/jepa_gym`; for a user without a home folder, one of their own among the temporary
    files.
    """
    if chosen := os.environ.get(CACHE_VARIABLE):
        return Path(os.path.expanduser(chosen))
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    if base.startswith("~"):  # no home folder is known
        return Path(tempfile.gettempdir()) / f"jepa_gym-{os.getuid()}"
    return Path(os.path.expanduser(base)) / "jepa_gym"


def _remove_left_overs(folder: Path) -> None:
    """Remove temporary files in a folder whose process is dead."""
    for entry in os.scandir(folder):
        match = _TEMPORARY.fullmatch(entry.name)
        if match and not _is_alive(int(match[1])):
            with suppress(OSError):
                os.unlink(entry.path)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _umask() -> int:
    """Return the permissions that new files of this process lack."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def parse_json(text: str | bytes) -> Any:
    """Return what JSON holds.

    Args:
        text: The content of a file that anyone may have written or damaged.

    Raises:
        ValueError: If it is no JSON, or nested so deeply that nobody meant it.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
