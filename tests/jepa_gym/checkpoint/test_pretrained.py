"""World models from published files, and their export."""

from __future__ import annotations

import json
import sys
import types

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from jepa_gym.checkpoint import download as hub
from jepa_gym.checkpoint import export, published
from jepa_gym.checkpoint.errors import CheckpointError
from jepa_gym.checkpoint.sources import SHIPPED
from jepa_gym.config import EncoderConfig, FrameSpec, PredictorConfig, WorldModelConfig
from jepa_gym.models import (
    ActionConditionedPredictor,
    AttentiveClassifier,
    MaskedPredictor,
    VideoTransformer,
)
from jepa_gym.world_model import WorldModel

WIDTH = 64


def seeded(module, seed=0):
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.1
    return module.eval().requires_grad_(False)


def same(module, other):
    got, wanted = module.state_dict(), other.state_dict()
    return got.keys() == wanted.keys() and all(torch.equal(got[n], wanted[n]) for n in got)


@pytest.fixture
def encoder():
    return seeded(VideoTransformer(WIDTH, 2, 1, rope="v2"))


@pytest.fixture
def other_encoder():
    return seeded(VideoTransformer(WIDTH, 2, 1, rope="v2"), 7)


@pytest.fixture
def predictor():
    return seeded(ActionConditionedPredictor((16, 16), WIDTH, 64, 2, 1, rope="v2"), 2)


def wrapped(module, **renamed):
    weights = {f"module.{name}": tensor for name, tensor in module.state_dict().items()}
    for old, new in renamed.items():
        weights = {name.replace(old, new): tensor for name, tensor in weights.items()}
    return weights


@pytest.fixture
def official(tmp_path, encoder, predictor):
    path = tmp_path / "vjepa2-ac-vitg.pt"
    weights = wrapped(encoder)
    content = {"encoder": weights, "target_encoder": weights, "predictor": wrapped(predictor)}
    torch.save(content | {"opt": {"state": {}}, "epoch": 1}, path)
    return path


def test_official(official, encoder, predictor):
    model = WorldModel.from_pretrained(official)
    assert same(model.encoder, encoder) and same(model.predictor, predictor)
    assert model.folder is None and not model.training
    config = model.config
    assert (config.frame.height, config.frame.width, config.frame.cameras) == (256, 256, ("droid",))
    assert config.encoder.rope == config.predictor.rope == "v2"
    assert config.state_mean == (0.0,) * 7 and config.state_std == config.action_scale == (1.0,) * 7
    assert WorldModelConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_official_numbers(official, encoder, predictor):
    """Frames are duplicated in time; states and actions go in raw; outputs are layer-normed."""
    model = WorldModel.from_pretrained(official)
    frames = torch.randint(0, 256, (1, 2, 256, 256, 3), dtype=torch.uint8)
    mean, std = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])
    video = (
        ((frames / 255 - mean) / std)[0].permute(0, 3, 1, 2)[:, :, None].expand(-1, -1, 2, -1, -1)
    )
    expected = torch.nn.functional.layer_norm(encoder(video), (WIDTH,))
    latents = model.encode(frames)
    assert (latents[0] - expected).abs().max() <= 2e-4
    actions, states = torch.randn(2, 1, 2, 7)
    predicted = torch.nn.functional.layer_norm(predictor(latents, actions, states), (WIDTH,))
    with torch.inference_mode():
        assert (model.predict(latents, actions, states) - predicted).abs().max() <= 2e-4


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_model_keeps_its_memory_layout(name):
    model = WorldModel.from_pretrained(name)
    fresh = WorldModel(model.config)
    for name, tensor in fresh.state_dict().items():
        assert model.state_dict()[name].stride() == tensor.stride()
    assert all(x.device.type == "cpu" for x in (*model.parameters(), *model.buffers()))


def test_the_published_recipe_at_small_size_reads_the_hand_from_pictures():
    """Its start frames are of episodes that it never learned from."""
    model = WorldModel.from_pretrained("vjepa-small")
    assert sum(x.stat().st_size for x in model.folder.iterdir()) <= 25 * 2**20
    with np.load(model.folder / "start_frames.npz") as starts:
        frames, states = starts["frames"], torch.from_numpy(starts["states"])
    read = model.readout(model.encode(frames[:, None])[:, 0])
    normaliser, columns = model.normaliser, [0, 1, 2, 6]
    read = read * normaliser.state_std[columns] + normaliser.state_mean[columns]
    error = (read - states[:, columns]).abs().mean(0)
    assert (error[:3] < 0.02).all() and error[3] < 0.05  # 2 cm, and a twentieth of the opening


