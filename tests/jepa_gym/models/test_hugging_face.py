"""Encoders of transformers, in folders as they come from the hub, with tiny random weights."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys

import gymnasium as gym
import numpy as np
import pytest
import torch
import transformers

from jepa_gym.agents.mpc import MPCAgent
from jepa_gym.agents.planners.cem import CEMConfig
from jepa_gym.checkpoint.errors import CheckpointError
from jepa_gym.checkpoint.sources import hub_folder
from jepa_gym.checkpoint.start_frames import write_starts
from jepa_gym.config import EncoderConfig, FrameSpec, PredictorConfig, WorldModelConfig
from jepa_gym.models import VideoTransformer
from jepa_gym.models.hugging_face import HuggingFaceEncoder, encoder_config
from jepa_gym.normalisation import layer_norm
from jepa_gym.preprocess import IMAGENET_MEAN, IMAGENET_STD, normalise
from jepa_gym.world_model import WorldModel

from ..conftest import some_starts

transformers.utils.logging.disable_progress_bar()
SHAPE = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
SATELLITE = {"image_mean": [0.430, 0.411, 0.296], "image_std": [0.213, 0.156, 0.143]}


def dinov2(**changes):
    config = transformers.Dinov2Config(image_size=42, patch_size=14, **SHAPE | changes)
    return transformers.Dinov2Model(config)


def dinov2_with_registers():
    config = transformers.Dinov2WithRegistersConfig(image_size=42, patch_size=14, **SHAPE)
    return transformers.Dinov2WithRegistersModel(config)


def dinov3():
    config = transformers.DINOv3ViTConfig(
        image_size=32, patch_size=16, intermediate_size=48, num_register_tokens=4, **SHAPE
    )
    return transformers.DINOv3ViTModel(config)


def vjepa2(patch=8):
    sizes = {f"pred_{name}": number for name, number in SHAPE.items()}
    config = transformers.VJEPA2Config(
        patch_size=patch, crop_size=4 * patch, frames_per_clip=4, **SHAPE, **sizes
    )
    return transformers.VJEPA2Model(config)


BUILDERS = {f.__name__: f for f in (dinov2, dinov2_with_registers, dinov3, vjepa2)}


@pytest.fixture
def source(tmp_path):
    """Return a maker of an encoder's folder: (name of the family) -> (folder, network)."""

    def make(family="vjepa2", **changes):
        torch.manual_seed(1)
        network = BUILDERS[family](**changes).eval()
        for parameter in network.parameters():  # also what starts as zeros or ones
            parameter.data += 0.1 * torch.randn_like(parameter)
        folder = tmp_path / family
        network.save_pretrained(folder)
        return folder, network

    return make


def world_model(encoder, rows=2, columns=4, **changes):
    frame = FrameSpec(height=rows * encoder.patch_size, width=columns * encoder.patch_size)
    torch.manual_seed(2)
    settings = WorldModelConfig(
        frame, encoder, PredictorConfig(embed_dim=16, depth=1, num_heads=1), **changes
    )
    return WorldModel(settings).eval()


def pixels(model, batch=2, frames=3):
    size = (model.config.frame.height, model.config.frame.width)
    return torch.randint(0, 256, (batch, frames, *size, 3), dtype=torch.uint8)


