"""Train an inverse model beside a world model: the next action on the way to a goal.

`jepa-gym amortise --checkpoint FOLDER --data DATASET --minutes 20`

The world model stays as it is; every frame is encoded once. Goals are later frames of the same
episode, so any recording will do; what it shows people, scripts or policies doing on purpose is
worth most, because a random move says little about the way to a far goal. Loss: L1 of the movement
over the model's action scale, so that rare mistakes of a demonstrator count little, and
cross-entropies of the gripper's change and of the number of steps that are left.

Without `--advantage` this is goal-conditioned behaviour cloning. With it, steps that led on to a
goal faster than expected count more, which makes it offline goal-conditioned reinforcement learning
on exactly the data of the world model: implicit Q-learning, see `advantage`.

With `--network transformer` it is a transformer on the tokens of frame and goal that learns the
same from the same pairs, a baseline that acts alone (`bc-transformer`).

With `--corrections` a share of every batch are steps in which an earlier inverse model acted and an
expert said what it would have done there (`jepa-gym correct`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jepa_gym.checkpoint.beside import BEHAVIOUR, INVERSE, Beside, encoder_hash
from jepa_gym.models import BehaviourTransformer, InverseModel
from jepa_gym.models.inverse import KEEP, gripper_classes
from jepa_gym.training.data.corrections import CorrectionSampler, read_corrections
from jepa_gym.training.data.dataset import Dataset
from jepa_gym.training.engine.config import run_recipe
from jepa_gym.training.engine.task import Batch, Progress
from jepa_gym.training.recipes.advantage import Advantage, weights_of
from jepa_gym.training.recipes.beside import BesideConfig, Training, train_beside
from jepa_gym.training.recipes.hindsight import GoalSampler, goal_samplers
from jepa_gym.world_model import WorldModel

GRIPPER_WEIGHT, STEPS_WEIGHT = 0.2, 0.05
EVALUATED = 4096
Network = InverseModel | BehaviourTransformer
NETWORKS: dict[str, Beside[Any]] = {"mlp": INVERSE, "transformer": BEHAVIOUR}
CORRECTED_SHARE = 0.5
"""Share of a batch that are corrections, where there are some."""


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
    advantage: float = 0.0
    """Weigh a step by exp(this x its advantage in steps), learned beside it (implicit Q-learning);
    0 weighs all alike (behaviour cloning)."""
    network: Literal["mlp", "transformer"] = "mlp"
    """`mlp` is the inverse model, whose proposals agents plan with; `transformer` is a baseline
    that acts alone, on the tokens of frame and goal."""
    corrections: tuple[Path, ...] = ()
    """Folders of `jepa-gym correct`: half of every batch are what an expert would have done where
    an earlier inverse model came to be."""

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            ValueError: If a number is out of its range.
        """
        BesideConfig.__post_init__(self)
        if self.advantage < 0:
            raise ValueError(f"`advantage` must be at least 0, got {self.advantage}")
        if self.advantage and self.corrections:
            raise ValueError(
                "corrections are weighed all alike: give `corrections` or `advantage`, not both"
            )


def losses(
    network: Network, model: WorldModel, batch: Batch, weights: Tensor | None = None
) -> dict[str, Tensor]:
    """Compute the weighted sum `loss` and its parts.

    Args:
        network: What is trained.
        model: Gives the units.
        batch: As `GoalSampler` draws it.
        weights: (B,), of the pairs, or None for all alike.
    """
    normalised = model.normaliser.states(batch["states"])
    guess = network(batch["latents"].float(), normalised, batch["goals"].float())
    wanted = model.normaliser.actions(batch["actions"])[:, :6]
    movement = F.l1_loss(guess.movement, wanted, reduction="none").mean(1)
    classes = gripper_classes(batch["actions"][:, 6])
    gripper = F.cross_entropy(guess.gripper, classes, reduction="none")
    # corrections do not tell how far the goal is: their class is left out
    counted = batch["steps"].clamp(max=guess.steps.shape[-1]) - 1
    steps = F.cross_entropy(guess.steps, counted, reduction="none", ignore_index=-1)
    weights = torch.ones_like(movement) if weights is None else weights
    movement, gripper, steps = ((weights * part).mean() for part in (movement, gripper, steps))
    return {
        "loss": movement + GRIPPER_WEIGHT * gripper + STEPS_WEIGHT * steps,
        "movement": movement.detach(),
        "gripper": gripper.detach(),
        "steps": steps.detach(),
    }