def test_jepa_wms(tmp_path, encoder, predictor):
    path = tmp_path / "vjepa2_ac_oss.pth.tar"
    weights = wrapped(predictor, state_encoder="proprio_encoder")
    torch.save({"encoder": wrapped(encoder), "predictor": weights}, path)
    model = WorldModel.from_pretrained(path)
    assert same(model.encoder, encoder) and same(model.predictor, predictor)
    for name in [name for name in weights if "extrinsics" in name]:
        del weights[name]
    torch.save({"encoder": wrapped(encoder), "predictor": weights}, path)
    model = WorldModel.from_pretrained(path)
    assert not model.predictor.extrinsics_encoder.weight.any()
    assert torch.equal(model.predictor.state_encoder.bias, predictor.state_encoder.bias)


def test_jepa_wms_without_states(tmp_path, encoder):
    """The retrained predictor (`proprio_tokens: 0` in its configuration) sees actions only."""
    settings = {"rope": "v2", "use_states": False}
    predictor = seeded(ActionConditionedPredictor((16, 16), WIDTH, 64, 2, 1, **settings))
    weights = {n: x for n, x in wrapped(predictor).items() if "extrinsics" not in n}
    torch.save({"encoder": wrapped(encoder), "predictor": weights}, tmp_path / "ac.pth.tar")
    model = WorldModel.from_pretrained(tmp_path / "ac.pth.tar")
    assert not model.config.predictor.use_states and model.predictor.extra_tokens == 1
    latents, actions = torch.randn(1, 2, 256, WIDTH), torch.randn(1, 2, 7)
    states = torch.randn(2, 1, 2, 7)
    with torch.inference_mode():
        got = [model.predict(latents, actions, state) for state in states]
        expected = predictor(latents, actions, states[0])
        expected = torch.nn.functional.layer_norm(expected, (WIDTH,))
    assert torch.equal(got[0], got[1]) and (got[0] - expected).abs().max() <= 2e-4
    plan = torch.randn(1, 3, 2, 7)
    known = (latents[:, :1], states[0][:, :1])
    first = model.rollout(*known, plan)[:, 0, 0]
    single = model.predict(latents[:, :1], plan[:, 0, :1], states[0][:, :1])[:, 0]
    assert (first - single).abs().max() <= 1e-4
    model.save_pretrained(tmp_path / "out", {})
    assert same(WorldModel.from_pretrained(tmp_path / "out"), model)
    with pytest.raises(ValueError, match="has a state token"):
        export.world_model(tmp_path, model)


def test_missing_states_are_not_overlooked(tmp_path, encoder, predictor):
    weights = {n: x for n, x in wrapped(predictor).items() if "state_encoder" not in n}
    torch.save({"encoder": wrapped(encoder), "predictor": weights}, tmp_path / "ac.pt")
    with pytest.raises(CheckpointError, match=r"2 missing: predictor\.state_encoder"):
        WorldModel.from_pretrained(tmp_path / "ac.pt")


def test_extrinsics_are_not_invented_for_official_files(tmp_path, encoder, predictor):
    weights = {n: x for n, x in wrapped(predictor).items() if "extrinsics" not in n}
    torch.save({"encoder": wrapped(encoder), "predictor": weights}, tmp_path / "ac.pt")
    with pytest.raises(CheckpointError, match=r"2 missing: predictor\.extrinsics_encoder"):
        WorldModel.from_pretrained(tmp_path / "ac.pt")


def test_encoder_in_another_file(tmp_path, encoder, other_encoder, predictor):
    base, head = tmp_path / "vitg.pt", tmp_path / "vjepa2_ac_droid.pth.tar"
    torch.save({"encoder": wrapped(encoder), "target_encoder": wrapped(other_encoder)}, base)
    torch.save({"predictor": wrapped(predictor, state_encoder="proprio_encoder")}, head)
    with pytest.raises(CheckpointError, match="has no encoder, only predictor"):
        WorldModel.from_pretrained(head)
    assert same(WorldModel.from_pretrained(head, encoder=base).encoder, encoder)
    torch.save({"predictor": wrapped(predictor)}, head)
    assert same(WorldModel.from_pretrained(head, encoder=base).encoder, other_encoder)


