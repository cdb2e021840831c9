"""What tests of speed count instead of seconds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from jepa_gym.training.engine.throughput import counter


def count(function: Callable[[], Any]) -> int:
    """Return the floating-point operations of a function's matrix products."""
    with torch.no_grad(), counter() as counted:
        function()
    return counted.get_total_flops()


@pytest.fixture
def flops_of() -> Callable[[Callable[[], Any]], int]:
    """A counter of floating-point operations: the same on every machine, however busy it is."""
    return count
