"""The training loop all recipes share.

Every random choice follows from the seed and the number of the step, on every process. A run that
is interrupted, even by `kill -9`, goes on when the same command is given again, and ends with the
weights and the log of an uninterrupted one, on a CPU to the bit.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, nullcontext
from dataclasses import asdict, replace

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.nn.parallel import DistributedDataParallel

from jepa_gym.training.engine.checkpoint import (
    Checkpoints,
    load_optimizer,
    optimizer_tensors,
    part_of,
)
from jepa_gym.training.engine.config import RunConfig, changed_settings, plain, write_settings
from jepa_gym.training.engine.distributed import (
    Processes,
    agreed,
    any_of,
    globalise,
    mean_over_processes,
)
from jepa_gym.training.engine.interrupts import collected_signals, stop_of
from jepa_gym.training.engine.monitors import check_collapse, collapse_figures
from jepa_gym.training.engine.network import build_network, build_optimizer, channels_last
from jepa_gym.training.engine.plan import (
    Plan,
    choose_steps,
    describe,
    evaluation_interval,
    write_plan,
)
from jepa_gym.training.engine.prefetch import Batches
from jepa_gym.training.engine.run_log import RunLog, Status
from jepa_gym.training.engine.schedules import half_cosine
from jepa_gym.training.engine.sharding import gathered, load_whole, shard, whole
from jepa_gym.training.engine.task import Batch, Progress, Task
from jepa_gym.training.engine.throughput import Meter
from jepa_gym.training.engine.wandb_run import WandbRun, import_wandb

SAVE_EVERY_S = 120.0


class Trainer:
    """Runs a task for a number of steps."""

    def __init__(self, config: RunConfig, task: Task, here: Processes | None = None) -> None:
        """Prepare a run, or resume the one in `config.output`.

        Args:
            config: The run.
            task: What is trained.
            here: This process.

        Raises:
            ValueError: `config.output` holds a run with other settings or data, its newest
                checkpoint is damaged, or another process trains in it.
        """
        if config.wandb:
            import_wandb()
        self.config, self.task, self.here = config, task, here or Processes()
        self.share = [
            self.here.share_of(config.batch_size, part, config.accumulate)
            for part in range(config.accumulate)
        ]
        self.batches = Batches(task.draw, self.share, self.here.device)
        self.module = task.module.to(self.here.device)
        if config.channels_last:
            channels_last(self.module)
        if self.here.count > 1:
            globalise(self.module)
        if self.here.device.type == "cuda":
            torch.set_float32_matmul_precision("high" if config.tf32 else "highest")
        self.network = build_network(config, task, self.here.count)
        self._unshard: Callable[[], None] | None = None
        if self.here.count > 1 and config.parallel == "fsdp":
            self._unshard = shard(self.network, self.here.device, self.here.count)
        self.parameters = [p for p in self.module.parameters() if p.requires_grad]
        self.optimizer = build_optimizer(config, task)
        countable = not (config.compile or self._unshard)
        self.meter = Meter(self.here.device, config.bf16, countable)
        self.progress = Progress()
        self.sums = torch.zeros(0)  # losses since the last line of the log
        self.names: list[str] = []
        self.counted = 0
        self.best: dict[str, Tensor] = {}
        self.plan: Plan | None = None
        self.log: RunLog | None = None
        self.checkpoints = Checkpoints(config.output, config.keep)
        self.log_length = 0
        self._resume()

    def run(self) -> Progress:
        """Train to the last step and leave the best state in the module.

        Returns:
            The final progress, with the figures of the best state.

        Raises:
            KeyboardInterrupt: On Ctrl-C or SIGTERM, after the state was saved.
            FloatingPointError: The loss is not finite.
            CollapseError: The representation has collapsed.
        """
        with self._claimed():
            self.plan = choose_steps(self, self.plan)
            before, steps = self.progress.step, self.plan.steps
            if before >= steps:
                self.here.say(
                    f"{self.config.output} is finished: {before} of {steps} steps; "
                    "--steps or --minutes above that go on"
                )
            else:
                self._train(self.plan)
        if self._unshard:
            self._unshard()
        self.module.load_state_dict(self.best)
        self.module.eval()
        return self.progress

    def dry_run(self) -> Progress:
        """Print what a run would do, write nothing to its folder, and return where it stands."""
        before = replace(self.progress)
        with closing(self.batches):
            self.here.say(describe(self, choose_steps(self, self.plan, measured=True)))
        return before

    @contextmanager
    def _claimed(self) -> Iterator[None]:
        """Keep other processes out of the run's folder."""
        if self.here.first:
            self.checkpoints.lock()
        try:
            yield
        finally:
            self.batches.close()
            if self.here.first:
                self.checkpoints.unlock()

    def _train(self, plan: Plan) -> None:
        """Take the steps that are left, with what falls due at them."""
        config = self.config
        eval_every = evaluation_interval(config, plan.steps)
        elapsed, began = self.progress.elapsed_s, time.monotonic()
        with closing(self._begin(plan)) as status, collected_signals() as received:
            saved, loss = began, None
            while self.progress.step < plan.steps:
                with self.meter.counting():
                    self.take_step(plan.steps)
                step = self.progress.step
                last, stopping = step == plan.steps, any_of(bool(received))
                if last or step % config.log_every == 0:
                    loss = self._log()
                if last or step % eval_every == 0:
                    self._evaluate()
                now = time.monotonic()
                self.progress.elapsed_s = elapsed + now - began
                by_clock = not config.save_every and agreed(now - saved > SAVE_EVERY_S)
                if last or stopping or by_clock or step % (config.save_every or step + 1) == 0:
                    self._save(plan)
                    saved = now
                status.update(step, loss)
                if stopping and not last:
                    raise stop_of(received)

    def take_step(self, steps: int) -> None:
        """Take one optimiser step of a run of so many."""
        step, config = self.progress.step, self.config
        self.module.train()
        torch.manual_seed((config.seed * 1_000_003 + step) * self.here.count + self.here.rank)
        rate = config.schedule.rate(step, steps, config.learning_rate)
        for group in self.optimizer.param_groups:
            group["lr"] = group["rate"] * rate
            if config.final_weight_decay is not None and group["decay"]:
                group["weight_decay"] = half_cosine(
                    group["decay"], config.final_weight_decay, config.schedule.course(step, steps)
                )
        self.optimizer.zero_grad(set_to_none=True)
        values: dict[str, Tensor] = {}
        for number in range(len(self.share)):
            batch = self.batches.get(step, number, steps)
            losses = self._backward(step, batch, last=number == len(self.share) - 1)
            for name, value in losses.items():
                part = value.detach().float() / len(self.share)
                values[name] = values[name] + part if number else part
        norm = nn.utils.clip_grad_norm_(self.parameters, config.gradient_clip or math.inf)
        norm = whole({"norm": norm})["norm"]
        self.optimizer.step()
        if self.task.after_step:
            self.task.after_step(config.schedule.course(step, steps))
        self._add(values, norm)
        self.progress.step += 1

    def _backward(self, step: int, batch: Batch, last: bool) -> dict[str, Tensor]:
        """Add the gradients of a part of a batch; return its losses."""
        network = self.network
        parallel = isinstance(network, DistributedDataParallel)
        if isinstance(network, FSDPModule):
            network.set_requires_gradient_sync(last)
        with network.no_sync() if parallel and not last else nullcontext():
            device = self.here.device.type
            with torch.autocast(device, torch.bfloat16, enabled=self.config.bf16):
                losses = self.network(batch, step)
            (losses["loss"] / len(self.share)).backward()
        return losses

    def _add(self, values: dict[str, Tensor], norm: Tensor) -> None:
        """Add a step's losses to the sums, without waiting for them."""
        self.names = [*values, "gradient_norm"]
        row = mean_over_processes(torch.stack([*values.values(), norm.float()]))
        self.sums = self.sums + row if self.counted else row
        self.counted += 1

    def _means(self) -> dict[str, float]:
        """Read the losses since the last line of the log.

        Raises:
            FloatingPointError: One of them is not finite.
        """
        means = dict(zip(self.names, (self.sums / self.counted).tolist(), strict=True))
        if not all(map(math.isfinite, means.values())):
            raise FloatingPointError(
                f"not finite within the {self.counted} steps before step {self.progress.step}: "
                f"{means}; lower --learning-rate or pass --no-bf16 in a new --output. The last "
                f"good state is in {self.checkpoints.folder}"
            )
        return means

    def _log(self) -> float:
        """Write a line with the mean losses since the last one; return the loss."""
        means, step = self._means(), self.progress.step
        self.counted = 0
        if self.log:
            rate = self.optimizer.param_groups[0]["lr"]
            self.log.write(step, {**means, "learning_rate": rate})
            waited, clips = self.batches.waited_s, self.config.batch_size
            self.log.show(step, self.meter.read(step, waited, clips))
        return means["loss"]

    def _evaluate(self) -> None:
        """Log the figures of the present state, and keep it if it is the best one."""
        step, task = self.progress.step, self.task
        if self.counted:
            self._means()  # nothing that is not finite is evaluated
        figures = agreed(self.evaluate())
        if self.log:
            self.log.write(step, figures)
        if not math.isfinite(figures[task.score]):
            raise FloatingPointError(f"step {step}: {task.score} is {figures[task.score]}")
        check_collapse(figures, step)
        if figures[task.score] <= self.progress.best_score:
            self.progress.best_score = figures[task.score]
            self.progress.best_figures, self.progress.best_step = figures, step
            state = whole(self.module.state_dict())
            self.best = {name: x.cpu().clone() for name, x in state.items()}

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """Return the figures of the present state, collapse monitors included."""
        self.module.eval()
        with gathered(self.network):
            figures = dict(self.task.evaluate())
            if self.task.watch:
                figures |= collapse_figures(self.task.watch())
            # Where parameters are shared out, what one process computes alone makes it gather in
            # another order than the others at the next step: so all draw.
            if self.task.pictures and (self.log or self._unshard):
                pictures = self.task.pictures()
                if self.log:
                    self.log.draw(self.progress.step, pictures)
            return figures

    def _begin(self, plan: Plan) -> Status:
        """Open the log, and write what a run begins with."""
        config, step = self.config, self.progress.step
        self.meter.begin(step, self.batches.waited_s)
        if self.here.first:
            if step:
                self.here.say(f"going on with {config.output} at step {step} of {plan.steps}")
            write_settings(config)
            web = config.wandb and WandbRun(config.wandb, config.output, plain(config))
            self.log = RunLog(config.output, self.log_length, step, web or None)
            write_plan(config.output, plan)
        self._save(plan)
        return Status(step, plan.steps, self.here.first, self.log)

    def _save(self, plan: Plan) -> None:
        """Write a checkpoint, in the first process."""
        if self.counted:
            self._means()  # nothing that is not finite is saved
        if not self.log and not self._unshard:
            return
        tensors = {f"module.{name}": x for name, x in self.module.state_dict().items()}
        moments = optimizer_tensors(self.optimizer, self.module)
        tensors = whole(tensors | {f"optimizer.{name}": x for name, x in moments.items()})
        if not self.log:
            return
        tensors |= {f"best.{name}": x for name, x in self.best.items()}
        tensors["sums"] = self.sums
        facts = {
            "progress": asdict(self.progress),
            "plan": asdict(plan),
            "settings": plain(self.config),
            "inputs": dict(self.task.inputs),
            "names": self.names,
            "counted": self.counted,
            "log_length": self.log.synced_length(),
        }
        self.checkpoints.save(self.progress.step, tensors, facts)

    def start_from(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over the weights and the optimiser's moments of a checkpoint, of any run.

        Args:
            tensors: As `Checkpoints.load` returns them.
        """
        load_whole(self.module, part_of(tensors, "module"))
        load_optimizer(self.optimizer, self.module, part_of(tensors, "optimizer"))

    def _resume(self) -> None:
        found = self.checkpoints.load()
        if found is None:
            return
        tensors, facts = found
        changed = changed_settings(self.config, facts["settings"])
        changed += [
            f"the content of {name} is another ({value[:12]}, was {old[:12]})"
            for name, value in self.task.inputs.items()
            if (old := facts["inputs"].get(name, "none")) != value
        ]
        if changed:
            raise ValueError(
                f"{self.config.output} holds a run that differs: {'; '.join(changed)}. Repeat its "
                "command to go on with it, or choose another --output"
            )
        self.start_from(tensors)
        self.best = {name: x.clone() for name, x in part_of(tensors, "best").items()}
        self.sums = tensors["sums"].clone().to(self.here.device)
        self.names, self.counted = facts["names"], facts["counted"]
        self.progress, self.plan = Progress(**facts["progress"]), Plan(**facts["plan"])
        self.log_length = facts["log_length"]
