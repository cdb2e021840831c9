"""What a reinforcement-learning training keeps: evaluations, and the file that it goes on from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import torch
from stable_baselines3.common.base_class import BaseAlgorithm

from jepa_gym.checkpoint.safetensors_file import read_safetensors, write_safetensors
from jepa_gym.training.recipes.rl_episodes import Evaluation, History, below, evaluate

if TYPE_CHECKING:
    from jepa_gym.training.recipes.train_rl import TrainRLConfig

TRAINING = "training"
"""Key of the JSON in the metadata of a training's file."""
Optimizers = Mapping[str, torch.optim.Optimizer]


def measure(
    config: TrainRLConfig, model: BaseAlgorithm, test_env: gym.Env, history: History
) -> Evaluation:
    """Evaluate the policy, and write what was found to the history and to TensorBoard.

    Args:
        config: What is trained.
        model: The learner.
        test_env: An environment of its own.
        history: It is added to.
    """
    from torch.utils.tensorboard import SummaryWriter

    found = evaluate(model, test_env, config.eval_episodes)
    history.add(found, model)
    with SummaryWriter(str(config.output.with_suffix(".tensorboard"))) as writer:
        for name, value in asdict(found).items():
            if name != "step":
                writer.add_scalar(f"evaluation/{name}", value, found.step)
    return found


def progress_of(config: TrainRLConfig, model: BaseAlgorithm, history: History) -> dict[str, Any]:
    """Return how far a training is, as JSON: `steps`, `settings`, `curve` and `best`."""
    return {
        "steps": model.num_timesteps,
        "settings": config.settings(),
        "curve": [asdict(found) for found in history.curve],
        "best": None if history.best is None else asdict(history.best),
    }


def write_training(
    path: Path,
    model: BaseAlgorithm,
    history: History,
    optimizers: Optimizers,
    progress: dict[str, Any],
    more: Mapping[str, torch.Tensor] | None = None,
) -> None:
    """Write what a training goes on from; the file appears complete or not at all.

    Args:
        path: The file.
        model: The learner.
        history: Holds the best policy's actor.
        optimizers: Those whose moments are kept, by name.
        progress: As `progress_of` returns it; more is kept, too.
        more: Further tensors, by name.
    """
    tensors = {f"policy.{name}": x for name, x in model.policy.state_dict().items()}
    tensors |= {f"best.{name}": x for name, x in history.actor.items()}
    for name, optimizer in optimizers.items():
        for index, moments in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{name}.{index}.{key}": x for key, x in moments.items()}
    tensors |= more or {}
    tensors = {name: x.detach().cpu().clone() for name, x in tensors.items()}
    write_safetensors(path, tensors, {TRAINING: json.dumps(progress)})


def read_training(
    config: TrainRLConfig, model: BaseAlgorithm, history: History, optimizers: Optimizers
) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Bring a new learner, its optimizers and its history to where a training was saved.

    Args:
        config: What is trained.
        model: The new learner; it is changed.
        history: Of no evaluations; it is filled.
        optimizers: The learner's, as `write_training` was given them.

    Returns:
        All tensors of the file, and the progress.

    Raises:
        ValueError: If the file is no training, damaged, of other settings, or further on already.
    """
    path = config.training_file
    tensors, metadata = read_safetensors(path)
    try:
        progress = json.loads(metadata[TRAINING])
        theirs, steps = progress["settings"], int(progress["steps"])
    except (KeyError, TypeError, ValueError):
        raise ValueError(f"{path} is no training; delete it to begin anew") from None
    if theirs != config.settings():
        raise ValueError(
            f"{path} was made with {theirs}, not {config.settings()}: give those, or another "
            "`output`"
        )
    assert config.steps is not None
    if steps > config.steps:
        raise ValueError(
            f"{path} is {steps} steps on already, more than the {config.steps} of `steps`: give "
            "more, or another `output`"
        )
    try:
        model.policy.load_state_dict(below(tensors, "policy"))
        for name, optimizer in optimizers.items():
            moments: dict[int, dict[str, torch.Tensor]] = {}
            for key, x in below(tensors, f"optimizer.{name}").items():
                index, _, moment = key.partition(".")
                moments.setdefault(int(index), {})[moment] = x
            optimizer.load_state_dict(optimizer.state_dict() | {"state": moments})
        history.curve = [Evaluation(**found) for found in progress["curve"]]
        history.best = None if progress["best"] is None else Evaluation(**progress["best"])
    except (KeyError, RuntimeError, IndexError, TypeError, ValueError) as error:
        raise damaged(path, error) from None
    history.actor = below(tensors, "best")
    model.num_timesteps = steps
    return tensors, progress


def damaged(path: Path, error: Exception) -> ValueError:
    """Return what to raise for a training that cannot be read."""
    return ValueError(f"{path} is damaged ({error}); delete it to begin anew")
