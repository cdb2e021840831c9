"""What a run of probes leaves: the best head, its figures, a picture, and what it said."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jepa_gym.checkpoint.probe import VALUE, ProbeSpec
from jepa_gym.checkpoint.safetensors_file import write_safetensors
from jepa_gym.files import atomic_write
from jepa_gym.training.recipes.probe_examples import UNKNOWN
from jepa_gym.training.recipes.probe_figures import (
    Reading,
    classification,
    difference,
    regression,
    write_picture,
)
from jepa_gym.training.recipes.probe_run import ProbeRun, error_of

_LOG = logging.getLogger(__name__)

if TYPE_CHECKING:
    from jepa_gym.training.recipes.probe import ProbeConfig

FIGURES_NAME, PICTURE_NAME, READINGS_NAME = "probe.json", "probe.png", "readings.npz"
ENCODER_NAME = "finetuned_encoder.safetensors"
Readings = Mapping[str, Reading]
"""Output -> what a head said."""


def write_results(run: ProbeRun, config: ProbeConfig, card: Mapping[str, Any]) -> None:
    """Choose the best head on validation clips, write it with its figures, and say what it tells.

    Args:
        run: Finished.
        config: Of the run.
        card: What is told about the training.

    Raises:
        FileNotFoundError, ValueError: If `config.against` is no probe of the same clips.
    """
    validation, test = run.readings("validation"), run.readings("test")
    errors = [error_of(reading) for reading in validation]
    best = int(np.argmin(errors))
    probe, said, names = run.heads[best], test[best], run.heads.names
    figures: dict[str, Any] = {
        "target": run.data.target,
        "model": config.model,
        "probe": config.head or probe.spec.head,
        "blocks": probe.spec.depth if probe.spec.head == "attentive" else None,
        "finetuned": config.finetune,
        "held-out objects": list(config.held_out_objects),
        "behaviours": list(config.behaviours),
        "clips": {split: len(x) // x.views for split, x in run.data.examples.items()},
        "clips of unknown classes": {
            split: {name: int((y == UNKNOWN).sum()) // x.views for name, y in x.labels.items()}
            for split, x in run.data.examples.items()
            if VALUE not in x.labels
        },
        "errors on validation clips": dict(zip(names, errors, strict=True)),
        "chosen": names[best],
        "validation": _figures(validation[best], probe.spec),
        "test": _figures(said, probe.spec),
    }
    if config.against is not None:
        figures["against"] = str(config.against)
        figures["difference"] = differences(said, config.against)
    figures["training"] = dict(card)
    _write_readings(config.output / READINGS_NAME, said)
    path = probe.save_pretrained(config.output, figures)
    if run.heads.encoder is not None:
        tensors = run.heads.encoder.state_dict()
        write_safetensors(config.output / ENCODER_NAME, tensors, {"model": config.model})
    with atomic_write(config.output / FIGURES_NAME) as temporary:
        temporary.write_text(json.dumps(figures, indent=1) + "\n")
    shown = next(iter(said))
    title = f"{run.data.target}: {config.probe} probe of {Path(config.model).name}, test clips"
    outputs = probe.spec.outputs[shown]
    write_picture(config.output / PICTURE_NAME, said[shown], outputs, title, probe.spec.unit)
    _LOG.info(f"wrote {path} ({names[best]}, chosen on validation clips)")
    for line in _lines(figures):
        _LOG.info(f"  {line}")


def differences(ours: Readings, folder: Path) -> dict[str, Any]:
    """Compare what a probe said with what another run's said of the same test clips.

    Args:
        ours: By output.
        folder: Output of the other run.

    Returns:
        Output -> as `difference`.

    Raises:
        FileNotFoundError: If it is no finished run.
        ValueError: If it was tested on other clips, or of something else.
    """
    path = folder / READINGS_NAME
    if not path.is_file():
        raise FileNotFoundError(f"{path} not found: --against names the output of a finished probe")
    found = {}
    with np.load(path) as arrays:
        for name, reading in ours.items():
            parts = [arrays.get(f"{name} {part}") for part in ("truth", "said", "groups")]
            if any(part is None for part in parts):
                raise ValueError(f"{folder} does not tell `{name}`; compare probes of one target")
            theirs = Reading(*parts)
            if not all(
                np.array_equal(getattr(theirs, part), getattr(reading, part))
                for part in ("truth", "groups")
            ):
                raise ValueError(
                    f"{folder} was tested on other clips: give both runs the same data, seed, "
                    "frames and choice of clips"
                )
            found[name] = difference(reading, theirs)
    return found


def _write_readings(path: Path, readings: Readings) -> None:
    arrays = {
        f"{name} {part}": getattr(reading, part)
        for name, reading in readings.items()
        for part in ("truth", "said", "groups")
    }
    with atomic_write(path) as temporary:
        np.savez_compressed(temporary, **arrays)


def _figures(readings: Readings, spec: ProbeSpec) -> dict[str, Any]:
    return {
        name: regression(reading, spec.unit)
        if name == VALUE
        else classification(reading, spec.outputs[name])
        for name, reading in readings.items()
    }


def _lines(figures: Mapping[str, Any]) -> Iterator[str]:
    """Say in short what a probe is worth on test clips."""
    for name, found in figures["test"].items():
        unit = found.get("unit", "%")
        for key, value in found.items():
            if isinstance(value, dict) and "interval" in value:
                low, high = value["interval"]
                yield f"test, {name} {key}: {value['value']:.4g} {unit} ({low:.4g} to {high:.4g})"
            elif key in ("most_frequent", "mean_guess"):
                yield f"test, {name} {key}: {value:.4g} {unit}"
    for name, count in figures["clips of unknown classes"].get("test", {}).items():
        if count:
            yield f"test, {name}: {count} clips are of classes that no training clip has: left out"
    for name, found in figures.get("difference", {}).items():
        low, high = found["interval"]
        yield (
            f"test, {name} against {figures['against']}: {found['value']:+.4g} "
            f"({low:+.4g} to {high:+.4g})"
        )
