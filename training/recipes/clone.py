"""Goal-conditioned behaviour cloning on states: what a recording did next, on the way to a goal.

`jepa-gym clone --data data/franka --task grasp --output runs/clone`

The policy reads what a task of the suite observes without pictures: the hand's state, where the
task's thing is (`achieved_goal`: the hand in reaching, else the object) and where it shall be
(`desired_goal`). Goals are where it was later in the same episode. It is a baseline: the same
recordings as the world model's, without a model. `jepa-gym amortise` is the same on latents.

Reference: goal-conditioned supervised learning (arXiv 1912.06088).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jepa_gym.agents.policy import write_policy
from jepa_gym.models.inverse import KEEP, gripper_classes
from jepa_gym.names import check_choice
from jepa_gym.training.data.dataset import Dataset
from jepa_gym.training.engine.config import RunConfig, run_recipe
from jepa_gym.training.engine.distributed import processes
from jepa_gym.training.engine.task import Batch, Progress, Task
from jepa_gym.training.engine.trainer import Trainer
from jepa_gym.training.recipes.finish import open_dataset, provenance, report
from jepa_gym.training.recipes.probe_targets import Track

TASKS = ("reach", "grasp", "reach-with-object", "pick-place")
POLICY_NAME = "policy.safetensors"
HIDDEN = 256
DIMENSIONS = (0, 1, 2, 6)
"""Numbers of an action that it chooses: translation and gripper."""
OBSERVED = {"achieved_goal": 3, "desired_goal": 3, "observation": 7}
EVALUATED = 8
"""Batches of an evaluation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CloneConfig(RunConfig):
    """Clone what recordings do on the way to a goal, from states alone; a baseline.

    The agent `policy` acts by the finished `policy.safetensors`.
    """

    task: str = "reach"
    """Whose observations it reads: reach, grasp, reach-with-object, pick-place. All but reach need
    recordings of `jepa-gym collect`, which tell where the object is."""
    minutes: float = 5.0
    """Chooses the number of steps at the start, from a measured rate and evaluations included."""
    batch_size: int = 256
    """Pairs of a step and a goal."""
    learning_rate: float = 1e-3
    """Peak learning rate of AdamW."""

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            ValueError: If there is no such task or a number is out of its range.
        """
        RunConfig.__post_init__(self)
        check_choice("task", self.task, TASKS)


class Actor(nn.Module):
    """A multilayer perceptron; its weights are named as `agents.policy` reads them."""

    def __init__(self) -> None:
        """Create the layers."""
        super().__init__()
        width = sum(OBSERVED.values())
        self.latent_pi = nn.Sequential(
            nn.Linear(width, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU()
        )
        self.mu = nn.Linear(HIDDEN, len(DIMENSIONS))

    def forward(self, batch: Batch) -> Tensor:
        """Return actions (B, 4) over their bounds, in [-1, 1]."""
        observed = torch.cat([batch[key] for key in OBSERVED], -1)
        return self.mu(self.latent_pi(observed)).tanh()


class StateSampler:
    """Draws steps with hindsight goals; batch number k of a seed is always the same."""

    def __init__(
        self, dataset: Dataset, split: str, config: CloneConfig, bounds: np.ndarray
    ) -> None:
        """Read where the hand and the object were.

        Args:
            dataset: The recordings.
            split: Of the dataset.
            config: The run.
            bounds: (4,), of the actions.

        Raises:
            ValueError: If nothing tells where the object was.
        """
        arrays = dataset.load_arrays(split)
        self.states, self.batch_size, self.seed = arrays.states, config.batch_size, config.seed
        self.places = arrays.states[..., :3]
        if config.task != "reach":
            folder = dataset.folder / "episodes"
            tracks = zip(arrays.ids, arrays.states, strict=True)
            self.places = np.stack(
                [Track.read(folder / name, x).object_positions() for name, x in tracks]
            )
        actions = arrays.actions[..., list(DIMENSIONS)] / bounds
        # an object stops the fingers halfway: what counts is whether they open or close
        changes = gripper_classes(torch.from_numpy(arrays.actions[..., 6])).numpy() - KEEP
        actions[..., -1] = changes
        self.actions = actions.clip(-1, 1)

    def batch(self, number: int, rows: slice = slice(None)) -> Batch:
        """Draw batch `number`: what is observed, see `OBSERVED`, and `actions` (B, 4)."""
        rng = np.random.default_rng((self.seed, number))
        last = self.states.shape[1] - 1
        draws = rng.random((3, self.batch_size))[:, rows]
        episodes = (draws[0] * len(self.states)).astype(int)
        starts = (draws[1] * last).astype(int)
        goals = starts + 1 + (draws[2] * (last - starts)).astype(int)
        numbers = {
            "observation": self.states[episodes, starts],
            "achieved_goal": self.places[episodes, starts],
            "desired_goal": self.places[episodes, goals],
            "actions": self.actions[episodes, starts],
        }
        return {name: torch.from_numpy(x.astype(np.float32)) for name, x in numbers.items()}


@torch.no_grad()
def figures(actor: Actor, sampler: StateSampler, bounds: np.ndarray) -> dict[str, float]:
    """Measure an actor on steps that it never saw.

    Returns:
        `clone_loss`; `movement_cm`, the mean error of the translation along an axis.
    """
    losses, errors, device = [], [], actor.mu.weight.device
    for number in range(EVALUATED):
        batch = {key: x.to(device) for key, x in sampler.batch(number).items()}
        difference = (actor(batch) - batch["actions"]).abs()
        losses.append(difference.mean())
        errors.append(difference[:, :3].mean())
    centimetres = 100 * float(bounds[0]) * torch.stack(errors).mean().item()
    return {"clone_loss": torch.stack(losses).mean().item(), "movement_cm": centimetres}


def train(config: CloneConfig) -> Progress:
    """Train the policy and write the best one.

    Returns:
        The finished progress.

    Raises:
        FileNotFoundError, ValueError: As `open_dataset` and `StateSampler`.
    """
    with processes(config.device, config.threads) as here:
        dataset = open_dataset(config)
        bounds = np.array([dataset.index["max_move_m"]] * 3 + [1.0], np.float32)
        samplers = {
            split: StateSampler(dataset, split, config, bounds) for split in ("train", "validation")
        }
        torch.manual_seed(config.seed)
        actor = Actor().to(here.device)

        def loss(batch: Batch, step: int) -> dict[str, Tensor]:
            return {"loss": F.l1_loss(actor(batch), batch["actions"])}

        task = Task(
            module=actor,
            draw=samplers["train"].batch,
            loss=loss,
            evaluate=lambda: figures(actor, samplers["validation"], bounds),
            score="clone_loss",
            inputs={"data": dataset.hash},
        )
        trainer = Trainer(config, task, here)
        if config.dry_run:
            return trainer.dry_run()
        progress = trainer.run()
        if here.first:
            path = _write(config, actor, bounds, provenance("clone", config, dataset, progress))
            report(f"wrote {path}", progress, {})
        return progress


def _write(config: CloneConfig, actor: Actor, bounds: np.ndarray, card: dict) -> Path:
    path = config.output / POLICY_NAME
    sizes = {
        "observation": OBSERVED,
        "action_low": (-bounds).tolist(),
        "action_high": bounds.tolist(),
        "dimensions": list(DIMENSIONS),
        "card": card,
    }
    write_policy(path, {name: x.cpu() for name, x in actor.state_dict().items()}, sizes)
    return path


def main() -> int:
    """Run the command line."""
    return run_recipe(train, CloneConfig)


if __name__ == "__main__":
    raise SystemExit(main())
