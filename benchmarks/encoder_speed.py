"""Speed and memory of our video transformer against transformers' VJEPA2Model, in one run.

`python benchmarks/encoder_speed.py` encodes a random clip on the CPU with random weights of one
size, by turns with both, the same threads and float32 for both, and prints the ratio. It needs
`pip install transformers`.
"""

from __future__ import annotations

import ctypes
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import tyro

from jepa_gym.models.presets import preset, video_transformer

RATIO_BAR, RATIO_AIM = 1.0, 1.2
"""Seconds of transformers over ours: not slower, and what we aim at."""
PATCH, TUBELET = 16, 2


@dataclass(frozen=True)
class EncoderSpeedConfig:
    """Compare our encoder with transformers' VJEPA2Model (sdpa) on the CPU, in float32."""

    model: str = "vit_large"
    """Published size: vit_tiny, vit_small, vit_base, vit_large, vit_huge or vit_giant."""
    frames: int = 16
    """Frames of the clip, a multiple of 2."""
    size: int = 256
    """Height and width of the clip in pixels, a multiple of 16."""
    rounds: int = 3
    """Forwards of each, by turns; the medians count. Two more of each warm up and show memory."""
    threads: int = 0
    """Threads of both; 0 leaves PyTorch's own choice."""
    seed: int = 0
    """Of weights and clip."""
    output: Path | None = None
    """JSON file for the figures."""

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            ValueError: A number is out of its range, or `model` is unknown.
        """
        preset(self.model)
        for name, step in (("frames", TUBELET), ("size", PATCH), ("rounds", 1)):
            value = getattr(self, name)
            if value < step or value % step:
                raise ValueError(f"`{name}` must be a positive multiple of {step}, got {value}")
        if self.threads < 0:
            raise ValueError(f"`threads` must be at least 0, got {self.threads}")


def run(config: EncoderSpeedConfig) -> dict[str, Any]:
    """Measure both and return all figures."""
    if config.threads:
        torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    video = torch.randn(1, 3, config.frames, config.size, config.size)  # (B, C, T, Y, X)
    ours = video_transformer(config.model, rope="v2").eval()
    theirs = their_model(config)
    clip = video.transpose(1, 2).contiguous()  # (B, T, C, Y, X)
    forwards = {
        "jepa_gym": lambda: ours(video),
        "transformers": lambda: theirs(clip, skip_predictor=True).last_hidden_state,
    }
    with torch.inference_mode():
        for forward in forwards.values():
            forward()
        memory = {name: peak_mib(forward) for name, forward in forwards.items()}
        wall, cpu = timings(forwards, config.rounds)
    medians = {name: statistics.median(values) for name, values in wall.items()}
    cpu_medians = {name: statistics.median(values) for name, values in cpu.items()}
    return {
        "config": asdict(config) | {"output": None},
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "wall_s": wall,
        "cpu_s": cpu,
        "median_wall_s": medians,
        "median_cpu_s": cpu_medians,
        "peak_mib": memory,
        "ratio": medians["transformers"] / medians["jepa_gym"],
        "cpu_ratio": cpu_medians["transformers"] / cpu_medians["jepa_gym"],
    }


def their_model(config: EncoderSpeedConfig) -> torch.nn.Module:
    """Create transformers' model of the same sizes, its predictor as small as it can be.

    Raises:
        ImportError: If transformers is not installed.
    """
    try:
        from transformers import VJEPA2Config, VJEPA2Model
    except ImportError as error:
        raise ImportError(
            "this benchmark compares with transformers: pip install transformers"
        ) from error
    sizes = preset(config.model)
    settings = VJEPA2Config(
        patch_size=PATCH,
        tubelet_size=TUBELET,
        crop_size=config.size,
        frames_per_clip=config.frames,
        hidden_size=sizes["embed_dim"],
        num_hidden_layers=sizes["depth"],
        num_attention_heads=sizes["num_heads"],
        mlp_ratio=sizes["mlp_ratio"],
        pred_num_hidden_layers=1,
        attn_implementation="sdpa",
    )
    return VJEPA2Model(settings).eval()


Seconds = dict[str, list[float]]


def timings(forwards: dict[str, Callable[[], Any]], rounds: int) -> tuple[Seconds, Seconds]:
    """Return seconds by the clock and of the processor, by turns: a busy machine slows both."""
    wall: Seconds = {name: [] for name in forwards}
    cpu: Seconds = {name: [] for name in forwards}
    for _ in range(rounds):
        for name, forward in forwards.items():
            start = time.perf_counter(), time.process_time()
            forward()
            wall[name].append(time.perf_counter() - start[0])
            cpu[name].append(time.process_time() - start[1])
    return wall, cpu


def peak_mib(forward: Callable[[], Any]) -> float | None:
    """Return how far one forward raises the process's memory, or None where it is not known."""
    try:
        ctypes.CDLL(None).malloc_trim(0)  # memory kept from earlier would be used again, unseen
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    except (AttributeError, OSError):  # not Linux, or not its usual C library
        return None
    before = memory_mib("VmRSS")
    forward()
    return memory_mib("VmHWM") - before


def memory_mib(field: str) -> float:
    """Return a memory figure of this process from Linux's status file."""
    lines = Path("/proc/self/status").read_text().splitlines()
    [value] = [line.split()[1] for line in lines if line.startswith(f"{field}:")]
    return int(value) / 1024


def print_figures(figures: dict[str, Any]) -> None:
    """Print both and the ratio."""
    config = figures["config"]
    print(
        f"{config['model']}, {config['frames']} frames of {config['size']} px, float32, "
        f"{figures['threads']} thread(s), torch {figures['torch']}"
    )
    print(f"{'median':13}{'wall s':>9}{'CPU s':>9}{'MiB above weights':>19}")
    for name, wall in figures["median_wall_s"].items():
        peak = figures["peak_mib"][name]
        shown = "unknown" if peak is None else f"{peak:.0f}"
        print(f"{name:13}{wall:9.3f}{figures['median_cpu_s'][name]:9.3f}{shown:>19}")
    print(
        f"ratio {figures['ratio']:.2f} (bar {RATIO_BAR:.1f}, aim {RATIO_AIM:.1f}), "
        f"of CPU seconds {figures['cpu_ratio']:.2f}"
    )


def main() -> None:
    """Run the command line."""
    config = tyro.cli(EncoderSpeedConfig, description=EncoderSpeedConfig.__doc__)
    figures = run(config)
    print_figures(figures)
    if config.output is not None:
        config.output.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
