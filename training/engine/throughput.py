"""How much arithmetic a step does, and how much this machine could do in that time."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from math import prod
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

CPU_SIDE, GPU_SIDE = 1024, 8192
"""Rows and columns of the matrices whose product is the measure."""
PRODUCTS = 5


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
