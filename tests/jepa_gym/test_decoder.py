from __future__ import annotations

import pytest
import torch

from jepa_gym.models import FrameDecoder


def test_patches_stand_at_their_tokens():
    decoder = FrameDecoder((2, 3), 8, patch=4, width=24, depth=0, heads=2).requires_grad_(False)
    latents = torch.randn(2, 6, 8)
    before = decoder(latents)
    assert before.shape == (2, 8, 12, 3) and before.dtype == torch.float32
    assert before.min() >= 0 and before.max() <= 1
    latents[0, 5] += 3  # second row, third column
    changed = (decoder(latents) != before).any(-1)
    assert changed[0, 4:, 8:].all() and changed.sum() == 16


def test_overfits_one_picture():
    torch.manual_seed(0)
    decoder = FrameDecoder((4, 4), 16, patch=8, width=48, depth=2, heads=2)
    latents = torch.randn(1, 16, 16)
    y, x = torch.meshgrid(torch.linspace(0, 1, 32), torch.linspace(0, 1, 32), indexing="ij")
    picture = torch.stack([x, y, (x * 6).sin().abs()], -1)[None]
    optimizer = torch.optim.AdamW(decoder.parameters(), lr=3e-3)
    losses = []
    for _ in range(60):
        loss = (decoder(latents) - picture).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert all(p.grad.abs().max() > 0 for p in decoder.parameters())
    assert losses[-1] < 0.002 < 0.05 < losses[0]


def test_rejects_other_latents():
    with pytest.raises(ValueError, match=r"`latents` must be \(B, \(6, 8\)\)"):
        FrameDecoder((2, 3), 8, patch=4, width=24, depth=1, heads=2)(torch.zeros(1, 6, 9))
