"""The readout of a finished model: a small network from its latents to robot states."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F

from jepa_gym.logs import progress_bar
from jepa_gym.models.readout import READ, StateReadout
from jepa_gym.training.data.clips import ClipArrays
from jepa_gym.world_model import WorldModel

STEPS, BATCH, LEARNING_RATE, WEIGHT_DECAY = 6000, 256, 1e-3, 0.05


@dataclass(frozen=True, slots=True)
class Readable:
    """Latents with what is to be read from them."""

    latents: torch.Tensor
    """(P, N, D), float16."""
    targets: torch.Tensor
    """(P, 4), standardised."""

    @classmethod
    def encode(cls, model: WorldModel, arrays: ClipArrays, frames: int, seed: int = 0) -> Readable:
        """Encode random frames of a split; latents in place of frames are taken as they are.

        Args:
            model: In evaluation mode.
            arrays: The split.
            frames: Most frames to take.
            seed: Of the draw.
        """
        length = arrays.states.shape[1]
        total = len(arrays.rows) * length
        drawn = np.random.default_rng(seed).permutation(total)[:frames]
        places = np.stack(np.divmod(np.sort(drawn), length), axis=1)  # in the order of the file
        latents = []
        for some in np.array_split(places, max(1, len(places) // 256)):
            clips = np.stack([arrays.clip(e, t, t + 1) for e, t in some])
            if clips.dtype == np.uint8:
                clips = model.encode(clips).cpu().numpy()
            latents.append(torch.from_numpy(clips[:, 0].astype(np.float16)))
        states = torch.from_numpy(arrays.states[places[:, 0], places[:, 1]]).to(model.device)
        return cls(torch.cat(latents), model.normaliser.states(states)[:, list(READ)].cpu())


def fit_readout(
    model: WorldModel,
    train: ClipArrays,
    validation: ClipArrays,
    weight: float,
    frames: int = 60_000,
    steps: int = STEPS,
    seed: int = 0,
) -> dict[str, float]:
    """Give a model a readout, trained on its latents as they are; its other weights stay.

    Args:
        model: The finished model, in evaluation mode.
        train: Where the readout learns; its `frames` may be latents.
        validation: Where its figures are measured.
        weight: `readout_weight` of the model's configuration.
        frames: Most frames of the training split.
        steps: Of the optimiser.
        seed: Of weights and batches.

    Returns:
        Mean errors on validation episodes: `readout hand, cm` and `readout closedness`.
    """
    model.config = replace(model.config, readout_weight=weight)
    learnt = Readable.encode(model, train, frames)
    held_out = Readable.encode(model, validation, frames // 20)
    torch.manual_seed(seed)
    readout = StateReadout(*learnt.latents.shape[1:]).to(model.device)
    optimizer = torch.optim.AdamW(readout.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, steps)
    rng = np.random.default_rng(seed)
    for _ in progress_bar(range(steps), "readout", unit="step"):
        rows = torch.from_numpy(rng.integers(len(learnt.targets), size=BATCH))
        read = readout(learnt.latents[rows].to(model.device, torch.float32))
        loss = F.smooth_l1_loss(read, learnt.targets[rows].to(model.device), beta=0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    model.readout = readout.to(model.dtype).eval().requires_grad_(False)
    std = model.normaliser.state_std[list(READ)].cpu()
    with torch.no_grad():
        read = torch.cat([readout(x.float().to(model.device)) for x in held_out.latents.split(512)])
    error = (read.cpu() - held_out.targets) * std
    return {
        "readout hand, cm": 100 * error[:, :3].norm(dim=1).mean().item(),
        "readout closedness": error[:, 3].abs().mean().item(),
    }
