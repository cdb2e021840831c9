"""A task of milliseconds: a small network that learns to sum its inputs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from jepa_gym.training.engine.config import RunConfig
from jepa_gym.training.engine.distributed import Processes
from jepa_gym.training.engine.task import Task
from jepa_gym.training.engine.trainer import Trainer


def config(folder: Path, **changes) -> RunConfig:
    fields = {
        "data": Path("data"),
        "output": folder / "run",
        "steps": 60,
        "log_every": 1,
        "eval_every": 25,
        "save_every": 10,
        "batch_size": 8,
        "learning_rate": 0.05,
        "device": "cpu",
        "bf16": False,
        "threads": 1,
    }
    return RunConfig(**fields | changes)


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(4, 8), nn.LayerNorm(8), nn.Linear(8, 1)
        self.skip = nn.Linear(4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.norm(self.first(x))) + self.skip(x)


def make(
    run: RunConfig,
    before_step: Callable[[int], object] = lambda step: None,
    here: Processes | None = None,
    noise: float = 0.01,
    **fields,
) -> Trainer:
    """A trainer of the toy; `before_step` is called with every step's number."""
    torch.manual_seed(run.seed)
    module = Network()

    def draw(step: int, rows: slice) -> dict[str, torch.Tensor]:
        generator = torch.Generator().manual_seed(run.seed + step)
        return {"x": torch.randn(run.batch_size, 4, generator=generator)[rows]}

    def loss(batch: dict[str, torch.Tensor], step: int) -> dict[str, torch.Tensor]:
        before_step(step)
        seen = batch["x"] + noise * torch.randn(4)
        error = module(seen) - batch["x"].sum(1, keepdim=True)
        return {"loss": error.square().mean(), "absolute": error.detach().abs().mean()}

    def evaluate() -> dict[str, float]:
        return {"score": (module(torch.eye(4)) - 1).abs().mean().item()}

    values = {"module": module, "draw": draw, "loss": loss, "evaluate": evaluate}
    values |= {"score": "score", "inputs": {"data": "a" * 64}}
    return Trainer(run, Task(**values | fields), here)
