from __future__ import annotations

import pytest
import torch
from torch import nn

from jepa_gym.models import (
    ActionConditionedPredictor,
    ConvEncoder,
    PerLocationBatchNorm,
    VideoTransformer,
)
from jepa_gym.models import rope

GRID, DIM = (2, 3), 16


@pytest.fixture
def predictor():
    torch.manual_seed(0)
    model = ActionConditionedPredictor(GRID, DIM, width=32, depth=2, heads=2)
    for part in model.modules():
        if isinstance(part, nn.Linear):  # 0.02 would leave little to compare
            nn.init.normal_(part.weight, std=0.2)
    return model.requires_grad_(False)


def inputs(batch=2, frames=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    latents = torch.randn(batch, frames, 6, DIM, generator=generator)
    actions, states = torch.randn(2, batch, frames, 7, generator=generator)
    return latents, actions, states


def test_no_future_leaks(predictor):
    latents, actions, states = inputs()
    before = predictor(latents, actions, states)
    for changed in (latents, actions, states):
        changed[:, 2] += 1.0
    after = predictor(latents, actions, states)
    assert torch.equal(before[:, :2], after[:, :2])
    assert not torch.isclose(before[:, 2:], after[:, 2:]).all(-1).any()


def test_mask_numbers():
    small = ActionConditionedPredictor((1, 2), 6, width=12, depth=1, heads=1)
    mask = small._mask(2, torch.device("cpu"))
    assert mask.shape == (8, 8)
    assert not mask[:4, 4:].any() and mask[:4, :4].all() and mask[4:].all()


@pytest.mark.parametrize("context", [1, 2, 4])
@pytest.mark.parametrize("horizon", [1, 3, 8])
def test_cached_decode_equals_full_pass(predictor, context, horizon):
    samples, frames = 3, context + horizon - 1
    latents, actions, states = inputs(batch=2, frames=context)
    _, more_actions, more_states = inputs(batch=2 * samples, frames=horizon, seed=1)
    cache = predictor.start_cache(latents[:, :-1], actions[:, :-1], states[:, :-1])
    current, steps = latents[:, -1:], []
    for step in range(horizon):
        at = [x[:, step].unflatten(0, (2, samples)) for x in (more_actions, more_states)]
        current, cache = predictor.decode(current, *at, cache)
        steps.append(current)
    assert cache.frames == frames

    def repeated(x):
        return x.repeat_interleave(samples, 0)

    known = repeated(latents)
    all_actions = torch.cat([repeated(actions[:, :-1]), more_actions], 1)
    all_states = torch.cat([repeated(states[:, :-1]), more_states], 1)
    for step in range(horizon):
        seen = context + step
        full = predictor(known, all_actions[:, :seen], all_states[:, :seen])[:, -1:]
        known = torch.cat([known, full], 1)
        torch.testing.assert_close(steps[step].flatten(0, 1), full[:, 0], rtol=1e-4, atol=1e-4)


def test_predictor_rejects_bad_shapes(predictor):
    latents, actions, states = inputs()
    with pytest.raises(ValueError, match=r"`latents` must be \(B, T, 6, D\)"):
        predictor(latents[:, :, :5], actions, states)
    with pytest.raises(ValueError, match="`actions` and `states`"):
        predictor(latents, actions, states[:, :2])
    with pytest.raises(ValueError, match="agree in batch and time"):
        predictor(latents[:, :3], actions, states)
    with pytest.raises(ValueError, match="extrinsics are given"):
        predictor(latents, actions, states, torch.zeros(2, 4, 6))


def test_published_sizes_on_meta():
    with torch.device("meta"):
        encoder = VideoTransformer(1024, 24, 16)
        predictor = ActionConditionedPredictor((16, 16), 1408, 1024, 24, 16)
    assert sum(p.numel() for p in encoder.parameters()) == 303_885_312
    assert sum(p.numel() for p in predictor.parameters()) == 305_220_992
    assert len(predictor.state_dict()) == 300
    assert len(encoder.state_dict()) == 292


def test_tables_of_inference_serve_training():
    rope._grid_rotation.cache_clear()
    encoder = VideoTransformer(24, 1, 2, patch=8)
    video = torch.randn(1, 3, 2, 16, 16)
    with torch.inference_mode():
        encoder(video)
    encoder(video).sum().backward()


def test_encoder_rejects_odd_sizes():
    with pytest.raises(ValueError, match="multiples of"):
        VideoTransformer(24, 1, 2)(torch.zeros(1, 3, 2, 16, 20))


def test_batch_norm_per_location():
    norm = PerLocationBatchNorm(3, 4, momentum=0.5)
    x = torch.randn(64, 3, 4) * (torch.rand(3, 4) + 0.5) + torch.randn(3, 4)
    out = norm(x)
    torch.testing.assert_close(out.mean(0), torch.zeros(3, 4), atol=1e-5, rtol=0)
    torch.testing.assert_close(out.var(0, unbiased=False), torch.ones(3, 4), atol=1e-3, rtol=0)
    torch.testing.assert_close(norm.running_mean, x.mean(0) / 2)
    before = norm.running_mean.clone()
    norm.eval()(x)
    assert torch.equal(before, norm.running_mean)


def test_conv_encoder_encodes_frames_alone():
    from jepa_gym.config import EncoderConfig

    config = EncoderConfig(width=24, depth=1, heads=2, latent_dim=8, patch=8)
    encoder = ConvEncoder(config, (2, 4)).eval()
    images = torch.randn(3, 3, 16, 32)
    out = encoder(images)
    assert out.shape == (3, 8, 8)
    torch.testing.assert_close(encoder(images[1:2]), out[1:2], atol=1e-5, rtol=1e-5)
