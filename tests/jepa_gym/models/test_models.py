from __future__ import annotations

import pytest
import torch
from torch import nn

from jepa_gym.models import (
    ActionConditionedPredictor,
    ConvEncoder,
    MaskedPredictor,
    PerLocationBatchNorm,
    VideoTransformer,
    rope,
)

GRID, DIM = (2, 3), 16


def make_predictor(**changes):
    torch.manual_seed(0)
    model = ActionConditionedPredictor(GRID, DIM, embed_dim=32, depth=2, num_heads=2, **changes)
    for part in model.modules():
        if isinstance(part, nn.Linear):  # 0.02 would leave little to compare
            nn.init.normal_(part.weight, std=0.2)
    return model.requires_grad_(False)


@pytest.fixture
def predictor():
    return make_predictor()


def inputs(batch=2, frames=4, seed=0, extrinsics=False):
    """Latents, actions, states, and camera poses if asked for."""
    generator = torch.Generator().manual_seed(seed)
    latents = torch.randn(batch, frames, 6, DIM, generator=generator)
    actions, states = torch.randn(2, batch, frames, 7, generator=generator)
    poses = [torch.randn(batch, frames, 6, generator=generator)] if extrinsics else []
    return [latents, actions, states, *poses]


@pytest.mark.parametrize("extrinsics", [False, True])
def test_no_future_leaks(extrinsics):
    predictor = make_predictor(use_extrinsics=extrinsics)
    given = inputs(frames=4, extrinsics=extrinsics)
    before = predictor(*given)
    for time in range(1, 4):
        for number in range(len(given)):
            changed = [x.clone() for x in given]
            changed[number][:, time] += 1.0
            after = predictor(*changed)
            assert torch.equal(before[:, :time], after[:, :time])
            assert not torch.isclose(before[:, time:], after[:, time:]).all(-1).any()


@pytest.mark.parametrize("extrinsics", [False, True])
def test_appended_frames_change_nothing(extrinsics):
    predictor = make_predictor(use_extrinsics=extrinsics)
    given = inputs(frames=5, extrinsics=extrinsics)
    whole = predictor(*given)
    for frames in range(1, 5):
        part = predictor(*(x[:, :frames] for x in given))
        torch.testing.assert_close(part, whole[:, :frames], rtol=1e-5, atol=1e-5)


def test_mask_numbers():
    small = ActionConditionedPredictor((1, 2), 6, embed_dim=12, depth=1, num_heads=1)
    mask = small._mask(2, torch.device("cpu"))
    assert mask.shape == (8, 8)
    assert not mask[:4, 4:].any() and mask[:4, :4].all() and mask[4:].all()


@pytest.mark.parametrize("rope_kind", ["interleaved", "v2"])
@pytest.mark.parametrize("extrinsics", [False, True])
@pytest.mark.parametrize("context", range(1, 9))
def test_cached_decode_equals_full_pass(context, extrinsics, rope_kind):
    """Frame by frame from the cache, and every frame again from all before it: 1 to 8 frames."""
    predictor = make_predictor(use_extrinsics=extrinsics, rope=rope_kind)
    samples, horizon = 3, 8
    latents, *conditions = inputs(batch=2, frames=context, extrinsics=extrinsics)
    _, *more = inputs(batch=2 * samples, frames=horizon, seed=1, extrinsics=extrinsics)
    cache = predictor.start_cache(latents[:, :-1], *(x[:, :-1] for x in conditions))
    known = latents.repeat_interleave(samples, 0)
    before = [x[:, :-1].repeat_interleave(samples, 0) for x in conditions]
    given = [torch.cat(parts, 1) for parts in zip(before, more, strict=True)]
    current = latents[:, -1:]
    for step in range(horizon):
        action, state, *pose = (x[:, step].unflatten(0, (2, samples)) for x in more)
        current, cache = predictor.decode(current, action, state, cache, *pose)
        full = predictor(known, *(x[:, : context + step] for x in given))[:, -1:]
        known = torch.cat([known, full], 1)
        error = (current.flatten(0, 1) - full[:, 0]).abs().max() / full.abs().max()
        assert error <= 1e-4
        assert cache.frames == context + step


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


def test_tables_of_inference_serve_training():
    rope._grid_rotation.cache_clear()
    encoder = VideoTransformer(24, 1, 2, patch_size=8)
    video = torch.randn(1, 3, 2, 16, 16)
    with torch.inference_mode():
        encoder(video)
    encoder(video).sum().backward()


@pytest.mark.parametrize("kind", ["interleaved", "v2"])
def test_tables_are_float32_and_bounded(kind):
    with torch.autocast("cpu", torch.bfloat16):
        first, second = rope.rotation(torch.tensor([[300, 7, 9]]), 64, kind)
    half = 10  # angles of an axis
    angles = torch.tensor([300.0, 7, 9])[:, None] * 10000.0 ** (-torch.arange(10.0) / half)
    if kind == "interleaved":
        assert first.dtype == torch.complex64 and second is None
        expected = torch.polar(torch.ones(30), angles.flatten())
        torch.testing.assert_close(first.flatten()[:30], expected, rtol=0, atol=1e-4)
        assert (first.flatten()[30:] == 1).all()
    else:
        assert first.dtype == second.dtype == torch.float32
        expected = torch.cat([angles, angles], 1).flatten()
        torch.testing.assert_close(first.flatten()[:60], expected.cos(), rtol=0, atol=1e-4)
        torch.testing.assert_close(second.flatten()[:60], expected.sin(), rtol=0, atol=1e-4)
    rope._grid_rotation.cache_clear()
    for frames in range(1, 100):
        rope.grid_rotation(frames, (2, 2), 12, kind, torch.device("cpu"))
    rope.grid_rotation(300, (16, 16), 64, kind, torch.device("cpu"))
    info = rope._grid_rotation.cache_info()
    assert info.currsize == rope._KEPT and info.misses == 99  # the large one was not kept


