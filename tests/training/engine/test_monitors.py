from __future__ import annotations

import pytest
import torch

from jepa_gym.training.engine.monitors import (
    CollapseError,
    Watched,
    check_collapse,
    collapse_figures,
)


def figures(latents: torch.Tensor, noise: float = 0.0) -> dict[str, float]:
    predictions = latents + noise * torch.randn(latents.shape)
    return collapse_figures(Watched(latents, latents, predictions))


def test_figures_of_known_latents():
    torch.manual_seed(0)
    latents = torch.randn(2000, 2, 8)
    sound = figures(latents, noise=1.0)
    assert sound["effective_rank"] == pytest.approx(8, abs=0.05)
    assert sound["location_variance"] == pytest.approx(1, abs=0.05)
    assert sound["dead_channels"] == 0
    assert sound["target_correlation"] == pytest.approx(0.5**0.5, abs=0.02)
    latents[..., 4:] = 3.0
    half = figures(latents)
    assert half["effective_rank"] == pytest.approx(4, abs=0.05)
    assert half["dead_channels"] == 0.5
    assert half["target_correlation"] == pytest.approx(1)
    check_collapse(half, 1)


@pytest.mark.parametrize("spoil", ["the same for every frame", "one direction", "tiny"])
def test_collapse_stops(spoil):
    torch.manual_seed(0)
    latents = torch.randn(100, 4, 8)
    if spoil == "the same for every frame":  # locations still differ
        latents = latents[:1].expand(100, -1, -1)
    elif spoil == "one direction":
        latents = latents[..., :1] * torch.randn(8)
    else:
        latents = 1 + 1e-4 * latents
    with pytest.raises(CollapseError, match="step 7: the representation has collapsed"):
        check_collapse(figures(latents), 7)


def test_without_figures_nothing_is_checked():
    check_collapse({"score": 1.0}, 1)
