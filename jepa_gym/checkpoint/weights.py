"""Files of weights: PyTorch's `.pt` and safetensors, opened without reading, copied in parts.

Small safetensors files are read and checked at once. Others are memory-mapped, so that what nobody
asks for (optimiser state, a second encoder) is never read. The pages of a mapping that were read do
count as the process's memory until the mapping is closed. So `Weights.copy` opens the file anew
after every twentieth of what it copies, and needs no more than the copy and that.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from jepa_gym.checkpoint.digests import SMALL_BYTES, ZIP_START, file_digest
from jepa_gym.checkpoint.errors import CheckpointError
from jepa_gym.checkpoint.pt_file import map_pt
from jepa_gym.checkpoint.safetensors_file import (
    check_large_file,
    mapped_safetensors,
    read_safetensors,
)

SAFETENSORS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
_ENDING = ".safetensors"
_WINDOWS = 20
_SHOWN = 10
_MAGIC = (
    (b"\x80", "a pickle of an old kind (PyTorch before 1.6)"),
    (b"<", "a web page; the download went wrong"),
    (b"version https://git-lfs", "a pointer of Git LFS, not the file itself"),
    (b"\x1f\x8b", "a gzip archive; unpack it first"),
)


@dataclass(frozen=True)
class Weights:
    """The tensors of a file, or of a folder of shards, by flat name.

    Attributes:
        path: What the user gave.
        sizes: Bytes of every tensor.
        metadata: The metadata of a safetensors file, of the first one if there are shards.
        files: The mapped files, and which names each holds.
        held: The tensors of small files, which were read at once.
    """

    path: Path
    sizes: dict[str, int] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)
    files: dict[Path, tuple[str, ...]] = field(default_factory=dict, repr=False)
    held: dict[str, Tensor] = field(default_factory=dict, repr=False)

    def copy(self, names: Iterable[str]) -> dict[str, Tensor]:
        """Read tensors into memory that is independent of the file.

        Args:
            names: Which.

        Returns:
            Name to tensor, in the type of the file.

        Raises:
            CheckpointError: When a tensor has numbers that are not finite.
        """
        wanted = set(names)
        window = sum(self.sizes[name] for name in wanted) // _WINDOWS + 1
        copied = {name: x for name, x in self.held.items() if name in wanted}
        for file, held in self.files.items():
            left = [name for name in held if name in wanted]
            while left:
                left = self._copy_window(file, left, window, copied)
        for name, tensor in copied.items():
            if not _is_finite(tensor):
                raise CheckpointError(
                    f"`{name}` in {self.path} holds numbers that are not finite: the training that "
                    "wrote it diverged, or the file is damaged; use another checkpoint"
                )
        return copied

    def _copy_window(
        self, file: Path, names: list[str], window: int, copied: dict[str, Tensor]
    ) -> list[str]:
        """Copy until `window` bytes are mapped; return the names that are left."""
        mapped = 0
        with _mapped(file) as (tensors, _):
            for number, name in enumerate(names):
                if mapped and mapped + self.sizes[name] > window:
                    return names[number:]
                copied[name] = tensors[name].detach().clone()
                mapped += self.sizes[name]
        return []


def _is_finite(tensor: Tensor) -> bool:
    """Say whether all numbers are finite; the sum, which needs no memory, says so of most."""
    if not tensor.is_floating_point() or torch.isfinite(tensor.sum()):
        return True
    return bool(torch.isfinite(tensor).all())


def open_weights(path: str | Path) -> Weights:
    """Look into a file or folder of weights; digests and checksums are compared.

    Args:
        path: A `.pt` (also `.pth`, `.pth.tar`) of `torch.save`, a `.safetensors`, or a folder with
            model.safetensors or model.safetensors.index.json and the shards it names.

    Raises:
        FileNotFoundError: When the file, or a shard, is missing.
        CheckpointError: When it is no file of weights, damaged, or would run code.
    """
    path = Path(path)
    weights = Weights(path)
    for file in weight_files(path):
        if _is_pt(file):
            file_digest(file)  # compares the checksums of its parts
        elif file.stat().st_size <= SMALL_BYTES:
            tensors, metadata = read_safetensors(file)
            _add(weights, file, tensors, metadata)
            weights.held.update(tensors)
            continue
        with _mapped(file) as (tensors, metadata):
            _add(weights, file, tensors, metadata)
            weights.files[file] = tuple(tensors)
        check_large_file(file, metadata)
    return weights


def _add(
    weights: Weights, file: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]
) -> None:
    """Note which tensors a file holds."""
    twice = sorted(weights.sizes.keys() & tensors.keys())
    if twice:
        raise CheckpointError(
            f"{file} repeats {len(twice)} tensors of another shard, such as {twice[0]}; "
            "download the folder again"
        )
    weights.sizes.update({name: x.numel() * x.element_size() for name, x in tensors.items()})
    if not weights.metadata:
        weights.metadata.update(metadata)


def weight_files(path: Path) -> list[Path]:
    """Return the files that hold the weights of a file or folder.

    Raises:
        FileNotFoundError: When one is missing.
        CheckpointError: When the index of the shards is damaged, or names files elsewhere.
    """
    if not path.is_dir():
        if not path.is_file():
            raise FileNotFoundError(f"there is no file {path}; give the path of a file of weights")
        return [path]
    index = path / INDEX_FILE
    names = _shard_names(index) if index.is_file() else [SAFETENSORS_FILE]
    missing = [name for name in names if not (path / name).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{path} has no {', '.join(missing[:_SHOWN])}; a folder of weights holds "
            f"{SAFETENSORS_FILE}, or {INDEX_FILE} and all the shards it names"
        )
    return [path / name for name in names]


def _shard_names(index: Path) -> list[str]:
    try:
        names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
        outside = [name for name in names if Path(name).name != name or "\\" in name]
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise CheckpointError(
            f"{index} is damaged ({error!r}); download the folder again"
        ) from None
    outside += [name for name in names if not name.endswith(_ENDING)]
    if outside:
        raise CheckpointError(
            f"{index} names {outside[0]!r} as a shard; shards are {_ENDING} files in the same "
            "folder. Download the folder again from a source that you trust"
        )
    return names


@contextmanager
def _mapped(file: Path) -> Iterator[tuple[Mapping[str, Tensor], Mapping[str, str]]]:
    """Map one file: tensors that are read when they are used, and metadata."""
    if _is_pt(file):
        yield map_pt(file), {}
    else:
        with mapped_safetensors(file) as opened:
            yield opened


def _is_pt(file: Path) -> bool:
    """Say whether a file is a `.pt` or safetensors; CheckpointError if it is neither."""
    if file.suffix == _ENDING:
        return False
    with file.open("rb") as raw:
        head = raw.read(32)
    if head[8:9] != b"{" and not head.startswith(ZIP_START):
        raise CheckpointError(_unknown(file, head))
    return head.startswith(ZIP_START)


def _unknown(file: Path, head: bytes) -> str:
    kind = next((text for start, text in _MAGIC if head.startswith(start)), None)
    if not head:
        kind = "empty"
    return (
        f"{file} ({file.stat().st_size} bytes) is {kind or f'of an unknown kind ({head[:8]!r})'}; "
        "weights are read from .pt files of torch.save (its zip format) and from safetensors. "
        "Download it again, or save it anew from the program that wrote it"
    )