@pytest.mark.parametrize("kind", ["interleaved", "v2"])
def test_rotation_has_the_right_gradient(kind):
    by = rope.rotation(torch.tensor([[1, 2, 3], [4, 0, 2]]), 12, kind)
    x = torch.randn(1, 2, 2, 1, 12, dtype=torch.float32, requires_grad=True)
    [jacobian] = torch.autograd.functional.jacobian(lambda x: rope.rotate(x, by), (x,))
    size = x.numel()
    step = torch.eye(size).reshape(size, *x.shape)
    linear = torch.stack([rope.rotate(unit, by).flatten() for unit in step], 1)  # it is linear
    torch.testing.assert_close(jacobian.reshape(size, size), linear)


def test_out_layers_are_normed_outputs_of_blocks():
    torch.manual_seed(0)
    encoder = VideoTransformer(24, 3, 2, patch_size=8).requires_grad_(False)
    video, ids = torch.randn(2, 3, 4, 16, 24), torch.tensor([[0, 5, 11], [2, 3, 4]])
    first, last = encoder(video, ids, out_layers=[0, 2])
    assert torch.equal(last, encoder(video, ids))
    shallow = VideoTransformer(24, 1, 2, patch_size=8)
    shallow.load_state_dict(
        {
            k: v
            for k, v in encoder.state_dict().items()
            if not k.startswith(("blocks.1", "blocks.2"))
        }
    )
    assert torch.equal(first, shallow(video, ids))
    assert len(encoder(video, out_layers=(1,))) == 1
    for wrong in ([], [1, 0], [0, 0], [-1], [3]):
        with pytest.raises(ValueError, match=r"`out_layers` must ascend within 0 \.\. 2"):
            encoder(video, out_layers=wrong)


def test_visible_tokens_are_those_of_the_whole_grid():
    torch.manual_seed(0)
    encoder = VideoTransformer(24, 2, 2, patch_size=8).requires_grad_(False)
    video = torch.randn(2, 3, 4, 16, 24)
    order = torch.stack([torch.randperm(12), torch.randperm(12)])
    whole = encoder(video)
    expected = torch.take_along_dim(whole, order[..., None], 1)
    torch.testing.assert_close(encoder(video, order), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("rope", ["interleaved", "v2", "sincos"])
def test_cut_tubelets_are_encoded_as_the_video_is(rope):
    torch.manual_seed(0)
    encoder = VideoTransformer(24, 2, 2, patch_size=8, rope=rope)
    frames, ids = torch.randn(2, 4, 16, 24, 3), torch.tensor([[0, 3, 11], [2, 7, 8]])
    video, patches = frames.movedim(-1, 1), encoder.cut(frames)
    torch.testing.assert_close(encoder.encode_patches(patches, (2, 2, 3)), encoder(video))
    found = []
    for encode in (
        lambda: encoder(video, ids),
        lambda: encoder.encode_patches(patches[torch.arange(2)[:, None], ids], (2, 2, 3), ids),
    ):
        encoder.zero_grad()
        seen = encode()
        seen.square().sum().backward()
        found.append((seen, encoder.patch_embed.proj.weight.grad.clone()))
    torch.testing.assert_close(*found, atol=1e-4, rtol=1e-4)
    with pytest.raises(ValueError, match="multiples of"):
        encoder.cut(frames[:, :, :12])


def test_masked_predictor_on_a_wide_grid():
    torch.manual_seed(0)
    model = MaskedPredictor((2, 4), DIM, embed_dim=24, depth=2, num_heads=2, num_mask_tokens=2)
    for token in model.mask_tokens:
        nn.init.normal_(token)
    seen, hidden = torch.tensor([[0, 3, 9]]), torch.tensor([[4, 12, 15, 1]])
    context = torch.randn(1, 3, DIM)
    out = model(context, seen, hidden)
    swapped = model(context[:, [2, 0, 1]], seen[:, [2, 0, 1]], hidden[:, [3, 1, 0, 2]])
    torch.testing.assert_close(swapped, out[:, [3, 1, 0, 2]], rtol=1e-5, atol=1e-6)
    assert torch.equal(model(context, seen, hidden, 2), out)
    assert not torch.allclose(model(context, seen, hidden, 1), out)


@pytest.mark.parametrize("kind", ["interleaved", "v2"])
def test_bfloat16_is_near_float32(kind):
    torch.manual_seed(0)
    encoder = VideoTransformer(48, 2, 2, patch_size=8, rope=kind).requires_grad_(False)
    predictor = make_predictor(rope=kind)
    video, given = torch.randn(1, 3, 4, 16, 24), inputs()
    with torch.autocast("cpu", torch.bfloat16):
        low = encoder(video), predictor(*given)
    for got, expected in zip(low, (encoder(video), predictor(*given)), strict=True):
        error = (got.float() - expected).norm() / expected.norm()
        assert 0 < error < 0.02


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

    config = EncoderConfig(embed_dim=24, depth=1, num_heads=2, latent_dim=8, patch_size=8)
    encoder = ConvEncoder(config, (2, 4)).eval()
    images = torch.randn(3, 3, 16, 32)
    out = encoder(images)
    assert out.shape == (3, 8, 8)
    torch.testing.assert_close(encoder(images[1:2]), out[1:2], atol=1e-5, rtol=1e-5)