def expected_features(family, network, frame, mean=IMAGENET_MEAN, std=IMAGENET_STD):
    """Ask the family's own model about one frame (Y, X, 3)."""
    image = normalise(frame[None, None], mean, std)[:, :, 0]
    if family == "vjepa2":
        return network.get_vision_features(image[:, None])
    extra = {"dinov2": 1, "dinov2_with_registers": 5, "dinov3": 5}[family]
    tokens = network(pixel_values=image).last_hidden_state
    rows, columns = (side // network.config.patch_size for side in frame.shape[:2])
    assert tokens.shape[1] == extra + rows * columns
    return tokens[:, extra:]


@pytest.mark.parametrize("family", BUILDERS)
@pytest.mark.parametrize("grid", [(3, 3), (2, 5)])
def test_features_are_those_of_the_source(family, grid, source):
    folder, network = source(family)
    model = world_model(encoder_config(f"hf:{folder}"), *grid)
    frames = pixels(model)
    latents = model.encode(frames)
    assert latents.shape == (2, 3, grid[0] * grid[1], 24) and latents.dtype == torch.float32
    if family == "vjepa2":  # its positions are right on a grid as wide as the frame
        config = network.config.to_dict() | {"crop_size": 8 * grid[1]}
        other = transformers.VJEPA2Model(transformers.VJEPA2Config(**config)).eval()
        other.load_state_dict(network.state_dict())
        network = other
    with torch.no_grad():
        expected = layer_norm(expected_features(family, network, frames[1, 2]))
    torch.testing.assert_close(latents[1, 2:], expected, rtol=0, atol=2e-5)


def test_vjepa2_on_a_wide_frame_is_the_published_encoder(source):
    folder, network = source("vjepa2")
    model = world_model(encoder_config(f"hf:{folder}"), 2, 5)
    ours = VideoTransformer(24, 2, 2, patch_size=8, rope="v2")
    theirs = network.encoder.state_dict()
    weights = {}
    for name in ours.state_dict():
        other = name.replace("patch_embed.", "embeddings.patch_embeddings.")
        other = other.replace("blocks.", "layer.").replace("attn.", "attention.")
        other = "layernorm" + other[4:] if other.startswith("norm") else other
        parts = ("query", "key", "value") if "qkv" in other else ("qkv",)
        weights[name] = torch.cat([theirs[other.replace("qkv", part)] for part in parts])
    ours.load_state_dict(weights)
    frames = pixels(model)
    with torch.no_grad():
        video = normalise(frames[:, :1]).expand(-1, -1, 2, -1, -1)
        torch.testing.assert_close(model.features(frames)[:, 0], ours(video), rtol=0, atol=2e-5)


def test_colours_come_from_the_folder(source):
    folder, network = source("dinov3")
    (folder / "preprocessor_config.json").write_text(json.dumps({"size": 224, **SATELLITE}))
    model = world_model(encoder_config(f"hf:{folder}"))
    frames = pixels(model)
    mean, std = SATELLITE.values()
    with torch.no_grad():
        expected = expected_features("dinov3", network, frames[0, 0], mean, std)
        torch.testing.assert_close(model.features(frames)[0, :1], expected, rtol=0, atol=2e-5)
    (folder / "preprocessor_config.json").write_text('{"size": 224}')
    encoder = HuggingFaceEncoder(encoder_config(f"hf:{folder}"), (32, 32))
    assert (encoder.mean, encoder.std) == (IMAGENET_MEAN, IMAGENET_STD)


def test_weights_are_frozen_and_follow_the_model(source):
    model = world_model(encoder_config(f"hf:{source('dinov2')[0]}"))
    before = {name: x.clone() for name, x in model.encoder.network.state_dict().items()}
    model.train()
    assert not model.encoder.network.training
    assert not any(x.requires_grad for x in model.encoder.network.parameters())
    assert not any(name.startswith("encoder") for name in model.state_dict())
    latents = model.encode_train(pixels(model))
    torch.optim.SGD(model.parameters(), 0.1).step()
    assert not latents.requires_grad
    assert all(torch.equal(x, before[k]) for k, x in model.encoder.network.state_dict().items())
    assert {x.dtype for x in model.double().encoder.network.parameters()} == {torch.float64}
    with torch.device("meta"):  # sizes only, but the encoder is there
        sizes = WorldModel(model.config)
    assert sizes.encoder.network.dtype == torch.float32
    assert next(sizes.encoder.network.parameters()).device.type == "cpu"


def test_half_precision_files_are_computed_in_float32(source):
    folder, network = source("dinov2")
    network.bfloat16().save_pretrained(folder)
    encoder = HuggingFaceEncoder(encoder_config(f"hf:{folder}"), (28, 28))
    assert encoder(torch.randn(1, 3, 28, 28)).dtype == torch.float32


def save(model, folder):
    model.save_pretrained(folder, {"command": "none"})
    return folder


def test_checkpoint_names_the_encoder_instead_of_holding_it(source, tmp_path):
    folder, network = source("dinov3")
    model = world_model(encoder_config(f"hf:{folder}"), success_energy=0.5)
    checkpoint = save(model, tmp_path / "checkpoint")
    loaded = WorldModel.from_pretrained(checkpoint)
    assert loaded.config == model.config and not loaded.training
    frames, states = pixels(model), torch.rand(2, 3, 7)
    latents = loaded.encode(frames)
    assert torch.equal(latents, model.encode(frames))
    actions = torch.zeros(2, 5, 2, 7)
    future = loaded.rollout(latents, states, actions)
    assert future.shape == (2, 5, 2, 8, 24)
    assert torch.equal(future, model.rollout(latents, states, actions))
    assert str(folder) in (checkpoint / "config.json").read_text()
    weights = (checkpoint / "model.safetensors").read_bytes()
    assert network.state_dict()["norm.weight"].numpy().tobytes() not in weights

    shutil.copytree(folder, checkpoint / "encoder")  # a checkpoint that stands alone
    shutil.rmtree(folder)
    assert torch.equal(WorldModel.from_pretrained(checkpoint).encode(frames), latents)
    shutil.rmtree(checkpoint / "encoder")
    with pytest.raises(FileNotFoundError, match="is no folder here"):
        WorldModel.from_pretrained(checkpoint)


@pytest.mark.parametrize("change", ["weights", "preprocessing", "settings"])
def test_another_encoder_at_the_same_place_is_refused(change, source, tmp_path):
    folder, _ = source("dinov2")
    checkpoint = save(world_model(encoder_config(f"hf:{folder}")), tmp_path / "checkpoint")
    if change == "weights":
        dinov2().save_pretrained(folder)
    elif change == "preprocessing":
        (folder / "preprocessor_config.json").write_text(json.dumps(SATELLITE))
    else:
        settings = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(settings | {"layer_norm_eps": 1e-3}))
    with pytest.raises(CheckpointError, match="not the one that this model was trained on"):
        WorldModel.from_pretrained(checkpoint)


