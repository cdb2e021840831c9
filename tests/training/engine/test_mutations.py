"""Damaged checkpoints of a training: one line that says what to delete, or the same state."""

from __future__ import annotations

import pytest
import torch

from jepa_gym.training.engine.checkpoint import Checkpoints, DamagedStateError

from ...mutations import damage, no_code_runs  # noqa: F401  (a fixture)

pytestmark = pytest.mark.usefixtures("no_code_runs")


def test_checkpoints_of_a_training(tmp_path):
    kept = Checkpoints(tmp_path, keep=2)
    kept.folder.mkdir(parents=True)
    tensors = {"weight": torch.randn(8, 9), "step": torch.tensor(3)}
    facts = {"progress": {"step": 3, "best": 0.25}, "settings": {"seed": 0}}
    path = kept.save(3, tensors, facts)

    def same(got) -> bool:
        read, told = got
        return (
            all(torch.equal(read[n], x) for n, x in tensors.items())
            and facts.items() <= told.items()
        )

    assert damage(path.parent, [path.name], kept.load, same, (DamagedStateError,), count=60) > 30
