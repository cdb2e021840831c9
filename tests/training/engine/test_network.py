from __future__ import annotations

import pytest
import torch
from torch import nn

from jepa_gym.models.transformer import Block
from jepa_gym.training.engine.distributed import Processes
from jepa_gym.training.engine.network import build_network, build_optimizer
from jepa_gym.training.engine.schedules import Schedule
from jepa_gym.training.engine.task import Task, Tuning

from .toy import config, make


def task(module: nn.Module) -> Task:
    return Task(
        module,
        draw=lambda step, rows: {},
        loss=lambda batch, step: {"loss": module(batch["x"], None).square().mean()},
        evaluate=dict,
        score="score",
        inputs={},
    )


def test_recomputed_activations_give_the_same_gradients(tmp_path, monkeypatch):
    torch.manual_seed(0)
    block, x = Block(16, 2, 4.0), torch.randn(2, 5, 16)
    calls = []
    block.attn.register_forward_hook(lambda *_: calls.append(1))

    def gradients(**changes) -> list[torch.Tensor]:
        block.zero_grad()
        network = build_network(config(tmp_path, **changes), task(block), 1)
        network({"x": x}, 0)["loss"].backward()
        return [p.grad.clone() for p in block.parameters() if p.grad is not None]

    kept = gradients()
    assert len(calls) == 1
    recomputed = gradients(checkpoint_activations=True)
    assert len(calls) == 3
    assert all(map(torch.equal, kept, recomputed))


def test_only_matrices_decay(tmp_path):
    optimizer = build_optimizer(config(tmp_path), task(nn.Linear(4, 1)))
    decays = {group["weight_decay"]: group["params"] for group in optimizer.param_groups}
    assert [p.ndim for p in decays[0.0]] == [1]
    assert [p.ndim for p in decays[0.04]] == [2]


def test_parts_of_a_run_have_rates_and_decays_of_their_own(tmp_path):
    tunings = {"last": Tuning(0.5, 0.25), "skip": Tuning(0.0, 0.0)}
    parts = make(
        config(tmp_path, schedule=Schedule(0, 0)),
        tuning=lambda name: tunings.get(name.partition(".")[0], Tuning(1.0, 0.04)),
    )
    before = parts.module.skip.weight.clone()
    parts.take_step(60)
    named = {id(p): name for name, p in parts.module.named_parameters()}
    found = {
        named[id(p)]: (group["lr"], group["weight_decay"])
        for group in parts.optimizer.param_groups
        for p in group["params"]
    }
    assert found["first.weight"] == (0.05, 0.04) and found["norm.weight"] == (0.05, 0.0)
    assert found["last.weight"] == (0.025, 0.25) and found["last.bias"] == (0.025, 0.0)
    assert torch.equal(parts.module.skip.weight, before)  # a rate of 0 stands still


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("changes", [{}, {"bf16": True}, {"compile": True}])
def test_a_gpu_learns_and_goes_on(tmp_path, changes):
    here = Processes(device=torch.device("cuda", 0))
    run = config(tmp_path, **changes)
    progress = make(run, here=here).run()
    assert progress.best_score < 0.3
    assert make(run, here=here).run() == progress
