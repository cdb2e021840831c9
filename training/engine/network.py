"""A task's loss as one module, compiled or parallel as the configuration says; its optimiser."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from jepa_gym.models.transformer import Block
from jepa_gym.training.engine.config import RunConfig
from jepa_gym.training.engine.task import Batch, Task, Tuning


class _Loss(nn.Module):
    """A loss whose parameters are known, as `DistributedDataParallel` needs it."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.module, self.loss = task.module, task.loss

    def forward(self, batch: Batch, step: int) -> dict[str, Tensor]:
        return self.loss(batch, step)


def build_network(config: RunConfig, task: Task, processes: int) -> nn.Module:
    """Return the loss of a task as a module of batch and step.

    Args:
        config: Says whether it is compiled and recomputes activations.
        task: Its module is on the device it stays on.
        processes: With more than one, gradients are averaged over them.
    """
    if config.checkpoint_activations:
        for part in task.module.modules():
            if isinstance(part, Block):
                part.forward = functools.partial(checkpoint, part.forward, use_reentrant=False)
    network: nn.Module = _Loss(task)
    if config.compile:
        network.compile()
    if processes > 1 and config.parallel == "ddp":
        network = DistributedDataParallel(network)
    return network


def channels_last(module: nn.Module) -> None:
    """Lay the weights of 2-D and 3-D convolutions out with channels last; values stay."""
    layouts = {4: torch.channels_last, 5: torch.channels_last_3d}
    for parameter in module.parameters():
        if parameter.ndim in layouts:
            parameter.data = parameter.data.contiguous(memory_format=layouts[parameter.ndim])


def build_optimizer(config: RunConfig, task: Task) -> torch.optim.AdamW:
    """Return AdamW over what requires a gradient; only matrices decay.

    A group's `rate` is its learning rate over that of the run.
    """
    usual = Tuning(1.0, config.weight_decay)
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    for matrices in (True, False):
        for name, parameter in task.module.named_parameters():
            if parameter.requires_grad and (parameter.ndim > 1) == matrices:
                tuning = task.tuning(name) if task.tuning else usual
                decay = tuning.weight_decay if matrices else 0.0
                group = {"params": [], "weight_decay": decay, "decay": decay, "rate": tuning.rate}
                groups.setdefault((tuning.rate, decay), group)["params"].append(parameter)
    return torch.optim.AdamW(groups.values(), lr=0.0, betas=config.betas, fused=True)
