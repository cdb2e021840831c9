"""How often the files of weights are read."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch

from jepa_gym.checkpoint import digests, safetensors_file, weights
from jepa_gym.checkpoint.errors import CheckpointError
from jepa_gym.checkpoint.safetensors_file import write_safetensors
from jepa_gym.checkpoint.sources import locate
from jepa_gym.world_model import WorldModel

COUNT = """
import json, sys
opened = []
def hook(event, arguments):
    if event == "open":
        opened.append(str(arguments[0]))
sys.addaudithook(hook)
import safetensors, torch
from jepa_gym.checkpoint import safetensors_file
from jepa_gym.world_model import WorldModel
def refuse(*arguments, **settings):
    raise AssertionError("a small file is neither mapped nor unpickled")
safetensors_file.safe_open = torch.load = refuse  # these open files out of the hook's sight
WorldModel.from_pretrained("default")
print(json.dumps([path for path in opened if path.endswith((".safetensors", ".pt"))]))
"""


def test_the_default_model_opens_its_weights_once():
    result = subprocess.run([sys.executable, "-c", COUNT], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout) == [str(locate("default") / "model.safetensors")]


@pytest.fixture
def large(monkeypatch, tmp_path):
    """Treat files as large that are not; return what is read to be verified."""
    monkeypatch.setenv("JEPA_GYM_CACHE", str(tmp_path / "cache"))
    for module in (digests, weights):
        monkeypatch.setattr(module, "SMALL_BYTES", 1000)
    monkeypatch.setattr(digests, "_SETTLED_NS", -1)
    read = []
    digest = safetensors_file.tensor_digest

    def counted(file):
        read.append(file.name)
        return digest(file)

    monkeypatch.setattr(safetensors_file, "tensor_digest", counted)
    return read


def test_large_files_are_verified_once(large, model, checkpoint):
    large.clear()  # of the writing
    for _ in range(3):
        loaded = WorldModel.from_pretrained(checkpoint)
    path = checkpoint / "model.safetensors"
    assert large == [str(path)]
    assert all(torch.equal(x, loaded.state_dict()[n]) for n, x in model.state_dict().items())
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="digest of its tensors"):
        WorldModel.from_pretrained(checkpoint)
    assert large == [str(path)] * 2


def test_what_cannot_be_remembered_is_verified_again(large, checkpoint, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("JEPA_GYM_CACHE", str(tmp_path / "file"))
    large.clear()
    for _ in range(2):
        WorldModel.from_pretrained(checkpoint)
    assert len(large) == 2


def test_equal_weights_give_equal_files(model, tmp_path):
    tensors = model.state_dict()
    metadata = {"config": "{}", "card": '\u00e9 " \\ \n', "encoder": "x"}
    for number in range(8):  # the library's order of the metadata is another one every time
        write_safetensors(tmp_path / str(number), tensors, metadata)
    assert len({(tmp_path / str(number)).read_bytes() for number in range(8)}) == 1
    reordered = dict(reversed(tensors.items()))
    write_safetensors(tmp_path / "again", reordered, dict(reversed(metadata.items())))
    assert (tmp_path / "again").read_bytes() == (tmp_path / "0").read_bytes()
    (tmp_path / "0").rename(tmp_path / "0.safetensors")
    read, found = safetensors_file.read_safetensors(tmp_path / "0.safetensors")
    assert {name: found[name] for name in metadata} == metadata
    assert all(torch.equal(read[name], tensor) for name, tensor in tensors.items())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_refused(model, tmp_path, value):
    model.predictor.predictor_norm.weight.data[3] = value
    model.save_pretrained(tmp_path / "nan", {})
    with pytest.raises(CheckpointError, match=r"`predictor\.predictor_norm\.weight`.*not finite"):
        WorldModel.from_pretrained(tmp_path / "nan")


def test_others_may_read_the_weights(checkpoint):
    assert (checkpoint / "model.safetensors").stat().st_mode & 0o044 == 0o044
