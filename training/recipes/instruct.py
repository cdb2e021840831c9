"""Train what turns an instruction in words into a goal for the planner.

`jepa-gym instruct --checkpoint FOLDER --data data/instructed --minutes 8`

The world model stays as it is. From the latent of a frame, the state and the words the network
predicts the latent of the frame that the instruction leads to, which the simulator has shown
(`jepa-gym instructed-scenes`), how far the hand moves to it, and of which kind the instruction is.
Loss: L1 of latent and move, and a cross-entropy. Sentences are drawn anew for every batch. One way
of saying each instruction is held out, and used for the figures of test scenes alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from jepa_gym.checkpoint.beside import INSTRUCTION, encoder_hash
from jepa_gym.checkpoint.safetensors_file import read_safetensors
from jepa_gym.files import parse_json
from jepa_gym.instructions import KINDS, LONGEST, TEMPLATES, WORDS, held_out, word_numbers
from jepa_gym.models import InstructionModel
from jepa_gym.models.instruction import MOVE_M
from jepa_gym.training.data.dataset import SPLITS, split_of
from jepa_gym.training.engine.config import command, plain, run_recipe
from jepa_gym.training.engine.distributed import processes
from jepa_gym.training.engine.task import Batch, Progress, Task
from jepa_gym.training.engine.trainer import Trainer
from jepa_gym.training.recipes.beside import BesideConfig, beside_model
from jepa_gym.training.recipes.finish import report
from jepa_gym.world_model import WorldModel

EVALUATED = 8
"""Batches of an evaluation."""
MOVE_WEIGHT, KIND_WEIGHT = 3.0, 0.1
RECORDED_KINDS, RECORDED_EACH = ("grasp", "lift"), 128
"""Kinds of instruction of which so many recorded goals are kept beside the weights, at most."""
ANYTHING = ("object", "thing")
"""Said of any object, in half of the sentences."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InstructConfig(BesideConfig):
    """Train the network of instructions on a world model's latents; the model stays as it is.

    The agent `instructed` finds the finished `instruction.safetensors` beside the world model.
    """

    minutes: float = 8.0
    """Chooses the number of steps at the start, from a measured rate and evaluations included."""
    batch_size: int = 64
    """Frames with an instruction and the frame that it leads to."""
    learning_rate: float = 1e-3
    """Peak learning rate of AdamW."""


@dataclass(frozen=True)
class Scenes:
    """S scenes of one split, with P instructions in all."""

    start: Tensor
    """(S, N, D) float16."""
    states: Tensor
    """(S, 7)."""
    goals: Tensor
    """(P, N, D) float16."""
    goal_states: Tensor
    """(P, 7)."""
    scene: np.ndarray
    """(P,), the scene of each instruction."""
    kinds: np.ndarray
    """(P,), indices into `KINDS`."""
    objects: Sequence[str]
    """(S,), names."""


def read_scenes(folder: Path, encoder: str) -> dict[str, Scenes]:
    """Read recorded scenes, by split (a hash of their numbers).

    Args:
        folder: Written by `jepa-gym instructed-scenes`.
        encoder: Hash of the encoder whose latents they must hold.

    Raises:
        FileNotFoundError: If there are none.
        ValueError: If they hold latents of another encoder, or a split is empty.
        CheckpointError: If a file is damaged.
    """
    index = folder / "scenes.json"
    if not index.is_file():
        raise FileNotFoundError(
            f"{index} does not exist: give a folder that `jepa-gym instructed-scenes` has written"
        )
    if parse_json(index.read_text())["encoder"] != encoder:
        raise ValueError(
            f"{folder} holds latents of another world model; record this model's own with "
            "`jepa-gym instructed-scenes`"
        )
    found: dict[str, list[dict[str, Tensor]]] = {split: [] for split in SPLITS}
    for path in sorted(folder.glob("*.safetensors")):
        found[split_of(path.stem)].append(read_safetensors(path)[0])
    for split, scenes in found.items():
        if not scenes:
            raise ValueError(f"no scene of {folder} falls into the {split} split: record 200 or so")
    return {split: _joined(scenes) for split, scenes in found.items()}


