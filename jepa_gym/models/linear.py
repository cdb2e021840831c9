"""A linear layer that takes the faster of PyTorch's two matrix libraries on the CPU."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_SMALLEST = 2**24
"""Multiplications below which the choice of library costs more than it saves (1 ms of one core)."""


def _onednn_linear():
    """Return oneDNN's linear layer without gradients, or None where there is nothing to choose."""
    if torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available():
        operator = getattr(torch.ops.mkldnn, "_linear_pointwise", None)
        return None if operator is None else operator.default
    return None


_ONEDNN: Any = _onednn_linear()


class Linear(nn.Linear):
    """`nn.Linear`, in oneDNN for large float32 inputs on the CPU while no gradients are kept.

    PyTorch multiplies float32 matrices in MKL, which does not use all of a processor of another
    maker; oneDNN does, and joins the GELU to the product.
    """

    def forward(self, x: Tensor, gelu: bool = False) -> Tensor:
        """Map (..., in_features) to (..., out_features), and through an exact GELU if asked to."""
        if self._in_onednn(x):
            after = ("gelu", [], "none") if gelu else ("none", [], "")
            return _ONEDNN(x, self.weight, self.bias, *after)
        out = F.linear(x, self.weight, self.bias)
        return F.gelu(out) if gelu else out

    def _in_onednn(self, x: Tensor) -> bool:
        return (
            _ONEDNN is not None
            and x.is_cpu
            and x.dtype == self.weight.dtype == torch.float32
            and x.numel() * self.out_features >= _SMALLEST
            and not torch.is_grad_enabled()
            and not torch.is_autocast_enabled("cpu")
        )
