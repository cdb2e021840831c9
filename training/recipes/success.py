"""Train a detector that tells from two latents whether the goal is reached.

`jepa-gym success-detector --checkpoint FOLDER --data DATASET --minutes 5`

The energy between a frame and its goal mixes everything that differs: a threshold that is strict
misses many frames that are there. The detector learns from recorded pairs what counts: the hand
within 4 cm of where it is in the goal, and the gripper as far open. It sees latents alone, so that
imagined frames are judged as real ones are.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from jepa_gym.checkpoint.beside import SUCCESS
from jepa_gym.models.success import SuccessDetector
from jepa_gym.training.data.dataset import Dataset
from jepa_gym.training.engine.config import run_recipe
from jepa_gym.training.engine.task import Batch, Progress
from jepa_gym.training.recipes.beside import BesideConfig, Training, train_beside
from jepa_gym.training.recipes.hindsight import GoalSampler, goal_samplers
from jepa_gym.training.recipes.landscape import area_under_curve, reached
from jepa_gym.world_model import WorldModel

FALSE_SUCCESS_RATE = 0.02
"""Share of the validation frames not at a goal that may count as success."""
MOST_EPISODES = 800
"""Episodes of a split that figures are measured on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SuccessConfig(BesideConfig):
    """Train a success detector on the latents of a world model, which stays as it is.

    `JEPALatent-v0` finds the finished `success.safetensors` beside the model.
    """

    minutes: float = 5.0
    """Chooses the number of steps at the start, from a measured rate and evaluations included."""
    batch_size: int = 256
    """Pairs of a frame and a goal per step."""
    learning_rate: float = 6e-4
    """Peak learning rate of AdamW."""


def logits_of(network: SuccessDetector, batch: Batch) -> tuple[Tensor, Tensor]:
    """Return logits (B,) and whether the goal is reached (B,), of pairs as `GoalSampler` draws."""
    logits = network(batch["latents"].float(), batch["goals"].float())
    return logits, reached(batch["states"], batch["goal_states"])


@torch.no_grad()
def judged(
    network: SuccessDetector, model: WorldModel, sampler: GoalSampler
) -> tuple[Tensor, Tensor]:
    """Judge all frames of episodes by their middle one.

    Returns:
        Logits (P,), and whether the goal is reached (P,).
    """
    arrays, length = sampler.arrays, sampler.arrays.states.shape[1]
    middle, logits, there = length // 2, [], []
    others = torch.arange(length) != middle
    for episode in range(min(len(arrays.rows), MOST_EPISODES)):
        latents = torch.tensor(sampler.latents[arrays.rows[episode]]).to(model.device).float()
        goals = latents[middle].expand_as(latents)
        logits.append(network(latents, goals).cpu()[others])
        states = torch.from_numpy(arrays.states[episode])
        there.append(reached(states, states[middle])[others])
    return torch.cat(logits), torch.cat(there)


def figures(network: SuccessDetector, model: WorldModel, sampler: GoalSampler) -> dict[str, float]:
    """Measure a detector on frames that it never saw, with the middle frame of each as its goal.

    Returns:
        `success_loss`, the cross-entropy; `auc`, the chance that a frame at the goal gets a higher
        logit than one that is not; `false_success_rate` and `missed_success_rate`.
    """
    logits, there = judged(network, model, sampler)
    return {
        "success_loss": F.binary_cross_entropy_with_logits(logits, there.float()).item(),
        "auc": area_under_curve(logits[there], logits[~there]),
        "false_success_rate": (logits[~there] > 0).float().mean().item(),
        "missed_success_rate": (logits[there] <= 0).float().mean().item(),
    }


def calibrate(network: SuccessDetector, model: WorldModel, sampler: GoalSampler) -> None:
    """Set the offset so that `FALSE_SUCCESS_RATE` of the frames not at a goal count as success."""
    logits, there = judged(network, model, sampler)
    network.offset += logits[~there].quantile(1 - FALSE_SUCCESS_RATE).item()


def train(config: SuccessConfig) -> Progress:
    """Train the detector, calibrate and write it; see `train_beside`."""
    return train_beside(config, SUCCESS, "success-detector", _prepare)


def _prepare(config: SuccessConfig, model: WorldModel, dataset: Dataset) -> Training:
    samplers = goal_samplers(dataset, model, config.batch_size, config.seed)
    network = SuccessDetector(model.config.num_tokens, model.config.encoder.latent_dim)

    def loss(batch: Batch, step: int) -> dict[str, Tensor]:
        logits, there = logits_of(network, batch)
        return {"loss": F.binary_cross_entropy_with_logits(logits, there.float())}

    def test() -> dict[str, float]:
        calibrate(network, model, samplers["validation"])
        return figures(network, model, samplers["test"]) if "test" in samplers else {}

    return Training(
        network,
        test,
        {
            "draw": samplers["train"].batch,
            "loss": loss,
            "evaluate": lambda: figures(network, model, samplers["validation"]),
            "score": "success_loss",
        },
    )


def main() -> int:
    """Run the command line."""
    return run_recipe(train, SuccessConfig)


if __name__ == "__main__":
    raise SystemExit(main())
