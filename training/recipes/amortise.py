"""Train an inverse model beside a world model: the next action on the way to a goal.

`jepa-gym amortise --checkpoint FOLDER --data DATASET --minutes 20`

The world model stays as it is; every frame is encoded once. Goals are later frames of the same
episode, so any recording will do; what it shows people, scripts or policies doing on purpose is
worth most, because a random move says little about the way to a far goal. Loss: L1 of the movement
over the model's action scale, so that rare mistakes of a demonstrator count little, and
cross-entropies of the gripper's change and of the number of steps that are left.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from jepa_gym.checkpoint.beside import INVERSE, encoder_hash
from jepa_gym.models.inverse import KEEP, InverseModel, gripper_classes
from jepa_gym.training.data.clips import ClipArrays
from jepa_gym.training.data.dataset import SPLITS, Dataset
from jepa_gym.training.engine.config import RunConfig, run_recipe
from jepa_gym.training.engine.distributed import first_process_first, processes
from jepa_gym.training.engine.task import Batch, Progress, Task
from jepa_gym.training.engine.trainer import Trainer
from jepa_gym.training.recipes.finish import (
    beside_model,
    check_views,
    open_dataset,
    provenance,
    report,
)
from jepa_gym.training.recipes.posttrain_start import cache_latents
from jepa_gym.world_model import WorldModel

RUN_FOLDER = "amortise"
NEAR_SHARE, NEAR_STEPS = 0.3, 3
"""Share of the goals that are at most so many steps away: the last steps need the most precision,
and uniform draws would show few of them."""
GRIPPER_WEIGHT, STEPS_WEIGHT = 0.2, 0.05
EVALUATED = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class AmortiseConfig(RunConfig):
    """Train an inverse model on the latents of a world model, which stays as it is."""

    BY_CONTENT: ClassVar[tuple[str, ...]] = ("data", "checkpoint")

    checkpoint: str
    """`default`, the folder of a checkpoint, or what else `WorldModel.from_pretrained` takes."""
    output: Path | None = None
    """Folder of the run and of its finished `inverse.safetensors`. By default the run is in
    `amortise/` of the checkpoint's folder and the inverse model beside the world model, where
    agents find it."""
    minutes: float = 20.0
    """Chooses the number of steps at the start, from a measured rate and evaluations included."""
    batch_size: int = 256
    """Pairs of a frame and a goal per step."""
    learning_rate: float = 6e-4
    """Peak learning rate of AdamW."""


class GoalSampler:
    """Draws frames with hindsight goals; batch number k of a seed is always the same."""

    def __init__(self, arrays: ClipArrays, latents: np.ndarray, batch_size: int, seed: int) -> None:
        """Prepare sampling.

        Args:
            arrays: A split.
            latents: (E_all, T, N, D), of the whole dataset.
            batch_size: B.
            seed: Any non-negative integer.
        """
        self.arrays, self.latents, self.batch_size, self.seed = arrays, latents, batch_size, seed
        weights = np.ones(len(arrays.rows)) if arrays.weights is None else arrays.weights
        self._bounds = np.cumsum(weights) / np.sum(weights)

    def batch(self, number: int, rows: slice = slice(None)) -> Batch:
        """Draw batch `number`.

        Args:
            number: Any non-negative integer.
            rows: Only these of its pairs, for one of several processes.

        Returns:
            `latents` and `goals` (B, N, D) float16, `states` (B, 7), `actions` (B, 7), and `steps`
            (B,) int64 from the frame to the goal.
        """
        rng = np.random.default_rng((self.seed, number))
        last = self.arrays.states.shape[1] - 1
        draws = rng.random((5, self.batch_size))[:, rows]
        found = np.searchsorted(self._bounds, draws[0], side="right")
        episodes = found.clip(0, len(self.arrays.rows) - 1)
        starts = (draws[1] * last).astype(int)
        left = last - starts
        near = draws[2] < NEAR_SHARE
        steps = 1 + (draws[3] * np.where(near, np.minimum(left, NEAR_STEPS), left)).astype(int)
        at = self.arrays.rows[episodes]
        numbers = {
            "latents": self.latents[at, starts],
            "goals": self.latents[at, starts + steps],
            "states": self.arrays.states[episodes, starts],
            "actions": self.arrays.actions[episodes, starts],
            "steps": steps,
        }
        return {name: torch.from_numpy(np.ascontiguousarray(x)) for name, x in numbers.items()}


def goal_samplers(
    dataset: Dataset, model: WorldModel, batch_size: int, seed: int
) -> dict[str, GoalSampler]:
    """Encode a dataset once, and return a sampler for each split that has episodes.

    Args:
        dataset: Gives the frames; the latents are kept in its cache.
        model: Encodes them.
        batch_size: Pairs of a frame and a goal that are drawn at a time.
        seed: Any non-negative integer.
    """
    splits = {split: dataset.load_arrays(split) for split in SPLITS}
    path = dataset.folder / "cache" / f"latents-{dataset.key}-{encoder_hash(model)[:16]}.npy"
    with first_process_first():
        latents = cache_latents(model, splits["train"], path)
    return {
        split: GoalSampler(arrays, latents, batch_size, seed)
        for split, arrays in splits.items()
        if len(arrays.rows)
    }


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
    """Train the inverse model and write the best one.

    Returns:
        The finished progress.

    Raises:
        ValueError: The dataset shows other views than the model knows, or `output` is missing and
            the checkpoint is shipped or a single file.
    """
    with processes(config.device, config.threads) as here:
        model = WorldModel.from_pretrained(config.checkpoint, here.device).requires_grad_(False)
        folder, run = beside_model(config.checkpoint, model, config.output, RUN_FOLDER)
        config = replace(config, output=run)
        dataset = open_dataset(config)
        check_views(dataset, model)
        samplers = goal_samplers(dataset, model, config.batch_size, config.seed)
        torch.manual_seed(config.seed)
        sizes = model.config
        most_steps = samplers["train"].latents.shape[1] - 1
        network = InverseModel(sizes.num_tokens, sizes.encoder.latent_dim, most_steps)
        task = Task(
            module=network,
            draw=samplers["train"].batch,
            loss=lambda batch, step: losses(network, model, batch),
            evaluate=lambda: figures(network, model, samplers["validation"]),
            score="inverse_loss",
            inputs={"data": dataset.hash, "checkpoint": encoder_hash(model)},
        )
        trainer = Trainer(config, task, here)
        if config.dry_run:
            return trainer.dry_run()
        progress = trainer.run()
        if here.first:
            test = figures(network, model, samplers["test"]) if "test" in samplers else {}
            card = provenance("amortise", config, dataset, progress) | {"test": test}
            report(f"wrote {INVERSE.write(folder, network, model, card)}", progress, test)
        return progress


def main() -> int:
    """Run the command line."""
    return run_recipe(train, AmortiseConfig)


if __name__ == "__main__":
    raise SystemExit(main())
