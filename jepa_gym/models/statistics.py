"""Statistics beside the weights: numbers that were measured, and keep their precision."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn


class Statistics(nn.Module):
    """A module whose buffers follow `to` to another device, and stay float32 there.

    `model.bfloat16()` rounds weights, which were trained to be robust to that. A mean or a scale
    that is rounded to 8 bits moves everything that is measured against it.
    """

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Statistics:
        kept = {name: x for name, x in self._buffers.items() if x is not None}
        super()._apply(fn, recurse)
        for name, x in kept.items():
            moved = self._buffers[name]
            if moved is not None and moved.dtype != x.dtype:
                self._buffers[name] = x.to(moved.device)
        return self

    def register(self, persistent: bool = True, **buffers: Tensor | Sequence[float]) -> None:
        """Register several buffers.

        Args:
            persistent: Whether they are part of `state_dict`; those that are not have their values
                on the meta device, too, where nothing is loaded over them.
            buffers: Their values by name.
        """
        for name, values in buffers.items():
            device = None if persistent else "cpu"
            x = torch.as_tensor(values, dtype=torch.float32, device=device)
            self.register_buffer(name, x, persistent=persistent)
