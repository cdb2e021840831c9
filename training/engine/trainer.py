"""The training loop all recipes share: a time budget, a log, and checkpoints to resume from.

Every random choice follows from the seed and the number of the step, so a resumed run goes on
with the batches it would have seen. A run that is interrupted (Ctrl-C, or killed) continues when
the same command is given again.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from torch import Tensor, nn
from tqdm import tqdm

from jepa_gym.training.engine.schedules import warmup_constant_decay

STATE_NAME = "trainer.pt"
BEST_NAME = "best.pt"
LOG_NAME = "log.jsonl"
LOG_EVERY_S = 20.0
FREE_SETTINGS = ("output", "eval_minutes", "save_minutes", "threads")
"""What may differ when a run is resumed: it does not change what is learned."""


@dataclass(frozen=True, slots=True)
class RunConfig:
    """What every recipe's command line has."""

    data: Path
    """Dataset folder, as written by `collect`."""
    output: Path
    """Folder of the run: log, resumable state and the finished model."""
    minutes: float = 40.0
    """Time budget in minutes, evaluations included; the learning rate decays towards its end."""
    seed: int = 0
    """Decides initial weights, batches, masks and projections."""
    batch_size: int = 16
    """Clips per step."""
    learning_rate: float = 1e-3
    """Peak learning rate of AdamW."""
    weight_decay: float = 0.04
    """Of matrices; biases and norms have none."""
    gradient_clip: float = 1.0
    """Largest gradient norm."""
    eval_minutes: float = 5.0
    """Minutes between evaluations on held-out episodes."""
    save_minutes: float = 2.0
    """Minutes between resumable states."""
    threads: int = os.cpu_count() or 1
    """Threads of the tensor library."""
    bf16: bool = True
    """Compute in bfloat16 where that is safe (faster on processors that have it)."""
    skip_corrupt: bool = False
    """Leave corrupt episodes out, with a warning, instead of stopping."""

    def __post_init__(self) -> None:
        """Check ranges."""
        for name in ("minutes", "batch_size", "learning_rate", "gradient_clip", "threads"):
            if getattr(self, name) <= 0:
                raise ValueError(f"`{name}` must be positive, got {getattr(self, name)}")
        for name in ("eval_minutes", "save_minutes"):
            if getattr(self, name) <= 0:
                raise ValueError(f"`{name}` must be positive, got {getattr(self, name)}")
        if self.seed < 0:
            raise ValueError(f"`seed` must not be negative, got {self.seed}")


@dataclass
class Progress:
    """Where a run stands; saved with it."""

    step: int = 0
    elapsed_s: float = 0.0
    best_score: float = float("inf")
    best_figures: dict[str, float] | None = None
    best_step: int = 0


