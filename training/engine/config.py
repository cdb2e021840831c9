"""What every recipe's command line has, and how it is saved and read again.

The settings of a run stand in its folder as settings.json. `--config FILE` reads such a file, or
`--config NAME` one of a recipe's presets; flags beside it win.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch

from jepa_gym import commands
from jepa_gym.files import atomic_write, parse_json
from jepa_gym.names import did_you_mean
from jepa_gym.training.engine.schedules import Schedule

SETTINGS_NAME = "settings.json"
UNSAVED = ("config", "dry_run")
FREE_SETTINGS = (
    *("output", "steps", "minutes", "save_every", "eval_every", "log_every", "keep"),
    *("device", "threads", "tf32", "compile", "checkpoint_activations", "decode", "readers"),
    *("parallel", "channels_last", "wandb", "decoder"),
)
"""What may differ when a run is resumed: how long it is, and how it is computed."""
Preset = Mapping[str, Any]
"""Settings by name, nested as in settings.json."""


@dataclass(frozen=True, slots=True)
class RunConfig:
    """What every recipe's command line has."""

    BY_CONTENT: ClassVar[tuple[str, ...]] = ("data",)
    """Settings that name files; when a run is resumed their content is compared instead."""

    data: Path
    """Dataset folder, as written by `jepa-gym collect` or `jepa-gym make-index`."""
    output: Path
    """Folder of the run: settings, log, TensorBoard, checkpoints and the finished model."""
    config: str | None = None
    """File with settings, as a run's settings.json, or name of a preset; other flags win."""
    steps: int | None = None
    """Optimiser steps; None takes as many as fit into `minutes`."""
    minutes: float = 40.0
    """Chooses the number of steps at the start, from a measured rate and evaluations included. The
    number is then fixed: a resumed run takes as many, however fast the machine is by then."""
    save_every: int | None = None
    """Steps between checkpoints; None saves about every two minutes."""
    eval_every: int | None = None
    """Steps between evaluations on validation episodes; None takes an eighth of the run."""
    log_every: int = 50
    """Steps between lines of log.jsonl, each the mean over these steps."""
    keep: int = 2
    """Checkpoints kept; each holds the best state, too."""
    seed: int = 0
    """Decides initial weights, batches, masks and projections."""
    batch_size: int = 16
    """Clips per step, over all processes."""
    accumulate: int = 1
    """Parts that a process's share of a batch is computed in, one after the other, to save memory.
    Statistics over the batch are then over one part of all processes."""
    learning_rate: float = 1e-3
    """Peak learning rate of AdamW."""
    schedule: Schedule = field(default_factory=Schedule)
    """Course of the learning rate."""
    weight_decay: float = 0.04
    """Of matrices; biases and norms have none."""
    final_weight_decay: float | None = None
    """Where the weight decay leads to, on half a cosine over the run; None keeps it constant."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay rates of AdamW's two moments."""
    gradient_clip: float | None = 1.0
    """Largest gradient norm; None does not clip."""
    device: str = "auto"
    """Torch device; auto takes a GPU where there is one. With torchrun each process has its own."""
    threads: int = os.cpu_count() or 1
    """Threads of the tensor library."""
    bf16: bool = True
    """Compute in bfloat16 where that is safe (faster on processors that have it)."""
    tf32: bool = True
    """Let a GPU multiply float32 matrices in TF32."""
    compile: bool = False
    """Compile the loss with torch.compile."""
    parallel: Literal["ddp", "fsdp"] = "ddp"
    """With several processes: each has all parameters (ddp), or a share of them, of the gradients
    and of the moments (fsdp), for models that do not fit otherwise."""
    checkpoint_activations: bool = False
    """Recompute transformer blocks in the backward pass instead of keeping their activations."""
    channels_last: bool = False
    """Keep the weights of convolutions channels last, which some GPUs are faster with."""
    wandb: str | None = None
    """Project of Weights & Biases that shows the run beside TensorBoard (extra `wandb`)."""
    skip_corrupt: bool = False
    """Leave corrupt episodes out, with a warning, instead of stopping."""
    image_size: int | None = None
    """Height and width in pixels that a view is resized to; None leaves it as the data has it."""
    decode: str = "auto"
    """`cache` decodes every frame once and keeps it on the disk, `on-the-fly` decodes clips when
    they are drawn; `auto` takes the cache where it fits on the disk."""
    readers: int | None = None
    """Threads that prepare the next batches; by default one for each processor where clips are
    decoded on the fly, else none."""
    dry_run: bool = False
    """Print the plan (shapes, parameters, memory, steps, measured time) and write nothing."""

    def __post_init__(self) -> None:
        """Check ranges."""
        for name in (
            *("steps", "minutes", "save_every", "eval_every", "log_every", "keep", "batch_size"),
            *("accumulate", "learning_rate", "gradient_clip", "threads"),
        ):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"`{name}` must be positive, got {value}")
        for name in ("seed", "weight_decay", "final_weight_decay"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise ValueError(f"`{name}` must not be negative, got {value}")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"`betas` must be in [0, 1), got {self.betas}")
        if self.device != "auto":
            try:
                torch.device(self.device)
            except RuntimeError:
                raise ValueError(
                    f"`device` must be auto, cpu, cuda, cuda:0, ..., got {self.device!r}"
                ) from None


