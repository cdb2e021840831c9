"""Corrections: what an expert would have done where an agent came to be, kept as latents.

An agent that learns from demonstrations alone meets, by its own small mistakes, states that no
demonstration shows. Here the agent acts, and an expert says at every step what it would have done
(DAgger, arXiv 1011.0686). A folder holds one safetensors file an episode and `corrections.json`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from jepa_gym.checkpoint.safetensors_file import read_safetensors, write_safetensors
from jepa_gym.files import parse_json
from jepa_gym.training.data.dataset import split_of

INDEX_NAME = "corrections.json"
"""Settings of the recording; among them `encoder`, the hash of the encoder of the latents."""
PARTS = ("latents", "states", "goals", "actions")


def write_correction(folder: Path, name: str, steps: dict[str, Tensor]) -> None:
    """Write one episode of T steps; it appears complete or not at all.

    Args:
        folder: Of the corrections.
        name: Of the episode.
        steps: `latents` and `goals` (T, N, D), `states` and `actions` (T, 7), as in `Corrections`.
    """
    kept = {key: steps[key].half() for key in ("latents", "goals")}
    kept |= {key: steps[key].float() for key in ("states", "actions")}
    write_safetensors(folder / f"{name}.safetensors", kept, {})


@dataclass(frozen=True)
class Corrections:
    """P steps of agents, each with the expert's action."""

    latents: Tensor
    """(P, N, D) float16, of the frames."""
    states: Tensor
    """(P, 7)."""
    goals: Tensor
    """(P, N, D) float16, of the goal images that the agent was shown."""
    actions: Tensor
    """(P, 7), the expert's."""

    def __len__(self) -> int:
        return len(self.states)


def read_corrections(folders: Sequence[Path], encoder: str) -> dict[str, Corrections]:
    """Read corrections as training and validation split, by a hash of the episodes' names.

    Args:
        folders: Written by `jepa-gym correct`.
        encoder: Hash of the encoder whose latents they must hold.

    Raises:
        FileNotFoundError: If a folder holds no corrections.
        ValueError: If they hold latents of another encoder, or a split is empty.
        CheckpointError: If a file is damaged.
    """
    found: dict[str, list[dict[str, Tensor]]] = {"train": [], "validation": []}
    for folder in folders:
        if read_index(folder)["encoder"] != encoder:
            raise ValueError(
                f"{folder} holds latents of another world model; record this model's own with "
                "`jepa-gym correct`"
            )
        for path in sorted(folder.glob("*.safetensors")):
            split = "train" if split_of(path.stem) == "train" else "validation"
            found[split].append(read_safetensors(path)[0])
    for split, episodes in found.items():
        if not episodes:
            raise ValueError(
                f"none of the corrected episodes falls into the {split} split, which goes by a "
                "hash of their names: record 20 or more"
            )
    return {
        split: Corrections(*(torch.cat([steps[key] for steps in episodes]) for key in PARTS))
        for split, episodes in found.items()
    }


def read_index(folder: Path) -> dict[str, Any]:
    """Return the settings of recorded corrections.

    Raises:
        FileNotFoundError: If the folder holds none.
    """
    path = folder / INDEX_NAME
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} does not exist: give a folder that `jepa-gym correct` has written"
        )
    return parse_json(path.read_text())


class CorrectionSampler:
    """Draws corrected steps; batch number k of a seed is always the same."""

    def __init__(self, corrections: Corrections, batch_size: int, seed: int) -> None:
        """Prepare sampling.

        Args:
            corrections: A split.
            batch_size: B.
            seed: Any non-negative integer.
        """
        self.corrections, self.batch_size, self.seed = corrections, batch_size, seed

    def batch(self, number: int) -> dict[str, Tensor]:
        """Draw batch `number`.

        Returns:
            `latents` and `goals` (B, N, D) float16, `states` and `actions` (B, 7), and `steps`
            (B,) int64, all zero: how far the goal is, nobody knows.
        """
        rng = np.random.default_rng((self.seed, 1, number))
        drawn = torch.from_numpy(rng.integers(len(self.corrections), size=self.batch_size))
        parts = {name: getattr(self.corrections, name)[drawn] for name in PARTS}
        return parts | {"steps": torch.zeros(self.batch_size, dtype=torch.int64)}
