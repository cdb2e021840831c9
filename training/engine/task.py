"""What a recipe hands to the engine, and what it gets back."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor, nn

from jepa_gym.training.engine.monitors import Watched

Batch = dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class Tuning:
    """How one of several parts is trained, which share a run."""

    rate: float
    """Learning rate over that of the run, whose schedule it follows."""
    weight_decay: float
    """Of matrices."""


@dataclass(frozen=True, slots=True)
class Task:
    """What a recipe trains."""

    module: nn.Module
    """Everything that is saved; what requires a gradient is trained and must have one."""
    draw: Callable[[int, slice], Batch]
    """Step and rows of its batch -> those rows, on the CPU; from seed and step alone."""
    loss: Callable[[Batch, int], dict[str, Tensor]]
    """Batch and step -> named losses, each a mean over the batch, of which `loss` is minimised."""
    evaluate: Callable[[], dict[str, float]]
    """Figures on validation data; called with the module in evaluation mode."""
    score: str
    """The figure that chooses the best state, lower is better."""
    inputs: Mapping[str, str]
    """Hashes of the content of data and whatever else the run depends on, by name."""
    after_step: Callable[[float], None] | None = None
    """Called after each optimiser step (moving averages) with `Schedule.course`, which part of the
    run lies before it."""
    watch: Callable[[], Watched] | None = None
    """What tells a collapse; called as `evaluate` is."""
    pictures: Callable[[], Mapping[str, np.ndarray]] | None = None
    """Pictures (Y, X, 3) uint8 to look at, by name; called as `evaluate` is."""
    tuning: Callable[[str], Tuning] | None = None
    """Name of a parameter -> how it is trained, where that is not as the configuration says."""


@dataclass
class Progress:
    """Where a run stands."""

    step: int = 0
    elapsed_s: float = 0.0
    best_score: float = math.inf
    best_figures: dict[str, float] = field(default_factory=dict)
    best_step: int = 0
