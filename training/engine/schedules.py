"""Learning rates as a function of the fraction of the budget that is used up."""

from __future__ import annotations


def warmup_constant_decay(progress: float, warmup: float = 0.03, decay: float = 0.4) -> float:
    """Return the factor on the peak learning rate: linear up, constant, linear down to zero.

    Args:
        progress: used fraction of the budget, in [0, 1]; of time, so that a run of any number of
            minutes ends with a decayed learning rate.
        warmup: fraction spent warming up, in [0, 1).
        decay: fraction spent decaying, in (0, 1 - warmup].

    Returns:
        The factor, in [0, 1].

    Raises:
        ValueError: the fractions do not fit into [0, 1].

    Reference: V-JEPA 2-AC trains with warm-up, constant, linear decay to 0 (5 %, 90 %, 5 %;
        arXiv 2506.09985, appendix B). Short runs need the longer decay that is the default here.
    """
    if not 0 <= warmup < 1 or not 0 < decay <= 1 - warmup:
        raise ValueError(
            "`warmup` and `decay` must be fractions with warmup + decay <= 1, "
            f"got {warmup} and {decay}"
        )
    progress = min(max(progress, 0.0), 1.0)
    rise = 1.0 if warmup == 0 else progress / warmup
    return min(1.0, rise, (1.0 - progress) / decay)
