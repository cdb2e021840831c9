"""Train an inverse model beside a world model: the next action on the way to a goal.

`jepa-gym amortise --checkpoint FOLDER --data DATASET --minutes 20`

The world model stays as it is; every frame is encoded once. Goals are later frames of the same
episode, so any recording will do; what it shows people, scripts or policies doing on purpose is
worth most, because a random move says little about the way to a far goal. Loss: L1 of the movement
over the model's action scale, so that rare mistakes of a demonstrator count little, and
cross-entropies of the gripper's change and of the number of steps that are left.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from jepa_gym.checkpoint.beside import INVERSE
from jepa_gym.models.inverse import KEEP, InverseModel, gripper_classes
from jepa_gym.training.data.dataset import Dataset
from jepa_gym.training.engine.config import run_recipe
from jepa_gym.training.engine.task import Batch, Progress
from jepa_gym.training.recipes.beside import BesideConfig, Training, train_beside
from jepa_gym.training.recipes.hindsight import GoalSampler, goal_samplers
from jepa_gym.world_model import WorldModel

GRIPPER_WEIGHT, STEPS_WEIGHT = 0.2, 0.05
EVALUATED = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class AmortiseConfig(BesideConfig):
    """Train an inverse model on the latents of a world model, which stays as it is.

    Agents find the finished `inverse.safetensors` beside the world model.
    """

    minutes: float = 20.0
    """Chooses the number of steps at the start, from a measured rate and evaluations included."""
    batch_size: int = 256
    """Pairs of a frame and a goal per step."""
    learning_rate: float = 6e-4
    """Peak learning rate of AdamW."""


def losses(network: InverseModel, model: WorldModel, batch: Batch) -> dict[str, Tensor]:
    """Compute the weighted sum `loss` and its parts.

    Args:
        network: What is trained.
        model: Gives the units.
        batch: As `GoalSampler` draws it.
    """
    normalised = model.normaliser.states(batch["states"])
    guess = network(batch["latents"].float(), normalised, batch["goals"].float())
    wanted = model.normaliser.actions(batch["actions"])[:, :6]
    movement = F.l1_loss(guess.movement, wanted)
    gripper = F.cross_entropy(guess.gripper, gripper_classes(batch["actions"][:, 6]))
    counted = batch["steps"].clamp(max=guess.steps.shape[-1]) - 1
    steps = F.cross_entropy(guess.steps, counted)
    return {
        "loss": movement + GRIPPER_WEIGHT * gripper + STEPS_WEIGHT * steps,
        "movement": movement.detach(),
        "gripper": gripper.detach(),
        "steps": steps.detach(),
    }


@torch.no_grad()
def figures(network: InverseModel, model: WorldModel, sampler: GoalSampler) -> dict[str, float]:
    """Measure an inverse model on pairs that it never saw.

    Returns:
        `inverse_loss`; `movement_cm`, the mean error of the translation along an axis, for goals
        one step away and for all; `gripper_right` and `gripper_moves_found`, the shares of all
        steps and of openings and closings in which the gripper's class is right; `steps_error`,
        the mean error of the expected steps.
    """
    parts, one, found, distances = [], [], [], []
    for number in range(max(1, EVALUATED // sampler.batch_size)):
        batch = {k: x.to(model.device) for k, x in sampler.batch(number).items()}
        parts.append(losses(network, model, batch)["loss"])
        normalised = model.normaliser.states(batch["states"])
        guess = network(batch["latents"].float(), normalised, batch["goals"].float())
        error = guess.actions(model.normaliser.action_scale) - batch["actions"]
        one.append(torch.stack([error[:, :3].abs().mean(1), (batch["steps"] == 1).float()]))
        classes = gripper_classes(batch["actions"][:, 6])
        found.append(torch.stack([(guess.gripper.argmax(1) == classes), classes != KEEP]).float())
        counted = batch["steps"].clamp(max=guess.steps.shape[-1])
        distances.append((guess.expected_steps() - counted).abs())
    (errors, next_step), (right, moves) = torch.cat(one, 1), torch.cat(found, 1)
    told = {
        "inverse_loss": torch.stack(parts).mean(),
        "movement_cm": 100 * errors.mean(),
        "movement_cm_one_step": 100 * (errors * next_step).sum() / next_step.sum(),
        "gripper_right": right.mean(),
        "gripper_moves_found": (right * moves).sum() / moves.sum(),
        "steps_error": torch.cat(distances).mean(),
    }
    return {name: x.item() for name, x in told.items()}


def train(config: AmortiseConfig) -> Progress:
    """Train the inverse model and write the best one; see `train_beside`."""
    return train_beside(config, INVERSE, "amortise", _prepare)


def _prepare(config: AmortiseConfig, model: WorldModel, dataset: Dataset) -> Training:
    samplers = goal_samplers(dataset, model, config.batch_size, config.seed)
    sizes, most_steps = model.config, samplers["train"].latents.shape[1] - 1
    network = InverseModel(sizes.num_tokens, sizes.encoder.latent_dim, most_steps)
    return Training(
        network,
        lambda: figures(network, model, samplers["test"]) if "test" in samplers else {},
        {
            "draw": samplers["train"].batch,
            "loss": lambda batch, step: losses(network, model, batch),
            "evaluate": lambda: figures(network, model, samplers["validation"]),
            "score": "inverse_loss",
        },
    )


def main() -> int:
    """Run the command line."""
    return run_recipe(train, AmortiseConfig)


if __name__ == "__main__":
    raise SystemExit(main())
