"""What all recipes do before and after training: data, configuration, files and card of a model."""

from __future__ import annotations

import logging
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch

import jepa_gym
from jepa_gym import poses
from jepa_gym.checkpoint.start_frames import StartFrames, write_starts
from jepa_gym.config import EncoderConfig, FrameSpec, PredictorConfig, WorldModelConfig
from jepa_gym.training.data.clips import ClipArrays
from jepa_gym.training.data.dataset import SPLITS, Dataset
from jepa_gym.training.data.starts import start_frames
from jepa_gym.training.engine.config import RunConfig, command, plain
from jepa_gym.training.engine.distributed import Processes, first_process_first
from jepa_gym.training.engine.task import Progress
from jepa_gym.training.recipes.landscape import Landscape, success_threshold
from jepa_gym.training.recipes.readout import fit_readout
from jepa_gym.world_model import WorldModel

_LOG = logging.getLogger(__name__)

TEST_PAIRS = 100


def open_dataset(config: RunConfig, needs_states: bool = True) -> Dataset:
    """Open a run's dataset, decoded by the first process alone.

    Args:
        config: The run.
        needs_states: Refuse videos and pictures of which no states are known.

    Raises:
        FileNotFoundError, ValueError: As `Dataset.open` and `Dataset.load_arrays`; or if no
            episode falls into the training or the validation split.
    """
    with first_process_first():
        dataset = Dataset.open(
            config.data, config.skip_corrupt, config.image_size, config.decode, config.readers
        )
        if needs_states and not dataset.index.get("has_states", True):
            raise ValueError(
                f"{config.data} holds pictures without the robot's states, which only `jepa-gym "
                "pretrain` can learn from"
            )
        sizes = {split: len(set(dataset.load_arrays(split).ids)) for split in SPLITS}
    for split in ("train", "validation"):
        if not sizes[split]:
            raise ValueError(
                f"{config.data}: none of the {sum(sizes.values())} episodes falls into the "
                f"{split} split, which goes by a hash of their names: collect more episodes"
            )
    return dataset


def model_config(
    dataset: Dataset,
    arrays: ClipArrays,
    encoder: EncoderConfig,
    predictor: PredictorConfig,
    frames: int,
) -> WorldModelConfig:
    """Derive the configuration of a world model from a dataset.

    Args:
        dataset: Gives cameras, picture size and units.
        arrays: The training split, for the statistics of states.
        encoder: Sizes of the encoder.
        predictor: Sizes of the predictor.
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
            state_convention=index.get("state_convention", "hand"),
        ),
        encoder=encoder,
        predictor=predictor,
        state_mean=tuple(mean.tolist()),
        state_std=tuple(std.tolist()),
        action_scale=(index["max_move_m"],) * 3 + (0.3,) * 3 + (1.0,),
        train_frames=frames,
    )


@dataclass(frozen=True, slots=True)
class Judges:
    """What a world model is judged by; made before training, so that nothing fails after it."""

    validation: Landscape
    """Chooses the best state."""
    test: Landscape | None
    """Is only reported; None where there are no test episodes."""
    starts: StartFrames | None
    """Where episodes of `JEPALatent-v0` start; None where no hand moves far enough."""

    @classmethod
    def choose(cls, dataset: Dataset, context: int, here: Processes) -> Judges:
        """Choose frames of a dataset, and say what it does not have.

        Args:
            dataset: Where they come from.
            context: Real frames that the imagination starts from.
            here: This process.

        Raises:
            ValueError: If there is too little to choose a state by.
        """
        arrays, test, starts = dataset.load_arrays("validation"), None, None
        validation = Landscape(arrays, context=context)
        missing = {f"validation, {kind}": why for kind, why in validation.left_out.items()}
        try:
            test = Landscape(dataset.load_arrays("test"), TEST_PAIRS, context, seed=1)
            missing |= {f"test, {kind}": why for kind, why in test.left_out.items()}
        except ValueError as error:
            missing["test"] = str(error)
        try:
            starts = start_frames(arrays)
        except ValueError as error:
            missing["start frames"] = str(error)
        for what, why in missing.items():
            here.say(f"left out: {what} ({why})")
        return cls(validation, test, starts)


def finish_model(
    model: WorldModel,
    recipe: str,
    config: RunConfig,
    dataset: Dataset,
    judges: Judges,
    progress: Progress,
    readout_weight: float | None = None,
    latents: ClipArrays | None = None,
) -> None:
    """Write the finished model to the run's folder, then its figures; say what it is worth.

    Args:
        model: The trained model, in evaluation mode.
        recipe: Name of the recipe.
        config: The run.
        dataset: What it was trained on.
        judges: What it is judged by.
        progress: The finished run.
        readout_weight: Gives the model a readout of this weight, see `fit_readout`.
        latents: The training split with latents in the place of frames, where they are at hand.
    """
    card = provenance(recipe, config, dataset, progress)
    if readout_weight is not None:
        train, validation = dataset.load_arrays("train"), dataset.load_arrays("validation")
        card["readout"] = fit_readout(model, latents or train, validation, readout_weight)
    model.save_pretrained(config.output, card)
    if judges.starts is not None:
        write_starts(config.output, judges.starts)
    figures = judges.test.evaluate(model) if judges.test else {}
    chosen = judges.validation.arrays
    reported = judges.test.arrays if judges.test else chosen
    threshold = success_threshold(model, chosen, reported)
    if threshold is not None:
        model.config = replace(model.config, success_energy=round(threshold.energy, 4))
        figures |= {f"success {name}": value for name, value in asdict(threshold).items()}
    card["test"] = {name: round(value, 4) for name, value in figures.items()}
    model.save_pretrained(config.output, card)
    report(f"wrote {config.output}", progress, figures)


def report(wrote: str, progress: Progress, test: Mapping[str, float]) -> None:
    """Say what a run wrote and how good it is."""
    _LOG.info(
        f"{wrote} (step {progress.best_step} of {progress.step}, chosen on validation episodes)"
    )
    for split, figures in (("validation", progress.best_figures), ("test", test)):
        if figures:
            _LOG.info(f"  {split}: {', '.join(f'{name} {x:.4g}' for name, x in figures.items())}")


def provenance(
    recipe: str, config: RunConfig, dataset: Dataset, progress: Progress
) -> dict[str, Any]:
    """Return what a card tells about a run: command, seed, data, versions, time and figures.

    Args:
        recipe: Name of the recipe.
        config: The run.
        dataset: What it was trained on.
        progress: The finished run.
    """
    figures = {name: round(value, 4) for name, value in progress.best_figures.items()}
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
        **{f"{split} episodes": len(set(dataset.load_arrays(split).ids)) for split in SPLITS},
        "optimiser steps": progress.step,
        "chosen step": progress.best_step,
        "wall time, minutes": round(progress.elapsed_s / 60, 1),
        "validation (episodes never trained on, which chose the step)": figures,
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
