from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from jepa_gym.training.engine.trainer import RunConfig, Trainer

from ..conftest import read_log


class Clock:
    """Advances by one second per look."""

    def __init__(self):
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1
        return self.now


def make(config: RunConfig, interrupt_at: int | None = None) -> tuple[nn.Module, Trainer]:
    torch.manual_seed(config.seed)
    module = nn.Linear(4, 1)

    def loss(step: int) -> dict[str, torch.Tensor]:
        if step == interrupt_at:
            os.kill(os.getpid(), signal.SIGINT)
        x = torch.randn(8, 4, generator=torch.Generator().manual_seed(step))
        return {"loss": (module(x) - x.sum(1, keepdim=True)).square().mean()}

    def evaluate() -> dict[str, float]:
        return {"score": (module.weight - 1).abs().mean().item()}

    return module, Trainer(config, module, loss, evaluate, "score", clock=Clock())


@pytest.fixture
def config(tmp_path) -> RunConfig:
    return RunConfig(
        data=Path("data"),
        output=tmp_path / "run",
        minutes=2.0,
        learning_rate=0.05,
        eval_minutes=0.5,
        bf16=False,
        threads=1,
    )


def test_learns_logs_and_decays(config):
    module, trainer = make(config)
    progress = trainer.run()
    assert progress.step == 120
    torch.testing.assert_close(module.weight, torch.ones(1, 4), atol=0.05, rtol=0)
    log = read_log(config.output)
    losses = [line["loss"] for line in log if "loss" in line]
    assert losses[-1] < 0.1 * losses[0]
    scores = [line["score"] for line in log if "score" in line]
    assert len(scores) == 4 and progress.best_figures["score"] == pytest.approx(
        min(scores), abs=1e-5
    )
    assert log[-1]["learning_rate"] < 0.1 * config.learning_rate


def test_interrupted_run_ends_like_an_uninterrupted_one(config, tmp_path):
    module, trainer = make(config)
    trainer.run()
    other = replace(config, output=tmp_path / "other")
    _, interrupted = make(other, interrupt_at=41)
    with pytest.raises(KeyboardInterrupt):
        interrupted.run()
    resumed_module, resumed = make(other)
    assert resumed.progress.step == 42  # the step in flight was finished
    assert resumed.run().step == 120
    assert torch.equal(module.weight, resumed_module.weight)
    states = [torch.load(c.output / "trainer.pt", weights_only=True) for c in (config, other)]
    assert torch.equal(states[0]["module"]["weight"], states[1]["module"]["weight"])
    assert states[0]["progress"] == states[1]["progress"]


def test_a_finished_run_is_not_repeated(config):
    make(config)[1].run()
    module, again = make(config)
    nn.init.zeros_(module.weight)
    assert again.run().step == 120
    torch.testing.assert_close(module.weight, torch.ones(1, 4), atol=0.05, rtol=0)


def test_refuses_the_state_of_another_run(config):
    make(config)[1].run()
    make(replace(config, threads=2, save_minutes=1.0))
    with pytest.raises(ValueError, match="learning_rate"):
        make(replace(config, learning_rate=0.1))


def test_stops_at_a_loss_that_is_not_finite(config):
    module, trainer = make(config)
    with torch.no_grad():
        module.bias.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="step 0"):
        trainer.run()


def test_biases_and_norms_do_not_decay(config):
    _, trainer = make(config)
    decays = {group["weight_decay"]: group["params"] for group in trainer.optimizer.param_groups}
    assert [p.ndim for p in decays[0.0]] == [1]
    assert [p.ndim for p in decays[config.weight_decay]] == [2]


@pytest.mark.parametrize("field", ["minutes", "batch_size", "eval_minutes", "threads"])
def test_config_ranges(field):
    with pytest.raises(ValueError, match=field):
        RunConfig(data=Path("d"), output=Path("o"), **{field: 0})