def test_registered_names(tmp_path, monkeypatch, encoder, predictor):
    monkeypatch.setenv(hub.CACHE_VARIABLE, str(tmp_path))
    torch.save({"encoder": wrapped(encoder), "target_encoder": {}}, tmp_path / "vitg.pt")
    weights = wrapped(predictor, state_encoder="proprio_encoder")
    torch.save({"predictor": weights}, tmp_path / "vjepa2_ac_droid.pth.tar")
    name = "jepa-wms-vjepa2-ac-droid"
    with pytest.raises(hub.DownloadError, match="instead of 3662844455"):
        WorldModel.from_pretrained(name, local_files_only=True)
    entry = hub.Published("https://x/vjepa2_ac_droid.pth.tar", "", encoder="vjepa2-vitg")
    monkeypatch.setitem(hub.REGISTRY, name, entry)
    model = WorldModel.from_pretrained(name, local_files_only=True)
    assert same(model.encoder, encoder) and same(model.predictor, predictor)


def test_names_on_the_hub(tmp_path, monkeypatch, encoder, predictor):
    """Given as `hf:OWNER/NAME`: a world model of ours, or an encoder of transformers."""
    hub_package = types.ModuleType("huggingface_hub")
    asked = []

    def snapshot_download(name, revision, allow_patterns, local_files_only):
        asked.append((name, local_files_only))
        if name == "someone/missing":
            raise OSError("offline\nand more")
        return tmp_path / name.partition("/")[2]

    hub_package.snapshot_download = snapshot_download
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub_package)
    model = raw_model()
    model.save_pretrained(tmp_path / "ours", {})
    masked = MaskedPredictor((2, 2), WIDTH, 32, 1, 1, rope="v2")
    export.hugging_face(tmp_path / "theirs", encoder, masked)
    assert same(WorldModel.from_pretrained("hf:someone/ours", local_files_only=True), model)
    assert same(published.load("hf:someone/theirs", "encoder"), encoder)
    assert asked == [("someone/ours", True), ("someone/theirs", False)]
    with pytest.raises(FileNotFoundError, match="did not give it \\(offline and more\\)") as caught:
        WorldModel.from_pretrained("hf:someone/missing")
    assert caught.value.__cause__ is None and caught.value.__suppress_context__


def test_a_masked_predictor_is_no_world_model(tmp_path, encoder):
    masked = MaskedPredictor((16, 16), WIDTH, 32, 2, 1, rope="v2")
    export.official(tmp_path / "vitl.pt", encoder, masked)
    with pytest.raises(CheckpointError, match=r"masked predictor of pre-training.*post-train"):
        WorldModel.from_pretrained(tmp_path / "vitl.pt")
    with pytest.raises(FileNotFoundError, match=r"there is no model 'nowhere'"):
        WorldModel.from_pretrained("nowhere")


@pytest.mark.parametrize("kind", ["masked_predictor", "ac_predictor"])
def test_official_export(tmp_path, encoder, predictor, kind):
    if kind == "masked_predictor":
        predictor = seeded(MaskedPredictor((16, 16), WIDTH, 32, 2, 1, 3, rope="v2"), 3)
    path = tmp_path / "ours.pt"
    export.official(path, encoder, predictor)
    assert same(published.load(path, "encoder"), encoder)
    assert same(published.load(path, "encoder", "encoder"), encoder)
    assert same(published.load(path, kind), predictor)
    one_encoder = sum(x.numel() * 4 for m in (encoder, predictor) for x in m.parameters())
    assert path.stat().st_size < 1.2 * one_encoder  # the two are stored once
    export.official(path, encoder)
    assert list(torch.load(path, weights_only=True)) == ["encoder", "target_encoder", "epoch"]


