"""Train a network that stands beside a world model, on its latents; the model stays as it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from jepa_gym.checkpoint.beside import Beside, encoder_hash
from jepa_gym.checkpoint.sources import SHIPPED
from jepa_gym.training.data.dataset import Dataset
from jepa_gym.training.engine.config import RunConfig
from jepa_gym.training.engine.distributed import processes
from jepa_gym.training.engine.task import Progress, Task
from jepa_gym.training.engine.trainer import Trainer
from jepa_gym.training.recipes.finish import open_dataset, provenance, report
from jepa_gym.world_model import WorldModel


@dataclass(frozen=True, slots=True, kw_only=True)
class BesideConfig(RunConfig):
    """What every such recipe is told."""

    BY_CONTENT: ClassVar[tuple[str, ...]] = ("data", "checkpoint")

    checkpoint: str
    """`default`, the folder of a checkpoint, or what else `WorldModel.from_pretrained` takes."""
    output: Path | None = None
    """Folder of the run and of its finished network. By default the run is in a folder of the
    recipe's name in that of the checkpoint, and the network beside the model, where it is found by
    itself."""


@dataclass(frozen=True, slots=True)
class Training:
    """What a recipe trains, and how it is measured in the end."""

    network: nn.Module
    """What is written; a network with `sizes`."""
    test: Callable[[], dict[str, float]]
    """Makes the best network ready to be used and returns its figures on test episodes."""
    task: dict[str, Any]
    """Fields of the engine's `Task` beside `module` and `inputs`."""
    module: nn.Module | None = None
    """Everything that is trained, where that is more than the network."""


def train_beside(
    config: BesideConfig,
    kind: Beside,
    recipe: str,
    prepare: Callable[[Any, WorldModel, Dataset], Training],
) -> Progress:
    """Train a network and write the best one.

    Args:
        config: The run.
        kind: Where the network is written.
        recipe: Its name; also that of the run's folder in the model's own.
        prepare: Configuration, world model and dataset -> what is trained, from initial weights
            that the seed decides.

    Returns:
        The finished progress.

    Raises:
        ValueError: The dataset shows other views than the model knows, or `output` is missing and
            the checkpoint is shipped or a single file.
    """
    with processes(config.device, config.threads) as here:
        model = WorldModel.from_pretrained(config.checkpoint, here.device).requires_grad_(False)
        folder, run = beside_model(config.checkpoint, model, config.output, recipe)
        config = replace(config, output=run)
        dataset = open_dataset(config)
        check_views(dataset, model)
        torch.manual_seed(config.seed)
        training = prepare(config, model, dataset)
        inputs = {"data": dataset.hash, "checkpoint": encoder_hash(model)}
        trainer = Trainer(
            config,
            Task(module=training.module or training.network, inputs=inputs, **training.task),
            here,
        )
        if config.dry_run:
            return trainer.dry_run()
        progress = trainer.run()
        if here.first:
            figures = training.test()
            card = provenance(recipe, config, dataset, progress) | {"test": figures}
            path = kind.write(folder, training.network, model, card)
            report(f"wrote {path}", progress, figures)
        return progress


def beside_model(
    checkpoint: str, model: WorldModel, output: Path | None, run_folder: str
) -> tuple[Path, Path]:
    """Choose where a network that stands beside a model is written, and where its run is.

    Args:
        checkpoint: What the model was loaded as.
        model: The model.
        output: Folder of both, or None for the model's own.
        run_folder: Name of the run's folder in the model's own.

    Returns:
        The network's folder and the run's.

    Raises:
        ValueError: If `output` is missing and the checkpoint is shipped or a single file.
    """
    if output is not None:
        return output, output
    if model.folder is None or checkpoint in SHIPPED:
        raise ValueError(f"{checkpoint!r} is no folder of yours; say where to write with --output")
    return model.folder, model.folder / run_folder


def check_views(dataset: Dataset, model: WorldModel) -> None:
    """Refuse a dataset that shows other views than a model knows.

    Raises:
        ValueError: If it does.
    """
    shown, known = tuple(dataset.index["cameras"]), model.config.frame.cameras
    if shown != known:
        raise ValueError(
            f"{dataset.folder} shows the views {shown}, the model knows {known}; give data that "
            "was collected with the model's cameras"
        )
