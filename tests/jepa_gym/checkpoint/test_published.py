"""Published files of every layout, and what happens to broken ones."""

from __future__ import annotations

import json
import pickle
import traceback
import urllib.error
import zipfile

import pytest
import torch
from safetensors.torch import save_file

from jepa_gym.checkpoint import download, hf_keys, published
from jepa_gym.checkpoint.errors import CheckpointError, DownloadError
from jepa_gym.checkpoint.published_config import exact_ratio
from jepa_gym.checkpoint.weights import open_weights
from jepa_gym.models import (
    ActionConditionedPredictor,
    AnticipationHead,
    MaskedPredictor,
    VideoTransformer,
    VideoTransformer21,
)
from jepa_gym.models.sincos import sincos_table
from jepa_gym.world_model import WorldModel

WIDTH = 64


def seeded(module, seed=0):
    """Fill all parameters with noise, the constant ones too."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.1
    return module.eval().requires_grad_(False)


@pytest.fixture
def encoder():
    return seeded(VideoTransformer(WIDTH, 2, 1, rope="v2"))


@pytest.fixture
def masked():
    return seeded(MaskedPredictor((16, 16), WIDTH, 32, 2, 1, num_mask_tokens=3, rope="v2"), 1)


@pytest.fixture
def conditioned():
    return seeded(ActionConditionedPredictor((16, 16), WIDTH, 64, 2, 1, rope="v2"), 2)


def same(module, weights):
    """Say whether a module or state dict has exactly the given weights."""
    got = module if isinstance(module, dict) else module.state_dict()
    wanted = weights if isinstance(weights, dict) else weights.state_dict()
    return got.keys() == wanted.keys() and all(torch.equal(got[n], wanted[n]) for n in got)


def prefixed(module, prefix="module.backbone."):
    return {prefix + name: tensor for name, tensor in module.state_dict().items()}


@pytest.fixture
def official(tmp_path, encoder, masked):
    """A `.pt` as V-JEPA 2's: two encoders that differ, unused tables, optimiser state."""
    average = seeded(VideoTransformer(WIDTH, 2, 1, rope="v2"), 5)
    path = tmp_path / "vitl.pt"
    table = {"module.backbone.pos_embed": torch.zeros(1, 8, WIDTH)}
    content = {
        "encoder": prefixed(encoder) | table,
        "target_encoder": prefixed(average) | table,
        "predictor": prefixed(masked) | {"module.backbone.predictor_pos_embed": torch.zeros(3)},
        "opt": {"state": {0: {"exp_avg": torch.zeros(9)}}, "param_groups": [{"lr": 1e-4}]},
        "scaler": None,
        "epoch": 3,
        "loss": 0.5,
    }
    torch.save(content, path)
    return path, average


def test_official(official, encoder, masked):
    path, average = official
    assert same(published.read_weights(path, "encoder"), encoder)
    assert same(published.load(path, "encoder"), average)
    assert same(published.load(path, "encoder", "encoder"), encoder)
    predictor = published.load(path, "masked_predictor")
    assert same(predictor, masked) and predictor.grid == (16, 16) and predictor.rope == "v2"
    assert published.load(path, "masked_predictor", img_size=384).grid == (24, 24)
    parts = published.parts_of(open_weights(path))
    assert list(parts) == ["encoder", "target_encoder", "predictor"]


