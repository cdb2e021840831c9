"""What every encoder of `ENCODERS` must do, but for `hf`, which reads the weights of others."""

import pytest
import torch

from jepa_gym.config import ENCODERS
from jepa_gym.world_model import WorldModel

KINDS = [kind for kind in ENCODERS if kind != "hf"]


@pytest.fixture
def frames():
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (3, 2, 32, 64, 3), dtype=torch.uint8, generator=generator)


@pytest.fixture(params=KINDS)
def world(request, tiny_config):
    torch.manual_seed(0)
    return WorldModel(tiny_config(request.param)).eval()


def test_each_frame_is_encoded_alone(world, frames):
    latents = world.encode(frames)
    config = world.config
    assert latents.shape == (3, 2, config.num_tokens, config.encoder.latent_dim)
    assert latents.dtype == torch.float32
    torch.testing.assert_close(world.encode(frames[1:2, 1:]), latents[1:2, 1:], atol=1e-5, rtol=0)
    torch.testing.assert_close(world.encode_train(frames.float()), latents)
    assert (latents.mean(-1).abs() < 1e-5).all() and not torch.equal(latents[0, 0], latents[1, 1])


def test_it_learns(world, frames):
    world.train().encode_train(frames)[..., 0].square().sum().backward()
    assert all(parameter.grad is not None for parameter in world.encoder.parameters())


def test_a_checkpoint_keeps_it(world, frames, tmp_path):
    world.save_pretrained(tmp_path, {})
    assert torch.equal(WorldModel.from_pretrained(tmp_path).encode(frames), world.encode(frames))
