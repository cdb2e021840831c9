"""Our files of weights: safetensors whose metadata hold digests of tensors and metadata.

The header is written in a fixed order, so that equal weights give equal files; the safetensors
library orders metadata by chance.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save_file
from torch import Tensor

from jepa_gym.checkpoint.digests import chunks, remembered
from jepa_gym.checkpoint.errors import CheckpointError
from jepa_gym.files import atomic_write

DIGEST_KEY = "sha256"
METADATA_KEY = "metadata_sha256"
"""Digest of the other metadata; files that were written before there was one lack it."""
_METADATA = "__metadata__"
_DAMAGE = (SafetensorError, ValueError, TypeError, KeyError, OverflowError, AssertionError)
"""What the library raises for files that it cannot read, unknown types of numbers among them."""


def write_safetensors(
    path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]
) -> None:
    """Write a file of weights with a digest; it appears complete or not at all.

    Args:
        path: The file.
        tensors: By name; none may share memory with another one.
        metadata: Kept beside them.
    """
    tensors = {name: x.detach().cpu().contiguous() for name, x in tensors.items()}
    kept = {"format": "pt"} | dict(metadata)
    kept |= {DIGEST_KEY: "0" * 64, METADATA_KEY: _metadata_digest(kept)}
    with atomic_write(path) as temporary:
        save_file(tensors, temporary, kept)
        with temporary.open("r+b") as file:
            header, start = _header(file)
            header[_METADATA][DIGEST_KEY] = tensor_digest(file)
            text = json.dumps(header, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
            file.seek(8)
            file.write(text.encode().ljust(start - 8))


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a small file at once, and check its digest if it has one.

    Returns:
        The tensors, in memory of their own, and the metadata.

    Raises:
        CheckpointError: When the file is truncated or damaged.
    """
    content = path.read_bytes()
    with _explained(path):
        tensors = load(content)
        metadata = _header(io.BytesIO(content))[0].get(_METADATA, {})
    _check_digest(path, metadata, tensor_digest(io.BytesIO(content)))
    _check_metadata(path, metadata)
    return tensors, metadata


@contextmanager
def mapped_safetensors(path: Path) -> Iterator[tuple[dict[str, Tensor], dict[str, str]]]:
    """Map a large file: tensors that are read when they are used, and metadata.

    Raises:
        CheckpointError: When the file is truncated or damaged.
    """
    with ExitStack() as opened:
        with _explained(path):
            mapped = opened.enter_context(safe_open(path, "pt"))
            tensors = {name: mapped.get_tensor(name) for name in list(mapped.keys())}
            metadata = mapped.metadata() or {}
        _check_metadata(path, metadata)
        yield tensors, metadata


def check_large_file(path: Path, metadata: Mapping[str, str]) -> None:
    """Check the digest of a large file, once for each state of the file.

    Raises:
        CheckpointError: When the file is damaged.
    """
    if DIGEST_KEY in metadata:

        def compute() -> str:
            with path.open("rb") as file:
                return tensor_digest(file)

        _check_digest(path, metadata, remembered(path, "tensors", compute))


def tensor_digest(file: BinaryIO) -> str:
    """Hash the names, types, shapes and numbers of all tensors in a file of safetensors.

    Returns:
        SHA-256 as hexadecimal digits; the same for equal tensors, whatever their order and the
        metadata.
    """
    header, start = _header(file)
    header.pop(_METADATA, None)
    total = hashlib.sha256()
    for name, entry in sorted(header.items()):
        total.update(json.dumps([name, entry["dtype"], entry["shape"]]).encode())
        first, end = entry["data_offsets"]
        file.seek(start + first)
        for chunk in chunks(file, end - first):
            total.update(chunk)
    return total.hexdigest()


def _check_digest(path: Path, metadata: Mapping[str, str], digest: str) -> None:
    if metadata.get(DIGEST_KEY, digest) != digest:
        raise CheckpointError(
            f"{path} is damaged: the digest of its tensors is {digest[:16]}..., not "
            f"{metadata[DIGEST_KEY][:16]}... as when it was written; copy or download it again"
        )


def _check_metadata(path: Path, metadata: Mapping[str, str]) -> None:
    if METADATA_KEY in metadata and metadata[METADATA_KEY] != _metadata_digest(metadata):
        raise CheckpointError(
            f"{path} is damaged: what it tells of its tensors is not what was written; copy or "
            "download it again"
        )


def _metadata_digest(metadata: Mapping[str, str]) -> str:
    """Hash the metadata without the digests in them; SHA-256 as hexadecimal digits."""
    rest = {k: v for k, v in metadata.items() if k not in (DIGEST_KEY, METADATA_KEY)}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _header(file: BinaryIO) -> tuple[dict[str, Any], int]:
    """Return the header of a file that the library has accepted, and where the numbers begin."""
    file.seek(0)
    length = int.from_bytes(file.read(8), "little")
    return json.loads(file.read(length)), 8 + length


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn the library's errors into one that names the file."""
    try:
        yield
    except _DAMAGE as error:
        raise CheckpointError(
            f"{path} ({path.stat().st_size} bytes) is truncated or no safetensors file "
            f"({' '.join(str(error).split())[:200]}); copy or download it again"
        ) from None
