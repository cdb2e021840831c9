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

from dataclasses import dataclass

import torch
from torch import Tensor

from jepa_gym import poses
from jepa_gym.checkpoint.beside import POLICY
from jepa_gym.models.latent_policy import MOVEMENT_DIM, LatentPolicy
from jepa_gym.training.data.dataset import Dataset
from jepa_gym.training.engine.config import RunConfig, run_recipe
from jepa_gym.training.engine.task import Batch, Progress
from jepa_gym.training.recipes.beside import BesideConfig, Training, train_beside
from jepa_gym.training.recipes.hindsight import GoalSampler, goal_samplers
from jepa_gym.world_model import WorldModel

EVALUATED = 512
"""Starts of an evaluation."""
EVALUATED_STEPS = 8
"""Imagined steps of an evaluation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImaginedPolicyConfig(BesideConfig):
    """Train a policy for reaching in a world model's imagination; the model stays as it is.

    The agent `imagined-policy` finds the finished `policy.safetensors` beside the model.
    """

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
    """Train the policy and write the best one; see `train_beside`."""
    return train_beside(config, POLICY, "imagine-policy", _prepare)


def _prepare(config: ImaginedPolicyConfig, model: WorldModel, dataset: Dataset) -> Training:
    samplers = goal_samplers(dataset, model, config.batch_size, config.seed)
    network = LatentPolicy(model.config.num_tokens, model.config.encoder.latent_dim)

    def loss(batch: Batch, step: int) -> dict[str, Tensor]:
        energies = imagined_energies(network, model, batch, config.imagined_steps)
        return {"loss": torch.stack(energies[1:]).mean(), "last": energies[-1].mean().detach()}

    return Training(
        network,
        lambda: figures(network, model, samplers["test"]) if "test" in samplers else {},
        {
            "draw": samplers["train"].batch,
            "loss": loss,
            "evaluate": lambda: figures(network, model, samplers["validation"]),
            "score": "imagined_energy",
        },
    )


def main() -> int:
    """Run the command line."""
    return run_recipe(train, ImaginedPolicyConfig)


if __name__ == "__main__":
    raise SystemExit(main())
