"""Memory that loading the encoder of a large `.pt` takes, against the encoder's own size.

`python benchmarks/load_memory.py` writes a file as V-JEPA 2's are (encoder, its moving average,
masked predictor, optimiser state), 4 GB by default, loads the encoder from it in a new process and
deletes it.

The bar is on VmHWM, the peak of all resident memory, which counts the pages of the memory-mapped
file that are resident at the same time as the copy. RssAnon, the process's own memory after
loading, is given beside it. Both are growth over the process that has already loaded a tiny file
of the same kind, so that imports do not count.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from jepa_gym.benchmarks.results import Record
from jepa_gym.benchmarks.timing import command, memory, reset_peak
from jepa_gym.checkpoint import published
from jepa_gym.checkpoint.weights import open_weights
from jepa_gym.models import MaskedPredictor, VideoTransformer

BAR = 1.10
_COPIES = 4
"""Encoder, moving average and Adam's two: the file over the encoder, but for the predictor."""
_MEASURE = "import sys; from jepa_gym.benchmarks import load_memory; load_memory.measure(sys.argv)"


@dataclass(frozen=True)
class MemoryConfig:
    """Measure the memory that loading the encoder of a large `.pt` takes."""

    file_gb: float = 4.0
    """Size of the file, 1e9 bytes; the encoder has about a quarter of it."""
    width: int = 1024
    """Width of the encoder; its depth follows from the size of the file."""
    folder: Path | None = None
    """Where to write it; the system's folder for temporary files by default."""
    output: Path | None = None
    """JSON file for the figures."""

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            ValueError: If a number is out of its range.
        """
        if self.width < 64 or self.width % 64:
            raise ValueError(f"`width` must be a positive multiple of 64, got {self.width}")
        if self.file_gb <= 0:
            raise ValueError(f"`file_gb` must be positive, got {self.file_gb}")

    @property
    def depth(self) -> int:
        """Blocks of the encoder."""
        block = 4 * 12 * self.width**2  # bytes; norms and biases are small
        return math.ceil(self.file_gb * 1e9 / _COPIES / block)


def write_file(path: Path, width: int, depth: int) -> int:
    """Write a file as V-JEPA 2's are; return the bytes of its encoder.

    The encoder is random, the rest is zero: real bytes in the file, no memory here.
    """
    with torch.device("meta"):
        encoder = VideoTransformer(width, depth, width // 64, rope="v2")
        predictor = MaskedPredictor((16, 16), width, 96, 2, 3, num_mask_tokens=10, rope="v2")
    torch.manual_seed(0)
    weights = {f"module.backbone.{n}": torch.randn(x.shape) for n, x in _named(encoder)}
    average = {name: torch.zeros(x.shape) for name, x in weights.items()}
    trained = [x for module in (encoder, predictor) for _, x in _named(module)]
    moments = {
        number: {"step": torch.tensor(1.0)}
        | {name: torch.zeros(x.shape) for name in ("exp_avg", "exp_avg_sq")}
        for number, x in enumerate(trained)
    }
    content = {
        "encoder": weights,
        "target_encoder": average,
        "predictor": {f"module.backbone.{n}": torch.zeros(x.shape) for n, x in _named(predictor)},
        "opt": {"state": moments, "param_groups": [{"lr": 1e-4, "params": list(moments)}]},
        "scaler": None,
        "epoch": 1,
    }
    torch.save(content, path)
    return sum(x.numel() * x.element_size() for x in weights.values())


def _named(module: nn.Module) -> list[tuple[str, Tensor]]:
    return list(module.state_dict().items())


def measure(arguments: list[str]) -> None:
    """Load the encoder of argument 2 after that of argument 1, print the growth as JSON."""
    tiny, path = arguments[1:]
    published.load(tiny, "encoder", "encoder")
    reset_peak()
    before, start = memory(), time.perf_counter()
    encoder = published.load(path, "encoder", "encoder")
    seconds, after = time.perf_counter() - start, memory()
    growth = {
        "peak": after["VmHWM"] - before["VmRSS"],
        "anonymous": after["RssAnon"] - before["RssAnon"],
        "file_pages": after["RssFile"] - before["RssFile"],
    }
    print(json.dumps(growth | {"seconds": seconds, "equal": _equal(encoder, Path(path))}))


def _equal(encoder: nn.Module, path: Path) -> bool:
    """Say whether an encoder has exactly the numbers of the file."""
    names = published.parts_of(open_weights(path))["encoder"]
    content = torch.load(path, mmap=True, weights_only=True)["encoder"]
    wanted = {clean: content[name.removeprefix("encoder.")] for clean, name in names.items()}
    got = encoder.state_dict()
    return got.keys() == wanted.keys() and all(torch.equal(got[n], wanted[n]) for n in got)


def run(config: MemoryConfig) -> Record:
    """Write the file, measure in a new process, delete the file; print and return the figures."""
    with tempfile.TemporaryDirectory(dir=config.folder) as folder:
        tiny, path = Path(folder, "tiny.pt"), Path(folder, "large.pt")
        write_file(tiny, 64, 1)
        size = write_file(path, config.width, config.depth)
        arguments = [sys.executable, "-c", _MEASURE, str(tiny), str(path)]
        figures = json.loads(subprocess.check_output(arguments, text=True))
        figures |= {"encoder": size, "file": path.stat().st_size}
    ratio = figures["peak"] / size
    for name in ("file", "encoder", "peak", "anonymous", "file_pages"):
        print(f"{name:<12} {figures[name] / 1e6:10.1f} MB")
    met = ratio <= BAR and figures["equal"]
    print(f"loaded in {figures['seconds']:.1f} s, numbers equal: {figures['equal']}")
    print(f"peak over encoder {ratio:.3f}, bar {BAR}: {met}")
    return figures | {"ratio": ratio, "bar": BAR, "met": met}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return 1 if the bar is missed."""
    return command(run, MemoryConfig, arguments)


if __name__ == "__main__":
    sys.exit(main())
