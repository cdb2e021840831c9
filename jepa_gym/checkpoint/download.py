"""Published files by name: where they are, how large, and a download that can be interrupted.

    jepa-gym download                    # the names
    jepa-gym download vjepa2-ac-vitg

Files go to the folder in JEPA_GYM_CACHE, else $XDG_CACHE_HOME/jepa_gym, else ~/.cache/jepa_gym. No
publisher states a checksum, and only some state a size. So the first download (or a file put there
by hand) is checked against the size if it is known, else the server's; its SHA-256 is then written
beside it as NAME.sha256 and every later use verifies it.
"""

from __future__ import annotations

import hashlib
import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path

from filelock import FileLock
from tqdm import tqdm

from jepa_gym import __version__

CACHE_VARIABLE = "JEPA_GYM_CACHE"
_META = "https://dl.fbaipublicfiles.com/vjepa2/"
_JEPA_WMS = "https://huggingface.co/facebook/jepa-wms/resolve/main/"
_CHUNK = 1 << 20
_TIMEOUT_S = 30
_TRIES = 4
_PAUSE_S = 1.0


class DownloadError(OSError):
    """A file that could not be got or is not what was published; the message says what to do."""


@dataclass(frozen=True)
class Published:
    """One published file.

    Attributes:
        url: Where it is; the last part is the file's name.
        holds: What is in it.
        size: Bytes, None where nobody states them.
        about_gb: The rough size where only that is known, 1e9 bytes.
        sha256: None where nobody states it, which at present is everywhere.
        encoder: The name of the file with the encoder, if this one has none.
    """

    url: str
    holds: str
    size: int | None = None
    about_gb: float | None = None
    sha256: str | None = None
    encoder: str | None = None

    @property
    def file_name(self) -> str:
        """The name of the file in the cache."""
        return self.url.rpartition("/")[2]


_PRETRAINED = "{}: encoder, its moving average, masked predictor, optimiser"
_PROBE = "attentive probe of {}"
REGISTRY: dict[str, Published] = {
    "vjepa2-vitl": Published(f"{_META}vitl.pt", _PRETRAINED.format("ViT-L, 256 px")),
    "vjepa2-vith": Published(f"{_META}vith.pt", _PRETRAINED.format("ViT-H, 256 px")),
    "vjepa2-vitg": Published(f"{_META}vitg.pt", _PRETRAINED.format("ViT-g, 256 px"), about_gb=16.5),
    "vjepa2-vitg-384": Published(f"{_META}vitg-384.pt", _PRETRAINED.format("ViT-g, 384 px")),
    "vjepa2-ac-vitg": Published(
        f"{_META}vjepa2-ac-vitg.pt",
        "V-JEPA 2-AC: encoder ViT-g, action-conditioned predictor, optimiser",
        about_gb=11.76,
    ),
    "jepa-wms-vjepa2-ac-oss": Published(
        f"{_JEPA_WMS}vjepa2_ac_oss.pth.tar",
        "the weights of vjepa2-ac-vitg without optimiser",
        size=5_269_870_323,
    ),
    "jepa-wms-vjepa2-ac-droid": Published(
        f"{_JEPA_WMS}vjepa2_ac_droid.pth.tar",
        "V-JEPA 2-AC trained anew with the corrected loss: predictor, optimiser",
        size=3_662_844_455,
        encoder="vjepa2-vitg",
    ),
} | {
    f"vjepa2-{name}": Published(f"{_META}evals/{name}.pt", _PROBE.format(name))
    for name in (
        "ssv2-vitl-16x2x3",
        "diving48-vitl-256",
        "ek100-vitl-256",
        "ssv2-vitg-384-64x2x3",
        "diving48-vitg-384-32x4x3",
        "ek100-vitg-384",
    )
}


def cache_folder() -> Path:
    """Return the folder of downloaded files; it need not exist."""
    if os.environ.get(CACHE_VARIABLE):
        return Path(os.environ[CACHE_VARIABLE]).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "jepa_gym"


def fetch(name: str, local_files_only: bool = False) -> Path:
    """Return the path of a published file, downloaded if need be, verified in any case.

    Several processes may call this at once: one downloads, the others wait for it.

    Args:
        name: A name in `REGISTRY`.
        local_files_only: Whether to fail rather than use the network.

    Raises:
        ValueError: When the name is unknown.
        DownloadError: When the file cannot be got, or its size or checksum is wrong.
    """
    if name not in REGISTRY:
        raise ValueError(f"no published file is called {name!r}; the names are {list(REGISTRY)}")
    entry, folder = REGISTRY[name], cache_folder()
    path = folder / entry.file_name
    if local_files_only and not path.is_file():
        raise DownloadError(
            f"{name} is not at {path} and local_files_only=True; allow the download, or put there "
            f"by hand what {entry.url} gives"
        )
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / f".{entry.file_name}.lock"):
        if path.is_file():
            _verify(entry, path)
        else:
            _download(entry, path)
    return path


