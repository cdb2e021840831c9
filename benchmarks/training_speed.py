"""Speed of training, as ratios in one run.

`python benchmarks/training_speed.py` measures, by turns and with one thread: a step of our engine
against a step of the published scheme written plainly (`plain_training.py`), with the same weights,
shapes, batches and precision; both against a plain product of large matrices; and the share of a
step that our engine waits for its batch.
"""

from __future__ import annotations

import copy
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jepa_gym.benchmarks import plain_training
from jepa_gym.benchmarks.results import Record
from jepa_gym.benchmarks.timing import Measurement, command, medians
from jepa_gym.config import EncoderConfig, FrameSpec, PredictorConfig, WorldModelConfig
from jepa_gym.training.data.clips import ClipArrays, ClipSampler
from jepa_gym.training.engine.config import RunConfig
from jepa_gym.training.engine.schedules import Schedule
from jepa_gym.training.engine.task import Batch, Task
from jepa_gym.training.engine.throughput import counter, product
from jepa_gym.training.engine.trainer import Trainer
from jepa_gym.training.recipes.losses import teacher_forcing_and_rollout
from jepa_gym.training.recipes.masked_model import MaskedModel
from jepa_gym.world_model import WorldModel

Part = Literal["pretrain", "posttrain", "predictor"]
Precision = Literal["float32", "bfloat16"]
PARTS: tuple[Part, ...] = ("pretrain", "posttrain", "predictor")
RATIO_BAR, SHARE_BAR, WAITING_BAR = 1.5, 0.5, 0.1
MOMENTUM, WEIGHT_DECAY = 0.99925, 0.04
RATE = 7.5e-5
"""Learning rate that published post-training begins with."""
EPISODES, EPISODE_FRAMES = 8, 64
PATCH, STEPS, PRODUCTS = 16, 10**9, 20


