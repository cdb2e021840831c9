"""Losses of both recipes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from jepa_gym.training.engine.distributed import mean_over_processes, process_count
from jepa_gym.world_model import WorldModel

Distance = Callable[[Tensor, Tensor], Tensor]
"""Mean distance of two tensors of one shape, for instance `F.l1_loss`."""
Compared = Literal["every", "end"]
"""Frames of a rollout that are compared with the truth: every one, as in the published code, or the
last one, as in the paper."""

SIGREG_KNOTS = 17
SIGREG_LIMIT = 5.0


def sigreg(latents: Tensor, num_projections: int, generator: torch.Generator) -> Tensor:
    """Measure how far a batch of vectors is from an isotropic standard Gaussian.

    Each location's vectors are projected on random directions; a projection's empirical
    characteristic function is compared with that of N(0, 1) (the Epps-Pulley statistic,
    integral of n |phi_n(u) - exp(-u^2 / 2)|^2 exp(-u^2 / 2) du over u in [-5, 5]).

    Args:
        latents: (n, D), or (n, N, D) with every location n on its own.
        num_projections: Random unit directions, shared by the locations.
        generator: On the CPU, so that every device draws alike.

    Returns:
        The mean statistic over directions and locations, in float32 under autocast, too; about 1
        for n draws from N(0, I). With several processes, n counts the vectors of all of them, whose
        generators must be alike.

    Reference: LeJEPA (arXiv 2511.08544), section 4: sketched isotropic Gaussian regularisation.
    """
    directions = torch.randn(latents.shape[-1], num_projections, generator=generator)
    directions = (directions / directions.norm(dim=0)).to(latents.device)
    # The integrand is even, so half the line with doubled weights is enough.
    knots = torch.linspace(0.0, SIGREG_LIMIT, SIGREG_KNOTS, device=latents.device)
    gaussian = torch.exp(-knots.square() / 2)
    weights = torch.full_like(knots, 2 * SIGREG_LIMIT / (SIGREG_KNOTS - 1)) * gaussian
    weights[0] /= 2
    weights[-1] /= 2
    with torch.autocast(latents.device.type, enabled=False):
        projected = latents.float() @ directions  # (n, ..., P)
        angles = projected[..., None] * knots  # (n, ..., P, knots)
        parts = torch.stack([angles.cos().mean(0), angles.sin().mean(0)])
        real, imaginary = mean_over_processes(parts)
        error = (real - gaussian).square() + imaginary.square()
        return len(latents) * process_count() * (error @ weights).mean()


def check_rollout(steps: int, frames: int) -> None:
    """Check that clips are long enough for a rollout.

    Raises:
        ValueError: If they are not, or there is no step.
    """
    if not 1 <= steps < frames:
        raise ValueError(
            f"`rollout_steps` must be at least 1 and less than `frames`, got {steps} steps in "
            f"clips of {frames} frames"
        )


def teacher_forcing_and_rollout(
    model: WorldModel,
    latents: Tensor,
    actions: Tensor,
    states: Tensor,
    distance: Distance,
    steps: int = 2,
    compared: Compared = "every",
    extrinsics: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Compute the two prediction losses of V-JEPA 2-AC.

    Teacher forcing predicts every next frame from true frames. The rollout feeds predictions back,
    with their gradients and the true states, and predicts the frames after them.

    Args:
        model: The world model; only `predict` is used.
        latents: (B, T, N, D) layer-normed latents, T > `steps`.
        actions: (B, T - 1, 7).
        states: (B, T, 7).
        distance: L1 as published; the joint recipe takes the squared error.
        steps: Of the rollout.
        compared: Which of its frames are compared with the truth.
        extrinsics: (B, T, 6) the camera's poses, for a predictor that uses them.

    Returns:
        Teacher-forcing loss and rollout loss; the published loss is their sum.

    Raises:
        ValueError: The clips are too short.

    Reference: V-JEPA 2 (arXiv 2506.09985), equations 2 to 4; its public code, after the fix of
        pull request 25 (the first version fed the wrong frame).
    """
    check_rollout(steps, latents.shape[1])

    def predict(seen: Tensor) -> Tensor:
        count = seen.shape[1]
        more = () if extrinsics is None else (extrinsics[:, :count],)
        return model.predict(seen, actions[:, :count], states[:, :count], *more)

    predicted = predict(latents[:, :-1])
    forced = distance(predicted, latents[:, 1:])
    imagined = predicted[:, :1]
    for _ in range(1, steps):
        ahead = predict(torch.cat([latents[:, :1], imagined], 1))
        imagined = torch.cat([imagined, ahead[:, -1:]], 1)
    first = 0 if compared == "every" else steps - 1
    return forced, distance(imagined[:, first:], latents[:, first + 1 : steps + 1])