def _download(entry: Published, path: Path) -> None:
    """Download to NAME.part, continuing what was interrupted; rename it when it is verified."""
    part = path.with_name(f"{path.name}.part")
    for left in reversed(range(_TRIES)):
        before = part.stat().st_size if part.is_file() else 0
        try:
            total = _continue(entry, part)
            break
        except urllib.error.HTTPError as error:
            raise DownloadError(_advice(entry, path, f"the server answers {error}")) from error
        except (OSError, HTTPException) as error:
            grown = part.is_file() and part.stat().st_size > before
            if not left or not grown:
                raise DownloadError(_advice(entry, path, str(error) or repr(error))) from error
            time.sleep(_PAUSE_S)
    expected = {"bytes": total if entry.size is None else entry.size, "SHA-256": entry.sha256}
    got = {"bytes": part.stat().st_size, "SHA-256": _sha256(part)}
    for what, value in expected.items():
        if value is not None and got[what] != value:
            _remove(part)
            raise DownloadError(
                f"{entry.url} gave a file of {what} {got[what]} instead of {value}; it was "
                "removed. Try again; if that stays so, its publisher changed the file"
            )
    _write_digest(path, got["SHA-256"])
    os.replace(part, path)
    _remove(part)


def _remove(part: Path) -> None:
    part.unlink(missing_ok=True)
    _etag_file(part).unlink(missing_ok=True)


def _continue(entry: Published, part: Path) -> int | None:
    """Get what is missing of a file; return its full size if the server tells.

    Raises:
        OSError: When the connection breaks, or ends early. What arrived is kept.
    """
    done = part.stat().st_size if part.is_file() else 0
    etag = _etag_file(part).read_text() if _etag_file(part).is_file() else ""
    headers = {"User-Agent": f"jepa-gym/{__version__}", "Accept-Encoding": "identity"}
    if done and etag:  # the server sends everything if the file is another one by now
        headers |= {"Range": f"bytes={done}-", "If-Range": etag}
    try:
        response = _open(entry.url, headers)
    except urllib.error.HTTPError as error:
        if error.code != 416:  # nothing after the end: complete, or longer than the file
            raise
        total = (error.headers.get("Content-Range") or "").rpartition("/")[2]
        if total == str(done):
            return done
        _remove(part)
        raise ConnectionError(f"{part} did not match the file and was removed") from error
    with response:
        if response.status != 206:
            done = 0
        new_etag = response.headers.get("ETag") or ""
        _etag_file(part).write_text("" if new_etag.startswith("W/") else new_etag)
        length = response.headers.get("Content-Length")
        total = done + int(length) if length else None
        received = _save(response, part, done, total, entry.file_name)
    if total is not None and received < total:
        raise ConnectionError(f"the connection ended at {received} of {total} bytes")
    return total


def _save(response: HTTPResponse, part: Path, done: int, total: int | None, name: str) -> int:
    with (
        part.open("ab" if done else "wb") as file,
        tqdm(total=total, initial=done, unit="B", unit_scale=True, desc=name) as progress,
    ):
        while chunk := response.read(_CHUNK):
            file.write(chunk)
            progress.update(len(chunk))
        return file.tell()


def _open(url: str, headers: dict[str, str]) -> HTTPResponse:
    request = urllib.request.Request(url, headers=headers)
    return urllib.request.urlopen(request, timeout=_TIMEOUT_S)


def _etag_file(part: Path) -> Path:
    return part.with_name(f"{part.name}.etag")


def _verify(entry: Published, path: Path) -> None:
    """Check size and checksum; write the checksum beside a file that was put there by hand."""
    size, digest_file = path.stat().st_size, _digest_file(path)
    if entry.size is not None and size != entry.size:
        raise DownloadError(
            f"{path} has {size} bytes instead of {entry.size}; delete it and download it again"
        )
    expected = entry.sha256
    if expected is None and digest_file.is_file():
        expected = digest_file.read_text().split()[0]
    digest = _sha256(path)
    if expected is None:
        _write_digest(path, digest)
    elif digest != expected:
        raise DownloadError(
            f"{path} has the SHA-256 {digest} instead of {expected}: it was damaged or exchanged. "
            f"Delete it (and {digest_file.name}, if you exchanged it) and download it again"
        )


def _digest_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _write_digest(path: Path, digest: str) -> None:
    temporary = path.with_name(f".{path.name}.sha256.tmp")
    temporary.write_text(f"{digest}  {path.name}\n")
    os.replace(temporary, _digest_file(path))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _advice(entry: Published, path: Path, reason: str) -> str:
    return (
        f"cannot download {entry.url}: {reason}. Call again to continue where it stopped. Without "
        f"network, download it elsewhere and put it at {path}; {CACHE_VARIABLE} sets the folder"
    )


def listing() -> str:
    """Return the registered names as a table."""
    rows = []
    for name, entry in REGISTRY.items():
        size = "size unknown"
        if entry.size is not None or entry.about_gb is not None:
            size = f"{entry.about_gb or entry.size / 1e9:.1f} GB"
        here = " (downloaded)" if (cache_folder() / entry.file_name).is_file() else ""
        rows.append(f"{name:<32} {size:>12}  {entry.holds}{here}")
    return "\n".join([*rows, "", f"Downloads go to {cache_folder()} ({CACHE_VARIABLE} sets it)."])


def download(name: str | None = None, /) -> int:
    """Download published weights, or list their names if none is given.

    Args:
        name: A name of the list.
    """
    if name is None:
        print(listing())
        return 0
    try:
        print(fetch(name))
    except (ValueError, DownloadError) as error:
        print(f"jepa-gym download: {error}", file=sys.stderr)
        return 1
    return 0


def main() -> int:
    """Run `jepa-gym download`."""
    import tyro

    command: Callable[..., int] = download
    return tyro.cli(command)
