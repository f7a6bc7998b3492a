"""A store on a real server on this machine, and a server that can be told to fail."""

from __future__ import annotations

import contextlib
import functools
import http.server
import shutil
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from cellmill.ingest import build
from cellmill.store import open_store


@dataclass
class Fault:
    """What a server does wrong: `kind`, how often (None: for ever), to which paths."""

    kind: str
    times: int | None = None
    only: str = ""


@dataclass
class RangeServer:
    """A folder over HTTP, with ranges and ETags, on a thread; `seen` lists the requests, as path and range."""

    folder: Path
    prefix: str = ""
    faults: list[Fault] = field(default_factory=list)
    seen: list[tuple[str, str | None]] = field(default_factory=list)
    etags: dict[str, str] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    elsewhere: str = ""
    url: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)
    released: threading.Event = field(default_factory=threading.Event)

    def fail(self, kind: str, times: int | None = None, only: str = "") -> None:
        self.faults.append(Fault(kind, times, only))

    def mend(self) -> None:
        self.faults.clear()

    def forget(self) -> None:
        self.seen.clear()

    def take_fault(self, path: str) -> str:
        with self.lock:
            for fault in self.faults:
                if fault.only in path and fault.times != 0:
                    fault.times = None if fault.times is None else fault.times - 1
                    return fault.kind
        return ""


class Handler(http.server.BaseHTTPRequestHandler):
    """GET with one range, as a plain web server does it, except for the faults it is told.

    Knows the redirect `/moved/NAME` to NAME, and a query after a name.
    """

    protocol_version = "HTTP/1.1"

    def __init__(self, served: RangeServer, *arguments) -> None:
        self.served = served
        super().__init__(*arguments)

    def log_message(self, *_) -> None:
        pass

    def do_GET(self) -> None:
        name = urllib.parse.unquote(self.path.partition("?")[0]).removeprefix(self.served.prefix).lstrip("/")
        wanted = self.headers.get("Range")
        with self.served.lock:
            self.served.seen.append((name, wanted))
        if name.startswith("moved/"):
            self.answer(302, b"", {"Location": self.served.elsewhere + name.removeprefix("moved")})
            return
        fault = self.served.take_fault(name)
        path = self.served.folder / name
        if fault.isdigit() or not path.is_file():
            self.answer(int(fault or 404), b"", {"Retry-After": "0"} if fault == "503" else {})
            return
        if fault == "silent":
            self.served.released.wait(20)
            self.close_connection = True
            return
        whole = path.read_bytes()
        found = path.stat()
        tag = self.served.etags.get(name, f'"{found.st_mtime_ns:x}-{found.st_size:x}"')
        headers = {"ETag": tag, "Last-Modified": self.date_time_string(int(found.st_mtime))} | self.served.headers
        if fault == "no tags":
            headers = {}
        if fault == "slow":
            time.sleep(0.3)
        other = self.headers.get("If-Range") not in (None, tag)
        if wanted is None or other or fault.startswith("no ranges"):
            self.answer(200, whole, headers, cut=fault.endswith("cut"))
            return
        first, last = (int(number or len(whole)) for number in wanted.removeprefix("bytes=").split("-"))
        last = min(last, len(whole) - 1)
        if first > last:
            self.answer(416, b"", {"Content-Range": f"bytes */{len(whole)}"})
            return
        if fault == "fewer":
            last -= (last - first) // 2 + 1
        if fault == "zeros":  # the right length, under the right tag
            whole = bytes(len(whole))
        headers["Content-Range"] = f"bytes {first}-{last}/{len(whole) + (7 if fault == 'longer object' else 0)}"
        self.answer(206, whole[first : last + 1], headers, cut=fault == "cut")

    def answer(self, status: int, body: bytes, headers: dict[str, str], *, cut: bool = False) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        with contextlib.suppress(ConnectionError):  # who asked may have gone
            self.wfile.write(body[: len(body) // 2] if cut else body)
        self.close_connection = self.close_connection or cut


@pytest.fixture
def serve() -> Iterator[Callable[..., RangeServer]]:
    """Start a server for a folder; all are stopped when the test ends."""
    running = []

    def start(folder: Path, prefix: str = "") -> RangeServer:
        served = RangeServer(folder, prefix)
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, served))
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        served.url = f"http://127.0.0.1:{server.server_port}{prefix}"
        running.append((served, server, thread))
        return served

    yield start
    for served, server, thread in running:
        served.released.set()
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(autouse=True)
def cache_folder(tmp_path, monkeypatch) -> Path:
    """A cache of the test's own."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("CELLMILL_CACHE", str(folder))
    monkeypatch.delenv("CELLMILL_CACHE_LIMIT", raising=False)
    return folder


@pytest.fixture(scope="session")
def built(tmp_path_factory) -> Path:
    """Where stores lie that were built once, and are copied for each test."""
    return tmp_path_factory.mktemp("built")


@pytest.fixture
def local(tmp_path, tiny_h5ad, built):
    """A store of four shards in a folder."""
    kept = built / "s.mill"
    if not kept.exists():
        file = tiny_h5ad(n_cells=250, n_genes=90)
        build(kept, [file.path], vocabulary="union", shard_cells=64, block_cells=32)
    return open_store(shutil.copytree(kept, tmp_path / "s.mill"))


@pytest.fixture
def wide(tmp_path, tiny_h5ad, built):
    """A store of one shard, 20 blocks long, with offsets of 32 bits: counts that no codec makes small."""
    kept = built / "wide.mill"
    if not kept.exists():
        rng = np.random.default_rng(3)
        counts = rng.integers(1, 2**31, (200, 1700)) * (rng.random((200, 1700)) < 0.9)
        build(kept, [tiny_h5ad("wide", counts=counts, dtype="int64").path], vocabulary="union")
    return open_store(shutil.copytree(kept, tmp_path / "wide.mill"))
