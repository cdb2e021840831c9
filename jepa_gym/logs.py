"""What is told while something runs: messages and progress bars on stderr, for people.

Messages go through `logging`, to loggers named as their modules, all below `jepa_gym`. Commands
show them (`begin`, called by `jepa_gym.commands`); a program that uses the library decides for
itself, as with any other. Results that are piped on, tables and JSON, are printed to stdout.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable
from typing import Any, TextIO

from tqdm import tqdm

LEVELS = {"--quiet": logging.WARNING, "--verbose": logging.DEBUG}
"""Flags that every command has, and the least important messages that it shows then."""
LINE_EVERY_S = 30.0
"""Seconds between two lines of progress where nobody watches a terminal."""
_ROOT = logging.getLogger("jepa_gym")


class _Stderr(logging.StreamHandler[TextIO]):
    """Writes to what `sys.stderr` is when a message comes."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:  # pyright: ignore[reportIncompatibleVariableOverride]
        return sys.stderr


def begin(level: int = logging.INFO) -> None:
    """Show messages of the package on stderr, as commands do; a further call changes the level.

    Args:
        level: The least important ones that are shown; at DEBUG with time and module.
    """
    text = "%(asctime)s %(name)s: %(message)s" if level <= logging.DEBUG else "%(message)s"
    for logger in (_ROOT, logging.getLogger("__main__")):  # a script that is run is called so
        handler = next((x for x in logger.handlers if isinstance(x, _Stderr)), None)
        if handler is None:
            handler = _Stderr()
            logger.addHandler(handler)
            logger.propagate = False  # else a root handler of some library would say it again
        handler.setFormatter(logging.Formatter(text, "%H:%M:%S"))
        logger.setLevel(level)


def taken_from(words: list[str]) -> tuple[list[str], int]:
    """Take `--quiet` and `--verbose` out of a command line.

    Args:
        words: The flags.

    Returns:
        The other flags, and the level for `begin`; the last of several counts.
    """
    given = [word for word in words if word in LEVELS]
    level = LEVELS[given[-1]] if given else logging.INFO
    return [word for word in words if word not in LEVELS], level


def progress_bar(
    iterable: Iterable[Any] | None = None,
    desc: str | None = None,
    total: float | None = None,
    **kwargs: Any,
) -> tqdm[Any]:
    """Make a progress bar on stderr: none after `--quiet`, seldom a line where it is no terminal.

    Args:
        iterable: As of `tqdm`, like all others.
        desc: What is done.
        total: How much.
        **kwargs: More arguments of `tqdm`.
    """
    seldom = (
        {} if sys.stderr.isatty() else dict.fromkeys(("mininterval", "maxinterval"), LINE_EVERY_S)
    )
    hidden = _ROOT.level > logging.INFO
    return tqdm(iterable, desc, total, disable=hidden, **seldom, **kwargs)
