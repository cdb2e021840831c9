"""Collapse of representations: how it is measured, and when it stops a run.

A collapsed encoder gives the same latents for every picture. Its prediction loss is then perfect
and its energy flat, so the loss does not tell; these figures do.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

DEAD_DEVIATION = 1e-3
"""Standard deviation below which a channel counts as dead; layer-normed latents have about 1."""
LEAST_RANK = 1.5
LEAST_VARIANCE = 1e-6
MOST_DEAD = 0.98


class CollapseError(RuntimeError):
    """The representation has collapsed: the training would only waste time."""


@dataclass(frozen=True, slots=True)
class Watched:
    """What is looked at to see a collapse."""

    latents: Tensor
    """(n, N, D) layer-normed latents of n different frames or clips."""
    targets: Tensor
    """(..., N or M, D) what the predictor was to give."""
    predictions: Tensor
    """As `targets`: what it gave."""


@torch.no_grad()
def collapse_figures(watched: Watched) -> dict[str, float]:
    """Measure how far latents are from collapse.

    Args:
        watched: Latents, targets and predictions.

    Returns:
        `effective_rank`: exp of the entropy of the normed singular values of the latents, each
        location's mean taken off (RankMe, arXiv 2210.02885); `location_variance`: variance over
        frames, mean over locations and channels; `dead_channels`: share of the channels that hardly
        vary over frames; `target_correlation`: correlation of predictions and targets.
    """
    centred = (watched.latents - watched.latents.mean(0)).double()
    rows = centred.flatten(0, 1)
    values = torch.linalg.eigvalsh(rows.T @ rows).clamp_min(0).sqrt()  # the singular values
    share = values / values.sum().clamp_min(1e-30)
    rank = torch.exp(-(share * share.clamp_min(1e-30).log()).sum()) if values.sum() > 0 else 0.0
    pair = torch.stack([watched.predictions.flatten(), watched.targets.flatten()]).double()
    pair = pair - pair.mean(1, keepdim=True)
    correlation = (pair[0] @ pair[1]) / (pair[0].norm() * pair[1].norm()).clamp_min(1e-30)
    deviation = centred.square().mean((0, 1)).sqrt()
    return {
        "effective_rank": float(rank),
        "location_variance": centred.square().mean().item(),
        "dead_channels": (deviation < DEAD_DEVIATION).double().mean().item(),
        "target_correlation": correlation.item(),
    }


def check_collapse(figures: dict[str, float], step: int) -> None:
    """Stop a run whose representation has collapsed.

    Args:
        figures: From `collapse_figures`; without them nothing is checked.
        step: For the message.

    Raises:
        CollapseError: If there is nothing left to predict.
    """
    if "effective_rank" not in figures:
        return
    reasons = []
    if figures["effective_rank"] < LEAST_RANK:
        reasons.append(f"effective rank {figures['effective_rank']:.2f} (below {LEAST_RANK})")
    if figures["location_variance"] < LEAST_VARIANCE:
        reasons.append(f"variance over frames {figures['location_variance']:.1e}")
    if figures["dead_channels"] > MOST_DEAD:
        reasons.append(f"{figures['dead_channels']:.0%} of the channels dead")
    if reasons:
        raise CollapseError(
            f"step {step}: the representation has collapsed ({', '.join(reasons)}): every picture "
            "gets the same latents, and the loss is small because there is nothing to predict. "
            "Lower --learning-rate, lengthen the warm-up (--schedule.warmup), or give the "
            "regulariser or the moving average more weight; start in a new --output"
        )