@dataclass(frozen=True)
class TrainingSpeedConfig(Measurement):
    """Measure steps of training on the CPU."""

    parts: tuple[Part, ...] = PARTS
    """`pretrain`, `posttrain` as published (which encodes all frames in every step, where we read
    what is kept of them), and `predictor`, the same with kept latents for both."""
    precisions: tuple[Precision, ...] = ("float32", "bfloat16")
    """Of the products; bfloat16 by autocast."""
    size: int = 128
    """Height and width of the frames, a multiple of 16."""
    width: int = 512
    """Width of the encoder that is pre-trained (ViT-L published) and of the action-conditioned
    predictor, a multiple of 64; the sizes of the others follow in the published proportions."""
    depth: int = 6
    """Blocks of these two (24 published)."""
    batch_size: int = 4
    """Clips of a step: of 16 frames for pre-training, of 8 for post-training."""
    threads: int = 1
    """Threads of all."""
    seed: int = 0
    """Of weights and batches."""

    QUICK = {"rounds": 1, "width": 128, "depth": 2, "batch_size": 2}
    LEAST = {"depth": 1, "batch_size": 1, "threads": 1}

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            ValueError: If a number is out of its range, or nothing is to be measured.
        """
        super().__post_init__()
        for name, step in (("size", PATCH), ("width", 64)):
            value = getattr(self, name)
            if value < step or value % step:
                raise ValueError(f"`{name}` must be a positive multiple of {step}, got {value}")
        for name in ("parts", "precisions"):
            if not getattr(self, name):
                raise ValueError(f"`{name}` must name at least one")


@dataclass(frozen=True, slots=True)
class Case:
    """A training of ours, and the plain one."""

    task: Task
    """Ours."""
    batch: Callable[[int], Batch]
    """Step -> batch of the plain one."""
    loss: Callable[[Any, Batch], Tensor]
    """Module and batch -> loss of the plain one, which has a module of its own."""
    average: bool
    """Whether the module has a moving average of its encoder."""


def sizes(width: float, depth: float, head_dim: int) -> dict[str, int]:
    """Return the sizes of transformer blocks, with heads of about this width."""
    embed_dim = round(width)
    heads = range(1, max(1, embed_dim // head_dim) + 1)
    fitting = max(n for n in heads if not embed_dim % (2 * n))
    return {"embed_dim": embed_dim, "depth": max(1, round(depth)), "num_heads": fitting}


def world_model(
    config: TrainingSpeedConfig, encoder: dict[str, int], predictor: PredictorConfig, frames: int
) -> WorldModel:
    """Return a random world model with a video transformer of these sizes."""
    frame = FrameSpec(height=config.size, width=config.size, cameras=("left",))
    of_encoder = EncoderConfig(
        kind="vit", latent_dim=encoder["embed_dim"], patch_size=PATCH, rope="v2", **encoder
    )
    return WorldModel(WorldModelConfig(frame, of_encoder, predictor, train_frames=frames))


def episodes(config: TrainingSpeedConfig, folder: Path) -> ClipArrays:
    """Return episodes of random pictures, states and actions, in a memory-mapped file."""
    rng = np.random.default_rng(config.seed)
    shape = (EPISODES, EPISODE_FRAMES, config.size, config.size, 3)
    frames = np.lib.format.open_memmap(folder / "frames.npy", "w+", np.uint8, shape)
    frames[:] = rng.integers(256, size=shape, dtype=np.uint8)
    states = rng.uniform(-0.3, 0.3, (EPISODES, EPISODE_FRAMES, 7)).astype(np.float32)
    actions = rng.uniform(-0.05, 0.05, (EPISODES, EPISODE_FRAMES - 1, 7)).astype(np.float32)
    ids = tuple(map(str, range(EPISODES)))
    return ClipArrays(frames, np.arange(EPISODES), ids, states, actions)


def pretraining(config: TrainingSpeedConfig, arrays: ClipArrays) -> Case:
    """Return masked pre-training; both have the same masks."""
    frames, width, depth = 16, config.width, config.depth
    predictor = PredictorConfig(rope="v2", **sizes(width * 384 / 1024, depth / 2, 32))
    encoder = world_model(config, sizes(width, depth, 64), PredictorConfig(), frames)
    model = MaskedModel(encoder, predictor, frames)
    sampler = ClipSampler(arrays, frames, config.batch_size, config.seed)

    def draw(step: int, rows: slice) -> Batch:
        masks = model.draw_masks(config.batch_size, torch.Generator().manual_seed(step))
        return {"frames": sampler.batch(step, rows).frames, **masks}

    def loss(batch: Batch, step: int) -> dict[str, Tensor]:
        masks = {name: x for name, x in batch.items() if name != "frames"}
        return {"loss": model.loss(batch["frames"], masks)}

    task = _task(model, draw, loss, lambda course: model.update_target_encoder(MOMENTUM))
    return Case(task, lambda step: draw(step, slice(None)), plain_training.masked_loss, True)


def posttraining(config: TrainingSpeedConfig, arrays: ClipArrays, encoding: bool) -> Case:
    """Return post-training; the plain one encodes, or else reads latents, too."""
    frames, width, depth = 8, config.width, config.depth
    predictor = PredictorConfig(rope="v2", **sizes(width, depth, 64))
    giant = sizes(width * 1408 / 1024, depth * 40 / 24, 64)
    model = world_model(config, giant, predictor, frames)
    model.encoder.requires_grad_(False)
    model.predictor.extrinsics_encoder.requires_grad_(False)
    latents = np.lib.format.open_memmap(
        Path(str(arrays.frames.filename)).with_name("latents.npy"),  # type: ignore[attr-defined]
        "w+",
        np.float16,
        (*arrays.frames.shape[:2], model.config.num_tokens, giant["embed_dim"]),
    )
    for row, episode in enumerate(arrays.frames):
        latents[row] = model.encode(episode[None])[0].numpy()
    kept = replace(arrays, frames=latents)
    ours, plain = (
        ClipSampler(x, frames, config.batch_size, config.seed)
        for x in (kept, arrays if encoding else kept)
    )

    def loss(batch: Batch, step: int) -> dict[str, Tensor]:
        given = batch["frames"].float(), batch["actions"], batch["states"]
        return {"loss": sum(teacher_forcing_and_rollout(model, *given, F.l1_loss), torch.zeros(()))}

    task = _task(model, lambda step, rows: vars(ours.batch(step, rows)), loss)
    return Case(task, lambda step: vars(plain.batch(step)), plain_training.action_loss, False)


def _task(
    module: nn.Module,
    draw: Callable[[int, slice], Batch],
    loss: Callable[[Batch, int], dict[str, Tensor]],
    after_step: Callable[[float], None] | None = None,
) -> Task:
    return Task(module, draw, loss, dict, "", {}, after_step=after_step)


CASES: dict[Part, Callable[[TrainingSpeedConfig, ClipArrays], Case]] = {
    "pretrain": pretraining,
    "posttrain": lambda config, arrays: posttraining(config, arrays, True),
    "predictor": lambda config, arrays: posttraining(config, arrays, False),
}


class Steps:
    """Steps of ours and of the plain one, from the same weights on."""

    def __init__(self, config: TrainingSpeedConfig, case: Case, precision: Precision) -> None:
        """Prepare both.

        Args:
            config: The benchmark.
            case: The training.
            precision: Of both.
        """
        self.case, self.bf16 = case, precision == "bfloat16"
        self.module, self.number = copy.deepcopy(case.task.module), 0
        self.optimizer = plain_training.optimizer(self.module, RATE, WEIGHT_DECAY)
        self.losses: dict[str, list[float]] = {"plain": [], "jepa_gym": []}
        self.waiting: list[float] = []  # shares of our steps
        run = RunConfig(
            data=Path("data"),
            output=Path("output"),
            batch_size=config.batch_size,
            learning_rate=RATE,
            weight_decay=WEIGHT_DECAY,
            schedule=Schedule(warmup=0, decay=0),
            gradient_clip=None,
            bf16=self.bf16,
            threads=config.threads,
        )
        self.trainer = Trainer(run, case.task)

    def ours(self) -> None:
        """Take a step of our engine."""
        began, waited = time.perf_counter(), self.trainer.batches.waited_s
        self.trainer.take_step(STEPS)
        self.losses["jepa_gym"].append(self.trainer.sums[0].item())
        self.trainer.counted = 0
        spent = time.perf_counter() - began
        self.waiting.append((self.trainer.batches.waited_s - waited) / spent)

    def plain(self) -> None:
        """Take a step of the published scheme."""
        batch = self.case.batch(self.number)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
            loss = self.case.loss(self.module, batch)
        pair = (self.module.encoder, self.module.target_encoder) if self.case.average else ()
        self.losses["plain"].append(plain_training.take_step(loss, self.optimizer, pair, MOMENTUM))
        self.number += 1

    @property
    def difference(self) -> float:
        """The largest difference of the losses of a step that both have taken."""
        pairs = zip(self.losses["plain"], self.losses["jepa_gym"], strict=False)
        return max(abs(plain - ours) for plain, ours in pairs)


def measure(
    config: TrainingSpeedConfig, arrays: ClipArrays, part: Part, precision: Precision
) -> Record:
    """Measure one training in one precision, print and return its figures."""
    torch.manual_seed(config.seed)
    steps = Steps(config, CASES[part](config, arrays), precision)
    forwards: dict[str, Callable[[], Any]] = {"plain": steps.plain, "jepa_gym": steps.ours}
    operations = {name: operations_of(step) for name, step in forwards.items()}
    multiply, each = product(torch.device("cpu"), getattr(torch, precision))
    operations["product"] = PRODUCTS * each
    forwards["product"] = lambda: [multiply() for _ in range(PRODUCTS)]
    rows = medians(forwards, config.rounds)
    steps.trainer.batches.close()
    speeds = {name: operations[name] / row["cpu_s"] / 1e9 for name, row in rows.items()}
    found: Record = {
        "part": part,
        "precision": precision,
        "rows": rows,
        "operations": operations,
        "gflop_per_s": speeds,
        "ratio": rows["plain"]["wall_s"] / rows["jepa_gym"]["wall_s"],
        "cpu_ratio": rows["plain"]["cpu_s"] / rows["jepa_gym"]["cpu_s"],
        "share": speeds["jepa_gym"] / speeds["product"],
        "waiting": statistics.median(steps.waiting[2:]),
        "difference": steps.difference,
    }
    print_figures(found)
    return found


def operations_of(step: Callable[[], Any]) -> int:
    """Return the floating-point operations of a step's products."""
    with counter() as counted:
        step()
    return counted.get_total_flops()


