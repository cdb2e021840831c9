"""What tests of speed count instead of seconds."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode


def _onednn_linear(x: torch.Size, weight: torch.Size, *others: Any, **more: Any) -> int:
    """Count what PyTorch's counter does not know: `jepa_gym.models.linear` in oneDNN."""
    return 2 * prod(x) * weight[0]


def count(function: Callable[[], Any]) -> int:
    """Return the floating-point operations of a function's matrix products."""
    known = {torch.ops.mkldnn._linear_pointwise: _onednn_linear}
    counter = FlopCounterMode(display=False, custom_mapping=known)
    with torch.no_grad(), counter:
        function()
    return counter.get_total_flops()


@pytest.fixture
def flops_of() -> Callable[[Callable[[], Any]], int]:
    """A counter of floating-point operations: the same on every machine, however busy it is."""
    return count
