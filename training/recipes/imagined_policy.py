"""Train a policy in a world model's imagination alone, by gradients through the model.

`jepa-gym imagine-policy --checkpoint FOLDER --data DATASET --minutes 5`

Imagination starts from recorded frames, and goals are later frames of the same episode. The policy
moves the hand some steps, and its loss is the mean energy of the frames imagined on the way, whose
gradient goes through the predictor. No action of the recording is looked at, and no environment
is stepped.

Reference: value gradients through a learned model, as in stochastic value gradients
    (arXiv 1510.09142), here with a deterministic policy and the energy in the place of a value.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from jepa_gym import poses
from jepa_gym.checkpoint.beside import POLICY, encoder_hash
from jepa_gym.models.latent_policy import MOVEMENT_DIM, LatentPolicy
from jepa_gym.training.engine.config import RunConfig, run_recipe
from jepa_gym.training.engine.distributed import processes
from jepa_gym.training.engine.task import Batch, Progress, Task
from jepa_gym.training.engine.trainer import Trainer
from jepa_gym.training.recipes.amortise import GoalSampler, goal_samplers
from jepa_gym.training.recipes.finish import (
    beside_model,
    check_views,
    open_dataset,
    provenance,
    report,
)
from jepa_gym.world_model import WorldModel

RUN_FOLDER = "imagine-policy"
EVALUATED = 512
"""Starts of an evaluation."""
EVALUATED_STEPS = 8
"""Imagined steps of an evaluation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImaginedPolicyConfig(RunConfig):
    """Train a policy for reaching in a world model's imagination; the model stays as it is."""

    BY_CONTENT: ClassVar[tuple[str, ...]] = ("data", "checkpoint")

    checkpoint: str
    """`default`, the folder of a checkpoint, or what else `WorldModel.from_pretrained` takes."""
    output: Path | None = None
    """Folder of the run and of its finished `policy.safetensors`. By default the run is in
    `imagine-policy/` of the checkpoint's folder and the policy beside the model, where the agent
    `imagined-policy` finds it."""
    minutes: float = 5.0
    """Chooses the number of steps at the start, from a measured rate and evaluations included."""
    batch_size: int = 48
    """Starts with a goal each, per step."""
    imagined_steps: int = 3
    """Steps that are imagined from each start."""
    learning_rate: float = 6e-4
    """Peak learning rate of AdamW."""

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            ValueError: If a number is out of its range.
        """
        RunConfig.__post_init__(self)
        if self.imagined_steps < 1:
            raise ValueError(f"`imagined_steps` must be at least 1, got {self.imagined_steps}")


def imagined_energies(
    network: LatentPolicy, model: WorldModel, batch: Batch, steps: int
) -> list[Tensor]:
    """Let a policy act in imagination.

    Args:
        network: Acts.
        model: Imagines, with gradients.
        batch: As `GoalSampler` draws it.
        steps: How often it acts.

    Returns:
        The energies (B,) of the start and of the frame after each step.
    """
    latents, goals = batch["latents"].float(), batch["goals"].float()
    states, bound = batch["states"], model.config.frame.max_move_m
    energies = [model.energy(latents[:, None], goals)[:, 0]]
    for _ in range(steps):
        moves = bound * network(latents, goals)
        still = moves.new_zeros(len(moves), states.shape[-1] - MOVEMENT_DIM)
        actions = torch.cat([moves, still], -1)
        start = model.prepare(latents[:, None], states[:, None], grad=True)
        latents = start.latents(actions[:, None, None])[:, 0, 0].float()
        states = poses.compose(states, actions)
        energies.append(model.energy(latents[:, None], goals)[:, 0])
    return energies


@torch.no_grad()
def figures(network: LatentPolicy, model: WorldModel, sampler: GoalSampler) -> dict[str, float]:
    """Measure a policy in imagination, from frames that it never started from.

    Returns:
        `imagined_energy`, the mean energy after each of `EVALUATED_STEPS` steps; `start_energy`
        and `last_energy`, those of the start and after the last step.
    """
    parts = []
    for number in range(max(1, EVALUATED // sampler.batch_size)):
        batch = {k: x.to(model.device) for k, x in sampler.batch(number).items()}
        parts.append(torch.stack(imagined_energies(network, model, batch, EVALUATED_STEPS)))
    means = torch.cat(parts, 1).mean(1)
    return {
        "imagined_energy": means[1:].mean().item(),
        "start_energy": means[0].item(),
        "last_energy": means[-1].item(),
    }


def train(config: ImaginedPolicyConfig) -> Progress:
    """Train the policy and write the best one.

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
        network = LatentPolicy(model.config.num_tokens, model.config.encoder.latent_dim)

        def loss(batch: Batch, step: int) -> dict[str, Tensor]:
            energies = imagined_energies(network, model, batch, config.imagined_steps)
            return {"loss": torch.stack(energies[1:]).mean(), "last": energies[-1].mean().detach()}

        task = Task(
            module=network,
            draw=samplers["train"].batch,
            loss=loss,
            evaluate=lambda: figures(network, model, samplers["validation"]),
            score="imagined_energy",
            inputs={"data": dataset.hash, "checkpoint": encoder_hash(model)},
        )
        trainer = Trainer(config, task, here)
        if config.dry_run:
            return trainer.dry_run()
        progress = trainer.run()
        if here.first:
            card = provenance("imagine-policy", config, dataset, progress)
            report(f"wrote {POLICY.write(folder, network, model, card)}", progress, {})
        return progress


def main() -> int:
    """Run the command line."""
    return run_recipe(train, ImaginedPolicyConfig)


if __name__ == "__main__":
    raise SystemExit(main())