def test_sharded_weights(source):
    folder, network = source("dinov2")
    (folder / "model.safetensors").unlink()
    network.save_pretrained(folder, max_shard_size="20KB")
    config = encoder_config(f"hf:{folder}")
    images = torch.randn(1, 3, 42, 42)
    with torch.no_grad():
        expected = network(pixel_values=images).last_hidden_state[:, 1:]
        torch.testing.assert_close(HuggingFaceEncoder(config, (42, 42))(images), expected)
    sorted(folder.glob("model-*.safetensors"))[-1].unlink()
    with pytest.raises(FileNotFoundError, match=r"has no model-0000"):
        encoder_config(f"hf:{folder}")


def test_frames_must_fit_the_patches(source):
    encoder = encoder_config(f"hf:{source('dinov2')[0]}")
    message = (
        "multiple of `encoder.patch_size` times `merge`, 14, got 128x256; the nearest sizes of "
        "each of the 2 cameras have 126 or 140 rows and 126 or 140 columns"
    )
    with pytest.raises(ValueError, match=message):
        WorldModelConfig(FrameSpec(), encoder)
    with pytest.raises(ValueError, match="the nearest sizes have 14 rows and 28 or 42 columns"):
        WorldModelConfig(FrameSpec(height=9, width=30, cameras=("left",)), encoder)
    encoder = encoder_config(f"hf:{source('vjepa2')[0]}")
    with pytest.raises(ValueError, match="taller than wide, got a grid of 3x2"):
        world_model(encoder, 3, 2)


def test_folders_that_hold_no_encoder(source, tmp_path):
    with pytest.raises(ValueError, match="hf:NAME_OR_FOLDER"):
        encoder_config("facebook/dinov2-small")
    with pytest.raises(FileNotFoundError, match=r"no config\.json"):
        encoder_config(f"hf:{tmp_path}")
    folder, network = source("dinov2")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")  # a pickle is not read
    with pytest.raises(FileNotFoundError, match=r"no model\.safetensors"):
        encoder_config(f"hf:{folder}")
    (folder / "model.safetensors").write_bytes(b"\0" * 99)
    with pytest.raises(CheckpointError, match="truncated"):
        encoder_config(f"hf:{folder}")
    weights = {k: v for k, v in network.state_dict().items() if not k.startswith("layernorm")}
    network.save_pretrained(folder, state_dict=weights)
    with pytest.raises(CheckpointError, match=r"lack 2 tensors of the encoder: layernorm\.bias"):
        HuggingFaceEncoder(encoder_config(f"hf:{folder}"), (28, 28))
    (folder / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(ValueError, match=r"type 'bert'; encoders may be of the types \('vjepa2'"):
        encoder_config(f"hf:{folder}")


@pytest.mark.parametrize("package", ["transformers", "huggingface_hub"])
def test_missing_extra(package, source, monkeypatch):
    folder, _ = source("dinov2")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=r'pip install "jepa-gym\[hub\]"'):
        encoder_config(f"hf:{folder}" if package == "transformers" else "hf:owner/name")


