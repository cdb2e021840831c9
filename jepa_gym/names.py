"""Names that a user types: what they stand for, or may have meant."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable, Mapping
from typing import Any


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """Return " Did you mean `x`?" for the known name nearest to `name`, or "" if none is near.

    Args:
        name: What was typed.
        known: The names that exist.
    """
    nearest = difflib.get_close_matches(str(name), list(known), n=1)
    return f" Did you mean `{nearest[0]}`?" if nearest else ""


def resolve(registry: Mapping[str, str], kind: str, name: str) -> Any:
    """Import and return what is registered under a name; its module is imported only then.

    Args:
        registry: Registered names and their `"module:Class"` strings.
        kind: What the registry holds, for the error message ("agent", "planner", "encoder").
        name: The name asked for.

    Returns:
        The class or function.

    Raises:
        ValueError: If the name is not registered; the message has the nearest and all names.
    """
    if name not in registry:
        hint = did_you_mean(name, registry)
        raise ValueError(f"Unknown {kind} `{name}`.{hint} Registered: {', '.join(registry)}.")
    module, _, attribute = registry[name].partition(":")
    return getattr(importlib.import_module(module), attribute)


def check_choice(name: str, value: object, allowed: Iterable[object]) -> None:
    """Refuse what is none of the allowed values.

    Args:
        name: Of the argument, for the message.
        value: What was given.
        allowed: What may be given.

    Raises:
        ValueError: If it is none of them; the message lists them and guesses what was meant.
    """
    allowed = tuple(allowed)
    if value not in allowed:
        meant = did_you_mean(value, [one for one in allowed if isinstance(one, str)])
        raise ValueError(f"`{name}` must be one of {allowed}, got {value!r}.{meant}")
