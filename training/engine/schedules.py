"""The learning rate as a function of the step: warm-up, constant, decay."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Schedule:
    """Linear up to the peak, constant, linear down.

    V-JEPA 2-AC trains so (5 %, 90 %, 5 %; arXiv 2506.09985, appendix B). Short runs need the longer
    decay that is the default here.
    """

    warmup: float = 0.03
    """Steps of the rise; below 1 a fraction of the run."""
    decay: float = 0.4
    """Steps of the fall at the end; below 1 a fraction of the run."""
    start: float = 0.0
    """Learning rate that the rise begins from."""
    final: float = 0.0
    """Learning rate that the fall leads to."""

    def __post_init__(self) -> None:
        """Check ranges."""
        for name in ("warmup", "decay"):
            value = getattr(self, name)
            if value < 0 or (value > 1 and value != int(value)):
                raise ValueError(
                    f"`schedule.{name}` must be a fraction below 1 or a whole number of steps, "
                    f"got {value}"
                )
        if min(self.start, self.final) < 0:
            raise ValueError(
                "`schedule.start` and `schedule.final` must not be negative, "
                f"got {self.start} and {self.final}"
            )

    def phases(self, steps: int) -> tuple[int, int, int]:
        """Return how many of a run's steps rise, stay constant and fall.

        Args:
            steps: Steps of the whole run.

        Raises:
            ValueError: If rise and fall are longer than the run.
        """
        rise, fall = (
            round(part * steps) if part < 1 else int(part) for part in (self.warmup, self.decay)
        )
        if rise + fall > steps:
            raise ValueError(
                f"`schedule.warmup` and `schedule.decay` ({rise} and {fall} steps) are longer than "
                f"the run of {steps}: lower them, or raise --steps"
            )
        return rise, steps - rise - fall, fall

    def rate(self, step: int, steps: int, peak: float) -> float:
        """Return the learning rate of a step.

        Args:
            step: From 0 to `steps` - 1.
            steps: Steps of the whole run.
            peak: Learning rate of the constant phase.
        """
        rise, constant, fall = self.phases(steps)
        if step < rise:
            return self.start + (peak - self.start) * (step + 1) / rise
        if step < rise + constant:
            return peak
        return self.final + (peak - self.final) * (steps - step) / fall
