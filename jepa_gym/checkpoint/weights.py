"""Files of weights: PyTorch's `.pt` and safetensors, opened without reading, copied in parts.

A `.pt` is unpickled with `weights_only=True`, so no code of the file runs, and memory-mapped, so
what nobody asks for (optimiser state, a second encoder) is never read. The pages of a mapping that
were read do count as the process's memory until the mapping is closed. So `Weights.copy` opens the
file anew after every twentieth of what it copies, and needs no more than the copy and that.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

PT_PARTS = ("encoder", "target_encoder", "ema_encoder", "predictor", "classifiers")
"""Top-level keys of a published `.pt` that hold weights (facts: all others are of the training)."""
SAFETENSORS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
_WINDOWS = 20
_SHOWN = 10
_MAGIC = (
    (b"\x80", "a pickle of an old kind (PyTorch before 1.6)"),
    (b"<", "a web page; the download went wrong"),
    (b"version https://git-lfs", "a pointer of Git LFS, not the file itself"),
    (b"\x1f\x8b", "a gzip archive; unpack it first"),
)

Read = Callable[[str], Tensor]


class CheckpointError(ValueError):
    """Weights that cannot be used; the message says why."""


@dataclass(frozen=True)
class Weights:
    """The tensors of a file, or of a folder of shards, by flat name; none is read yet.

    Attributes:
        path: What the user gave.
        sizes: Bytes of every tensor.
        metadata: The metadata of a safetensors file, of the first one if there are shards.
        files: The files, and which names each holds.
    """

    path: Path
    sizes: dict[str, int]
    metadata: dict[str, str]
    files: dict[Path, tuple[str, ...]] = field(repr=False)

    def copy(self, names: Iterable[str]) -> dict[str, Tensor]:
        """Read tensors into memory of their own.

        Args:
            names: Which.

        Returns:
            Name to tensor, in the type of the file; independent of it.
        """
        wanted = set(names)
        window = sum(self.sizes[name] for name in wanted) // _WINDOWS + 1
        copied: dict[str, Tensor] = {}
        for file, held in self.files.items():
            left = [name for name in held if name in wanted]
            while left:
                left = self._copy_window(file, left, window, copied)
        return copied

    def _copy_window(
        self, file: Path, names: list[str], window: int, copied: dict[str, Tensor]
    ) -> list[str]:
        """Copy until `window` bytes are mapped; return the names that are left."""
        mapped = 0
        with _opened(file) as (_, read, _):
            for number, name in enumerate(names):
                if mapped and mapped + self.sizes[name] > window:
                    return names[number:]
                copied[name] = read(name).detach().clone()
                mapped += self.sizes[name]
        return []


def open_weights(path: str | Path) -> Weights:
    """Look into a file or folder of weights.

    Args:
        path: A `.pt` (also `.pth`, `.pth.tar`) of `torch.save`, a `.safetensors`, or a folder with
            model.safetensors or model.safetensors.index.json and the shards it names.

    Raises:
        FileNotFoundError: When the file, or a shard, is missing.
        CheckpointError: When it is no file of weights, truncated, or would run code.
    """
    path = Path(path)
    files = _shards(path) if path.is_dir() else [path]
    sizes: dict[str, int] = {}
    held: dict[Path, tuple[str, ...]] = {}
    metadata: dict[str, str] = {}
    for file in files:
        with _opened(file) as (file_sizes, _, file_metadata):
            twice = sorted(sizes.keys() & file_sizes.keys())
            if twice:
                raise CheckpointError(
                    f"{file} repeats {len(twice)} tensors of another shard, such as {twice[0]}; "
                    "download the folder again"
                )
            sizes |= file_sizes
            held[file] = tuple(file_sizes)
            metadata = metadata or file_metadata
    return Weights(path, sizes, metadata, held)


def _shards(folder: Path) -> list[Path]:
    index = folder / INDEX_FILE
    if not index.is_file():
        names = [SAFETENSORS_FILE]
    else:
        try:
            names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise CheckpointError(
                f"{index} is damaged ({error!r}); download the folder again"
            ) from error
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{folder} has no {', '.join(missing[:_SHOWN])}; a folder of weights holds "
            f"{SAFETENSORS_FILE}, or {INDEX_FILE} and all the shards it names"
        )
    return [folder / name for name in names]


@contextmanager
def _opened(file: Path) -> Iterator[tuple[dict[str, int], Read, dict[str, str]]]:
    """Map one file: sizes by name, a reader of mapped tensors, metadata."""
    if not file.is_file():
        raise FileNotFoundError(f"there is no file {file}; give the path of a file of weights")
    with file.open("rb") as raw:
        head = raw.read(32)
    if head[:4] == b"PK\x03\x04":
        tensors = _read_pt(file)
        yield {name: x.numel() * x.element_size() for name, x in tensors.items()}, tensors.get, {}
    elif head[8:9] == b"{" or file.suffix == ".safetensors":
        try:
            with safe_open(file, "pt") as mapped:
                names = list(mapped.keys())
                tensors = {name: mapped.get_tensor(name) for name in names}
                sizes = {name: x.numel() * x.element_size() for name, x in tensors.items()}
                yield sizes, tensors.get, mapped.metadata() or {}
        except SafetensorError as error:
            raise CheckpointError(
                f"{file} ({file.stat().st_size} bytes) is truncated or no safetensors file "
                f"({error}); copy or download it again"
            ) from error
    else:
        raise CheckpointError(_unknown(file, head))


def _unknown(file: Path, head: bytes) -> str:
    kind = next((text for start, text in _MAGIC if head.startswith(start)), None)
    if not head:
        kind = "empty"
    return (
        f"{file} ({file.stat().st_size} bytes) is {kind or f'of an unknown kind ({head[:8]!r})'}; "
        "weights are read from .pt files of torch.save (its zip format) and from safetensors. "
        "Download it again, or save it anew from the program that wrote it"
    )


def _read_pt(file: Path) -> dict[str, Tensor]:
    """Map a `.pt`: the tensors of its published parts, or of a bare state dict, by flat name."""
    try:
        content = torch.load(file, mmap=True, weights_only=True, map_location="cpu")
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{file} holds Python objects besides tensors, and to load them could run any code: "
            f"refused ({_first_line(error)}). If you trust its source, open it where that does no "
            "harm and save only the tensors: "
            "torch.save({'encoder': ..., 'predictor': ...}, path)"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"{file} ({file.stat().st_size} bytes) is truncated or damaged "
            f"({_first_line(error)}); download it again"
        ) from error
    if not isinstance(content, dict):
        raise CheckpointError(
            f"{file} holds a {type(content).__name__}, not a dictionary of weights"
        )
    parts = {key: content[key] for key in PT_PARTS if key in content}
    tensors = dict(_flat(parts or content, ""))
    if not tensors:
        keys = [str(key) for key in content]
        raise CheckpointError(
            f"{file} holds no weights: of the keys {PT_PARTS} it has none with tensors, but "
            f"{len(keys)} others: {', '.join(keys[:_SHOWN])}"
        )
    return tensors


def _flat(value: Any, prefix: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield prefix, value
    elif isinstance(value, dict | list | tuple):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in items:
            yield from _flat(item, f"{prefix}.{key}" if prefix else str(key))


def _first_line(error: Exception) -> str:
    """Return what an error of PyTorch says, without its advice to switch the protection off."""
    lines = [line.strip() for line in str(error).splitlines() if "nsupported" in line]
    text = lines[0] if lines else (str(error).strip().splitlines() or [type(error).__name__])[0]
    return text[:200]


def check_tensors(expected: dict[str, Tensor], got: dict[str, Tensor], where: Any) -> None:
    """Check that names and shapes agree.

    Args:
        expected: The state dict of the model.
        got: What is to be loaded.
        where: What `got` was read from, for the message.

    Raises:
        CheckpointError: Naming the missing, unexpected and wrong-shaped keys.
    """
    shapes = [
        f"{name} {tuple(got[name].shape)} instead of {tuple(expected[name].shape)}"
        for name in sorted(expected.keys() & got.keys())
        if got[name].shape != expected[name].shape
    ]
    problems = {
        "missing": sorted(expected.keys() - got.keys()),
        "unexpected": sorted(got.keys() - expected.keys()),
        "wrong shape": shapes,
    }
    lines = [
        f"{len(names)} {kind}: {', '.join(names[:_SHOWN])}{', ...' * (len(names) > _SHOWN)}"
        for kind, names in problems.items()
        if names
    ]
    if lines:
        raise CheckpointError(
            f"the weights in {where} do not fit the model of its configuration; "
            "nothing was loaded\n  " + "\n  ".join(lines)
        )


def fill(module: nn.Module, tensors: dict[str, Tensor], where: Any) -> None:
    """Make tensors the parameters of a module, usually one built on the meta device.

    They are not copied, unless their type or memory layout differs from the module's.

    Args:
        module: Any; left as it is when something does not fit.
        tensors: Emptied, so that no tensor is held twice.
        where: As for `check_tensors`.

    Raises:
        CheckpointError: As from `check_tensors`.
    """
    expected = module.state_dict()
    check_tensors(expected, tensors, where)
    for name, like in expected.items():
        tensor = tensors.pop(name)
        if like.is_floating_point() and not tensor.is_floating_point():
            raise CheckpointError(
                f"{name} in {where} holds {tensor.dtype} (quantised weights?), not floating-point "
                "numbers; nothing was loaded. Use the original weights"
            )
        if tensor.dtype != like.dtype or tensor.stride() != like.stride():
            fitted = torch.empty_strided(like.shape, like.stride(), dtype=like.dtype)
            tensor = fitted.copy_(tensor)
        expected[name] = tensor
    module.load_state_dict(expected, assign=True)
