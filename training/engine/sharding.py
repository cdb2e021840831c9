"""Parameters shared out over the processes (FSDP2), and whole again where they have to be.

A sharded module's parameters are DTensors. Steps gather a block at a time; evaluations gather all;
checkpoints hold whole tensors, so that any number of processes goes on from them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from jepa_gym.models.transformer import Block


def shard(network: nn.Module, device: torch.device, processes: int) -> Callable[[], None]:
    """Share out the parameters of a network, each of its transformer blocks on its own.

    Args:
        network: On the device; its `forward` is what a step computes.
        device: Where this process computes.
        processes: How many take a share.

    Returns:
        A function that makes the network what it was, with the parameters of that moment.
    """
    before = [(part, part.__class__, _hooks(part)) for part in network.modules()]
    for parameter in network.parameters():
        parameter.data = parameter.data.contiguous()  # FSDP shares out no other layout
    mesh = init_device_mesh(device.type, (processes,))
    for part in network.modules():
        if isinstance(part, Block):
            fully_shard(part, mesh=mesh)
    fully_shard(network, mesh=mesh)

    def restore() -> None:
        _set_gathered(network, False)
        for part, kind, hooks in before:
            part.__class__ = kind
            vars(part).update(hooks)
            for name, parameter in part.named_parameters(recurse=False):
                if isinstance(parameter, DTensor):
                    full = parameter.detach().full_tensor()
                    setattr(part, name, nn.Parameter(full, parameter.requires_grad))

    return restore


@contextmanager
def gathered(network: nn.Module) -> Iterator[None]:
    """Let every process have all parameters of a network, sharded or not, for a while."""
    _set_gathered(network, True)
    try:
        yield
    finally:
        _set_gathered(network, False)


def _set_gathered(network: nn.Module, whole: bool) -> None:
    for part in network.modules():
        if isinstance(part, FSDPModule):
            part.set_reshard_after_forward(not whole, recurse=False)
            if whole:
                part.unshard()
            else:
                part.reshard()


def _hooks(part: nn.Module) -> dict[str, object]:
    """Return copies of the hooks of a module, without those of its parts."""
    return {name: x.copy() for name, x in vars(part).items() if "hooks" in name and x is not None}


def whole(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors with those put together that are shared out; in all processes at once."""
    return {name: _full(x.detach()) for name, x in tensors.items()}


def _full(x: Tensor) -> Tensor:
    return x.full_tensor() if isinstance(x, DTensor) else x


def shared_like(value: Tensor, like: Tensor) -> Tensor:
    """Return this process's part of a tensor, shared out as another one is."""
    if isinstance(like, DTensor) and not isinstance(value, DTensor):
        value = value.to(like.device)
        return distribute_tensor(value, like.device_mesh, like.placements)
    return value


def load_whole(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Load whole tensors into a module, sharded or not."""
    likes = module.state_dict()
    module.load_state_dict({name: shared_like(x, likes[name]) for name, x in tensors.items()})
