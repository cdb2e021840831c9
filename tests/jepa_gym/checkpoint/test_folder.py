from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import jepa_gym
from jepa_gym.checkpoint.errors import CheckpointError
from jepa_gym.checkpoint.start_frames import StartFrames, read_starts
from jepa_gym.world_model import WorldModel


def test_round_trip(model, checkpoint):
    loaded = jepa_gym.WorldModel.from_pretrained(checkpoint)
    assert loaded.config == model.config and not loaded.training
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, loaded.state_dict()[name])
    assert sorted(path.name for path in checkpoint.iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
        "start_frames.npz",
    ]
    assert "**loss**: 1.0" in (checkpoint / "README.md").read_text()


def test_saving_again_keeps_other_files(model, checkpoint):
    model.save_pretrained(checkpoint, {})
    assert len(read_starts(checkpoint)) == 3


def test_missing(checkpoint, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no model .*nowhere"):
        WorldModel.from_pretrained(tmp_path / "nowhere")
    (checkpoint / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"no model\.safetensors"):
        WorldModel.from_pretrained(checkpoint)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.99])
def test_truncated(checkpoint, share):
    path = checkpoint / "model.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(CheckpointError, match="truncated"):
        WorldModel.from_pretrained(checkpoint)


def test_other_architecture_names_the_keys(checkpoint):
    path = checkpoint / "model.safetensors"
    tensors = load_file(path)
    tensors["extra.weight"] = torch.zeros(1)
    tensors["encoder.norm.weight"] = torch.zeros(5)
    for name in [name for name in tensors if name.startswith("predictor.predictor_blocks.1")]:
        del tensors[name]
    save_file(tensors, path)
    with pytest.raises(CheckpointError) as caught:
        WorldModel.from_pretrained(checkpoint)
    message = str(caught.value)
    assert "12 missing: predictor.predictor_blocks.1.attn.proj.bias" in message
    assert message.count("predictor_blocks.1") == 10 and "..." in message
    assert "1 unexpected: extra.weight" in message
    assert "1 wrong shape: encoder.norm.weight (5,) instead of (32,)" in message


def test_mixed_up_configuration(checkpoint):
    path = checkpoint / "config.json"
    values = json.loads(path.read_text())
    values["state_mean"][0] = 9.0
    path.write_text(json.dumps(values))
    with pytest.raises(CheckpointError, match="different models"):
        WorldModel.from_pretrained(checkpoint)
    path.write_text("{")
    with pytest.raises(CheckpointError, match=r"config\.json cannot be used"):
        WorldModel.from_pretrained(checkpoint)


@pytest.mark.parametrize(
    ("part", "name", "value"),
    [
        ("encoder", "depth", 1e9),
        ("encoder", "depth", 10**9),
        ("encoder", "embed_dim", 10**12),
        ("encoder", "patch_size", "16"),
        ("predictor", "depth", 513),
        ("predictor", "num_heads", 0),
        ("predictor", "mlp_ratio", float("inf")),
        ("predictor", "mlp_ratio", 0.0),
        ("predictor", "use_states", 1),
        ("frame", "height", True),
        ("frame", "cameras", [1]),
        ("frame", "cameras", "left"),
        ("frame", "step_s", float("nan")),
    ],
)
def test_sizes_in_a_configuration_are_bounded(checkpoint, part, name, value):
    path = checkpoint / "config.json"
    values = json.loads(path.read_text())
    values[part][name] = value
    path.write_text(json.dumps(values))
    with pytest.raises(CheckpointError, match=rf"config\.json cannot be used: .*{name}"):
        WorldModel.from_pretrained(checkpoint)


def test_a_save_that_was_killed_can_be_read(model, checkpoint, monkeypatch):
    """Whichever file came last, the weights come with their own configuration."""
    before = WorldModel.from_pretrained(checkpoint)
    other = WorldModel(replace(model.config, train_frames=9))

    class Killed(BaseException):
        pass

    def kill(*arguments):
        raise Killed

    for name, expected in (("write_safetensors", before), ("atomic_write", other)):
        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(f"jepa_gym.checkpoint.folder.{name}", kill)
            other.save_pretrained(checkpoint, {})
        loaded = WorldModel.from_pretrained(checkpoint)
        assert loaded.config == expected.config
        assert torch.equal(loaded.encoder.norm.weight, expected.encoder.norm.weight)


def test_a_folder_without_any_configuration(checkpoint):
    path = checkpoint / "model.safetensors"
    save_file(load_file(path), path)
    (checkpoint / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"has no config\.json"):
        WorldModel.from_pretrained(checkpoint)


def test_a_failed_save_leaves_the_old_files(model, checkpoint, monkeypatch):
    before = (checkpoint / "model.safetensors").read_bytes()

    def fail(tensors, path, metadata):
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr("jepa_gym.checkpoint.safetensors_file.save_file", fail)
    with pytest.raises(OSError, match="disk full"):
        model.save_pretrained(checkpoint, {})
    assert (checkpoint / "model.safetensors").read_bytes() == before
    assert not list(checkpoint.glob(".*"))


def test_starts_are_checked(checkpoint):
    frames = np.zeros((2, 32, 64, 3), np.uint8)
    states = np.zeros((2, 7), np.float32)
    with pytest.raises(CheckpointError, match="`goal_states` must be"):
        StartFrames(frames, states, frames, states[:1])
    path = checkpoint / "start_frames.npz"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(CheckpointError, match=r"start_frames\.npz is damaged .*delete it"):
        read_starts(checkpoint)
    path.unlink()
    with pytest.raises(FileNotFoundError, match="start"):
        read_starts(checkpoint)