def raw_model(**changes):
    config = WorldModelConfig(
        frame=FrameSpec(height=32, width=48, cameras=("left",)),
        encoder=EncoderConfig(
            kind="vit",
            embed_dim=WIDTH,
            depth=2,
            num_heads=2,
            latent_dim=WIDTH,
            patch_size=16,
            rope="v2",
        ),
        predictor=PredictorConfig(embed_dim=64, depth=2, num_heads=1, rope="v2"),
        action_scale=(1.0,) * 7,
        **changes,
    )
    return seeded(WorldModel(config))


def test_world_model_export(tmp_path):
    model = raw_model()
    export.world_model(tmp_path / "out", model)
    loaded = WorldModel.from_pretrained(tmp_path / "out")
    assert loaded.config == model.config and same(loaded, model)
    assert loaded.folder == tmp_path / "out"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "config.json",
        "vjepa2-ac.pt",
    ]
    frames = torch.randint(0, 256, (1, 1, 32, 48, 3), dtype=torch.uint8)
    assert torch.equal(loaded.encode(frames), model.encode(frames))


def test_export_refuses_what_has_no_place(tmp_path, model):
    with pytest.raises(ValueError, match="only the encoder 'vit', this model has 'conv'"):
        export.world_model(tmp_path, model)
    with pytest.raises(ValueError, match="its own state_mean; use `save_pretrained`"):
        export.world_model(tmp_path, raw_model(state_mean=(0.5,) * 7))
    encoder = VideoTransformer(WIDTH, 1, 1)
    with pytest.raises(ValueError, match="has the rotary embedding 'interleaved'"):
        export.official(tmp_path / "x.pt", encoder)
    encoder = VideoTransformer(WIDTH, 1, 1, rope="v2")
    with pytest.raises(ValueError, match="square pictures only, got 2x3"):
        export.hugging_face(tmp_path, encoder, MaskedPredictor((2, 3), WIDTH, 32, 1, 1, rope="v2"))
    masked = MaskedPredictor((3, 3), WIDTH, 32, 1, 1, rope="v2")
    with pytest.raises(ValueError, match="one number of heads for encoder and classifier"):
        export.hugging_face(tmp_path, encoder, masked, AttentiveClassifier(WIDTH, 2, 5))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("classes", [0, 5])
def test_hugging_face_export(tmp_path, encoder, classes):
    masked = seeded(MaskedPredictor((3, 3), WIDTH, 32, 2, 1, 4, rope="v2"), 1)
    probe = seeded(AttentiveClassifier(WIDTH, 1, classes, depth=3), 2) if classes else None
    export.hugging_face(tmp_path, encoder, masked, probe)
    assert same(published.load(tmp_path, "encoder"), encoder)
    loaded = published.load(tmp_path, "masked_predictor")
    assert same(loaded, masked) and loaded.grid == (3, 3) and loaded.head_dim == 32
    if probe is not None:
        assert same(published.load(tmp_path, "attentive_classifier"), probe)
    config = json.loads((tmp_path / "config.json").read_text())
    kind = "VJEPA2ForVideoClassification" if classes else "VJEPA2Model"
    assert config["architectures"] == [kind] and config["crop_size"] == 48
    start = "vjepa2." if classes else ""
    assert f"{start}encoder.layernorm.bias" in load_file(tmp_path / "model.safetensors")


@pytest.mark.parametrize("classes", [0, 5])
def test_transformers_reads_the_export(tmp_path, encoder, classes):
    transformers = pytest.importorskip("transformers")
    masked = seeded(MaskedPredictor((3, 3), WIDTH, 32, 2, 1, 4, rope="v2"), 1)
    probe = seeded(AttentiveClassifier(WIDTH, 1, classes, depth=3), 2) if classes else None
    export.hugging_face(tmp_path, encoder, masked, probe)
    name = "VJEPA2ForVideoClassification" if classes else "VJEPA2Model"
    theirs, report = getattr(transformers, name).from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    video = torch.randn(1, 2, 3, 48, 48)
    features = encoder(video.transpose(1, 2))
    with torch.inference_mode():
        if probe is None:
            got, expected = theirs(video, skip_predictor=True).last_hidden_state, features
        else:
            got, expected = theirs(video).logits, probe(features)
    assert (got - expected).abs().max() <= 2e-4
    theirs.save_pretrained(tmp_path / "again")
    assert same(published.load(tmp_path / "again", "encoder"), encoder)
    assert same(published.load(tmp_path / "again", "masked_predictor"), masked)