class Trainer:
    """Runs a loss for a given time."""

    def __init__(
        self,
        config: RunConfig,
        module: nn.Module,
        loss: Callable[[int], dict[str, Tensor]],
        evaluate: Callable[[], dict[str, float]],
        score: str,
        after_step: Callable[[], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare a run, or resume the one in `config.output`.

        Args:
            config: the run.
            module: everything that is saved; what requires a gradient is trained.
            loss: step number -> named losses, of which `loss` is minimised.
            evaluate: figures on held-out data; called with the module in evaluation mode.
            score: the figure that chooses the best state, lower is better.
            after_step: called after each optimiser step (moving averages).
            clock: seconds.

        Raises:
            ValueError: `config.output` holds a run of another configuration.
        """
        self.config, self.module, self.loss = config, module, loss
        self.evaluate, self.score, self.after_step = evaluate, score, after_step
        self.clock = clock
        self.parameters = [p for p in module.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(_groups(self.parameters, config), lr=0.0, fused=True)
        self.progress = Progress()
        config.output.mkdir(parents=True, exist_ok=True)
        self._resume()

    def run(self) -> Progress:
        """Train to the end of the budget and leave the best state in the module.

        Returns:
            The final progress, with the figures of the best state.

        Raises:
            KeyboardInterrupt: on Ctrl-C, after the state was saved.
            FloatingPointError: the loss is not finite.
        """
        budget_s = self.config.minutes * 60
        started, before = self.clock(), self.progress.elapsed_s
        sums: dict[str, float] = defaultdict(float)
        counted = 0
        bar = tqdm(total=round(budget_s), initial=round(before), unit="s", desc="train")
        with _interrupt_flag() as interrupted, bar:
            while (last := self.progress.elapsed_s) < budget_s:
                named = self._step(last / budget_s)
                counted += 1
                for name, value in named.items():
                    sums[name] += value
                now = self.progress.elapsed_s = before + self.clock() - started
                due = _Due(last, now, budget_s)
                bar.update(round(now) - bar.n)
                if due(LOG_EVERY_S):
                    means = {name: total / counted for name, total in sums.items()}
                    self._log(means)
                    bar.set_postfix(step=self.progress.step, loss=f"{means['loss']:.3f}")
                    sums.clear()
                    counted = 0
                if due(self.config.eval_minutes * 60):
                    self._evaluate()
                if interrupted or due(self.config.save_minutes * 60):
                    self._save()
                if interrupted:
                    raise KeyboardInterrupt
        best = torch.load(self.config.output / BEST_NAME, weights_only=True)
        self.module.load_state_dict(best)
        self.module.eval()
        return self.progress

    def _step(self, progress: float) -> dict[str, float]:
        """Take one optimiser step and return the losses."""
        self.module.train()
        rate = self.config.learning_rate * warmup_constant_decay(progress)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        device = self.parameters[0].device.type
        with torch.autocast(device, torch.bfloat16, enabled=self.config.bf16):
            losses = self.loss(self.progress.step)
        self.optimizer.zero_grad(set_to_none=True)
        losses["loss"].backward()
        norm = nn.utils.clip_grad_norm_(self.parameters, self.config.gradient_clip)
        named = {name: value.item() for name, value in losses.items()}
        named["gradient_norm"] = norm.item()
        if not all(map(_finite, named.values())):
            raise FloatingPointError(
                f"step {self.progress.step}: {named}; lower --learning-rate or pass --no-bf16. "
                f"The last good state is in {self.config.output / STATE_NAME}"
            )
        self.optimizer.step()
        if self.after_step:
            self.after_step()
        self.progress.step += 1
        return named

    def _evaluate(self) -> None:
        self.module.eval()
        with torch.no_grad():
            figures = self.evaluate()
        self._log(figures)
        if figures[self.score] <= self.progress.best_score:
            self.progress.best_score = figures[self.score]
            self.progress.best_figures = figures
            self.progress.best_step = self.progress.step
            _save_atomic(self.module.state_dict(), self.config.output / BEST_NAME)

    def _log(self, values: dict[str, float]) -> None:
        line = {
            "step": self.progress.step,
            "minutes": round(self.progress.elapsed_s / 60, 3),
            "learning_rate": self.optimizer.param_groups[0]["lr"],
            **{name: round(value, 6) for name, value in values.items()},
        }
        with (self.config.output / LOG_NAME).open("a") as file:
            file.write(json.dumps(line) + "\n")

    def _save(self) -> None:
        state = {
            "config": plain(self.config),
            "module": self.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "progress": asdict(self.progress),
        }
        _save_atomic(state, self.config.output / STATE_NAME)

    def _resume(self) -> None:
        path = self.config.output / STATE_NAME
        if not path.is_file():
            return
        state = torch.load(path, weights_only=True)
        ours, theirs = plain(self.config), state["config"]
        changed = [key for key in ours if ours[key] != theirs.get(key) and key not in FREE_SETTINGS]
        if changed:
            raise ValueError(
                f"{path} belongs to a run with other settings ({', '.join(changed)}); repeat its "
                "command to resume it, or choose another --output"
            )
        self.module.load_state_dict(state["module"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.progress = Progress(**state["progress"])
        tqdm.write(f"resuming {path} at {self.progress.elapsed_s / 60:.1f} minutes")


@dataclass(frozen=True)
class _Due:
    """Tells what falls between two moments of a run; the same whether or not it was resumed."""

    last: float
    now: float
    end: float

    def __call__(self, every_s: float) -> bool:
        return self.now // every_s > self.last // every_s or self.now >= self.end


def run_command(train: Callable[[Any], Any], config: type[RunConfig]) -> int:
    """Read a recipe's configuration from the command line and run it.

    Args:
        train: takes the configuration.
        config: its class; fields are flags.

    Returns:
        The exit status, 130 after Ctrl-C.
    """
    try:
        train(tyro.cli(config, description=config.__doc__))
    except KeyboardInterrupt:
        print("\nInterrupted; the state was saved. Give the same command again to go on.")
        return 130
    return 0


def plain(value: Any) -> Any:
    """Return a configuration as JSON-compatible values."""
    return json.loads(json.dumps(asdict(value), default=str))


def command() -> str:
    """Return the command line of this process, for model cards."""
    module = getattr(sys.modules["__main__"], "__spec__", None)
    program = f"python -m {module.name}" if module else Path(sys.argv[0]).name
    return " ".join([program, *sys.argv[1:]])


def _finite(value: float) -> bool:
    return value == value and abs(value) != float("inf")


def _groups(parameters: list[nn.Parameter], config: RunConfig) -> list[dict[str, Any]]:
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]


def _save_atomic(state: Any, path: Path) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        torch.save(state, temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def _interrupt_flag() -> Iterator[list[int]]:
    """Collect Ctrl-C in a list (true once it is not empty), so that a step is never cut in two."""
    received: list[int] = []
    previous = signal.signal(signal.SIGINT, lambda number, _: received.append(number))
    try:
        yield received
    finally:
        signal.signal(signal.SIGINT, previous)
