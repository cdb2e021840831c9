"""Rollouts: equal to the plain recompute, whatever is shared, chunked or kept."""

from __future__ import annotations

import warnings

import pytest
import torch

from jepa_gym import poses, rollout
from jepa_gym.models import kv_cache
from jepa_gym.normalisation import layer_norm
from jepa_gym.rollout import ExtrapolationWarning
from jepa_gym.world_model import WorldModel

pytestmark = pytest.mark.filterwarnings("ignore::jepa_gym.rollout.ExtrapolationWarning")


def problem(batch=2, context=3, samples=5, horizon=4, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(shape, generator=generator)

    latents, goal = layer_norm(draw(batch, context, 8, 16)), layer_norm(draw(batch, 8, 16))
    return latents, draw(batch, context, 7) * 0.2, draw(batch, samples, horizon, 7) * 0.1, goal


@torch.no_grad()
def recompute(model, latents, states, actions):
    """Every frame again for every step and candidate: what the engine must equal."""
    futures = []
    for candidate in actions.unbind(1):
        known, at = latents, states
        done = poses.difference(states[:, :-1], states[:, 1:])
        for action in candidate.split(1, 1):
            done = torch.cat([done, action], 1)
            known = torch.cat([known, model.predict(known, done, at)[:, -1:]], 1)
            at = torch.cat([at, poses.compose(at[:, -1:], action)], 1)
        futures.append(known[:, latents.shape[1] :])
    return torch.stack(futures, 1)


def assert_near(found, wanted, error=1e-5):
    assert found.shape == wanted.shape
    assert (found - wanted).norm() <= error * wanted.norm()


@pytest.mark.parametrize("context", [1, 2, 4])
@pytest.mark.parametrize("horizon", [1, 2, 5])
@pytest.mark.parametrize("samples", [1, 6])
def test_equals_recompute(model, context, horizon, samples):
    latents, states, actions, _ = problem(2, context, samples, horizon)
    wanted = recompute(model, latents, states, actions)
    assert_near(model.rollout(latents, states, actions), wanted)
    assert_near(model.rollout(latents, states, actions, grad=True), wanted)


def test_equals_recompute_without_the_split_attention(model, monkeypatch):
    monkeypatch.setattr(kv_cache, "_WITH_SUMS", None)
    latents, states, actions, _ = problem()
    assert_near(model.rollout(latents, states, actions), recompute(model, latents, states, actions))


@pytest.mark.parametrize("chunk", [1, 2, 4, 5, 7, 10, 100])
def test_chunks_change_nothing(model, chunk):
    latents, states, actions, goal = problem()
    whole = model.rollout(latents, states, actions)
    assert_near(model.rollout(latents, states, actions, chunk=chunk), whole)
    energy = model.rollout_energy(latents, states, actions, goal, chunk=chunk)
    assert_near(energy, model.energy(whole[:, :, -1], goal), 1e-6)


def test_chunks_are_bounded(model, monkeypatch):
    sizes, decode = [], model.predictor.decode

    def counting(latents, actions, *args, **kwargs):
        sizes.append(actions.shape[0] * actions.shape[1])
        return decode(latents, actions, *args, **kwargs)

    monkeypatch.setattr(model.predictor, "decode", counting)
    latents, states, actions, goal = problem(horizon=2)
    model.rollout_energy(latents, states, actions, goal, chunk=4)
    assert max(sizes) <= 4 and sum(sizes) == 2 * 2 * 5
    assert rollout.chunk_size(model.predictor, 1) > rollout.chunk_size(model.predictor, 5) > 1
    monkeypatch.setattr(rollout, "CPU_BYTES", 1)
    assert rollout.chunk_size(model.predictor, 1) == 1


def test_context_is_stored_once(model):
    latents, states, *_ = problem(context=3)
    start = model.prepare(latents, states)
    for seen in start._cache.blocks:
        for part in seen.shared:
            assert (
                part.untyped_storage().nbytes() == 2 * 2 * 10 * 32 * 4
            )  # B, frames, tokens, width


def test_one_context_serves_many_calls(model):
    latents, states, actions, goal = problem()
    start = model.prepare(latents, states)
    first = start.latents(actions)
    start.energy(-actions, goal)
    assert torch.equal(start.latents(actions), first)
    assert torch.equal(model.rollout(latents, states, actions), first)


def test_batch_equals_one_by_one(model):
    latents, states, actions, goal = problem(batch=4)
    whole = model.rollout_energy(latents, states, actions, goal)
    for row in range(4):
        one = (x[row : row + 1] for x in (latents, states, actions, goal))
        assert_near(whole[row : row + 1], model.rollout_energy(*one), 1e-6)


def test_a_cache_can_be_continued_twice(model):
    predictor = model.predictor
    latents, states, actions, _ = problem(context=2, samples=3)
    with torch.inference_mode():
        empty = predictor.start_cache(latents[:, :0], states[:, :0], states[:, :0])
        now = (latents[:, :1], actions[:, :, 0], states[:, :1])
        current, cache = predictor.decode(*now, empty, following=2)
        state = states[:, :1].expand(-1, 3, -1)
        once, grown = predictor.decode(current, actions[:, :, 1], state, cache)
        predictor.decode(current, actions[:, :, 2], state, cache)
        again, other = predictor.decode(current, actions[:, :, 1], state, cache, following=0)
        assert torch.equal(once, again) and other is cache
        after = [predictor.decode(current, actions[:, :, 3], state, x)[0] for x in (grown, grown)]
        assert torch.equal(*after)


def test_gradients(model):
    latents, states, actions, goal = problem(batch=1, samples=2, horizon=2)
    with torch.inference_mode():  # as in an agent's `act`; the latents are made in there, too
        latents = latents.clone()
        with torch.inference_mode(False), torch.enable_grad():
            moves = actions.clone().requires_grad_()
            energy = model.rollout_energy(latents, states, moves, goal, grad=True)
            [slope] = torch.autograd.grad(energy.sum(), moves)
    assert slope.shape == actions.shape and slope[..., 0, :3].abs().min() > 0
    step = 1e-2 * slope / slope.norm()
    ends = [model.rollout_energy(latents, states, actions + s * step, goal) for s in (1, -1)]
    rise = (ends[0] - ends[1]).sum() / 2
    torch.testing.assert_close(rise, (slope * step).sum(), rtol=0.05, atol=0)
    assert not model.rollout(latents, states, moves).requires_grad


@pytest.mark.parametrize("how", ["autocast", "weights"])
def test_bfloat16(model, how):
    latents, states, actions, _ = problem()
    wanted = model.rollout(latents, states, actions)
    if how == "weights":
        found = model.bfloat16().rollout(latents, states, actions)
    else:
        with torch.autocast("cpu", torch.bfloat16):
            found = model.rollout(latents, states, actions)
    assert found.dtype == torch.float32
    assert_near(found, wanted, 0.05)


def test_bfloat16_keeps_statistics(tiny_config):
    model = WorldModel(tiny_config()).eval()
    norm, normaliser = model.encoder.output_norm, model.normaliser
    norm.running_mean.uniform_()
    kept = {**dict(norm.named_buffers()), **dict(normaliser.named_buffers())}
    kept = {name: x.clone() for name, x in kept.items()}
    model.bfloat16()
    assert model.dtype == torch.bfloat16
    found = {**dict(norm.named_buffers()), **dict(normaliser.named_buffers())}
    for name, x in kept.items():
        assert found[name].dtype == torch.float32 and torch.equal(found[name], x), name
    frames = torch.randint(0, 256, (1, 2, 32, 64, 3), dtype=torch.uint8)
    assert model.encode(frames).dtype == torch.float32
    latents, states, actions, _ = problem(context=2)
    assert torch.isfinite(model.predict(latents, actions[:, 0, :2], states)).all()


def test_windows_beyond_the_trained_clips_warn(model):
    assert model.config.train_frames == 4
    latents, states, actions, _ = problem(context=2, horizon=3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.rollout(latents, states, actions)
    latents, states, actions, goal = problem(context=2, horizon=4)
    with pytest.warns(ExtrapolationWarning, match="over 5 frames.*the 4 frames"):
        model.rollout_energy(latents, states, actions, goal)


def test_v2_rotation(tiny_config):
    config = tiny_config().to_dict()
    config["predictor"]["rope"] = "v2"
    model = WorldModel(type(tiny_config()).from_dict(config)).eval()
    latents, states, actions, _ = problem()
    assert_near(model.rollout(latents, states, actions), recompute(model, latents, states, actions))


def test_the_camera_may_be_told(tiny_config, tmp_path):
    """A token for its pose: what the configuration says, or what is given; alike with a cache."""
    config = tiny_config().to_dict()
    config["predictor"]["use_extrinsics"] = True
    config["camera_pose"] = [0.5, -0.2, 0.4, 2.0, 0.1, -1.5]
    torch.manual_seed(0)
    model = WorldModel(type(tiny_config()).from_dict(config)).eval()
    latents, states, actions, _ = problem()
    found = model.rollout(latents, states, actions)
    assert_near(found, recompute(model, latents, states, actions))
    other = torch.tensor(config["camera_pose"]).expand(2, -1) + torch.tensor([[0.1], [0.0]])
    told = model.prepare(latents, states, extrinsics=other).latents(actions)
    assert_near(told[1], found[1])
    assert (told[0] - found[0]).abs().max() > 1e-4
    once = model.predict(latents, actions[:, 0, :3], states, other[:, None].expand(-1, 3, -1))
    assert_near(once[1], model.predict(latents, actions[:, 0, :3], states)[1])
    assert (once[0] - model.predict(latents, actions[:, 0, :3], states)[0]).abs().max() > 1e-4
    model.save_pretrained(tmp_path, {})
    again = WorldModel.from_pretrained(tmp_path)
    assert torch.equal(again.rollout(latents, states, actions), found)


def test_refusals(model):
    latents, states, actions, goal = problem()
    with pytest.raises(ValueError, match="`chunk` must be at least 1, got 0"):
        model.rollout(latents, states, actions, chunk=0)
    with pytest.raises(ValueError, match=r"`goal` must be \(B, N, D\) = \(2, 8, 16\)"):
        model.rollout_energy(latents, states, actions, goal[:, :4])
    with pytest.raises(ValueError, match=r"`past_actions` must be \(2, 2, 7\)"):
        model.rollout(latents, states, actions, torch.zeros(2, 3, 7))
    with pytest.raises(ValueError, match="S and H at least 1"):
        model.rollout(latents, states, actions[:, :, :0])