def _joined(scenes: Sequence[dict[str, Tensor]]) -> Scenes:
    counts = [len(scene["kinds"]) for scene in scenes]
    return Scenes(
        torch.stack([scene["start"] for scene in scenes]),
        torch.stack([scene["state"] for scene in scenes]),
        torch.cat([scene["goals"] for scene in scenes]),
        torch.cat([scene["goal_states"] for scene in scenes]),
        np.repeat(np.arange(len(scenes)), counts),
        torch.cat([scene["kinds"] for scene in scenes]).numpy(),
        [bytes(scene["object"].tolist()).decode() for scene in scenes],
    )


def recorded_goals(scenes: Scenes) -> tuple[Tensor, Tensor]:
    """Return the goals (M, N, D) that are kept beside the weights, and their kinds (M,).

    Raises:
        ValueError: If there are none.
    """
    rows = [np.flatnonzero(scenes.kinds == KINDS.index(kind)) for kind in RECORDED_KINDS]
    chosen = np.concatenate([of_kind[:RECORDED_EACH] for of_kind in rows])
    if not len(chosen):
        raise ValueError(
            f"no training scene shows what {' or '.join(RECORDED_KINDS)} leads to: record more of "
            "them with `jepa-gym instructed-scenes`"
        )
    return scenes.goals[chosen].float(), torch.from_numpy(scenes.kinds[chosen]).float()


class InstructionSampler:
    """Draws instructions with words, every kind alike; batch number k is always the same."""

    def __init__(self, scenes: Scenes, batch_size: int, seed: int, *, paraphrases: bool) -> None:
        """Prepare sampling.

        Args:
            scenes: A split.
            batch_size: B.
            seed: Any non-negative integer.
            paraphrases: Draw the way of saying it that is held out, and no other.
        """
        self.scenes, self.batch_size, self.seed = scenes, batch_size, seed
        self._paraphrases = paraphrases
        self._of_kind = [np.flatnonzero(scenes.kinds == kind) for kind in range(len(KINDS))]
        self._kinds = [kind for kind, rows in enumerate(self._of_kind) if len(rows)]

    def batch(self, number: int, rows: slice = slice(None)) -> Batch:
        """Draw batch `number`.

        Returns:
            `latents` and `goals` (B, N, D) float16, `states` (B, 7), `moves` (B, 3) of the hand in
            metres, `words` (B, L) and `kinds` (B,) int64.
        """
        rng = np.random.default_rng((self.seed, number))
        chosen, words = [], []
        for kind in rng.choice(self._kinds, self.batch_size):
            row = rng.choice(self._of_kind[kind])
            chosen.append(row)
            words.append(word_numbers(self._said(KINDS[kind], self.scenes.scene[row], rng)))
        after = np.array(chosen)[rows]
        scene = self.scenes.scene[after]
        states = self.scenes.states[scene]
        return {
            "latents": self.scenes.start[scene],
            "goals": self.scenes.goals[after],
            "states": states,
            "moves": self.scenes.goal_states[after, :3] - states[:, :3],
            "kinds": torch.from_numpy(self.scenes.kinds[after]),
            "words": torch.from_numpy(np.stack(words)[rows]),
        }

    def _said(self, kind: str, scene: int, rng: np.random.Generator) -> str:
        template = held_out(kind) if self._paraphrases else rng.choice(TEMPLATES[kind][:-1])
        name = self.scenes.objects[scene] if rng.random() < 0.5 else rng.choice(ANYTHING)
        return str(template).format(name)


