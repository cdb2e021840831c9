"""The published sizes, counted on the meta device: nothing is allocated."""

from __future__ import annotations

import pytest
import torch

from jepa_gym.models import AnticipationHead, AttentiveClassifier
from jepa_gym.models.presets import (
    PRESETS,
    ac_predictor,
    masked_predictor,
    preset,
    video_transformer,
)


def parameters(module):
    return sum(p.numel() for p in module.parameters())


@pytest.fixture(autouse=True)
def on_meta():
    with torch.device("meta"):
        yield


def expected_encoder(width, depth, hidden):
    """Return the published names with their shapes."""
    block = {
        "norm1.weight": (width,),
        "norm1.bias": (width,),
        "attn.qkv.weight": (3 * width, width),
        "attn.qkv.bias": (3 * width,),
        "attn.proj.weight": (width, width),
        "attn.proj.bias": (width,),
        "norm2.weight": (width,),
        "norm2.bias": (width,),
        "mlp.fc1.weight": (hidden, width),
        "mlp.fc1.bias": (hidden,),
        "mlp.fc2.weight": (width, hidden),
        "mlp.fc2.bias": (width,),
    }
    names = {f"blocks.{i}.{name}": shape for i in range(depth) for name, shape in block.items()}
    names["patch_embed.proj.weight"] = (width, 3, 2, 16, 16)
    return names | {
        name: (width,) for name in ("patch_embed.proj.bias", "norm.weight", "norm.bias")
    }


@pytest.mark.parametrize(
    ("name", "hidden", "head_dim", "count"),
    [
        ("vit_tiny", 768, 64, 5_633_856),
        ("vit_small", 1536, 64, 21_884_544),
        ("vit_base", 3072, 64, 86_236_416),
        ("vit_large", 4096, 64, 303_885_312),
        ("vit_huge", 5120, 80, 631_648_000),
        ("vit_giant", 6144, 64, 1_012_173_952),
    ],
)
def test_encoders(name, hidden, head_dim, count):
    encoder = video_transformer(name)
    sizes = PRESETS[name]
    shapes = {key: tuple(value.shape) for key, value in encoder.state_dict().items()}
    assert shapes == expected_encoder(sizes["embed_dim"], sizes["depth"], hidden)
    assert parameters(encoder) == count and encoder.head_dim == head_dim


def test_large_has_292_tensors():
    assert len(video_transformer("vit_large").state_dict()) == 292


@pytest.mark.parametrize(
    ("name", "count"),
    [("vit_large", 22_086_016), ("vit_huge", 22_282_880), ("vit_giant", 22_381_312)],
)
def test_masked_predictors(name, count):
    predictor = masked_predictor(name)
    assert len(predictor.state_dict()) == 160 and parameters(predictor) == count
    assert predictor.mask_tokens[9].shape == (1, 1, 384) and predictor.head_dim == 32


def test_ac_predictor():
    predictor = ac_predictor()
    names = predictor.state_dict()
    assert len(names) == 300 and parameters(predictor) == 305_220_992
    assert names["extrinsics_encoder.weight"].shape == (1024, 6)
    assert names["predictor_blocks.23.mlp.fc1.weight"].shape == (4096, 1024)
    assert predictor.rope == "v2"


def test_attentive_classifier():
    assert parameters(AttentiveClassifier(1408, 16, 174)) == 93_494_190


def test_anticipation_head():
    head = AnticipationHead(1408, 16, verbs=97, nouns=300, actions=3568)
    names = head.state_dict()
    assert names["pooler.query_tokens"].shape == (1, 3, 1408)
    sizes = {"verb": 97, "noun": 300, "action": 3568}
    assert all(names[f"{k}_classifier.weight"].shape == (n, 1408) for k, n in sizes.items())
    one = AttentiveClassifier(1408, 16, 1).pooler.state_dict()
    assert {f"pooler.{name}" for name in one} == {k for k in names if k.startswith("pooler.")}


def test_forwards_on_meta_cost_nothing():
    video = torch.empty(1, 3, 64, 384, 384)
    assert video_transformer("vit_tiny", depth=2)(video).shape == (1, 18432, 192)
    latents, given = torch.empty(1, 256, 256, 1408), torch.empty(1, 256, 7)
    predictor = ac_predictor(depth=2)  # its mask would take 4 GiB of memory
    assert predictor(latents, given, given).shape == latents.shape


def test_changes_and_unknown_names():
    encoder = video_transformer("vit_tiny", rope="v2", depth=1, patch_size=8)
    assert (encoder.rope, encoder.patch_size, len(encoder.blocks)) == ("v2", 8, 1)
    with pytest.raises(ValueError, match="no preset 'vit_enormous'; there are vit_tiny, vit_small"):
        preset("vit_enormous")
    preset("vit_tiny")["embed_dim"] = 1
    assert PRESETS["vit_tiny"]["embed_dim"] == 192
