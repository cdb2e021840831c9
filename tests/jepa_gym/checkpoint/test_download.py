"""Downloads from a server in this process: complete, interrupted, wrong, missing."""

from __future__ import annotations

import hashlib
import http.server
import io
import json
import os
import threading
import urllib.error
import urllib.request
import urllib.response
from dataclasses import replace
from email.message import Message

import pytest
import torch

from jepa_gym import files
from jepa_gym.checkpoint import digests, published
from jepa_gym.checkpoint import download as hub
from jepa_gym.checkpoint.errors import DownloadError
from jepa_gym.checkpoint.registry import Published
from jepa_gym.world_model import WorldModel


def saved(seed):
    """What torch.save writes, 512 kB."""
    buffer = io.BytesIO()
    generator = torch.Generator().manual_seed(seed)
    torch.save({"encoder": {"weight": torch.rand(128_000, generator=generator)}}, buffer)
    return buffer.getvalue()


CONTENT, OTHER = saved(0), saved(1)
SIZE = len(CONTENT)
NAME = "test-model"


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves CONTENT with ranges, or with the faults that the server's `faults` ask for."""

    def do_GET(self):
        faults = self.server.faults
        self.server.requests.append(self.headers.get("Range"))
        if self.path != "/model.pt":
            self.send_error(404)
            return
        first, content = 0, faults.get("content", CONTENT)
        wanted = self.headers.get("Range")
        etag = faults.get("etag", '"one"')
        if wanted and "no_ranges" not in faults and self.headers["If-Range"] == etag:
            first = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if first >= len(content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
        self.send_response(206 if first else 200)
        if "no_length" not in faults:
            self.send_header("Content-Length", str(len(content) - first))
        self.send_header("ETag", etag)
        self.end_headers()
        end = faults.pop("stop_at", [len(content)])
        self.wfile.write(content[first : end[0]])
        if end[1:]:
            faults["stop_at"] = end[1:]

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server(monkeypatch, tmp_path):
    instance = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    instance.faults, instance.requests = {}, []
    thread = threading.Thread(target=instance.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    entry = Published(f"http://127.0.0.1:{instance.server_port}/model.pt", "a test")
    monkeypatch.setitem(hub.REGISTRY, NAME, entry)
    monkeypatch.setenv(files.CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(hub, "_PAUSE_S", 0.0)
    for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    yield instance
    instance.shutdown()
    thread.join()
    instance.server_close()


def change(monkeypatch, **changes):
    monkeypatch.setitem(hub.REGISTRY, NAME, replace(hub.REGISTRY[NAME], **changes))


def test_download_once(server, tmp_path):
    path = hub.fetch(NAME)
    assert path == tmp_path / "cache" / "model.pt" and path.read_bytes() == CONTENT
    digest = path.with_name("model.pt.sha256").read_text()
    assert digest == f"{hashlib.sha256(CONTENT).hexdigest()}  model.pt\n"
    assert hub.fetch(NAME, local_files_only=True) == path
    assert server.requests == [None]
    assert {item.name for item in path.parent.iterdir()} == {
        "model.pt",
        "model.pt.sha256",
        ".model.pt.lock",
    }


def test_interrupted_downloads_continue(server):
    server.faults["stop_at"] = [1000, 50_000]
    assert hub.fetch(NAME).read_bytes() == CONTENT
    assert server.requests == [None, "bytes=1000-", "bytes=50000-"]


def test_next_call_continues(server, monkeypatch):
    monkeypatch.setattr(hub, "_TRIES", 1)
    server.faults["stop_at"] = [1000]
    with pytest.raises(DownloadError, match=rf"ended at 1000 of {SIZE} bytes.*Call again"):
        hub.fetch(NAME)
    assert not (hub.cache_folder() / "model.pt").exists()
    assert hub.fetch(NAME).read_bytes() == CONTENT
    assert server.requests == [None, "bytes=1000-"]


def test_no_progress_ends(server):
    server.faults["stop_at"] = [1000] + [1000] * 9
    with pytest.raises(DownloadError, match="ended at 1000"):
        hub.fetch(NAME)
    assert len(server.requests) == 2


@pytest.mark.parametrize("fault", [{"no_ranges": True}, {"etag": 'W/"weak"'}, {"etag": ""}])
def test_server_without_ranges_starts_again(server, fault):
    server.faults |= {"stop_at": [1000]} | fault
    assert hub.fetch(NAME).read_bytes() == CONTENT
    assert len(server.requests) == 2


def test_changed_file_starts_again(server, monkeypatch):
    monkeypatch.setattr(hub, "_TRIES", 1)
    server.faults["stop_at"] = [1000]
    with pytest.raises(DownloadError):
        hub.fetch(NAME)
    server.faults |= {"etag": '"two"', "content": OTHER}
    assert hub.fetch(NAME).read_bytes() == OTHER


def leave_part(content, known=None):
    """Leave a part as an interrupted download does, of which a beginning is known to be right."""
    known = content if known is None else known
    note = {"bytes": len(known), "etag": '"one"', "sha256": hashlib.sha256(known).hexdigest()}
    folder = hub.cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.pt.part").write_bytes(content)
    (folder / "model.pt.part.json").write_text(json.dumps(note))


@pytest.mark.parametrize("extra", [b"", b"more"])
def test_part_that_is_complete_or_too_long(server, extra):
    leave_part(CONTENT + extra)
    if extra:
        with pytest.raises(DownloadError, match="did not match"):
            hub.fetch(NAME)
    assert hub.fetch(NAME).read_bytes() == CONTENT


def test_wrong_size(server, monkeypatch):
    change(monkeypatch, size=SIZE + 1)
    with pytest.raises(DownloadError, match=f"offers {SIZE} bytes instead of {SIZE + 1}"):
        hub.fetch(NAME)
    server.faults["no_length"] = True
    with pytest.raises(DownloadError, match=f"has bytes {SIZE} instead of {SIZE + 1}"):
        hub.fetch(NAME)
    assert not list(hub.cache_folder().glob("model.pt*"))


def test_wrong_checksum(server, monkeypatch):
    change(monkeypatch, sha256="0" * 64)
    with pytest.raises(DownloadError, match=r"has SHA-256 \w{64} instead of 000"):
        hub.fetch(NAME)
    assert not list(hub.cache_folder().glob("model.pt*"))
    change(monkeypatch, sha256=hashlib.sha256(CONTENT).hexdigest())
    path = hub.fetch(NAME)
    path.with_name("model.pt.sha256").unlink()
    path.write_bytes(OTHER)
    with pytest.raises(DownloadError, match="damaged or exchanged"):
        hub.fetch(NAME)


def test_damage_is_noticed_at_the_next_use(server):
    path = hub.fetch(NAME)
    content = bytearray(CONTENT)
    content[123_456] ^= 1
    path.write_bytes(content)
    with pytest.raises(DownloadError, match=r"checksum of .* is wrong.*Delete it"):
        hub.fetch(NAME, local_files_only=True)
    path.write_bytes(OTHER)
    with pytest.raises(DownloadError, match="damaged or exchanged"):
        hub.fetch(NAME, local_files_only=True)


def test_missing_on_the_server(server, monkeypatch):
    change(monkeypatch, url=hub.REGISTRY[NAME].url.replace("model.pt", "gone.pt"))
    with pytest.raises(DownloadError, match=r"404.*put it at .*gone\.pt"):
        hub.fetch(NAME)
    assert len(server.requests) == 1


def test_offline(server, monkeypatch):
    with pytest.raises(DownloadError, match=r"local_files_only=True.*by hand"):
        hub.fetch(NAME, local_files_only=True)
    with pytest.raises(DownloadError, match="local_files_only"):
        WorldModel.from_pretrained("vjepa2-ac-vitg", local_files_only=True)
    change(monkeypatch, url="http://127.0.0.1:1/model.pt")
    with pytest.raises(DownloadError, match=r"refused.*put it at .*model\.pt; JEPA_GYM_CACHE"):
        hub.fetch(NAME)
    path = hub.cache_folder() / "model.pt"
    path.write_bytes(CONTENT)
    assert hub.fetch(NAME) == path and path.with_name("model.pt.sha256").is_file()


def test_two_at_once_download_once(server):
    paths = []
    threads = [threading.Thread(target=lambda: paths.append(hub.fetch(NAME))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(paths) == 3 and len(server.requests) == 1


def test_a_read_only_cache_is_used(server, monkeypatch):
    path = hub.fetch(NAME)
    path.with_name("model.pt.sha256").unlink()

    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(hub, "FileLock", refuse)
    monkeypatch.setattr(hub, "atomic_write", refuse)
    assert hub.fetch(NAME) == path
    path.unlink()
    with pytest.raises(PermissionError, match="Permission denied"):
        hub.fetch(NAME)


def test_registry():
    with pytest.raises(ValueError, match=r"called 'vjepa2-vit-l'\. Did you mean `vjepa2-vitl`"):
        hub.fetch("vjepa2-vit-l")
    for entry in hub.REGISTRY.values():
        assert entry.url.startswith("https://") and entry.holds
        assert entry.encoder is None or entry.encoder in hub.REGISTRY
    names = [entry.file_name for entry in hub.REGISTRY.values()]
    assert len(set(names)) == len(names)


def test_command(server, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["jepa-gym download"])
    assert hub.main() == 0
    listed = capsys.readouterr().out
    assert all(f"\n{name} " in f"\n{listed}" for name in hub.REGISTRY)
    assert "11.8 GB" in listed and "size unknown" in listed and str(hub.cache_folder()) in listed
    monkeypatch.setattr("sys.argv", ["jepa-gym download", NAME])
    assert hub.main() == 0
    assert capsys.readouterr().out == f"{hub.cache_folder() / 'model.pt'}\n"
    assert "(downloaded)" in hub.listing()
    monkeypatch.setattr("sys.argv", ["jepa-gym download", "vit"])
    assert hub.main() == 1
    printed = capsys.readouterr().err
    assert (
        printed.startswith("error: no published file is called 'vit'") and "\n" not in printed[:-1]
    )


def test_a_login_page_is_not_taken_for_the_file(server):
    server.faults |= {"content": b"<!DOCTYPE html><title>Log in</title>", "no_length": True}
    with pytest.raises(DownloadError, match=r"gave no file of weights.*DOCTYPE.*login"):
        hub.fetch(NAME)
    assert not list(hub.cache_folder().glob("model.pt*"))
    server.faults.clear()
    assert hub.fetch(NAME).read_bytes() == CONTENT


def test_a_login_page_takes_nothing_from_what_has_arrived(server, monkeypatch):
    for fault in ({"no_length": True}, {}):
        leave_part(CONTENT[:1000])
        change(monkeypatch, size=SIZE)
        server.faults |= {"content": b"<html>Log in</html>", "no_ranges": True} | fault
        with pytest.raises(DownloadError, match=r"login first|network answers in its place"):
            hub.fetch(NAME)
        server.faults.clear()
        assert hub.fetch(NAME).read_bytes() == CONTENT
        assert server.requests[-1] == "bytes=1000-"
        (hub.cache_folder() / "model.pt").unlink()


@pytest.mark.parametrize("where", [10, 999])
def test_a_damaged_part_is_not_continued(server, where):
    damaged = bytearray(CONTENT[:1000])
    damaged[where] ^= 1
    leave_part(bytes(damaged), CONTENT[:1000])
    assert hub.fetch(NAME).read_bytes() == CONTENT
    assert server.requests == [None]


def test_what_a_killed_download_wrote_after_its_last_note_is_got_again(server):
    leave_part(CONTENT[:900] + b"half a block of zeros", CONTENT[:900])
    assert hub.fetch(NAME).read_bytes() == CONTENT
    assert server.requests == ["bytes=900-"]


@pytest.mark.parametrize("note", ["", "{", "[]", '{"bytes": 10}'])
def test_a_part_without_a_note_starts_again(server, note):
    leave_part(CONTENT[:1000])
    (hub.cache_folder() / "model.pt.part.json").write_text(note)
    assert hub.fetch(NAME).read_bytes() == CONTENT
    assert server.requests == [None]


def test_a_file_with_a_wrong_checksum_inside_is_not_kept(server):
    content = bytearray(CONTENT)
    content[123_456] ^= 1
    server.faults["content"] = bytes(content)
    with pytest.raises(DownloadError, match=r"wrong file: .*checksum of .*weight|data/0 is wrong"):
        hub.fetch(NAME)
    assert not list(hub.cache_folder().glob("model.pt*"))


def test_the_disk_has_room_or_nothing_is_lost(server, monkeypatch):
    leave_part(CONTENT[:1000])
    usage = files.shutil.disk_usage("/")
    monkeypatch.setattr(hub.shutil, "disk_usage", lambda path: usage._replace(free=2000))
    with pytest.raises(DownloadError, match=r"0\.0 GB are missing"):
        hub.fetch(NAME)
    assert (hub.cache_folder() / "model.pt.part").read_bytes() == CONTENT[:1000]


class Redirecting(urllib.request.BaseHandler):
    """Answers https with a redirect, and plain http with a file."""

    handler_order = 100

    def __init__(self, target):
        self.target = target

    def https_open(self, request):
        headers = Message()
        headers["Location"] = self.target
        answer = urllib.response.addinfourl(io.BytesIO(), headers, request.full_url, 302)
        answer.msg = "Found"
        return answer

    def http_open(self, request):
        return urllib.response.addinfourl(io.BytesIO(CONTENT), Message(), request.full_url, 200)


@pytest.mark.parametrize("target", ["http://example.org/model.pt", "ftp://example.org/model.pt"])
def test_redirects_never_leave_https(target, monkeypatch):
    build = urllib.request.build_opener
    monkeypatch.setattr(
        urllib.request, "build_opener", lambda *handlers: build(Redirecting(target), *handlers)
    )
    with pytest.raises(DownloadError, match="not encrypted"):
        hub._open("https://example.org/model.pt", {})


def test_large_files_are_read_once(server, monkeypatch):
    """Neither the next use nor the next process reads a large file that has not changed."""
    monkeypatch.setattr(digests, "SMALL_BYTES", 1000)
    path = hub.fetch(NAME)
    reads = []
    checked = digests.checked_digest
    monkeypatch.setattr(digests, "checked_digest", lambda path: reads.append(path) or checked(path))
    assert hub.fetch(NAME) == path
    weights = published.read_weights(path, "encoder")["weight"]
    assert reads == [] and len(weights) == 128_000
    os.utime(path, ns=(0, 10**18))
    hub.fetch(NAME)
    hub.fetch(NAME)
    assert reads == [path]
    (hub.cache_folder() / digests.MEMORY_FILE).write_text("damaged")
    hub.fetch(NAME)
    assert reads == [path, path]