def test_code_of_a_folder_never_runs(source, tmp_path, monkeypatch, capsys):
    """Without a word at the terminal: the answer to the question is always no."""
    folder, _ = source("dinov2")
    trace = tmp_path / "trace"
    (folder / "evil.py").write_text(
        f"open({str(trace)!r}, 'w')\nfrom transformers import PretrainedConfig\n"
        "class Evil(PretrainedConfig):\n    model_type = 'evil'\n"
    )
    config = {"model_type": "evil", "auto_map": {"AutoConfig": "evil.Evil"}}
    (folder / "config.json").write_text(json.dumps(config))
    asked = []
    monkeypatch.setattr("builtins.input", lambda *question: asked.append(question) or "y")
    with pytest.raises(CheckpointError, match=r"config\.json cannot be used"):
        encoder_config(f"hf:{folder}")
    assert not asked and not trace.exists()


def test_hub_names_are_read_from_the_cache(source, tmp_path, monkeypatch):
    """A name as on the hub, in the layout of the hub's cache, without a network."""
    import huggingface_hub

    folder, _ = source("dinov2")
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "cache" / "models--owner--name"
    shutil.copytree(folder, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    config = encoder_config("hf:owner/name", local_files_only=True)
    assert (config.name, config.revision) == ("owner/name", commit)
    assert config.digest == encoder_config(f"hf:{folder}").digest
    with pytest.raises(FileNotFoundError, match="did not give it"):
        hub_folder("owner/other", local_files_only=True)
    # and all of it, loading a checkpoint included, under the hub's own switch
    code = (
        "from jepa_gym.checkpoint.sources import hub_folder\n"
        "from jepa_gym.models.hugging_face import HuggingFaceEncoder, encoder_config\n"
        "encoder = HuggingFaceEncoder(encoder_config('hf:owner/name'), (28, 28))\n"
        "try:\n  hub_folder('owner/other')\nexcept FileNotFoundError as error:\n  print(error)"
    )
    environment = {"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, "-c", code]
    output = subprocess.check_output(command, env=os.environ | environment, text=True)
    assert "'owner/other' is no folder here" in output


def test_configurations_of_before_mean_the_same(source):
    values = WorldModelConfig().to_dict()
    for name in ("name", "revision", "digest"):
        del values["encoder"][name]
    assert WorldModelConfig.from_dict(values) == WorldModelConfig()
    config = encoder_config(f"hf:{source('dinov2')[0]}")
    assert EncoderConfig(**json.loads(json.dumps(dataclasses.asdict(config)))) == config
    for wrong in ({"kind": "hf"}, {"name": "owner/name"}, {"digest": "0"}):
        with pytest.raises(ValueError, match="encoder_config"):
            EncoderConfig(**wrong)


def test_latent_environment_and_planner(source, tmp_path):
    encoder = encoder_config(f"hf:{source('vjepa2', patch=16)[0]}")
    model = world_model(encoder, success_energy=0.5)  # frames of 32 x 64, as `some_starts`
    checkpoint = save(model, tmp_path / "checkpoint")
    write_starts(checkpoint, some_starts())
    agent = MPCAgent(
        WorldModel.from_pretrained(checkpoint),
        "cem",
        CEMConfig(samples=8, top_k=2, iterations=2, horizon=2),
    )
    with gym.make("JEPALatent-v0", checkpoint=str(checkpoint)) as env:
        observation, _ = env.reset(seed=0)
        assert observation["achieved_goal"].shape == (8, 24)
        for _ in range(2):
            action, _ = agent.predict(observation)
            observation, reward, *_ = env.step(action)
            assert np.isfinite(reward) and env.observation_space.contains(observation)
    starts = some_starts()
    action, _ = agent.predict(
        {
            "observation": starts.states[0],
            "pixels": starts.frames[0],
            "goal_pixels": starts.goal_frames[0],
            "goal_state": starts.goal_states[0],
        },
        episode_start=np.ones(1, bool),
    )
    assert action.shape == (7,) and np.isfinite(action).all()
