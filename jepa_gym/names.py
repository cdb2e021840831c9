"""Names that a user types: what they may have meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """Return " Did you mean `x`?" for the known name nearest to `name`, or "" if none is near.

    Args:
        name: What was typed.
        known: The names that exist.
    """
    nearest = difflib.get_close_matches(str(name), list(known), n=1)
    return f" Did you mean `{nearest[0]}`?" if nearest else ""
