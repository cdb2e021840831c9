"""Look up a class by its registered name, importing its module only then."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from jepa_gym.names import did_you_mean


def resolve(registry: Mapping[str, str], kind: str, name: str) -> Any:
    """Import and return the class registered under a name.

    Args:
        registry: Registered names and their `"module:Class"` strings.
        kind: What the registry holds, for the error message ("agent", "planner").
        name: The name asked for.

    Returns:
        The class.

    Raises:
        ValueError: If the name is not registered; the message has the nearest and all names.
    """
    if name not in registry:
        hint = did_you_mean(name, registry)
        raise ValueError(f"Unknown {kind} `{name}`.{hint} Registered: {', '.join(registry)}.")
    module, _, attribute = registry[name].partition(":")
    return getattr(importlib.import_module(module), attribute)
