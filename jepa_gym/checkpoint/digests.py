"""SHA-256 of files. That of a large one is remembered until its size or time of change differs.

Small files are read anyway, and hashed at every use. Files of published weights have up to 17 GB:
to read them whole whenever they are opened would take minutes and defeat memory mapping.
"""

from __future__ import annotations

import hashlib
import json
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from jepa_gym.checkpoint.errors import CheckpointError
from jepa_gym.files import atomic_write, cache_folder

SMALL_BYTES = 200_000_000
"""Files up to this size are checked at every use."""
MEMORY_FILE = "digests.json"
ZIP_START = b"PK\x03\x04"
CHUNK = 1 << 20
_LOCAL_HEADER = 30
_SETTLED_NS = 1_000_000_000
"""A file that changed less than this ago may change again without another time."""


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file; the checksums in a `.pt` are compared while it is read.

    Returns:
        Hexadecimal digits.

    Raises:
        CheckpointError: When a zip archive, as `torch.save` writes them, is damaged.
    """
    return remembered(path, "file", lambda: checked_digest(path))


def remembered(path: Path, kind: str, compute: Callable[[], str]) -> str:
    """Return a digest of a file, computed at most once for each state of a large file.

    Args:
        path: The file.
        kind: What the digest is over, as there may be several of a file.
        compute: Reads the file.
    """
    key, stamp = _state(path, kind)
    if stamp[0] <= SMALL_BYTES:
        return compute()
    known = _read().get(key)
    if known is not None and known[:2] == stamp:
        return known[2]
    digest = compute()
    if time.time_ns() - stamp[1] > _SETTLED_NS:
        remember(path, kind, digest)
    return digest


def remember(path: Path, kind: str, digest: str) -> None:
    """Keep the digest of a large file as it is now, and drop those of files that are gone."""
    key, stamp = _state(path, kind)
    if stamp[0] <= SMALL_BYTES:
        return
    content = {k: v for k, v in _read().items() if Path(k.partition(" ")[2]).is_file()}
    with suppress(OSError), atomic_write(cache_folder() / MEMORY_FILE) as temporary:
        temporary.write_text(json.dumps(content | {key: [*stamp, digest]}, indent=1) + "\n")


def chunks(file: BinaryIO, length: int) -> Iterator[bytes]:
    """Read the next `length` bytes of a file piece by piece, fewer where it ends."""
    while length > 0 and (chunk := file.read(min(CHUNK, length))):
        length -= len(chunk)
        yield chunk


def checked_digest(path: Path) -> str:
    """Hash a file in one pass, and compare the checksums of a zip archive's members on the way.

    Raises:
        CheckpointError: When one is wrong.
    """
    total = hashlib.sha256()
    with path.open("rb") as file:
        members = _members(file, path) if file.read(4) == ZIP_START else []
        file.seek(0)
        for member in members:
            if file.tell() > member.header_offset:
                raise _damaged(path, f"{member.filename} overlaps another part")
            for chunk in chunks(file, member.header_offset - file.tell()):
                total.update(chunk)
            header = file.read(_LOCAL_HEADER)
            names = sum(int.from_bytes(header[at : at + 2], "little") for at in (26, 28))
            total.update(header + file.read(names))
            checksum = 0
            for chunk in chunks(file, member.compress_size):
                total.update(chunk)
                checksum = zlib.crc32(chunk, checksum)
            if checksum != member.CRC:
                raise _damaged(path, f"the checksum of {member.filename} is wrong")
        while chunk := file.read(CHUNK):
            total.update(chunk)
    return total.hexdigest()


def _members(file: BinaryIO, path: Path) -> list[zipfile.ZipInfo]:
    """Return the members of an archive in the order of their places."""
    try:
        with zipfile.ZipFile(file) as archive:
            members = sorted(archive.infolist(), key=lambda member: member.header_offset)
    except (zipfile.BadZipFile, ValueError, NotImplementedError, EOFError) as error:
        raise _damaged(path, str(error)) from None
    packed = [x.filename for x in members if x.compress_type != zipfile.ZIP_STORED]
    if packed:
        raise _damaged(path, f"{packed[0]} is compressed, which torch.save does not do")
    return members


def _damaged(path: Path, reason: str) -> CheckpointError:
    return CheckpointError(
        f"{path} ({path.stat().st_size} bytes) is truncated or damaged ({reason}); "
        "download it again"
    )


def _state(path: Path, kind: str) -> tuple[str, list]:
    """Return under which key a digest is kept, and size and time of change of the file."""
    state = path.stat()
    return f"{kind} {path.resolve()}", [state.st_size, state.st_mtime_ns]


def _read() -> dict[str, list]:
    """Return what is remembered; nothing when it cannot be read, as it can be computed again."""
    try:
        content = json.loads((cache_folder() / MEMORY_FILE).read_text())
        return {
            key: [int(size), int(changed), str(digest)]
            for key, (size, changed, digest) in content.items()
        }
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
