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
from jepa_gym.training.engine.task import Batch, Task


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
    if processes > 1:
        network = DistributedDataParallel(network)
    return network


def build_optimizer(config: RunConfig, module: nn.Module) -> torch.optim.AdamW:
    """Return AdamW over what requires a gradient; only matrices decay."""
    trained = [p for p in module.parameters() if p.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=0.0, betas=config.betas, fused=True)
