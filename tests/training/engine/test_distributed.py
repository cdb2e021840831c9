from __future__ import annotations

import pytest
import torch
from torch import nn

from jepa_gym.models.conv_encoder import PerLocationBatchNorm
from jepa_gym.training.engine.distributed import (
    Processes,
    agreed,
    any_of,
    first_process_first,
    globalise,
    processes,
)
from jepa_gym.training.recipes.losses import sigreg

from ..conftest import in_two


def in_two_processes(monkeypatch, run) -> None:
    """Run a function of `Processes` in two processes."""

    def joined() -> None:
        with processes("cpu", 1) as here:
            run(here)

    assert in_two(monkeypatch, joined) == [0, 0]


def test_statistics_and_gradients_are_those_of_the_whole_batch(monkeypatch):
    torch.manual_seed(0)
    data, weights = torch.randn(12, 3, 4), torch.randn(12, 3, 4)
    plain = PerLocationBatchNorm(3, 4)

    def outcome(norm: nn.Module, x: torch.Tensor, w: torch.Tensor) -> tuple[torch.Tensor, ...]:
        x = x.clone().requires_grad_(True)
        y = norm(x)
        loss = (y * w).sum(1).mean() + sigreg(y, 8, torch.Generator().manual_seed(1))
        loss.backward()
        assert x.grad is not None
        return y.detach(), x.grad

    expected, gradient = outcome(plain, data, weights)

    def check(here: Processes) -> None:
        norm = PerLocationBatchNorm(3, 4)
        globalise(norm)
        rows = here.share_of(12, 0, 1)
        y, x_gradient = outcome(norm, data[rows], weights[rows])
        torch.testing.assert_close(y, expected[rows])
        torch.testing.assert_close(x_gradient / 2, gradient[rows])  # the mean over processes
        torch.testing.assert_close(norm.running_mean, plain.running_mean)
        torch.testing.assert_close(norm.running_var, plain.running_var)
        norm.eval()
        torch.testing.assert_close(norm(data), plain.eval()(data))

    in_two_processes(monkeypatch, check)


def test_agreements(monkeypatch, tmp_path):
    def check(here: Processes) -> None:
        assert agreed(10 + here.rank) == 10
        assert any_of(here.rank == 1) and not any_of(False)
        with first_process_first():
            assert (tmp_path / "made").exists() == (here.rank == 1)
            (tmp_path / "made").touch()

    in_two_processes(monkeypatch, check)


def test_alone():
    with processes("cpu", 1) as here, first_process_first():
        assert here.first and agreed(3) == 3 and any_of(True)


def test_shares_cover_the_batch_once():
    rows = [
        row
        for rank in range(2)
        for part in range(3)
        for row in range(12)[Processes(rank, 2).share_of(12, part, 3)]
    ]
    assert sorted(rows) == list(range(12))
    with pytest.raises(ValueError, match="multiple of processes x `accumulate` = 2 x 4"):
        Processes(0, 2).share_of(12, 0, 4)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_gpu_is_said():
    with pytest.raises(ValueError, match="finds no GPU here"), processes("cuda", 1):
        pass
