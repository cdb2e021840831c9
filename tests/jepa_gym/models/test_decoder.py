from __future__ import annotations

import pytest
import torch

from jepa_gym.models import FrameDecoder


def test_pictures_of_any_grid_and_patch():
    for grid, patch in (((2, 3), 4), ((1, 2), 64)):
        torch.manual_seed(0)
        decoder = FrameDecoder(grid, 8, patch, embed_dim=32, depth=1).requires_grad_(False)
        torch.nn.init.normal_(decoder.stages[-1].weight)  # a new one draws only the background
        latents = torch.randn(2, grid[0] * grid[1], 8)
        pictures = decoder(latents)
        assert pictures.shape == (2, grid[0] * patch, grid[1] * patch, 3)
        assert pictures.dtype == torch.float32
        with torch.autocast("cpu", torch.bfloat16):
            assert decoder(latents).dtype == torch.float32
        torch.testing.assert_close(decoder(latents[1:])[0], pictures[1])
        assert (pictures[0] - pictures[1]).abs().mean() > 0.01


def test_stays_small():
    for grid, latent_dim, patch in (((4, 8), 128, 32), ((2, 4), 256, 64)):
        sizes = [x.numel() for x in FrameDecoder(grid, latent_dim, patch).state_dict().values()]
        assert 4 * sum(sizes) < 4e6  # bytes of its file


def test_begins_with_the_background():
    decoder = FrameDecoder((2, 2), 8, patch_size=4, embed_dim=32, depth=1)
    background = torch.rand(8, 8, 3)
    decoder.set_background(background)
    pictures = decoder(torch.randn(2, 4, 8))
    torch.testing.assert_close(pictures, background.clamp(0.02, 0.98).expand(2, -1, -1, -1))
    assert pictures.requires_grad and not decoder.background.requires_grad


def test_places_tell_tokens_apart():
    torch.manual_seed(0)
    decoder = FrameDecoder((1, 2), 8, patch_size=4, embed_dim=32, depth=1).requires_grad_(False)
    torch.nn.init.normal_(decoder.stages[-1].weight)
    alike = decoder(torch.ones(1, 2, 8))
    assert not torch.allclose(alike[:, :, :4], alike[:, :, 4:].flip(2), atol=1e-3)


def test_overfits_one_picture():
    torch.manual_seed(0)
    decoder = FrameDecoder((4, 4), 16, patch_size=8, embed_dim=64, depth=2)
    latents = torch.randn(1, 16, 16)
    y, x = torch.meshgrid(torch.linspace(0, 1, 32), torch.linspace(0, 1, 32), indexing="ij")
    picture = torch.stack([x, y, (x * 6).sin().abs()], -1)[None]
    optimizer = torch.optim.AdamW(decoder.parameters(), lr=3e-3)
    losses = []
    for _ in range(80):
        loss = (decoder(latents) - picture).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert all(p.grad.abs().max() > 0 for p in decoder.parameters())
    assert losses[-1] < 0.002 < 0.05 < losses[0]


@pytest.mark.parametrize(
    ("name", "value"), [("patch_size", 1), ("patch_size", 12), ("embed_dim", 48)]
)
def test_rejects_other_sizes(name, value):
    with pytest.raises(ValueError, match=f"`{name}` must be"):
        FrameDecoder((2, 3), 8, **{"patch_size": 4, "embed_dim": 32, name: value})


def test_rejects_other_latents():
    with pytest.raises(ValueError, match=r"`latents` must be \(B, \(6, 8\)\)"):
        FrameDecoder((2, 3), 8, patch_size=4, embed_dim=32, depth=1)(torch.zeros(1, 6, 9))