def test_vjepa1(tmp_path):
    """Its names, wrappers, tables and mask tokens; as many heads in the predictor as outside."""
    sizes = {"rope": "sincos", "trained_grid": (8, 2, 2)}
    encoder, average = (seeded(VideoTransformer(128, 2, 2, **sizes), seed) for seed in (0, 5))
    masked = seeded(MaskedPredictor((2, 2), 128, 48, 2, 2, num_mask_tokens=2, rope="sincos"), 1)
    table = {"module.backbone.pos_embed": sincos_table((8, 2, 2), 128, torch.device("cpu"))[None]}
    second = "module.backbone.predictor_pos_embed"
    content = {
        "encoder": prefixed(encoder) | table,
        "target_encoder": prefixed(average) | table,
        "predictor": prefixed(masked) | {second: torch.zeros(1, 32, 48)},
        "opt": {"state": {0: {"exp_avg": torch.zeros(9)}}},
        "epoch": 300,
    }
    path = tmp_path / "vitl16.pth.tar"
    torch.save(content, path)
    loaded = published.load(path, "encoder")
    assert same(loaded, average) and loaded.trained_grid == (8, 2, 2)
    video = torch.randn(1, 3, 16, 32, 32)
    assert torch.equal(loaded(video), average(video))
    assert loaded(torch.randn(1, 3, 2, 48, 48)).shape == (1, 9, 128)
    predictor = published.load(path, "masked_predictor")
    assert same(predictor, masked) and predictor.grid == (2, 2) and predictor.head_dim == 24
    ids = torch.arange(32)[None]
    asked = (loaded(video, ids[:, :20]), ids[:, :20], ids[:, 20:], 1)
    assert torch.equal(predictor(*asked), masked(*asked))
    alone = tmp_path / "encoder.pt"
    torch.save({"target_encoder": content["target_encoder"]}, alone)
    again = published.load(alone, "encoder", rope="sincos", trained_grid=(8, 2, 2))
    assert torch.equal(again(video), average(video))
    content["predictor"][second] = torch.zeros(1, 33, 48)
    torch.save(content, path)
    with pytest.raises(CheckpointError, match="33 positions, which is no square"):
        published.load(path, "encoder")


def test_loaded_weights_are_independent_of_the_file(official, encoder):
    path, _ = official
    weights = published.read_weights(path, "encoder")
    path.write_bytes(b"\0" * path.stat().st_size)
    assert same(weights, encoder)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("encoder", "encoder_head64"),
        ("encoder", "encoder_head80"),
        ("masked_predictor", "masked_predictor"),
        ("ac_predictor", "ac_predictor_plain"),
        ("ac_predictor", "ac_predictor_extrinsics"),
    ],
)
def test_load_published(golden, kind, name):
    config, weights, data = golden(name)
    wrapped = {f"module.{key}": value for key, value in weights.items()}
    module = published.load_published(kind, wrapped, config)
    assert not module.training and same(module, weights)
    with torch.inference_mode():
        if kind == "encoder":
            got, expected = module(data["video"]), data["features"]
        elif kind == "masked_predictor":
            inputs = (data["context"], data["context_ids"], data["target_ids"])
            got, expected = module(*inputs, 1), data["prediction_mask_index_1"]
        else:
            inputs = (data["latents"], data["actions"], data["states"], data.get("extrinsics"))
            got, expected = module(*inputs), data["prediction"]
    assert (got - expected).abs().max() <= 2e-4
    next(module.parameters()).data.add_(1)
    assert same({key: value.clone() for key, value in weights.items()}, weights)
    assert not same(module, weights)


def test_load_published_attentive_classifier(golden):
    config, weights, data = golden("attentive_classifier")
    module = published.load_published("attentive_classifier", weights, config)
    assert same(module, weights)
    with torch.inference_mode():
        assert (module(data["tokens"]) - data["logits"]).abs().max() <= 2e-4


def test_probes(golden, tmp_path):
    config, weights, _ = golden("attentive_classifier")
    probe = {f"module.{name}": tensor for name, tensor in weights.items()}
    path, heads = tmp_path / "ssv2.pt", config["num_heads"]
    torch.save({"classifiers": [probe], "opt": {}, "epoch": 20}, path)
    assert same(published.load(path, "attentive_classifier", num_heads=heads), weights)
    torch.save({"classifiers": [probe, probe]}, path)
    with pytest.raises(CheckpointError, match=r"classifiers\.0, classifiers\.1: name one of"):
        published.read_weights(path, "classifier")
    assert same(published.read_weights(path, "classifiers.1"), weights)


def test_configuration_is_checked(encoder):
    config = {"embed_dim": WIDTH, "depth": 2, "num_heads": 1}
    with pytest.raises(ValueError, match="`kind` must be one of"):
        published.load_published("decoder", {}, config)
    with pytest.raises(ValueError, match="needs 'depth'"):
        published.load_published("encoder", encoder.state_dict(), {"embed_dim": 64})
    absolute = published.load_published(
        "encoder", encoder.state_dict(), config | {"use_rope": False}
    )
    assert absolute.rope == "sincos"


