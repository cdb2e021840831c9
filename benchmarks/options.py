"""Checks of what a benchmark is given on its command line."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from jepa_gym.names import did_you_mean


def at_least(arguments: Any, **least: float) -> None:
    """Raise ValueError if a field of `arguments` is below its least value."""
    for name, value in least.items():
        if getattr(arguments, name) < value:
            raise ValueError(f"`{name}` must be at least {value}, got {getattr(arguments, name)}.")


def known_names(field: str, names: Iterable[str], known: Iterable[str]) -> None:
    """Raise ValueError if a field names nothing, or something that does not exist."""
    names, known = list(names), list(known)
    if not names:
        raise ValueError(f"`{field}` must name at least one of {', '.join(known)}.")
    for name in names:
        if name not in known:
            hint = did_you_mean(name, known)
            raise ValueError(f"`{field}` must be among {', '.join(known)}, got `{name}`.{hint}")


def fill(arguments: Any, **values: Any) -> None:
    """Set those fields of a frozen configuration that were not given."""
    for name, value in values.items():
        if getattr(arguments, name) is None:
            object.__setattr__(arguments, name, value)
