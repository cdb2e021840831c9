"""FSDP2 in two processes: the losses of DDP and of one process, checkpoints that all continue."""

from __future__ import annotations

import copy
import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from jepa_gym.models.transformer import Blocks
from jepa_gym.training.engine.checkpoint import FOLDER_NAME
from jepa_gym.training.engine.config import RunConfig
from jepa_gym.training.engine.distributed import processes
from jepa_gym.training.engine.task import Progress, Task
from jepa_gym.training.engine.trainer import Trainer

from ..conftest import ended, forked, in_two, read_log
from .toy import config


class Pair(nn.Module):
    """An encoder that is called twice a step, its moving average and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = Blocks(2, 16, 2, 2.0)
        self.average = copy.deepcopy(self.encoder).requires_grad_(False)
        self.head = nn.Linear(16, 16)

    def run(self, blocks: Blocks, x: Tensor) -> Tensor:
        for block in blocks:
            x = block(x, None)
        return x


def train(run: RunConfig, killed_at: int = -1) -> Progress:
    """Train the pair, in as many processes as there are."""
    with processes("cpu", 1) as here:
        torch.manual_seed(run.seed)
        pair = Pair()

        def draw(step: int, rows: slice) -> dict[str, Tensor]:
            generator = torch.Generator().manual_seed(step)
            return {"x": torch.randn(run.batch_size, 6, 16, generator=generator)[rows]}

        def loss(batch: dict[str, Tensor], step: int) -> dict[str, Tensor]:
            if step == killed_at:
                os.kill(os.getpid(), signal.SIGKILL)
            x = batch["x"]
            with torch.no_grad():
                target = pair.run(pair.average, x)
            seen = pair.head(pair.run(pair.encoder, x[:, :4])).sum(1)
            more = pair.head(pair.run(pair.encoder, x[:, 2:])).sum(1)
            return {"loss": (seen + more - target.sum(1)).square().mean()}

        @torch.no_grad()
        def follow(course: float) -> None:
            pairs = zip(pair.average.parameters(), pair.encoder.parameters(), strict=True)
            for slow, fast in pairs:
                slow.lerp_(fast, 0.1)

        def evaluate() -> dict[str, float]:
            direct = pair.head.weight.square().sum() + pair.encoder[1].mlp.fc1.weight.square().sum()
            called = pair.head(pair.run(pair.encoder, torch.ones(1, 3, 16))).square().mean()
            return {"score": (direct + called).item()}

        @torch.no_grad()
        def pictures() -> dict[str, np.ndarray]:
            shown = pair.run(pair.encoder, torch.ones(1, 3, 16)) > 0  # 3 x 16 tokens as a picture
            return {"shown": shown[0, ..., None].expand(-1, -1, 3).byte().numpy()}

        task = Task(pair, draw, loss, evaluate, "score", {}, after_step=follow, pictures=pictures)
        progress = Trainer(run, task, here).run()
        path = run.output / f"{here.rank}.pt"
        torch.save(pair.state_dict(), path)
        return progress


def losses(run: RunConfig) -> list[float]:
    return [line["loss"] for line in read_log(run.output) if "loss" in line]


def runs(folder: Path, *names: str) -> list[RunConfig]:
    settings = {"steps": 20, "save_every": 5, "eval_every": 10, "learning_rate": 1e-3}
    return [config(folder, output=folder / name, **settings) for name in names]


def test_losses_of_ddp_and_of_one_process(tmp_path, monkeypatch):
    one, ddp, fsdp, parts = runs(tmp_path, "one", "ddp", "fsdp", "parts")
    train(one)
    assert in_two(monkeypatch, lambda: train(ddp)) == [0, 0]
    assert in_two(monkeypatch, lambda: train(replace(fsdp, parallel="fsdp"))) == [0, 0]
    parts = replace(parts, parallel="fsdp", accumulate=2)
    assert in_two(monkeypatch, lambda: train(parts)) == [0, 0]
    assert len(losses(one)) == 20
    for run in (ddp, fsdp, parts):
        assert losses(run) == pytest.approx(losses(one), abs=1e-5)
    finished = ((one, 0), (fsdp, 0), (fsdp, 1))
    alone, first, second = (torch.load(run.output / f"{rank}.pt") for run, rank in finished)
    assert {name: x.shape for name, x in alone.items()} == {n: x.shape for n, x in first.items()}
    assert all(torch.equal(first[name], second[name]) for name in first)
    # No weights are compared: a key's bias has no gradient but rounding, which Adam makes steps of.


def test_checkpoints_go_on_with_any_number_of_processes(tmp_path, monkeypatch):
    one, left, joined = runs(tmp_path, "one", "left", "joined")
    train(one)
    shared = replace(left, parallel="fsdp")
    assert in_two(monkeypatch, lambda: train(shared, killed_at=12)) == [-signal.SIGKILL] * 2
    assert ended(forked(lambda: train(joined, killed_at=12))) == -signal.SIGKILL
    train(left)
    assert in_two(monkeypatch, lambda: train(replace(joined, parallel="fsdp"))) == [0, 0]
    for run in (left, joined):
        assert losses(run) == pytest.approx(losses(one), abs=1e-5)
    shapes = [
        {name: x.shape for name, x in load_file(max((run.output / FOLDER_NAME).iterdir())).items()}
        for run in (one, left, joined)
    ]
    assert shapes[0] == shapes[1] == shapes[2]
