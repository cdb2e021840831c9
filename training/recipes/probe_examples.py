"""The clips that a probe learns from and is tested on, with their labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from jepa_gym.checkpoint.probe import ANTICIPATED, LABEL, VALUE
from jepa_gym.config import FrameSpec
from jepa_gym.logs import progress_bar
from jepa_gym.training.data.clips import Span
from jepa_gym.training.data.dataset import SPLITS, Dataset
from jepa_gym.training.data.episodes import read_metadata
from jepa_gym.training.engine.task import Progress
from jepa_gym.training.recipes.probe_targets import Target, Track

Outputs = dict[str, tuple[str, ...]]
"""Output -> names of its classes or numbers."""
Told = tuple[object, str]
"""A label, and the object in the clip."""
UNKNOWN = -1
"""Label of a class that no training clip has; it counts neither in a loss nor in a figure."""


@dataclass(frozen=True, slots=True)
class Examples:
    """Labelled clips of one split."""

    frames: Callable[[Sequence[int]], np.ndarray]
    """Numbers of B clips -> (B, T, Y, X, 3) uint8."""
    labels: Mapping[str, Tensor]
    """Output -> (n,) class numbers or `UNKNOWN`; `value` -> (n, K) float32."""
    groups: tuple[str, ...]
    """The recording that each of the n clips is from."""
    names: tuple[str, ...]
    """What decides the content of each clip, unique in its dataset."""
    views: int = 1
    """So many clips in a row are views of the same, and are judged together."""

    def __len__(self) -> int:
        """Return the number of clips n."""
        return len(self.names)


@dataclass(frozen=True, slots=True)
class ProbeData:
    """What a run of probes learns from."""

    target: str
    """Name of what is to be told."""
    examples: Mapping[str, Examples]
    """Split -> its clips."""
    outputs: Outputs
    """What is to be told."""
    frame: FrameSpec
    """What a frame shows."""
    digest: str
    """Hash of the data's content."""
    frames: int
    """Frames of a clip."""
    card: Callable[[Progress], dict[str, Any]]
    """What is told about a finished run."""
    ahead: int | None = None
    """Frames from a clip's end to what is anticipated."""
    unit: str = ""
    """Of a regression's numbers."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Which clips of a dataset are taken."""

    frames: int
    """T of a clip."""
    ahead: int | None
    """Steps from a clip's last frame to the move that is anticipated; None where none is."""
    clips: int
    """Most clips of the training split."""
    tested: int
    """Most clips of the validation and of the test split, each."""
    behaviours: tuple[str, ...] = ()
    """Only episodes that were acted so; () for all."""
    held_out_objects: tuple[str, ...] = ()
    """Objects of the test clips, and of no other ones; () for all in all splits."""
    seed: int = 0
    """Decides the clips."""


def suite_examples(
    dataset: Dataset, target: Target, choice: Choice
) -> tuple[dict[str, Examples], Outputs]:
    """Label clips of a dataset of recorded episodes.

    Args:
        dataset: As `jepa-gym collect` writes it.
        target: What is to be read.
        choice: Which clips are taken.

    Returns:
        Split -> its clips; and output -> names of its classes or numbers.

    Raises:
        ValueError: If a split has no clip, nobody recorded what the labels follow from, or the
            classes to be told cannot be known.
    """
    found = {split: _labelled(dataset, split, target, choice) for split in SPLITS}
    anticipated = target.kind == "anticipation"
    if target.kind == "regression":
        outputs: Outputs = {VALUE: target.names}
    else:
        outputs = class_names(words_of(anticipated, found["train"][1]), target.names)
    examples = {}
    for split, (spans, told) in found.items():
        arrays = dataset.load_arrays(split)
        if target.kind == "regression":
            numbers = np.array([label for label, _ in told], np.float32)
            labels = {VALUE: torch.from_numpy(numbers)}
        else:
            labels = class_numbers(words_of(anticipated, told), outputs)
        if all(bool((x == UNKNOWN).all()) for x in labels.values()) and VALUE not in labels:
            classes = sorted({str(label) for label, _ in told})
            raise ValueError(
                f"none of the classes {classes} in the {split} clips is among those of the "
                "training clips: with --held-out-objects probe for what all objects share, such as "
                "`action`"
            )
        examples[split] = Examples(
            frames=lambda numbers, a=arrays, s=spans: a.clips([s[n] for n in numbers]),
            labels=labels,
            groups=tuple(arrays.ids[episode] for episode, _, _ in spans),
            names=tuple(f"{arrays.ids[e]} {first}-{stop}" for e, first, stop in spans),
        )
    return examples, outputs


