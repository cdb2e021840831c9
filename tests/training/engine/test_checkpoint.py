from __future__ import annotations

import errno
import shutil

import pytest
import torch

from jepa_gym.checkpoint import safetensors_file
from jepa_gym.commands import guarded
from jepa_gym.training.engine.checkpoint import Checkpoints, DamagedStateError

from ..conftest import read_log
from .toy import config, make


@pytest.fixture
def run(tmp_path):
    run = config(tmp_path)
    make(run).run()
    return run


def newest(run):
    return Checkpoints(run.output, 2).paths()[-1]


@pytest.mark.parametrize("damage", ["half", "empty", "noise", "a bit of a tensor", "a digit"])
def test_a_damaged_checkpoint_is_named(run, damage):
    path = newest(run)
    content = bytearray(path.read_bytes())
    if damage == "half":
        content = content[: len(content) // 2]
    elif damage == "empty":
        content = bytearray()
    elif damage == "noise":
        content[:200] = b"\xff" * 200
    elif damage == "a bit of a tensor":
        content[-3] ^= 1
    else:
        place = content.index(b'best_step\\": ') + len(b'best_step\\": ')
        content[place] ^= 1
    path.write_bytes(content)
    with pytest.raises(DamagedStateError, match=rf"{path.name} is damaged.*delete it.*50"):
        make(run)
    path.unlink()
    assert make(run).run().step == 60
    assert [line["step"] for line in read_log(run.output) if "loss" in line] == list(range(1, 61))


def test_the_last_ones_are_kept(run):
    assert [path.name[9:14] for path in Checkpoints(run.output, 2).paths()] == ["00050", "00060"]


def test_a_shortened_log_is_refused(run):
    path = run.output / "log.jsonl"
    path.write_text(path.read_text()[:-40])
    with pytest.raises(ValueError, match="is shorter"):
        make(config(run.output.parent, steps=70)).run()


def test_a_full_disk_is_one_line_and_loses_nothing(run, monkeypatch, capsys):
    save_file = safetensors_file.save_file

    def full(tensors, path, metadata):
        if '"step": 70' in metadata["facts"]:
            path.write_bytes(b"part")
            raise OSError(errno.ENOSPC, "No space left on device")
        save_file(tensors, path, metadata)

    monkeypatch.setattr(safetensors_file, "save_file", full)
    longer = config(run.output.parent, steps=80)
    assert guarded(lambda: make(longer).run() and None) == 1
    told, error = capsys.readouterr().err.strip().splitlines()
    assert told.startswith("going on with") and error.startswith("error: the disk is full")
    assert newest(run).name == "step-000000060.safetensors"
    assert len(list(newest(run).parent.iterdir())) == 2, "no left-over"
    monkeypatch.undo()
    assert make(longer).run().step == 80


def test_another_format_is_refused(run, monkeypatch):
    monkeypatch.setattr("jepa_gym.training.engine.checkpoint.FORMAT", 2)
    with pytest.raises(DamagedStateError, match="another version"):
        make(run)


def test_a_copied_run_goes_on(run, tmp_path):
    copy = shutil.copytree(run.output, tmp_path / "copy")
    resumed = make(config(tmp_path, output=copy))
    assert torch.equal(resumed.module.skip.bias, make(run).module.skip.bias)
