from __future__ import annotations

import numpy as np
import pytest
import torch

from jepa_gym import poses


def batch(model, frames=3, size=2):
    shape = (size, frames, model.config.frame.height, model.config.frame.width, 3)
    pixels = torch.randint(0, 256, shape, dtype=torch.uint8)
    states = torch.rand(size, frames, 7)
    return pixels, states


def test_encode_refuses_other_frames(model):
    with pytest.raises(TypeError, match="uint8"):
        model.encode(torch.zeros(1, 1, 32, 64, 3))
    with pytest.raises(ValueError, match="frames"):
        model.encode(torch.zeros(1, 1, 64, 64, 3, dtype=torch.uint8))


def test_encode_takes_frames_that_may_not_be_written(model):
    pixels, _ = batch(model, 1)
    frames = pixels.numpy().copy()
    frames.flags.writeable = False  # a memory-mapped dataset is such an array
    assert torch.equal(model.encode(frames), model.encode(pixels))


@pytest.mark.parametrize("context", [1, 3])
def test_rollout_equals_predict(model, context):
    pixels, states = batch(model, context)
    latents = model.encode(pixels)
    actions = (torch.rand(2, 5, 5 - context, 7) - 0.5) * 0.2
    future = model.rollout(latents, states, actions)
    assert future.shape == (2, 5, 5 - context, 8, 16)
    for sample in range(5):
        known, at = latents, states
        done = poses.difference(states[:, :-1], states[:, 1:])
        for step in range(5 - context):
            action = actions[:, sample, step : step + 1]
            done = torch.cat([done, action], 1)
            new = model.predict(known, done, at)[:, -1:]
            known = torch.cat([known, new], 1)
            at = torch.cat([at, poses.compose(at[:, -1:], action)], 1)
            torch.testing.assert_close(future[:, sample, step], new[:, 0], rtol=1e-4, atol=1e-4)


def test_rollout_takes_past_actions(model):
    pixels, states = batch(model)
    latents, actions = model.encode(pixels), torch.zeros(2, 1, 1, 7)
    past = poses.difference(states[:, :-1], states[:, 1:])
    default = model.rollout(latents, states, actions)
    assert torch.equal(model.rollout(latents, states, actions, past), default)
    assert not torch.equal(model.rollout(latents, states, actions, past + 0.1), default)


def test_rollout_refuses_bad_shapes(model):
    latents, states = torch.zeros(2, 1, 8, 16), torch.zeros(2, 1, 7)
    with pytest.raises(ValueError, match=r"`actions` must be \(2, S, H, 7\)"):
        model.rollout(latents, states, torch.zeros(3, 5, 1, 7))
    with pytest.raises(ValueError, match="must agree"):
        model.rollout(latents, states[:1], torch.zeros(2, 5, 1, 7))


def test_energy(model):
    latents, goal = torch.randn(2, 5, 8, 16), torch.randn(2, 8, 16)
    energy = model.energy(latents, goal)
    assert energy.shape == (2, 5)
    torch.testing.assert_close(energy[1, 3], (latents[1, 3] - goal[1]).abs().mean())
    horizon = torch.randn(2, 5, 4, 8, 16)
    assert model.energy(horizon, goal).shape == (2, 5, 4)
    assert model.energy(goal, goal).abs().max() == 0


def test_training_has_gradients_everywhere(model):
    model.train()
    pixels, states = batch(model)
    latents = model.encode_train(pixels)
    weights = torch.randn(16)  # a plain sum of layer-normed numbers would be constant
    (model.predict(latents, states * 0.1, states) * weights).sum().backward()
    idle = [name for name, p in model.named_parameters() if p.grad is None]
    assert idle == [
        "predictor.extrinsics_encoder.weight",
        "predictor.extrinsics_encoder.bias",
    ]


def test_encoding_in_chunks_changes_rounding_only(model):
    pixels, _ = batch(model, 3)
    whole = model.encode(pixels.numpy()[:, ::-1])
    seen = []
    model.encoder.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    torch.testing.assert_close(model.encode(pixels.flip(1), chunk=4), whole, rtol=0, atol=1e-5)
    assert seen == [4, 2]


def test_observe(model):
    pixels, _ = batch(model, 2)
    wanted = model.encode(pixels)
    observation = {"pixels": pixels[:, 0].numpy(), "goal_pixels": pixels[:, 1].numpy()}
    current, goal = model.observe(observation)
    assert torch.equal(torch.stack([current, goal], 1), wanted)
    latents = {"achieved_goal": current.numpy(), "desired_goal": goal.numpy()}
    assert all(map(torch.equal, model.observe(latents), (current, goal)))
    metres = {"achieved_goal": np.zeros((2, 3)), "desired_goal": np.zeros((2, 3))}
    with pytest.raises(ValueError, match=r"latents \(B, 8, 16\) of JEPALatent-v0, got the entries"):
        model.observe(metres)