def plain(config: RunConfig) -> dict[str, Any]:
    """Return a configuration as JSON-compatible values."""
    return _saved(asdict(config))


def write_settings(config: RunConfig) -> None:
    """Write settings.json to the run's folder."""
    with atomic_write(config.output / SETTINGS_NAME) as path:
        path.write_text(json.dumps(plain(config), indent=1) + "\n")


def changed_settings(config: RunConfig, before: Mapping[str, Any]) -> list[str]:
    """Return in words what differs from the settings of an earlier run, and may not.

    Settings that the version of the earlier run did not have mean their defaults.
    """
    now, free = plain(config), (*FREE_SETTINGS, *config.BY_CONTENT)
    before = _completed(before, _defaults(config))
    names = [name for name in sorted({*now, *before}) if name not in free]
    return [
        f"{name} was {before.get(name)}, is {now.get(name)}"
        for name in names
        if now.get(name) != before.get(name)
    ]


def _defaults(config: RunConfig) -> dict[str, Any]:
    """Return the defaults of a configuration's fields as JSON-compatible values."""
    values = {}
    for item in fields(config):
        if item.default is not MISSING:
            values[item.name] = item.default
        elif item.default_factory is not MISSING:
            made = item.default_factory()
            values[item.name] = asdict(made) if is_dataclass(made) else made
    return _saved(values)


def _saved(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings as settings.json has them."""
    values = json.loads(json.dumps(values, default=str))
    return {name: value for name, value in values.items() if name not in UNSAVED}


def _completed(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested values with the defaults of what they do not have."""
    return {**defaults, **values} | {
        name: _completed(values[name], default)
        for name, default in defaults.items()
        if isinstance(default, Mapping) and isinstance(values.get(name), Mapping)
    }


def run_recipe(
    train: Callable[[Any], Any],
    config: type[RunConfig],
    presets: Mapping[str, Preset] | None = None,
) -> int:
    """Read a recipe's configuration from the command line and run it.

    Args:
        train: Takes the configuration.
        config: Its class; fields are flags.
        presets: What `--config NAME` may name beside files.

    Returns:
        The exit status, see `jepa_gym.commands`.
    """

    def run() -> int:
        words = expanded(sys.argv[1:], presets or {})
        return commands.run_command(lambda settings: train(settings) and None, config, words)

    return commands.guarded(run)


def expanded(words: Sequence[str], presets: Mapping[str, Preset]) -> list[str]:
    """Return command-line words with the settings of `--config` put before them, as flags.

    Args:
        words: Flags; the last one of a kind wins.
        presets: Settings by name.

    Raises:
        FileNotFoundError: If `--config` names neither a preset nor a file.
        ValueError: If the file holds no settings.
    """
    named = [
        after if word == "--config" else word.partition("=")[2]
        for word, after in zip(words, [*words[1:], ""], strict=True)
        if word == "--config" or word.startswith("--config=")
    ]
    if not named or not named[-1]:
        return list(words)
    settings = presets.get(named[-1])
    if settings is None:
        path = Path(named[-1])
        if not path.is_file():
            meant = did_you_mean(named[-1], presets)
            raise FileNotFoundError(
                f"--config {named[-1]}: there is no such file, and the presets are "
                f"{sorted(presets) or 'none'}.{meant}"
            )
        try:
            settings = parse_json(path.read_text())
        except ValueError as error:
            raise ValueError(f"{path} holds no settings in JSON ({error})") from error
        if not isinstance(settings, dict):
            raise ValueError(f"{path} must hold a JSON object with settings by name")
    return [*_flags(settings), *words]


def _flags(settings: Preset, prefix: str = "--") -> list[str]:
    """Turn nested settings into command-line words."""
    words = []
    for name, value in settings.items():
        flag = prefix + name.replace("_", "-")
        if isinstance(value, Mapping):
            words += _flags(value, f"{flag}.")
        elif isinstance(value, bool):
            head, dot, last = flag[2:].rpartition(".")
            words.append(f"--{head}{dot}{'' if value else 'no-'}{last}")
        elif isinstance(value, list | tuple):
            words += [flag, *map(str, value)]
        else:
            words += [flag, str(value)]
    return words


def command() -> str:
    """Return the command line of this process, for model cards."""
    module = getattr(sys.modules["__main__"], "__spec__", None)
    program = f"python -m {module.name}" if module else Path(sys.argv[0]).name
    return " ".join([program, *sys.argv[1:]])
