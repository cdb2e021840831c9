"""What all recipes do before and after training: the model's configuration, its files and card."""

from __future__ import annotations

import platform
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch

import jepa_gym
from jepa_gym import poses
from jepa_gym.checkpoint.start_frames import write_starts
from jepa_gym.config import EncoderConfig, FrameSpec, PredictorConfig, WorldModelConfig
from jepa_gym.training.data.clips import ClipArrays
from jepa_gym.training.data.dataset import Dataset
from jepa_gym.training.data.starts import start_frames
from jepa_gym.training.engine.trainer import Progress, RunConfig, command, plain
from jepa_gym.training.recipes.landscape import Landscape, success_threshold
from jepa_gym.world_model import WorldModel


def model_config(
    dataset: Dataset,
    arrays: ClipArrays,
    encoder: EncoderConfig,
    predictor: PredictorConfig,
    frames: int,
) -> WorldModelConfig:
    """Derive the configuration of a world model from a dataset.

    Args:
        dataset: gives cameras, picture size and units.
        arrays: the training split, for the statistics of states.
        encoder: sizes of the encoder.
        predictor: sizes of the predictor.
        frames: T of the training clips.
    """
    index = dataset.index
    mean, std = poses.statistics(torch.from_numpy(arrays.states), floor=0.05)
    return WorldModelConfig(
        frame=FrameSpec(
            height=index["image_size"],
            width=index["image_size"] * len(index["cameras"]),
            cameras=tuple(index["cameras"]),
            step_s=index["step_s"],
            max_move_m=index["max_move_m"],
        ),
        encoder=encoder,
        predictor=predictor,
        state_mean=tuple(mean.tolist()),
        state_std=tuple(std.tolist()),
        action_scale=(index["max_move_m"],) * 3 + (0.3,) * 3 + (1.0,),
        train_frames=frames,
    )


def save_model(
    model: WorldModel,
    recipe: str,
    config: RunConfig,
    dataset: Dataset,
    landscape: Landscape,
    progress: Progress,
    figures: dict[str, float],
) -> None:
    """Write the finished model, its card and its held-out start frames to the run's folder.

    Args:
        model: the trained model, in evaluation mode.
        recipe: name of the recipe.
        config: the run.
        dataset: what it was trained on.
        landscape: the held-out pairs.
        progress: the finished run.
        figures: validation figures for the card.
    """
    threshold = success_threshold(model, landscape)
    model.config = replace(model.config, success_energy=round(threshold.energy, 4))
    figures = figures | {f"success {name}": value for name, value in asdict(threshold).items()}
    model.save_pretrained(config.output, provenance(recipe, config, dataset, progress, figures))
    write_starts(config.output, start_frames(landscape.arrays))


def provenance(
    recipe: str,
    config: RunConfig,
    dataset: Dataset,
    progress: Progress,
    figures: dict[str, float],
) -> dict[str, Any]:
    """Return what a card tells about a run: command, seed, data, versions, time and figures.

    Args:
        recipe: name of the recipe.
        config: the run.
        dataset: what it was trained on.
        progress: the finished run.
        figures: validation figures.
    """
    return {
        "recipe": recipe,
        "command": command(),
        "seed": config.seed,
        "settings": plain(config) | {"data": config.data.name, "output": config.output.name},
        "dataset hash": dataset.hash,
        "dataset": {
            "episodes": dataset.index.get("episodes"),
            "settings": dataset.index.get("settings"),
            "versions": dataset.index.get("versions"),
        },
        "training episodes": len(dataset.load_arrays("train").ids),
        "validation episodes": len(dataset.load_arrays("validation").ids),
        "optimiser steps": progress.step,
        "chosen step": progress.best_step,
        "wall time, minutes": round(progress.elapsed_s / 60, 1),
        "validation (episodes never trained on)": {
            name: round(x, 4) for name, x in figures.items()
        },
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """Return the versions that decide the numbers."""
    return {
        "jepa_gym": jepa_gym.__version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "processor": platform.machine(),
    }