@torch.no_grad()
def figures(
    network: Network,
    model: WorldModel,
    sampler: GoalSampler,
    weigh: Callable[[Batch], Tensor | None] = lambda batch: None,
) -> dict[str, float]:
    """Measure an inverse model on pairs that it never saw.

    Args:
        network: In evaluation mode.
        model: Gives the units.
        sampler: Of a split that is not trained on.
        weigh: Batch to the weights of its pairs, in `inverse_loss` alone.

    Returns:
        `inverse_loss`; `movement_cm`, the mean error of the translation along an axis, for goals
        one step away and for all; `gripper_right` and `gripper_moves_found`, the shares of all
        steps and of openings and closings in which the gripper's class is right; `steps_error`,
        the mean error of the expected steps.
    """
    parts, one, found, distances = [], [], [], []
    for number in range(max(1, EVALUATED // sampler.batch_size)):
        batch = {k: x.to(model.device) for k, x in sampler.batch(number).items()}
        parts.append(losses(network, model, batch, weigh(batch))["loss"])
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


@torch.no_grad()
def corrected_figures(
    network: Network, model: WorldModel, sampler: CorrectionSampler
) -> dict[str, float]:
    """Measure an inverse model on corrections that it never saw.

    Returns:
        `corrected_loss`; `corrected_cm`, the mean error of the translation along an axis; and
        `corrected_gripper_right`, the share of steps in which the gripper's class is right.
    """
    count = max(1, EVALUATED // sampler.batch_size)
    drawn = [sampler.batch(number) for number in range(count)]
    batch = {k: torch.cat([x[k] for x in drawn]).to(model.device) for k in drawn[0]}
    normalised = model.normaliser.states(batch["states"])
    guess = network(batch["latents"].float(), normalised, batch["goals"].float())
    error = guess.actions(model.normaliser.action_scale) - batch["actions"]
    right = guess.gripper.argmax(1) == gripper_classes(batch["actions"][:, 6])
    return {
        "corrected_loss": losses(network, model, batch)["loss"].item(),
        "corrected_cm": 100 * error[:, :3].abs().mean().item(),
        "corrected_gripper_right": right.float().mean().item(),
    }


def train(config: AmortiseConfig) -> Progress:
    """Train the network and write the best one; see `train_beside`."""
    run = "amortise" if config.network == "mlp" else f"amortise-{config.network}"
    return train_beside(config, NETWORKS[config.network], run, _prepare)


def _prepare(config: AmortiseConfig, model: WorldModel, dataset: Dataset) -> Training:
    samplers = goal_samplers(dataset, model, config.batch_size, config.seed)
    sizes, most_steps = model.config, samplers["train"].latents.shape[1] - 1
    make = NETWORKS[config.network].make
    network = make(sizes.num_tokens, sizes.encoder.latent_dim, most_steps)
    judge = Advantage(sizes.num_tokens, sizes.encoder.latent_dim) if config.advantage else None
    corrections = _correction_samplers(config, model)

    def weigh(batch: Batch) -> Tensor | None:
        return None if judge is None else weights_of(judge(batch)[0], config.advantage)

    def loss(batch: Batch, step: int) -> dict[str, Tensor]:
        if judge is None:
            return losses(network, model, batch)
        advantages, value_losses = judge(batch)
        found = losses(network, model, batch, weights_of(advantages, config.advantage))
        value = value_losses.mean()
        return found | {"loss": found["loss"] + value, "value": value.detach()}

    def draw(number: int, rows: slice = slice(None)) -> Batch:
        if not corrections:
            return samplers["train"].batch(number, rows)
        corrected = corrections["train"].batch(number)
        hindsight = samplers["train"].batch(number, slice(len(corrected["steps"]), None))
        return {k: torch.cat([corrected[k], hindsight[k]])[rows] for k in corrected}

    def evaluate() -> dict[str, float]:
        found = figures(network, model, samplers["validation"], weigh)
        if corrections:
            found |= corrected_figures(network, model, corrections["validation"])
            found["inverse_loss"] = (found["inverse_loss"] + found["corrected_loss"]) / 2
        return found

    return Training(
        network,
        lambda: figures(network, model, samplers["test"]) if "test" in samplers else {},
        {
            "draw": draw,
            "loss": loss,
            "evaluate": evaluate,
            "score": "inverse_loss",
            "after_step": None if judge is None else lambda course: judge.follow(),
        },
        None if judge is None else nn.ModuleDict({"network": network, "judge": judge}),
    )


def _correction_samplers(config: AmortiseConfig, model: WorldModel) -> dict[str, CorrectionSampler]:
    if not config.corrections:
        return {}
    size = round(CORRECTED_SHARE * config.batch_size)
    found = read_corrections(config.corrections, encoder_hash(model))
    return {split: CorrectionSampler(x, size, config.seed) for split, x in found.items()}


def main() -> int:
    """Run the command line."""
    return run_recipe(train, AmortiseConfig)


if __name__ == "__main__":
    raise SystemExit(main())