def test_misfits_are_named(encoder):
    weights = encoder.state_dict()
    weights["blocks.2.norm1.weight"] = torch.zeros(WIDTH)
    weights["norm.weight"] = torch.zeros(5)
    for name in [name for name in weights if name.startswith("blocks.1.")]:
        del weights[name]
    with pytest.raises(CheckpointError) as caught:
        published.load_published(
            "encoder", weights, {"embed_dim": WIDTH, "depth": 2, "num_heads": 1}
        )
    message = str(caught.value)
    assert "12 missing: blocks.1.attn.proj.bias" in message and "..." in message
    assert message.count("blocks.1.") == 10
    assert "1 unexpected: blocks.2.norm1.weight" in message
    assert f"1 wrong shape: norm.weight (5,) instead of ({WIDTH},)" in message


def test_names_that_fall_together_are_refused(encoder):
    weights = encoder.state_dict() | prefixed(encoder)
    with pytest.raises(CheckpointError, match="the same as others but for"):
        published.load_published("encoder", weights, {})


def test_types_are_converted_or_refused(encoder):
    config = {"embed_dim": WIDTH, "depth": 2, "num_heads": 1}
    half = {name: x.bfloat16() for name, x in encoder.state_dict().items()}
    loaded = published.load_published("encoder", half, config)
    assert {x.dtype for x in loaded.parameters()} == {torch.float32}
    quantised = encoder.state_dict() | {"norm.weight": torch.zeros(WIDTH, dtype=torch.int8)}
    with pytest.raises(CheckpointError, match="quantised"):
        published.load_published("encoder", quantised, config)


def test_wrong_kind_and_missing_part(official, tmp_path, conditioned):
    path, _ = official
    with pytest.raises(CheckpointError, match=r"not the weights of a published ac_predictor"):
        published.load(path, "ac_predictor")
    with pytest.raises(CheckpointError, match="no part `classifier`; it has encoder, target_enc"):
        published.load(path, "attentive_classifier")
    with pytest.raises(ValueError, match="`kind` must be one of"):
        published.load(path, "decoder")
    odd = tmp_path / "odd.pt"
    torch.save({"encoder": seeded(VideoTransformer(72, 1, 2)).state_dict()}, odd)
    with pytest.raises(CheckpointError, match="give `num_heads`"):
        published.load(odd, "encoder")
    assert published.load(odd, "encoder", num_heads=2).head_dim == 36


def test_bare_state_dicts_and_safetensors(tmp_path, encoder, conditioned):
    bare = tmp_path / "bare.pth"
    torch.save(prefixed(encoder), bare)
    assert same(published.load(bare, "encoder"), encoder)
    torch.save(conditioned.state_dict(), bare)
    assert same(published.load(bare, "ac_predictor"), conditioned)
    save_file(prefixed(encoder, "target_encoder.module."), tmp_path / "one.safetensors")
    assert same(published.load(tmp_path / "one.safetensors", "encoder"), encoder)


@pytest.mark.parametrize("prefix", ["", "module."])
def test_probe_of_anticipation(tmp_path, prefix):
    """The probes of EPIC-KITCHENS-100 have three queries and three heads."""
    head = seeded(AnticipationHead(WIDTH, 16, 7, 9, 20))
    torch.save({"classifiers": [prefixed(head, prefix)], "epoch": 2}, tmp_path / "ek100.pt")
    loaded = published.load(tmp_path / "ek100.pt", "anticipation_head")
    assert same(loaded, head)
    tokens = torch.randn(1, 5, WIDTH)
    assert loaded(tokens)["action"].shape == (1, 20)
    with pytest.raises(CheckpointError, match=r"`linear\.weight` is missing"):
        published.load(tmp_path / "ek100.pt", "attentive_classifier")


def test_names_of_published_files(tmp_path, monkeypatch, official):
    path, average = official
    monkeypatch.setenv("JEPA_GYM_CACHE", str(path.parent))
    assert same(published.load("vjepa2-vitl", "encoder"), average)
    assert "norm.weight" in published.read_weights("vjepa2-vitl", "encoder")
    for load in (published.load, WorldModel.from_pretrained):
        with pytest.raises(FileNotFoundError, match=r"Did you mean `vjepa2-vitl`\?"):
            load("vjepa2-vitll", "encoder")


