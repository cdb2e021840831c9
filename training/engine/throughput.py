"""How much arithmetic a step does, and how much this machine could do in that time."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import prod
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

CPU_SIDE, GPU_SIDE = 1024, 8192
"""Rows and columns of the matrices whose product is the measure."""
PRODUCTS = 5
COUNTED_STEPS = 3
"""First steps of a process whose operations are counted; masks differ from step to step."""


def _onednn_linear(x: torch.Size, weight: torch.Size, *others: Any, **more: Any) -> int:
    return 2 * prod(x) * weight[0]


def _attention(*shapes: Any, **more: Any) -> int:
    return sdpa_flop_count(*shapes[:3])


def _backward(*shapes: Any, **more: Any) -> int:
    return sdpa_backward_flop_count(*shapes[:4])


def counter() -> FlopCounterMode:
    """Return a counter of the operations of matrix products, attention on the CPU included.

    PyTorch's own does not know how `jepa_gym.models.linear` and the CPU multiply.
    """
    known: dict[Any, Any] = {
        torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
        torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _backward,
    }
    onednn = getattr(torch.ops.mkldnn, "_linear_pointwise", None)
    if onednn is not None:
        known[onednn] = _onednn_linear
    return FlopCounterMode(display=False, custom_mapping=known)


def product(device: torch.device, dtype: torch.dtype) -> tuple[Callable[[], Any], int]:
    """Return a plain product of two large square matrices, and its operations."""
    side = CPU_SIDE if device.type == "cpu" else GPU_SIDE
    left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    return lambda: left @ right, 2 * side**3


@functools.cache
def peak_flops(device: torch.device, dtype: torch.dtype, threads: int) -> float:
    """Measure how many operations a second a plain matrix product does, the best of a few.

    Args:
        device: Where.
        dtype: Of both matrices.
        threads: Of the tensor library; another number is measured anew.
    """
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        multiply, operations = product(device, dtype)
    best = float("inf")
    for _ in range(1 + PRODUCTS):
        began = time.perf_counter()
        multiply()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - began)
    return operations / best


class Meter:
    """How fast a run is, and which share of a plain matrix product's speed that is."""

    def __init__(self, device: torch.device, bf16: bool, countable: bool) -> None:
        """Prepare.

        Args:
            device: Where this process computes.
            bf16: Whether products are in bfloat16.
            countable: Whether the operations of a step can be counted; those of a compiled or
                sharded one cannot.
        """
        self._device, self._type = device, torch.bfloat16 if bf16 else torch.float32
        self._countable = countable
        self._counted: list[int] = []
        self._since = (0, 0.0, 0.0)

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Count the operations of a step, if it is one of the first."""
        if not self._countable or len(self._counted) == COUNTED_STEPS:
            yield
            return
        with counter() as counted:
            yield
        self._counted.append(counted.get_total_flops())

    def begin(self, step: int, waited_s: float) -> None:
        """Begin an interval after so many steps and seconds waited for batches."""
        self._since = (step, waited_s, time.monotonic())

    def read(self, step: int, waited_s: float, clips: int) -> dict[str, float]:
        """Return the figures of the interval that ends here, and begin another.

        Args:
            step: Steps taken.
            waited_s: Seconds that were waited for batches.
            clips: Per step, of all processes.

        Returns:
            `steps_per_s`, `clips_per_s`, `waiting_share`, and `share_of_peak` where operations can
            be counted: those of the first steps a second, over those of a plain matrix product.
        """
        first, waited, began = self._since
        seconds = time.monotonic() - began
        speed = (step - first) / seconds
        figures = {"steps_per_s": speed, "clips_per_s": speed * clips}
        figures["waiting_share"] = (waited_s - waited) / seconds
        if self._counted:
            peak = peak_flops(self._device, self._type, torch.get_num_threads())
            figures["share_of_peak"] = speed * sum(self._counted) / len(self._counted) / peak
        self.begin(step, waited_s)
        return figures