@torch.no_grad()
def figures(
    network: InstructionModel, model: WorldModel, sampler: InstructionSampler
) -> dict[str, float]:
    """Measure the network on instructions that it never saw.

    Returns:
        `goal_loss`, the mean energy between predicted and true goals, and `still_loss`, that
        between the present frames and the true goals; `move_cm`, the mean error of the hand's place
        (Euclidean); `kind_right`, the share of instructions whose kind is recognised.
    """
    told, still, moves, kinds = [], [], [], []
    for number in range(EVALUATED):
        batch = {k: x.to(model.device) for k, x in sampler.batch(number).items()}
        goals, latents = batch["goals"].float(), batch["latents"].float()
        guess = network(latents, model.normaliser.states(batch["states"]), batch["words"])
        told.append((guess.goals - goals).abs().mean())
        moves.append((guess.moves - batch["moves"]).norm(dim=1).mean())
        kinds.append((guess.kinds.argmax(1) == batch["kinds"]).float().mean())
        still.append((latents - goals).abs().mean())
    return {
        "goal_loss": torch.stack(told).mean().item(),
        "still_loss": torch.stack(still).mean().item(),
        "move_cm": 100 * torch.stack(moves).mean().item(),
        "kind_right": torch.stack(kinds).mean().item(),
    }


def train(config: InstructConfig) -> Progress:
    """Train the network and write the best one.

    Returns:
        The finished progress.

    Raises:
        FileNotFoundError, ValueError: As `read_scenes` and `beside_model`.
    """
    with processes(config.device, config.threads) as here:
        model = WorldModel.from_pretrained(config.checkpoint, here.device).requires_grad_(False)
        folder, run = beside_model(config.checkpoint, model, config.output, "instruct")
        config = replace(config, output=run)
        encoder, sizes = encoder_hash(model), model.config
        samplers = {
            split: InstructionSampler(
                scenes, config.batch_size, config.seed, paraphrases=split == "test"
            )
            for split, scenes in read_scenes(config.data, encoder).items()
        }
        torch.manual_seed(config.seed)
        goals, kinds = recorded_goals(samplers["train"].scenes)
        shape = (sizes.num_tokens, sizes.encoder.latent_dim)
        network = InstructionModel(*shape, len(WORDS), LONGEST, len(KINDS), len(goals))
        network.recorded.copy_(goals)
        network.recorded_kinds.copy_(kinds)
        network.to(here.device)

        def loss(batch: Batch, step: int) -> dict[str, Tensor]:
            states = model.normaliser.states(batch["states"])
            guess = network(batch["latents"].float(), states, batch["words"])
            goal = F.l1_loss(guess.goals, batch["goals"].float())
            move = F.l1_loss(guess.moves, batch["moves"]) / MOVE_M
            kind = F.cross_entropy(guess.kinds, batch["kinds"])
            total = goal + MOVE_WEIGHT * move + KIND_WEIGHT * kind
            return {"loss": total, "goal": goal.detach(), "move": move.detach()}

        task = Task(
            module=network,
            draw=samplers["train"].batch,
            loss=loss,
            evaluate=lambda: figures(network, model, samplers["validation"]),
            score="goal_loss",
            inputs={"data": encoder, "checkpoint": encoder},
        )
        trainer = Trainer(config, task, here)
        if config.dry_run:
            return trainer.dry_run()
        progress = trainer.run()
        if here.first:
            test = figures(network, model, samplers["test"])
            card = {
                "recipe": "instruct",
                "command": command(),
                "seed": config.seed,
                "settings": plain(config) | {"data": config.data.name, "output": run.name},
                "scenes": {k: len(x.scenes.objects) for k, x in samplers.items()},
                "optimiser steps": progress.step,
                "wall time, minutes": round(progress.elapsed_s / 60, 1),
                "validation": progress.best_figures,
                "test": test,
            }
            path = INSTRUCTION.write(folder, network, model, card)
            report(f"wrote {path}", progress, test)
        return progress


def main() -> int:
    """Run the command line."""
    return run_recipe(train, InstructConfig)


if __name__ == "__main__":
    raise SystemExit(main())
