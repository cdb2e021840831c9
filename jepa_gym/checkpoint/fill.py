"""Tensors that were read become the parameters of a module, or nothing changes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from jepa_gym.checkpoint.errors import CheckpointError

_SHOWN = 10


def check_tensors(expected: dict[str, Tensor], got: dict[str, Tensor], where: Any) -> None:
    """Check that names and shapes agree.

    Args:
        expected: The state dict of the model.
        got: What is to be loaded.
        where: What `got` was read from, for the message.

    Raises:
        CheckpointError: Naming the missing, unexpected and wrong-shaped keys.
    """
    shapes = [
        f"{name} {tuple(got[name].shape)} instead of {tuple(expected[name].shape)}"
        for name in sorted(expected.keys() & got.keys())
        if got[name].shape != expected[name].shape
    ]
    problems = {
        "missing": sorted(expected.keys() - got.keys()),
        "unexpected": sorted(got.keys() - expected.keys()),
        "wrong shape": shapes,
    }
    lines = [
        f"{len(names)} {kind}: {', '.join(names[:_SHOWN])}{', ...' * (len(names) > _SHOWN)}"
        for kind, names in problems.items()
        if names
    ]
    if lines:
        raise CheckpointError(
            f"the weights in {where} do not fit the model of its configuration; "
            "nothing was loaded\n  " + "\n  ".join(lines)
        )


def fill(module: nn.Module, tensors: dict[str, Tensor], where: Any) -> None:
    """Make tensors the parameters of a module, usually one built on the meta device.

    They are not copied, unless their type or memory layout differs from the module's.

    Args:
        module: Any; left as it is when something does not fit.
        tensors: Emptied, so that no tensor is held twice.
        where: As for `check_tensors`.

    Raises:
        CheckpointError: As from `check_tensors`.
    """
    expected = module.state_dict()
    check_tensors(expected, tensors, where)
    for name, like in expected.items():
        tensor = tensors.pop(name)
        if like.is_floating_point() and not tensor.is_floating_point():
            raise CheckpointError(
                f"{name} in {where} holds {tensor.dtype} (quantised weights?), not floating-point "
                "numbers; nothing was loaded. Use the original weights"
            )
        if tensor.dtype != like.dtype or tensor.stride() != like.stride():
            fitted = torch.empty_strided(like.shape, like.stride(), dtype=like.dtype)
            tensor = fitted.copy_(tensor)
        expected[name] = tensor
    module.load_state_dict(expected, assign=True)
