"""Joining tokens keeps places and content."""

import pytest
import torch

from jepa_gym.config import EncoderConfig, FrameSpec, PredictorConfig, WorldModelConfig
from jepa_gym.models.merging import TokenMerging
from jepa_gym.world_model import WorldModel


def small_model(merge: int) -> WorldModel:
    torch.manual_seed(0)
    return WorldModel(
        WorldModelConfig(
            frame=FrameSpec(height=64, width=128),
            encoder=EncoderConfig(
                kind="vit", embed_dim=24, depth=1, num_heads=2, latent_dim=24, patch_size=16,
                merge=merge,
            ),
            predictor=PredictorConfig(embed_dim=24, depth=1, num_heads=2),
        )
    ).eval()  # fmt: skip


def test_squares_of_neighbours_are_joined():
    merging = TokenMerging((2, 3), embed_dim=1, latent_dim=2, merge=2)
    tokens = torch.arange(24.0).view(1, 24, 1)  # 4 rows of 6
    joined = merging.joined(tokens)[0]
    assert joined[0].tolist() == [0, 1, 6, 7]
    assert joined[5].tolist() == [16, 17, 22, 23]


def test_components_are_uncorrelated_and_keep_the_most():
    torch.manual_seed(0)
    merging = TokenMerging((2, 2), embed_dim=3, latent_dim=4, merge=2)
    tokens = torch.randn(200, 16, 3) @ torch.randn(3, 3) + 5
    kept = merging.fit(tokens)
    out = merging(tokens).flatten(0, 1)
    covariance = torch.cov(out.T)
    torch.testing.assert_close(covariance, covariance.diagonal().diag(), atol=1e-3, rtol=0)
    torch.testing.assert_close(out.mean(0), torch.zeros(4), atol=1e-3, rtol=0)
    joined = merging.joined(tokens).flatten(0, 1)
    assert kept == pytest.approx((out.var(0).sum() / joined.var(0).sum()).item(), abs=1e-4)
    assert joined.var(0).sort().values[-4:].sum() <= out.var(0).sum()


def test_a_model_with_merged_tokens_is_saved_and_read(tmp_path):
    model = small_model(merge=2)
    frames = torch.randint(0, 256, (2, 3, 64, 128, 3), dtype=torch.uint8)
    model.fit_merging(frames)
    latents = model.encode(frames)
    assert latents.shape == (2, 3, 8, 24) and model.config.num_tokens == 8
    model.save_pretrained(tmp_path / "m", {})
    torch.testing.assert_close(WorldModel.from_pretrained(tmp_path / "m").encode(frames), latents)


def test_what_cannot_be_merged_is_refused():
    with pytest.raises(ValueError, match="merge"):
        EncoderConfig(kind="conv", merge=2)
    with pytest.raises(ValueError, match="multiple of"):
        small_model(merge=3)
