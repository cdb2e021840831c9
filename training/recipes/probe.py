"""Probes: small heads on an encoder's tokens, which tell what the tokens hold.

`jepa-gym probe --data DATASET --model SOURCE --target action --output RUN`

The encoder stays frozen (but for `--finetune`), so every clip is encoded once and its tokens are
kept beside the data. Heads of several learning rates and weight decays learn at once from the same
tokens; validation clips choose one of them, test clips are only reported. `random:SOURCE` is the
control: the same sizes without what was learnt.

Deviation from the publication: clips are not augmented, as their tokens are kept.

Reference: V-JEPA 2 (arXiv 2506.09985), section 5 and appendix; `evals/video_classification_frozen`,
`evals/action_anticipation_frozen`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from jepa_gym.checkpoint.probe import HEADS, LABEL
from jepa_gym.config import FrameSpec
from jepa_gym.names import check_choice
from jepa_gym.training.data.dataset import SPLITS
from jepa_gym.training.engine.config import Preset, RunConfig, command, plain, run_recipe
from jepa_gym.training.engine.distributed import processes
from jepa_gym.training.engine.schedules import Schedule
from jepa_gym.training.engine.task import Progress
from jepa_gym.training.engine.trainer import Trainer
from jepa_gym.training.recipes.finish import open_dataset, provenance, versions
from jepa_gym.training.recipes.probe_examples import Choice, ProbeData, suite_examples
from jepa_gym.training.recipes.probe_models import ANY_VIDEO, published_classifiers
from jepa_gym.training.recipes.probe_report import write_results
from jepa_gym.training.recipes.probe_run import ProbeRun
from jepa_gym.training.recipes.probe_targets import target_of
from jepa_gym.training.recipes.probe_videos import Sampling, video_examples

DEFAULT_TARGET = "action"
VIDEO_SIZE = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeConfig(RunConfig):
    """Train probes on the tokens of an encoder, and report what they can tell."""

    BY_CONTENT: ClassVar[tuple[str, ...]] = ("data", "labels", "model")

    model: str
    """Output folder of `jepa-gym pretrain`; `default` or another world model; a published V-JEPA 2
    by name, file or folder; `random`, or `random:SOURCE` for an untrained one of its sizes."""
    data: Path
    """Dataset folder, as written by `jepa-gym collect` or `jepa-gym make-index`; or a folder of
    videos, with `labels`."""
    labels: Path | None = None
    """Table of the labels of videos, see `jepa_gym.training.recipes.probe_videos`."""
    target: str | None = None
    """What is to be told: hand, object, opening (regression); held, object-kind, skill, direction,
    action (classification, the default); anticipation. Of videos: nothing, or anticipation."""
    head: str | None = None
    """A published attentive probe that is tested as it is on `labels`, instead of training any, by
    name (`vjepa2-ssv2-vitl-16x2x3`) or file; labels are the numbers of its classes."""
    probe: str = "attentive"
    """`attentive` or `linear`."""
    depth: int = 1
    """Blocks of an attentive probe; published: 4, or 1 for the cross-attention alone."""
    rates: tuple[float, ...] = (1.0, 0.3, 0.1)
    """A head for each of these learning rates, over `learning_rate`, ..."""
    decays: tuple[float, ...] = (1.0, 0.1)
    """... with each of these weight decays, over `weight_decay`."""
    learning_rate: float = 3e-3
    """Peak learning rate of a head whose `rates` is 1."""
    weight_decay: float = 0.1
    """Weight decay of a head whose `decays` is 1."""
    gradient_clip: float | None = None
    """Largest gradient norm of all heads together; None does not clip, and heads do not meet."""
    schedule: Schedule = field(default_factory=lambda: Schedule(0.0, 1.0, shape="cosine"))
    """Course of the learning rate."""
    batch_size: int = 64
    """Clips per step, over all processes."""
    steps: int | None = 2000
    """Optimiser steps; None takes as many as fit into `minutes`."""
    finetune: bool = False
    """Train the encoder, too; with one head."""
    encoder_rate: float = 0.1
    """Learning rate of the encoder over that of the head, with `finetune`."""
    frames: int | None = None
    """Frames of a clip; None takes what suits the target."""
    ahead_s: float = 1.0
    """Seconds from a clip's last picture to the move that is anticipated."""
    fps: float | None = None
    """Pictures a second of a clip, of videos; None takes 4, and 8 to anticipate, as published."""
    image_size: int | None = None
    """Height and width in pixels that a view is resized to; None leaves it as the data has it, and
    takes 256 of videos."""
    segments: int = 1
    """Clips of each validation and test video, whose probabilities are averaged; published: 2 for
    Something-Something, 8 for Kinetics."""
    crops: int = 1
    """Squares of each such clip, side by side; published: 3."""
    clips: int = 8000
    """Most training clips."""
    tested: int = 2000
    """Most validation clips, and most test clips."""
    behaviours: tuple[str, ...] = ()
    """Only episodes that were acted so (random, near, held, expert); none given takes all."""
    held_out_objects: tuple[str, ...] = ()
    """Test on these objects, train and choose on the others."""
    against: Path | None = None
    """Output folder of another probe; the difference on the same test clips is reported."""

    def __post_init__(self) -> None:
        """Check names and ranges."""
        RunConfig.__post_init__(self)
        anticipated = self.target == "anticipation"
        if self.labels is None:
            target_of(self.target or DEFAULT_TARGET)
        elif self.target is not None and not anticipated:
            raise ValueError(
                "with `labels` the table says what is to be told: leave `target` out, or give "
                f"`anticipation`, not {self.target!r}"
            )
        elif self.behaviours or self.held_out_objects:
            raise ValueError("`behaviours` and `held_out_objects` are those of recorded episodes")
        if self.head is not None and (self.labels is None or anticipated or self.finetune):
            raise ValueError("`head` is tested on `labels` that are classes, and is not trained")
        if self.segments * self.crops > 1 and (self.labels is None or anticipated):
            raise ValueError(
                "`segments` and `crops` are for the classification of videos, `labels`"
            )
        check_choice("probe", self.probe, HEADS)
        for name in (
            *("depth", "frames", "clips", "tested", "encoder_rate", "ahead_s", "fps", "image_size"),
            *("segments", "crops"),
        ):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"`{name}` must be positive, got {value}")
        for name in ("rates", "decays"):
            values = getattr(self, name)
            if not values or min(values) < 0 or len(set(values)) < len(values):
                raise ValueError(f"`{name}` must be different numbers from 0 on, got {values}")
        if self.finetune and len(self.rates) * len(self.decays) > 1:
            raise ValueError("`finetune` trains one encoder with one head: --rates 1 --decays 1")
        if anticipated and self.probe == "linear":
            raise ValueError("anticipation has three queries: --probe attentive")


