"""Downloads of published files that can be interrupted, and are checked before they are used.

    jepa-gym download                    # the names
    jepa-gym download vjepa2-ac-vitg

This is our own code because the libraries lack what it needs: pooch does not continue interrupted
files of 12 GB and follows redirects away from https, huggingface_hub reads from its own hub only.

No publisher states a checksum, and only some state a size. So a file must be what `torch.save`
writes, have the size that is known or the server tells, and fit the checksums inside it; its
SHA-256 is then written beside it as NAME.sha256, for later uses (see `digests` about large files).
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from http.client import HTTPException, HTTPMessage, HTTPResponse
from pathlib import Path
from typing import IO, Any

from filelock import FileLock

from jepa_gym import __version__, logs
from jepa_gym.checkpoint.digests import (
    CHUNK,
    ZIP_START,
    checked_digest,
    chunks,
    file_digest,
    remember,
)
from jepa_gym.checkpoint.errors import CheckpointError, DownloadError
from jepa_gym.checkpoint.registry import REGISTRY, Published
from jepa_gym.commands import guarded
from jepa_gym.files import CACHE_VARIABLE, atomic_write, cache_folder
from jepa_gym.logs import progress_bar
from jepa_gym.names import did_you_mean

_TIMEOUT_S = 30
_TRIES = 4
_PAUSE_S = 1.0
_NOTE_EVERY = 64 * CHUNK


def fetch(name: str, local_files_only: bool = False) -> Path:
    """Return the path of a published file, downloaded if need be, verified in any case.

    Several processes may call this at once: one downloads, the others wait for it.

    Args:
        name: A name in `REGISTRY`.
        local_files_only: Whether to fail rather than use the network.

    Raises:
        ValueError: When the name is unknown.
        DownloadError: When the file cannot be got, or is not what was published.
    """
    if name not in REGISTRY:
        raise ValueError(
            f"no published file is called {name!r}.{did_you_mean(name, REGISTRY)} The names are "
            f"{', '.join(REGISTRY)}"
        )
    entry, folder = REGISTRY[name], cache_folder()
    path = folder / entry.file_name
    if local_files_only and not path.is_file():
        raise DownloadError(
            f"{name} is not at {path} and local_files_only=True; allow the download, or put there "
            f"by hand what {entry.url} gives"
        )
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f".{entry.file_name}.lock"):
            if not path.is_file():  # another process may have got it meanwhile
                _Download(entry, path).run()
                return path
    _verify(entry, path)  # asks for no lock: the cache may be read-only
    return path


def _verify(entry: Published, path: Path) -> None:
    """Check size and digest; note the digest of a file that was put there by hand."""
    note, size = _digest_file(path), path.stat().st_size
    expected = entry.sha256
    if expected is None and note.is_file():
        expected = note.read_text(errors="replace").partition(" ")[0]
    try:
        digest = file_digest(path)
        if entry.size is not None and size != entry.size:
            raise CheckpointError(f"{path} has {size} bytes instead of {entry.size}")
        if expected is not None and digest != expected:
            raise CheckpointError(
                f"{path} has the SHA-256 {digest} instead of {expected}: it was damaged or "
                "exchanged"
            )
    except CheckpointError as error:
        raise DownloadError(
            f"{error}. Delete it (and {note.name}, if you exchanged it) and download it again"
        ) from None
    if expected is None:
        with suppress(OSError):  # a read-only cache
            _write_digest(path, digest)


class _Download:
    """One download: NAME.part grows, NAME.part.json says how far it is known to be right."""

    def __init__(self, entry: Published, path: Path) -> None:
        self.entry, self.path = entry, path
        self.part = path.with_name(f"{path.name}.part")
        self.note = path.with_name(f"{path.name}.part.json")
        self.hash = hashlib.sha256()

    def run(self) -> None:
        """Continue what was interrupted; rename the part when it is verified."""
        for left in reversed(range(_TRIES)):
            before = self.part.stat().st_size if self.part.is_file() else 0
            try:
                total = self._continue()
                break
            except DownloadError:  # no broken connection, but a wrong answer
                raise
            except urllib.error.HTTPError as error:
                raise self._failed(f"the server answers {error}") from None
            except (OSError, HTTPException) as error:
                grown = self.part.is_file() and self.part.stat().st_size > before
                if not left or not grown:
                    raise self._failed(str(error) or repr(error)) from None
                time.sleep(_PAUSE_S)
        self._finish(total)

    def _finish(self, total: int | None) -> None:
        """Check the complete part and let it appear under its name."""
        entry = self.entry
        expected = {"bytes": total if entry.size is None else entry.size, "SHA-256": entry.sha256}
        try:
            got = {"bytes": self.part.stat().st_size, "SHA-256": checked_digest(self.part)}
            for what, value in expected.items():
                if value is not None and got[what] != value:
                    raise CheckpointError(f"it has {what} {got[what]} instead of {value}")
        except CheckpointError as error:
            self._remove()
            raise DownloadError(
                f"{entry.url} gave a wrong file: {error}. It was removed. Try again; if that stays "
                "so, its publisher changed the file"
            ) from None
        _write_digest(self.path, got["SHA-256"])
        self.part.replace(self.path)
        remember(self.path, "file", got["SHA-256"])
        self._remove()

    def _continue(self) -> int | None:
        """Get what is missing of the file; return its full size if the server tells.

        Raises:
            DownloadError: When the answer is not the file.
            OSError: When the connection breaks, or ends early. What arrived is kept.
        """
        done, etag = self._resumable()
        headers = {"User-Agent": f"jepa-gym/{__version__}", "Accept-Encoding": "identity"}
        if done:  # the server sends everything if the file is another one by now
            headers |= {"Range": f"bytes={done}-", "If-Range": etag}
        try:
            response = _open(self.entry.url, headers)
        except urllib.error.HTTPError as error:
            if error.code != 416:  # nothing after the end: complete, or longer than the file
                raise
            total = (error.headers.get("Content-Range") or "").rpartition("/")[2]
            if total == str(done):
                return done
            self._remove()
            raise ConnectionError(f"{self.part} did not match the file and was removed") from None
        with response:
            if response.status != 206:
                done, self.hash = 0, hashlib.sha256()
            length = response.headers.get("Content-Length")
            total = done + int(length) if length else None
            self._check_answer(done, total)
            received = self._save(response, done, total)
        if total is not None and received < total:
            raise ConnectionError(f"the connection ended at {received} of {total} bytes")
        return total

    def _resumable(self) -> tuple[int, str]:
        """Cut the part to what is known to be right of it; return its bytes and the ETag."""
        self.hash = hashlib.sha256()
        try:
            note = json.loads(self.note.read_text())
            done, etag = int(note["bytes"]), str(note["etag"])
            with self.part.open("r+b") as file:
                for chunk in chunks(file, done):
                    self.hash.update(chunk)
                if etag and file.tell() == done and self.hash.hexdigest() == note["sha256"]:
                    file.truncate(done)
                    return done, etag
        except (OSError, ValueError, KeyError, TypeError):
            pass  # there is none, or it is damaged: all is got again
        self._remove()
        self.hash = hashlib.sha256()
        return 0, ""

    def _check_answer(self, done: int, total: int | None) -> None:
        """Refuse a file of another size, or one that the disk has no room for, before it comes."""
        if None not in (total, self.entry.size) and total != self.entry.size:
            raise DownloadError(
                f"{self.entry.url} offers {total} bytes instead of {self.entry.size}; its "
                "publisher changed the file, or this network answers in its place"
            )
        free = shutil.disk_usage(self.part.parent).free
        if total is not None and total - done > free:
            raise self._failed(f"{(total - done) / 1e9:.1f} GB are missing, {free / 1e9:.1f} free")

    def _save(self, response: HTTPResponse, done: int, total: int | None) -> int:
        """Write what comes; return the size of the part."""
        etag = response.headers.get("ETag") or ""
        etag = "" if etag.startswith("W/") else etag
        noted, chunk = done, response.read(CHUNK)
        if not done and not chunk.startswith(ZIP_START[: len(chunk)]):
            kind = response.headers.get("Content-Type", "of an unknown kind")
            raise DownloadError(
                f"{self.entry.url} gave no file of weights, but something {kind} that begins with "
                f"{chunk[:15]!r}; does this network ask for a login first?"
            )
        with (
            self.part.open("ab" if done else "wb") as file,
            progress_bar(
                total=total, initial=done, unit="B", unit_scale=True, desc=self.path.name
            ) as bar,
        ):
            try:
                while chunk:
                    file.write(chunk)
                    self.hash.update(chunk)
                    done += len(chunk)
                    bar.update(len(chunk))
                    if done - noted >= _NOTE_EVERY:
                        file.flush()
                        self._write_note(done, etag)
                        noted = done
                    chunk = response.read(CHUNK)
            finally:
                file.flush()
                self._write_note(done, etag)
        return done

    def _write_note(self, done: int, etag: str) -> None:
        with atomic_write(self.note) as temporary:
            note = {"bytes": done, "etag": etag, "sha256": self.hash.hexdigest()}
            temporary.write_text(json.dumps(note))

    def _remove(self) -> None:
        self.part.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)

    def _failed(self, reason: str) -> DownloadError:
        return DownloadError(
            f"cannot download {self.entry.url}: {reason}. Call again to continue where it stopped. "
            f"Without network, download it elsewhere and put it at {self.path}; {CACHE_VARIABLE} "
            "sets the folder"
        )


class _NoDowngrade(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but never from https to anything else."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        """Return the next request; DownloadError when it would not be encrypted."""
        if req.type == "https" and not newurl.lower().startswith("https:"):
            raise DownloadError(
                f"{req.full_url} redirects to {newurl}, which is not encrypted: refused"
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _open(url: str, headers: dict[str, str]) -> HTTPResponse:
    request = urllib.request.Request(url, headers=headers)
    return urllib.request.build_opener(_NoDowngrade).open(request, timeout=_TIMEOUT_S)


def _digest_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _write_digest(path: Path, digest: str) -> None:
    with atomic_write(_digest_file(path)) as temporary:
        temporary.write_text(f"{digest}  {path.name}\n")


def listing() -> str:
    """Return the registered names as a table."""
    rows = []
    for name, entry in REGISTRY.items():
        gigabytes = entry.about_gb if entry.size is None else entry.size / 1e9
        size = "size unknown" if gigabytes is None else f"{gigabytes:.1f} GB"
        here = " (downloaded)" if (cache_folder() / entry.file_name).is_file() else ""
        rows.append(f"{name:<32} {size:>12}  {entry.holds}{here}")
    return "\n".join([*rows, "", f"Downloads go to {cache_folder()} ({CACHE_VARIABLE} sets it)."])


def download(name: str | None = None, /) -> None:
    """Download published weights, or list their names if none is given.

    Args:
        name: A name of the list.
    """
    print(listing() if name is None else fetch(name))


def main() -> int:
    """Run `jepa-gym download`."""
    import tyro

    def run() -> None:
        words, level = logs.taken_from(sys.argv[1:])
        logs.begin(level)
        command: Callable[..., Any] = download
        tyro.cli(command, args=words)

    return guarded(run)
