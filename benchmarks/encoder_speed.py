"""Speed and memory of our video transformer against transformers' VJEPA2Model, in one run.

`python benchmarks/encoder_speed.py` encodes a random clip on the CPU with random weights of one
size, by turns with both, the same threads and float32 for both, and prints the ratio. It needs
`pip install transformers`.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from jepa_gym.benchmarks.results import Record
from jepa_gym.benchmarks.timing import (
    Measurement,
    command,
    comparison,
    memory,
    print_comparison,
    reset_peak,
)
from jepa_gym.models.presets import preset, video_transformer

RATIO_BAR, RATIO_AIM = 1.0, 1.2
"""Seconds of transformers over ours: not slower, and what we aim at."""
PATCH, TUBELET = 16, 2


@dataclass(frozen=True)
class EncoderSpeedConfig(Measurement):
    """Compare our encoder with transformers' VJEPA2Model (sdpa) on the CPU, in float32."""

    model: str = "vit_large"
    """Published size: vit_tiny, vit_small, vit_base, vit_large, vit_huge or vit_giant."""
    frames: int = 16
    """Frames of the clip, a multiple of 2."""
    size: int = 256
    """Height and width of the clip in pixels, a multiple of 16."""
    threads: int = 0
    """Threads of both; 0 leaves PyTorch's own choice."""
    seed: int = 0
    """Of weights and clip."""

    QUICK = {"frames": 4, "size": 128, "rounds": 2}
    LEAST = {"threads": 0}

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            ValueError: If a number is out of its range, or `model` is unknown.
        """
        super().__post_init__()
        preset(self.model)
        for name, step in (("frames", TUBELET), ("size", PATCH)):
            value = getattr(self, name)
            if value < step or value % step:
                raise ValueError(f"`{name}` must be a positive multiple of {step}, got {value}")


def run(config: EncoderSpeedConfig) -> Record:
    """Measure both, print and return all figures."""
    if config.threads:
        torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    video = torch.randn(1, 3, config.frames, config.size, config.size)  # (B, C, T, Y, X)
    ours = video_transformer(config.model, rope="v2").eval()
    theirs = their_model(config)
    clip = video.transpose(1, 2).contiguous()  # (B, T, C, Y, X)
    forwards: dict[str, Callable[[], Any]] = {
        "transformers": lambda: theirs(clip, skip_predictor=True).last_hidden_state,
        "jepa_gym": lambda: ours(video),
    }
    with torch.inference_mode():
        found = comparison(forwards, config.rounds)
        peaks = {name: peak_mib(forward) for name, forward in forwards.items()}
    found |= {"threads": torch.get_num_threads(), "torch": torch.__version__, "peak_mib": peaks}
    title = (
        f"{config.model}, {config.frames} frames of {config.size} px, float32, "
        f"{found['threads']} thread(s), torch {found['torch']}"
    )
    print_comparison(title, found, f"bar {RATIO_BAR:.1f}, aim {RATIO_AIM:.1f}")
    for name, peak in peaks.items():
        print(f"  {name:13}{'unknown' if peak is None else f'{peak:.0f}'} MiB above its weights")
    return found


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
    )
    settings._attn_implementation = "sdpa"
    return VJEPA2Model(settings).eval()


def peak_mib(forward: Callable[[], Any]) -> float | None:
    """Return how far one forward raises the process's memory, or None where it is not known."""
    try:
        ctypes.CDLL(None).malloc_trim(0)  # memory kept from earlier would be used again, unseen
        reset_peak()
    except (AttributeError, OSError):  # not Linux, or not its usual C library
        return None
    before = memory()["VmRSS"]
    forward()
    return (memory()["VmHWM"] - before) / 2**20


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line with the given flags, or those of the process; return the status."""
    return command(run, EncoderSpeedConfig, arguments)


if __name__ == "__main__":
    sys.exit(main())
