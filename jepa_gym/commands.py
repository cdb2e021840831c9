"""How a command ends: one clear line and a status, never a traceback for a user's mistake.

| status | when |
|---|---|
| 0 | it did what was asked |
| 1 | something that the user can mend: a missing file, a wrong value, a full disk |
| 2 | a flag or command that does not exist |
| 130 | Ctrl-C |
| 143 | SIGTERM, as schedulers send it before they take a machine away |

Whatever else is raised is a fault of the program and shows its traceback; so does everything when
the environment variable `JEPA_GYM_TRACEBACK` is set.
"""

from __future__ import annotations

import errno
import io
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from typing import Any, TypeVar

from jepa_gym import logs

FAILED, INTERRUPTED, TERMINATED = 1, 130, 143
TRACEBACK_VARIABLE = "JEPA_GYM_TRACEBACK"
MENDABLE = (ValueError, OSError, ImportError, ArithmeticError, EOFError, RuntimeError)
"""What a user's mistake or machine raises; our own errors derive from these."""
VERBOSITY = (
    "Every command also takes --quiet (only warnings and errors, no progress) and --verbose "
    "(everything, with times). Results are on stdout, all else on stderr."
)
"""What the help of every command says of the flags of `jepa_gym.logs`."""
STOPPED = "What was finished is kept; give the same command again to go on."

_REFUSED = re.compile(r"Error parsing \w[\w.]*: (.+?) (?:Argument|For full) helptext")
"""What tyro prints when a nested configuration refuses its values."""
Config = TypeVar("Config")


class Terminated(KeyboardInterrupt):
    """SIGTERM arrived. What saves on Ctrl-C saves on this, too."""


@contextmanager
def sigterm_raises() -> Iterator[None]:
    """Raise `Terminated` in the main thread when SIGTERM arrives; elsewhere do nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def terminate(number: int, frame: Any) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def run_command(
    run: Callable[[Config], Any],
    config: Callable[..., Config],
    arguments: Sequence[str] | None = None,
    stopped: str = STOPPED,
) -> int:
    """Read a configuration from the command line, run a command with it, and end as all do.

    Args:
        run: Does the work. An int that it returns is the exit status; everything else counts as 0.
        config: The configuration's class; its fields are the flags and its docstring the help.
        arguments: The flags, or None for those of the process.
        stopped: What is printed after Ctrl-C or SIGTERM: what is kept and how to go on.

    Returns:
        The exit status, see the table above.

    Raises:
        SystemExit: With 0 after `--help`, with 2 for flags that do not exist.
    """
    return guarded(lambda: run(_parsed(config, arguments)), stopped)


def _parsed(config: Callable[..., Config], arguments: Sequence[str] | None) -> Config:
    """Return the configuration that the flags give.

    Raises:
        ValueError: If the configuration refuses its values; tyro would print a box around it.
        SystemExit: For flags that do not exist, and after `--help`.
    """
    import tyro  # here, so that `jepa-gym --help` need not wait for it

    words, level = logs.taken_from(list(sys.argv[1:] if arguments is None else arguments))
    logs.begin(level)
    about = f"{config.__doc__}\n\n{VERBOSITY}"
    printed = io.StringIO()
    try:
        with redirect_stderr(printed):
            return tyro.cli(config, args=words, description=about)
    except SystemExit as stop:
        if isinstance(stop.__context__, ValueError):
            raise stop.__context__ from None
        refused = _REFUSED.search(" ".join(re.sub(r"[│─╭╮╰╯]", " ", printed.getvalue()).split()))
        if refused:
            raise ValueError(refused[1]) from None
        print(_without_its_box(printed.getvalue()), end="", file=sys.stderr)
        raise


def _without_its_box(text: str) -> str:
    """Return what tyro draws a box around as one line, without its title; nothing for nothing."""
    lines = [line for line in text.splitlines() if not line.startswith("╭")]
    told = [part for part in (line.strip("│╰╯─ ") for line in lines) if part]
    return f"error: {' '.join(told)}\n" if told else ""


def guarded(run: Callable[[], Any], stopped: str = STOPPED) -> int:
    """Run a command without flags of its own and return its exit status; see `run_command`."""
    logs.begin()
    with sigterm_raises():
        try:
            status = run()
        except KeyboardInterrupt as interrupt:
            terminated = isinstance(interrupt, Terminated)
            print(f"\n{'Terminated' if terminated else 'Interrupted'}. {stopped}", file=sys.stderr)
            return TERMINATED if terminated else INTERRUPTED
        except MENDABLE as error:
            if os.environ.get(TRACEBACK_VARIABLE) or isinstance(error, NotImplementedError):
                raise
            print(f"error: {one_line(error)}", file=sys.stderr)
            return FAILED
    return status if isinstance(status, int) else 0


def one_line(error: BaseException) -> str:
    """Return an error's message as one line; a full disk says what to do."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        where = f" while writing {error.filename}" if error.filename else ""
        return f"the disk is full{where}; free some space and give the same command again"
    return " ".join(str(error).split()) or type(error).__name__