PRESETS: dict[str, Preset] = {
    "published": {
        "depth": 4,
        "learning_rate": 5e-3,
        "rates": (1.0, 0.6, 0.2, 0.06, 0.02),
        "weight_decay": 0.8,
        "decays": (1.0, 0.5, 0.125, 0.0125),
        "batch_size": 128,
        "clips": 1_000_000,
        "steps": 20_000,
    }
}
"""The sweep of V-JEPA 2's video classification: learning rates 5e-3, 3e-3, 1e-3, 3e-4 and 1e-4,
each with weight decays 0.8, 0.4, 0.1 and 0.01, on attentive probes of four blocks."""


def train(config: ProbeConfig) -> Progress:
    """Run the recipe and write the best probe with its figures in `config.output`.

    Returns:
        The finished progress; `error` is that of the best head on validation clips.
    """
    with processes(config.device, config.threads) as here:
        published = published_classifiers(config.head) if config.head else {}
        classes = [str(n) for x in published.values() for n in range(x.linear.out_features)]
        classes = tuple(dict.fromkeys(classes))
        data = video_data(config, classes) if config.labels else suite_data(config)
        run = ProbeRun(config, data, here, published)
        if published:
            if config.dry_run:
                here.say("nothing is trained: --head is tested as it is")
            elif here.first:
                write_results(run, config, data.card(Progress()))
            return Progress()
        trainer = Trainer(config, run.task(), here)
        if config.dry_run:
            return trainer.dry_run()
        progress = trainer.run()
        if here.first:
            write_results(run, config, data.card(progress))
        return progress


def suite_data(config: ProbeConfig) -> ProbeData:
    """Label clips of a dataset of recorded episodes; see `suite_examples` for what is raised."""
    name = config.target or DEFAULT_TARGET
    dataset, target = open_dataset(config), target_of(name)
    index = dataset.index
    ahead = max(1, round(config.ahead_s / index["step_s"])) if target.ahead else None
    choice = Choice(
        frames=config.frames or target.frames,
        ahead=ahead,
        clips=config.clips,
        tested=config.tested,
        behaviours=config.behaviours,
        held_out_objects=config.held_out_objects,
        seed=config.seed,
    )
    examples, outputs = suite_examples(dataset, target, choice)
    size, views = index["image_size"], tuple(index["cameras"])
    return ProbeData(
        target=name,
        examples=examples,
        outputs=outputs,
        frame=FrameSpec(height=size, width=size * len(views), cameras=views),
        digest=dataset.hash,
        frames=choice.frames,
        card=lambda progress: provenance("probe", config, dataset, progress),
        ahead=ahead,
        unit=target.unit,
    )


def video_data(config: ProbeConfig, classes: tuple[str, ...] = ()) -> ProbeData:
    """Find labelled clips of videos; see `video_examples` for arguments and what is raised."""
    assert config.labels is not None
    anticipated, size = config.target is not None, config.image_size or VIDEO_SIZE
    sampling = Sampling(
        frames=config.frames or (32 if anticipated else 16),
        fps=config.fps or (8.0 if anticipated else 4.0),
        image_size=size,
        ahead_s=config.ahead_s if anticipated else None,
        segments=config.segments,
        crops=config.crops,
        most=dict.fromkeys(SPLITS, config.tested) | {"train": config.clips},
    )
    examples, outputs, digest = video_examples(config.data, config.labels, sampling, classes)
    return ProbeData(
        target=config.target or LABEL,
        examples=examples,
        outputs=outputs,
        frame=FrameSpec(size, size, cameras=ANY_VIDEO, step_s=1 / sampling.fps),
        digest=digest,
        frames=sampling.frames,
        card=lambda progress: {
            "recipe": "probe",
            "command": command(),
            "settings": plain(config) | {"data": config.data.name, "output": config.output.name},
            "labels and videos": digest,
            "optimiser steps": progress.step,
            "versions": versions(),
        },
        ahead=int(config.ahead_s * sampling.fps) if anticipated else None,
    )


def main() -> int:
    """Run the command line."""
    return run_recipe(train, ProbeConfig, PRESETS)


if __name__ == "__main__":
    raise SystemExit(main())
