"""Learning rate, weight decay and moving averages as functions of the step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Schedule:
    """Linear up to the peak, constant, down.

    V-JEPA 2-AC trains so (5 %, 90 %, 5 %; arXiv 2506.09985, appendix B). Short runs need the longer
    decay that is the default here.
    """

    warmup: float = 0.03
    """Steps of the rise; up to 1 a fraction of the run."""
    decay: float = 0.4
    """Steps of the fall at the end; up to 1 a fraction of the run."""
    start: float = 0.0
    """Learning rate that the rise begins from."""
    final: float = 0.0
    """Learning rate that the fall leads to."""
    shape: Literal["linear", "cosine"] = "linear"
    """Of the fall: a line, or half a cosine."""
    stretch: float = 1.0
    """All schedules are those of a run so many times as long, cut off where the run ends. The
    published cooldown and V-JEPA 1 have 1.25."""

    def __post_init__(self) -> None:
        """Check ranges."""
        for name in ("warmup", "decay"):
            value = getattr(self, name)
            if value < 0 or (value > 1 and value != int(value)):
                raise ValueError(
                    f"`schedule.{name}` must be a fraction up to 1 or a whole number of steps, "
                    f"got {value}"
                )
        if min(self.start, self.final) < 0:
            raise ValueError(
                "`schedule.start` and `schedule.final` must not be negative, "
                f"got {self.start} and {self.final}"
            )
        if self.stretch < 1:
            raise ValueError(f"`schedule.stretch` must be at least 1, got {self.stretch}")

    def phases(self, steps: int) -> tuple[int, int, int]:
        """Return how many of a run's steps rise, stay constant and fall.

        Args:
            steps: Steps of the whole run.

        Raises:
            ValueError: If rise and fall are longer than the run.
        """
        rise, constant, _ = self._phases(steps)
        rise = min(rise, steps)
        constant = min(constant, steps - rise)
        return rise, constant, steps - rise - constant

    def rate(self, step: int, steps: int, peak: float) -> float:
        """Return the learning rate of a step.

        Args:
            step: From 0 to `steps` - 1.
            steps: Steps of the whole run.
            peak: Learning rate of the constant phase.
        """
        rise, constant, fall = self._phases(steps)
        if step < rise:
            return self.start + (peak - self.start) * (step + 1) / rise
        if step < rise + constant:
            return peak
        left = (rise + constant + fall - step) / fall
        share = left if self.shape == "linear" else (1 - math.cos(math.pi * left)) / 2
        return self.final + (peak - self.final) * share

    def course(self, step: int, steps: int) -> float:
        """Return which part of the stretched run lies before a step, for what changes all along."""
        return step / (self.stretch * steps)

    def _phases(self, steps: int) -> tuple[int, int, int]:
        """Return the phases of the stretched run."""
        length = round(self.stretch * steps)
        rise, fall = (
            round(part * length) if part <= 1 else int(part) for part in (self.warmup, self.decay)
        )
        if self.warmup + self.decay <= 1:
            fall = min(fall, length - rise)  # both may have been rounded up
        if rise + fall > length:
            raise ValueError(
                f"`schedule.warmup` and `schedule.decay` ({rise} and {fall} steps) are longer than "
                f"the run of {length}: lower them, or raise --steps"
            )
        return rise, length - rise - fall, fall


def half_cosine(start: float, final: float, course: float) -> float:
    """Return where half a cosine from `start` to `final` is; `course` rises from 0 to 1."""
    return final + (start - final) * (1 + math.cos(math.pi * course)) / 2
