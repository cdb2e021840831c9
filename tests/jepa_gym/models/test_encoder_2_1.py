from __future__ import annotations

import pytest
import torch

from jepa_gym.models import VideoTransformer, VideoTransformer21, rope
from jepa_gym.models.presets import video_transformer_2_1

PATCH = 64  # 256 pixels are a grid of 4 x 4


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    return VideoTransformer21(24, 12, 2, patch_size=PATCH).requires_grad_(False)


def test_at_256_pixels_it_is_the_plain_encoder_with_a_modality(encoder):
    plain = VideoTransformer(24, 12, 2, patch_size=PATCH).requires_grad_(False)
    weights = encoder.state_dict()
    for name in ("weight", "bias"):
        weights[f"norm.{name}"] = weights[f"norms_block.3.{name}"]
    plain.load_state_dict({name: weights[name] for name in plain.state_dict()})
    video = torch.randn(2, 3, 4, 256, 256)
    encoder.video_mod_embed.normal_()
    plain.patch_embed.proj.bias += encoder.video_mod_embed.flatten()
    torch.testing.assert_close(encoder(video), plain(video), rtol=1e-5, atol=1e-5)
    ids = torch.tensor([[3, 17, 30], [0, 1, 31]])
    torch.testing.assert_close(encoder(video, ids), plain(video, ids), rtol=1e-5, atol=1e-5)


def test_other_sizes_spread_over_the_same_positions():
    cpu = torch.device("cpu")
    by, _ = rope.grid_rotation(2, (3, 7), 12, "interleaved", cpu, span=4)
    rows, columns = torch.tensor([0, 1.5, 3]), torch.arange(7) / 2
    positions = torch.cartesian_prod(torch.arange(2.0), rows, columns)
    expected, _ = rope.rotation(positions, 12, "interleaved")
    torch.testing.assert_close(by, expected)


def test_pictures_have_their_own_embedding(encoder):
    picture = torch.randn(2, 3, 1, 128, 192)
    before = encoder(picture)
    assert before.shape == (2, 6, 24)
    encoder.video_mod_embed += 1
    encoder.patch_embed.proj.weight.zero_()
    assert torch.equal(encoder(picture), before)
    encoder.img_mod_embed += torch.arange(24)
    assert not torch.allclose(encoder(picture), before, atol=1e-3)


def test_inner_norms(encoder):
    video = torch.randn(1, 3, 2, 128, 128)
    first, last = encoder(video, out_layers=[5, 11])
    assert torch.equal(last, encoder(video))
    encoder.norms_block[1].bias += 1
    assert torch.equal(encoder(video, out_layers=[5])[0], first + 1)
    with pytest.raises(ValueError, match=r"may name the blocks \(2, 5, 8, 11\) only, got 6"):
        encoder(video, out_layers=[6])


def test_names_of_the_published_sizes():
    for name, tensors in (
        ("vit_base", 158),
        ("vit_large", 302),
        ("vit_giant", 494),
        ("vit_gigantic", 590),
    ):
        with torch.device("meta"):
            names = video_transformer_2_1(name).state_dict()
        width = names["img_mod_embed"].shape[-1]
        assert len(names) == tensors and "norm.weight" not in names
        assert names["patch_embed_img.proj.weight"].shape == (width, 3, 1, 16, 16)
        assert names["norms_block.3.bias"].shape == (width,)


def test_errors(encoder):
    with pytest.raises(ValueError, match="at least 2 patches"):
        encoder(torch.zeros(1, 3, 2, 64, 128))
    with pytest.raises(ValueError, match="multiples of"):
        encoder(torch.zeros(1, 3, 3, 128, 128))
    with pytest.raises(ValueError, match=r"`depth` must be one of \(12, 24, 40, 48\), got 3"):
        VideoTransformer21(24, 3, 2)