def test_offline_errors_are_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("JEPA_GYM_CACHE", str(tmp_path))
    monkeypatch.setattr(download, "_open", refuse)
    for local_files_only in (True, False):
        with pytest.raises(DownloadError) as caught:
            WorldModel.from_pretrained("vjepa2-ac-vitg", local_files_only=local_files_only)
        shown = traceback.format_exception(caught.value)
        assert sum(line.startswith("Traceback") for line in shown) == 1
        assert "\n" not in str(caught.value) and str(tmp_path / "vjepa2-ac-vitg.pt") in shown[-1]


def refuse(*arguments):
    raise urllib.error.URLError(ConnectionRefusedError(111, "Connection refused"))


def test_our_own_checkpoint(checkpoint, model):
    assert same(published.read_weights(checkpoint, "predictor"), model.predictor)


def test_v2_1(tmp_path, encoder):
    path = tmp_path / "vjepa2_1_vitb_dist_vitG_384.pt"
    torch.save({"ema_encoder": prefixed(encoder)}, path)
    loaded = published.load(path, "encoder")
    assert same(loaded, encoder) and loaded.rope == "interleaved"
    modal = VideoTransformer21(WIDTH, 12, 1, patch_size=16)
    torch.save({"ema_encoder": prefixed(modal)}, path)
    loaded = published.load(path, "encoder")
    assert isinstance(loaded, VideoTransformer21) and same(loaded, modal)
    extra = {"module.video_mod_embed": torch.zeros(1, 1, WIDTH)}
    torch.save({"ema_encoder": prefixed(encoder) | extra}, path)
    with pytest.raises((CheckpointError, ValueError), match=r"depth|missing"):
        published.load(path, "encoder")


def hugging_face(encoder, masked):
    return hf_keys.to_hugging_face("encoder", encoder.state_dict()) | hf_keys.to_hugging_face(
        "predictor", masked.state_dict()
    )


def hf_folder(folder, tensors, shards=1, **config):
    folder.mkdir()
    values = {"model_type": "vjepa2", "num_attention_heads": 1, "pred_num_attention_heads": 1}
    (folder / "config.json").write_text(json.dumps(values | {"crop_size": 48} | config))
    tensors = {name: x.contiguous().clone() for name, x in tensors.items()}
    if shards == 1:
        save_file(tensors, folder / "model.safetensors")
        return folder
    files = [f"model-{number:05}.safetensors" for number in range(shards)]
    where = {name: files[number % shards] for number, name in enumerate(sorted(tensors))}
    for file in files:
        save_file({n: x for n, x in tensors.items() if where[n] == file}, folder / file)
    index = {"metadata": {}, "weight_map": where}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("prefix", ["", "vjepa2."])
def test_hugging_face_folder(tmp_path, encoder, masked, shards, prefix):
    tensors = {prefix + name: x for name, x in hugging_face(encoder, masked).items()}
    folder = hf_folder(tmp_path / "hf", tensors, shards)
    assert same(published.load(folder, "encoder"), encoder)
    predictor = published.load(folder, "masked_predictor")
    assert same(predictor, masked) and predictor.grid == (3, 3)
    with pytest.raises(CheckpointError, match="no action-conditioned predictor"):
        WorldModel.from_pretrained(folder)


def test_hugging_face_names(encoder, masked):
    names = hugging_face(encoder, masked)
    assert torch.equal(
        names["encoder.layer.1.attention.key.bias"],
        encoder.state_dict()["blocks.1.attn.qkv.bias"][WIDTH : 2 * WIDTH],
    )
    assert names["predictor.embeddings.mask_tokens"].shape == (3, 1, 1, 32)
    assert "encoder.embeddings.patch_embeddings.proj.weight" in names
    assert "predictor.embeddings.predictor_embeddings.bias" in names


def test_hugging_face_classifier_names(golden):
    _, weights, _ = golden("attentive_classifier")
    theirs = hf_keys.to_hugging_face("classifier", weights)
    for name in (
        "classifier.bias",
        "pooler.query_tokens",
        "pooler.cross_attention_layer.layer_norm2.weight",
        "pooler.cross_attention_layer.cross_attn.v_proj.bias",
        "pooler.self_attention_layers.1.self_attn.out_proj.weight",
        "pooler.self_attention_layers.0.layer_norm1.weight",
        "pooler.self_attention_layers.0.mlp.fc2.bias",
    ):
        assert name in theirs
    assert hf_keys.is_hugging_face(set(theirs))
    assert same(hf_keys.from_hugging_face("classifier", dict(theirs)), weights)