def print_figures(found: Record) -> None:
    """Print what `measure` found."""
    print(f"{found['part']}, {found['precision']}")
    for name, seconds in found["rows"].items():
        done, speed = found["operations"][name] / 1e9, found["gflop_per_s"][name]
        print(
            f"  {name:9}{seconds['wall_s']:8.3f} s{seconds['cpu_s']:8.3f} CPU s{done:8.1f} GFLOP"
            f"{speed:7.0f} per CPU s"
        )
    print(
        f"  ratio {found['ratio']:.2f} (bar {RATIO_BAR}), of CPU seconds {found['cpu_ratio']:.2f}\n"
        f"  share of the product's speed {found['share']:.2f} (bar {SHARE_BAR})\n"
        f"  waiting for batches {found['waiting']:.1%} (bar {WAITING_BAR:.0%})\n"
        f"  losses of a step differ by {found['difference']:.1e} at most"
    )


def run(config: TrainingSpeedConfig) -> Record:
    """Measure `config.parts` in `config.precisions`, and return all figures."""
    torch.set_num_threads(config.threads)
    with tempfile.TemporaryDirectory() as folder:
        arrays = episodes(config, Path(folder))
        found = [
            measure(config, arrays, part, precision)
            for part in config.parts
            for precision in config.precisions
        ]
    return {"torch": torch.__version__, "measurements": found}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line with the given flags, or those of the process; return the status."""
    return command(run, TrainingSpeedConfig, arguments)


if __name__ == "__main__":
    sys.exit(main())
