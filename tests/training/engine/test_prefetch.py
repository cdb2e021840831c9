from __future__ import annotations

import threading

import pytest
import torch

from jepa_gym.training.engine.prefetch import Batches

CPU = torch.device("cpu")
HALVES = [slice(0, 2), slice(2, 4)]


def test_draws_one_part_ahead_and_none_beyond_the_end():
    drawn, ahead = [], threading.Event()

    def draw(step: int, rows: slice) -> dict[str, torch.Tensor]:
        drawn.append((step, rows.start, threading.current_thread().name))
        if (step, rows.start) == (4, 2):
            ahead.set()
        return {"x": torch.full((2,), float(10 * step + rows.start))}

    batches = Batches(draw, HALVES, CPU)
    assert batches.get(4, 0, steps=6)["x"].tolist() == [40, 40]
    assert ahead.wait(10), "while this thread does something else"
    for step, part in ((4, 1), (5, 0), (5, 1)):
        assert batches.get(step, part, steps=6)["x"][0] == 10 * step + 2 * part
    batches.close()
    assert [place[:2] for place in drawn] == [(4, 0), (4, 2), (5, 0), (5, 2)]
    assert drawn[0][2] == threading.current_thread().name != drawn[1][2]


def test_another_step_than_expected_is_drawn_anew():
    batches = Batches(lambda step, rows: {"x": torch.tensor(step)}, [slice(0, 4)], CPU)
    assert [batches.get(step, 0, 99)["x"].item() for step in (0, 1, 0, 7)] == [0, 1, 0, 7]
    batches.close()
    assert "batches_0" not in {thread.name for thread in threading.enumerate()}


def test_errors_of_the_thread_arrive():
    def draw(step: int, rows: slice) -> dict[str, torch.Tensor]:
        if step == 1:
            raise OSError("the disk is gone")
        return {}

    batches = Batches(draw, [slice(0, 4)], CPU)
    batches.get(0, 0, 9)
    with pytest.raises(OSError, match="the disk is gone"):
        batches.get(1, 0, 9)
    batches.close()