def test_hugging_face_folder_with_missing_parts(tmp_path, encoder, masked):
    tensors = hugging_face(encoder, masked)
    del tensors["encoder.layer.0.attention.key.weight"]
    tensors["encoder.extra"] = torch.zeros(2)
    folder = hf_folder(tmp_path / "hf", tensors, 2)
    with pytest.raises(CheckpointError) as caught:
        published.load(folder, "encoder")
    assert "1 missing: blocks.0.attn.qkv.weight" in str(caught.value)
    assert "encoder.extra" in str(caught.value) and "attention.query.weight" in str(caught.value)
    (folder / "model-00001.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="has no model-00001"):
        published.load(folder, "encoder")
    (folder / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"index\.json is damaged"):
        published.load(folder, "encoder")


@pytest.mark.parametrize(
    "name", ["../secret.safetensors", "/etc/secret.safetensors", "sub/a.safetensors", "a.pt", 5]
)
def test_shards_lie_in_the_folder(tmp_path, encoder, masked, name):
    folder = hf_folder(tmp_path / "hf", hugging_face(encoder, masked), 2)
    save_file({"x": torch.zeros(1)}, tmp_path / "secret.safetensors")
    index = folder / "model.safetensors.index.json"
    values = json.loads(index.read_text())
    values["weight_map"]["encoder.extra"] = name
    index.write_text(json.dumps(values))
    with pytest.raises(CheckpointError, match=r"index\.json (names .* as a shard|is damaged)"):
        published.load(folder, "encoder")


@pytest.mark.parametrize(
    "settings",
    [
        {"num_attention_heads": 10**9},
        {"num_attention_heads": 0},
        {"num_attention_heads": 1e9},
        {"crop_size": 10**12},
        {"crop_size": [48]},
    ],
)
def test_sizes_in_a_hugging_face_configuration_are_bounded(tmp_path, encoder, masked, settings):
    folder = hf_folder(tmp_path / "hf", hugging_face(encoder, masked), **settings)
    with pytest.raises(ValueError, match="must be an integer from 1 to 65536"):
        published.load(folder, "encoder")


class Evil:
    def __reduce__(self):
        return print, ("this must never be printed",)


def test_code_is_refused(tmp_path, encoder, capsys):
    path = tmp_path / "evil.pt"
    torch.save({"encoder": encoder.state_dict(), "args": Evil()}, path)
    with pytest.raises(CheckpointError, match=r"could run any code: refused .*print") as caught:
        published.load(path, "encoder")
    assert "weights_only=False" not in str(caught.value)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("share", [0.001, 0.3, 0.9, 0.999])
def test_truncated(official, share):
    path, _ = official
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(CheckpointError, match=r"truncated or damaged .*download it again"):
        published.load(path, "encoder")


def test_files_of_another_kind(tmp_path):
    path = tmp_path / "model.pt"
    for content, message in (
        (b"", "is empty"),
        (b"<!DOCTYPE html><title>403</title>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1", "Git LFS"),
        (pickle.dumps({"encoder": 1}), "a pickle of an old kind"),
        (b"GIF89a.........................", "of an unknown kind"),
    ):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=message):
            published.load(path, "encoder")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("notes.txt", "no model")
    with pytest.raises(CheckpointError, match="truncated or damaged"):
        published.load(path, "encoder")
    for content, message in (
        ([torch.zeros(1)], "holds a list"),
        ({"model": 1, "epoch": 2}, "holds no weights: .* 2 others: model, epoch"),
        ({"model.weight": torch.zeros(1)}, "has no part `encoder`"),
    ):
        torch.save(content, path)
        with pytest.raises(CheckpointError, match=message):
            published.load(path, "encoder")
    with pytest.raises(FileNotFoundError, match="no file"):
        published.load(tmp_path / "nowhere.pt", "encoder")


def test_exact_ratio():
    for width in range(16, 2000, 48):
        for hidden in range(width, 5 * width, 37):
            assert int(width * exact_ratio(hidden, width)) == hidden
    assert exact_ratio(6144, 1408) == 48 / 11 and exact_ratio(4096, 1024) == 4.0