def _labelled(
    dataset: Dataset, split: str, target: Target, choice: Choice
) -> tuple[list[Span], list[Told]]:
    """Draw clips of a split and label them."""
    arrays = dataset.load_arrays(split)
    folders = [dataset.folder / "episodes" / name for name in arrays.ids]
    chosen = [e for e, folder in enumerate(folders) if _wanted(folder, split, choice)]
    length = arrays.states.shape[1]
    last = choice.frames - 1 if choice.ahead is None else choice.frames + choice.ahead
    starts = length - last
    if starts < 1:
        raise ValueError(
            f"clips of {choice.frames} frames need {last + 1} frames of an episode"
            f"{'' if choice.ahead is None else ', the time ahead included'}, the episodes have "
            f"{length}: lower --frames or --ahead-s"
        )
    if not chosen:
        raise ValueError(
            f"no episode of the {split} split has the objects and behaviours that were asked for "
            f"(held out: {choice.held_out_objects or 'none'}, behaviours: "
            f"{choice.behaviours or 'all'})"
        )
    most = choice.clips if split == "train" else choice.tested
    rng = np.random.default_rng((choice.seed, SPLITS.index(split)))
    places = rng.choice(len(chosen) * starts, min(most, len(chosen) * starts), replace=False)
    spans, told, tracks = [], [], {}
    for place in progress_bar(np.sort(places), f"labelling {split} clips", unit="clip"):
        episode, first = chosen[place // starts], int(place % starts)
        if episode not in tracks:
            tracks = {episode: Track.read(folders[episode], arrays.states[episode])}
        track = tracks[episode]
        spans.append((episode, first, first + choice.frames))
        label = target.label(track, first, first + last)
        told.append((label, track.told("object") if target.ahead else ""))
    return spans, told


def _wanted(folder: Path, split: str, choice: Choice) -> bool:
    """Say whether clips of an episode may be in a split."""
    if not choice.behaviours and not choice.held_out_objects:
        return True
    metadata = read_metadata(folder) if folder.is_dir() else {}
    if choice.behaviours and metadata.get("kind") not in choice.behaviours:
        return False
    if not choice.held_out_objects:
        return True
    return (metadata.get("object") in choice.held_out_objects) == (split == "test")


def class_names(words: Mapping[str, Sequence[str]], known: Sequence[str] = ()) -> Outputs:
    """Name the classes of each output.

    Args:
        words: From `words_of`, of the training clips.
        known: Classes of the first output, where they are given.
    """
    found = {name: tuple(sorted(set(told))) for name, told in words.items()}
    return found | ({next(iter(found)): tuple(known)} if known else {})


def words_of(anticipated: bool, told: Sequence[Told]) -> dict[str, list[str]]:
    """Return the classes of clips by output: `label`, or `verb`, `noun` and both as `action`."""
    verbs, nouns = [str(label) for label, _ in told], [noun for _, noun in told]
    if not anticipated:
        return {LABEL: verbs}
    both = [f"{verb} {noun}" for verb, noun in told]
    return dict(zip(ANTICIPATED, (verbs, nouns, both), strict=True))


def class_numbers(words: Mapping[str, Sequence[str]], outputs: Outputs) -> dict[str, Tensor]:
    """Number the classes of clips; those that `outputs` does not name are `UNKNOWN`."""
    numbers = {name: {x: n for n, x in enumerate(classes)} for name, classes in outputs.items()}
    return {
        name: torch.tensor([numbers[name].get(word, UNKNOWN) for word in told])
        for name, told in words.items()
    }
