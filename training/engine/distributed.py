"""One process or many: who this one is, and what all of them agree on.

Under torchrun every process computes its share of each batch; gradients are averaged, statistics
of the batch are those of the whole batch, and evaluations are done alike by all.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from jepa_gym.models.conv_encoder import PerLocationBatchNorm

_LOG = logging.getLogger(__name__)

SETTLING_S = 0.2
PATIENCE = timedelta(hours=12)
"""How long processes wait for the first one, which may decode a whole dataset before them."""
Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Processes:
    """Which of the processes this one is."""

    rank: int = 0
    """Number of this process, from 0."""
    count: int = 1
    """How many processes share the work."""
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    """Where this process computes."""

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files and talks."""
        return self.rank == 0

    def say(self, text: str) -> None:
        """Tell a line, once for all processes."""
        if self.first:
            _LOG.info(text)

    def share_of(self, size: int, part: int, parts: int) -> slice:
        """Return which rows of a batch this process computes as number `part` of its `parts`.

        Raises:
            ValueError: If the batch cannot be shared evenly.
        """
        each, rest = divmod(size, self.count * parts)
        if rest or not each:
            raise ValueError(
                f"`batch_size` must be a multiple of processes x `accumulate` = {self.count} x "
                f"{parts}, got {size}"
            )
        first = (part * self.count + self.rank) * each
        return slice(first, first + each)


@contextmanager
def processes(device: str, threads: int) -> Iterator[Processes]:
    """Join the other processes of torchrun, if there are any, and leave them at the end.

    Args:
        device: As `RunConfig.device`.
        threads: Threads of this process's tensor library.

    Raises:
        ValueError: If the device does not exist here.
    """
    torch.set_num_threads(threads)
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield Processes(device=_device(device, 0))
        return
    chosen = _device(device, int(os.environ.get("LOCAL_RANK", "0")))
    backend = "gloo"  # agreements are made on the CPU, so that no GPU has to be waited for
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
        backend = "cpu:gloo,cuda:nccl"
    dist.init_process_group(backend, timeout=PATIENCE)
    try:
        yield Processes(dist.get_rank(), count, chosen)
    finally:
        # PyTorch's communication thread needs Python's lock to let go of its last tensors. Whoever
        # destroys the group waits for that thread, with the lock: so let it finish before.
        time.sleep(SETTLING_S)
        dist.destroy_process_group()


@contextmanager
def first_process_first() -> Iterator[None]:
    """Let the first process do a block alone, then the others: they find its caches ready."""
    if not dist.is_initialized():
        yield
        return
    if dist.get_rank():
        dist.barrier()
    yield
    if not dist.get_rank():
        dist.barrier()


def process_count() -> int:
    """Return how many processes share the work."""
    return dist.get_world_size() if dist.is_initialized() else 1


def agreed(value: Value) -> Value:
    """Return the first process's value in all of them."""
    if not dist.is_initialized():
        return value
    values: list[Any] = [value]
    dist.broadcast_object_list(values, device=torch.device("cpu"))
    return values[0]


def any_of(flag: bool) -> bool:
    """Tell all processes whether a flag is set in one of them."""
    if not dist.is_initialized():
        return flag
    flags = torch.tensor([flag], dtype=torch.int32)
    dist.all_reduce(flags, dist.ReduceOp.MAX)
    return bool(flags.item())


class _Mean(torch.autograd.Function):
    """Average over processes, whose gradient goes back to all of them."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total / dist.get_world_size()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total / dist.get_world_size()


def mean_over_processes(x: Tensor) -> Tensor:
    """Average a tensor over all processes; with gradients.

    Where every process minimises the same function of the average, the mean of their gradients,
    which is what they step along, is the gradient of that function.
    """
    if not dist.is_initialized():
        return x
    mean = _Mean.apply(x)
    assert isinstance(mean, Tensor)
    return mean


class GlobalBatchNorm(PerLocationBatchNorm):
    """`PerLocationBatchNorm` with the statistics of the batch of all processes."""

    running_mean: Tensor
    running_var: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (B, N, D) over all processes' batches; see the base class."""
        if not self.training or not dist.is_initialized():
            return super().forward(x)
        x = x.float()
        mean = mean_over_processes(x.mean(0))
        variance = mean_over_processes((x - mean).square().mean(0))
        with torch.no_grad():
            count = len(x) * process_count()
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        return (x - mean) * torch.rsqrt(variance + self.eps)


def globalise(module: nn.Module) -> None:
    """Let all batch norms of a module take the statistics of all processes' batches."""
    for part in module.modules():
        if type(part) is PerLocationBatchNorm:
            part.__class__ = GlobalBatchNorm


def _device(name: str, number: int) -> torch.device:
    """Return the torch device that a process of this local number computes on."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise ValueError(f"--device {name}: PyTorch finds no GPU here; use --device cpu")
        if device.index is None:
            return torch.device("cuda", number)
    return device
