"""Files behind URLs, brought to this machine (floor 3, sources): resumable, with size and ETag noted.

Knows URLs of single files, parts that were begun, and receipts. Moves bytes only: what is in them, the other modules
tell. https needs nothing but Python; s3 and gs go through `cellmill.storage.remote` (extra `cloud`).

A file lies in a folder of its own, named by the hash of its URL. `NAME.part` grows; `receipt.json` says of which object
it is, by ETag, so that no byte of another one is ever added to it; when all is there, the part is renamed.
"""

from __future__ import annotations

import base64
import hashlib
import importlib
import json
import random
import re
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

import xxhash

from cellmill.errors import ConfigError, NotFoundError, RemoteChangedError, RemoteError
from cellmill.events import emit
from cellmill.sources.download_http import HttpOrigin
from cellmill.sources.download_origin import Found, Passing, Stream
from cellmill.storage import exclusive_lock, require_free_bytes, sync_file, sync_folder, write_atomic
from cellmill.storage.urls import SCHEMES, is_loopback, is_url
from cellmill.units import size_text

__all__ = ["Download", "Remainder", "download", "look_at_url", "recorded_url", "remove_download"]

RECEIPT = "receipt.json"
FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 10.0
MOST_CHANGES = 3
SECRET = re.compile(r"(?i)([?&][^=&]*(?:sig|token|key|credential|password|secret)[^=&]*=)[^&]*")


class Origin(Protocol):
    """Where a file comes from."""

    def look(self) -> Found:
        """Return what the server says of it, without its bytes."""
        ...

    def open(self, start: int, found: Found) -> Stream:
        """Return its bytes from `start`; from 0 where it is another object than `found`, or parts are not given."""
        ...


@dataclass(frozen=True)
class Download:
    """A file that was brought here.

    Attributes
    ----------
    url : str
        As it may be recorded: without what gives access.
    path : Path
    n_bytes : int
    tag : str
        ETag, or when it was modified; empty when the server says neither.
    """

    url: str
    path: Path
    n_bytes: int
    tag: str

    def __str__(self) -> str:
        return f"fetched from {self.url}: {self.n_bytes} bytes, {f'ETag {self.tag}' if self.tag else 'no ETag'}"


@dataclass(frozen=True)
class Remainder:
    """What is still to be fetched of a file: `done` when nothing is, else `n_bytes` (None: not known)."""

    url: str
    download: Download | None
    n_bytes: int | None

    @property
    def done(self) -> bool:
        """Whether the file is here, and the same as behind the URL."""
        return self.download is not None


@dataclass(frozen=True)
class _Receipt:
    """What is known of a file: its object, and whether all of it is here."""

    url: str
    file: str
    found: Found
    complete: bool = False

    def write(self, place: Path) -> None:
        write_atomic(place / RECEIPT, (json.dumps(asdict(self), indent=1) + "\n").encode())


def recorded_url(url: str) -> str:
    """Return a URL as it may stand in reports: signatures and keys in its query are masked.

    Examples
    --------
    >>> recorded_url("https://host/a.h5ad?id=3&X-Amz-Signature=abc")
    'https://host/a.h5ad?id=3&X-Amz-Signature=***'
    """
    return SECRET.sub(r"\1***", url)


def look_at_url(url: str | Path, folder: Path, *, timeout_seconds: float = 30.0, max_retries: int = 6) -> Remainder:
    """Return what would have to be fetched of a file, without fetching it.

    Raises
    ------
    ConfigError
        For a URL that names no file, or of a kind that is not read.
    NotFoundError, RemoteDeniedError, RemoteTimeoutError, RemoteError
        As `download`.
    """
    job = _Job(url, folder, timeout_seconds=timeout_seconds, max_retries=max_retries)
    if known := job.reusable():
        return Remainder(job.shown, known, 0)
    found = job.looked()
    have = job.begun(found)
    return Remainder(job.shown, None, None if found.n_bytes is None else found.n_bytes - have)


def download(url: str | Path, folder: Path, *, timeout_seconds: float = 30.0, max_retries: int = 6) -> Download:
    """Return a file behind a URL, fetched into `folder` unless it is there already and the same.

    Parameters
    ----------
    url
        Of one file: https, s3 or gs (http on this machine only).
    folder
        Of downloads; each file gets a folder in it.
    timeout_seconds
        Longest silence of a server.
    max_retries
        How often in a row a request may fail without a byte coming.

    Raises
    ------
    ConfigError
        For a URL that names no file, or of a kind that is not read.
    NotFoundError
        There is no such file.
    RemoteDeniedError, RemoteTimeoutError, RemoteChangedError, RemoteError
        The server refuses, stays silent, replaces the file again and again, or gives something else than it says.
    DiskSpaceError
        There is no room for what is missing; before it is fetched.
    StoreLockedError
        Another process fetches the same file.

    Notes
    -----
    Interrupted at any moment, the same call goes on where it stopped, if the object is the same by its ETag.
    """
    job = _Job(url, folder, timeout_seconds=timeout_seconds, max_retries=max_retries)
    job.place.mkdir(parents=True, exist_ok=True)
    with exclusive_lock(job.place / "lock", what=job.shown):
        return job.reusable() or job.fetch()


class _Job:
    """One URL and its place on the disk."""

    def __init__(self, url: str | Path, folder: Path, *, timeout_seconds: float, max_retries: int) -> None:
        self.url = _checked_file_url(url)
        self.shown = recorded_url(self.url)
        self.place = folder / xxhash.xxh3_64_hexdigest(self.url.encode())
        self.max_retries = max_retries
        self.origin = _origin(self.url, timeout_seconds=timeout_seconds, max_retries=max_retries)

    def looked(self) -> Found:
        """Ask what lies behind the URL, again after a pause where a fault may pass."""
        failures = 0
        while True:
            try:
                return self.origin.look()
            except Passing as fault:
                failures += 1
                if failures > self.max_retries:
                    raise fault.typed from None
                _pause(failures, fault.wait_seconds)

    def receipt(self) -> _Receipt | None:
        """Return what was noted of the file, None where nothing (sound) was."""
        try:
            kept = json.loads((self.place / RECEIPT).read_bytes())
            return _Receipt(kept["url"], kept["file"], Found(**kept["found"]), bool(kept["complete"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def reusable(self) -> Download | None:
        """Return the file if it is here whole and the server has no other one now."""
        receipt = self.receipt()
        if receipt is None or not receipt.complete:
            return None
        path = self.place / receipt.file
        if not path.is_file() or path.stat().st_size != receipt.found.n_bytes:
            return None
        try:
            now = self.looked()
        except NotFoundError:
            raise
        except RemoteError as error:
            emit(
                f"fetching {path.name}",
                message=f"{self.shown}: the copy here is used, since the server is silent: {error}",
            )
        else:
            if not receipt.found.is_same(now):
                emit(f"fetching {path.name}", message=f"{self.shown}: was replaced since it was fetched; fetched again")
                return None
        return Download(self.shown, path, path.stat().st_size, receipt.found.tag)

    def begun(self, found: Found) -> int:
        """Return how many bytes of just this object are here."""
        receipt = self.receipt()
        if receipt is None or receipt.complete or not receipt.found.tag or not receipt.found.is_same(found):
            return 0
        part = self.place / f"{receipt.file}.part"
        have = part.stat().st_size if part.is_file() else 0
        return have if found.n_bytes is None or have <= found.n_bytes else 0

    def fetch(self) -> Download:
        """Fetch what is missing."""
        found = self.looked()
        have = self.begun(found)
        file = _place_of(self.url, found.name)
        path = self.place / file
        part = path.with_name(f"{path.name}.part")
        part.parent.mkdir(parents=True, exist_ok=True)
        if found.n_bytes is not None:
            require_free_bytes(part, found.n_bytes - have, what=f"the rest of {self.shown}")
        path.unlink(missing_ok=True)
        _Receipt(self.shown, file, found).write(self.place)
        if have:
            emit(f"fetching {path.name}", message=f"{self.shown}: going on after {size_text(have)} that are here")
        found = self._receive(part, found, have, file)
        _prove(part, found, self.shown)
        sync_file(part)
        part.replace(path)
        sync_folder(path.parent)
        n_bytes = path.stat().st_size
        _Receipt(self.shown, file, replace(found, n_bytes=n_bytes), complete=True).write(self.place)
        return Download(self.shown, path, n_bytes, found.tag)

    def _receive(self, part: Path, found: Found, have: int, file: str) -> Found:
        """Write all bytes of an object; return what the server says of it in the end."""
        failures = changes = 0
        most = have  # a server that gives no parts begins anew each time: only what is beyond all before is progress
        with part.open("r+b" if have else "wb") as handle:
            while found.n_bytes is None or have < found.n_bytes:
                handle.seek(have)
                try:
                    with self.origin.open(have, found) as stream:
                        if not found.is_same(stream.found):
                            changes += 1
                            if changes > MOST_CHANGES:
                                raise RemoteChangedError(f"{self.shown}: is replaced again and again; try again later.")
                            emit(
                                f"fetching {part.stem}",
                                message=f"{self.shown}: was replaced; fetched from its beginning",
                            )
                            found = stream.found
                            most = 0
                            _Receipt(self.shown, file, found).write(self.place)
                        found = replace(found, md5=stream.found.md5 or found.md5)
                        if stream.start != have:
                            have = handle.seek(stream.start)
                            handle.truncate()
                        for chunk in stream.chunks:
                            handle.write(chunk)
                            have += len(chunk)
                            emit(f"fetching {part.stem}", done=have, total=found.n_bytes or 0, unit="bytes")
                    if found.n_bytes is None:
                        break
                    if have < found.n_bytes:
                        raise Passing.cut(self.shown, have, found.n_bytes)
                except Passing as fault:
                    failures, most = (1, have) if have > most else (failures + 1, most)
                    if failures > self.max_retries:
                        raise fault.typed from None
                    _pause(failures, fault.wait_seconds)
        if found.n_bytes is not None and have > found.n_bytes:
            part.unlink()
            raise RemoteError(
                f"{self.shown}: {have} bytes came, though the server said {found.n_bytes}; try again later."
            )
        return found


def _pause(failures: int, wanted_seconds: float | None) -> None:
    grown: float = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** (failures - 1))
    time.sleep(wanted_seconds if wanted_seconds is not None else grown * random.uniform(0.5, 1.0))


def _prove(part: Path, found: Found, url: str) -> None:
    """Compare with the MD5 that the server gives, where it gives one."""
    if not found.md5:
        return
    with part.open("rb") as handle:
        digest = hashlib.file_digest(handle, lambda: hashlib.md5(usedforsecurity=False)).digest()
    if digest != base64.b64decode(found.md5):
        part.unlink()
        raise RemoteError(
            f"{url}: what came has the MD5 {digest.hex()}, the server says {base64.b64decode(found.md5).hex()}. It was "
            "damaged on the way, or lies damaged there; try again."
        )


def _checked_file_url(url: str | Path) -> str:
    """Return the URL of a file; also of one that pathlib has mangled.

    Raises
    ------
    ConfigError
        For what names no file.
    """
    text = re.sub(r"^([a-z][a-z0-9+.-]+):/{1,2}", r"\1://", str(url))
    parts = urlsplit(text)
    shown = recorded_url(text)
    if not is_url(text) or parts.scheme not in SCHEMES:
        raise ConfigError(f"{shown}: inputs are fetched from https, s3 and gs, not from {parts.scheme or 'a path'}")
    if parts.password is not None or parts.username is not None:
        raise ConfigError(
            f"{parts.scheme}://{parts.hostname}: no password in a URL, please: it would end up in records"
        )
    if parts.scheme == "http" and not is_loopback(text):
        raise ConfigError(f"{shown}: http is not encrypted and is read from this machine only; use https")
    if not parts.netloc or not parts.path.strip("/") or parts.path.endswith("/"):
        raise ConfigError(f"{shown}: names no file; folders behind a URL cannot be listed, name each file")
    if parts.path.endswith(".mill"):
        raise ConfigError(
            f"{shown}: a store behind a URL is opened as it is (cellmill.open), but is no input; copy it to a folder"
        )
    if "*" in parts.path:
        raise ConfigError(f"{shown}: patterns do not work behind a URL, where nothing can be listed; name each file")
    if parts.scheme in ("s3", "gs") and (parts.query or parts.fragment):
        raise ConfigError(f"{shown}: an object of a bucket has no ? or # in its URL")
    return text


def _place_of(url: str, named: str | None) -> str:
    """Return where a file goes in its folder: under its own name, in a folder called like that before it in the URL.

    So that a file called matrix.h5 gets the name of a data set by the folder that it came from.
    """
    parts = [unquote(part) for part in urlsplit(url).path.split("/") if part]
    name = _safe(named) if named else _safe(parts[-1])
    above = _safe(parts[-2]) if len(parts) > 1 else _safe(urlsplit(url).netloc)
    return f"{above}/{name}"


def _safe(name: str) -> str:
    """Return a name that stays in its folder and is no file of ours."""
    kept = re.sub(r"[^\w.+=@ -]", "_", name.rsplit("/", 1)[-1]).strip(" .")
    return kept[-150:] or "file"


def _origin(url: str, *, timeout_seconds: float, max_retries: int) -> Origin:
    if urlsplit(url).scheme in ("http", "https"):
        return HttpOrigin(url, shown=recorded_url(url), timeout_seconds=timeout_seconds)
    return _BucketOrigin(url, timeout_seconds=timeout_seconds, max_retries=max_retries)


class _BucketOrigin:
    """An object of a bucket, read in ranges, several at once; `cellmill.storage.remote` tries them again."""

    RANGE_BYTES = 8 << 20
    AT_ONCE = 4

    def __init__(self, url: str, *, timeout_seconds: float, max_retries: int) -> None:
        remote = importlib.import_module("cellmill.storage.remote")  # with obstore, which is optional
        folder, _, self._name = url.rpartition("/")
        self._remote = remote.Remote(folder, timeout_seconds=timeout_seconds, max_retries=max_retries)
        self._asked = remote.Asked

    def look(self) -> Found:
        """Return length and ETag, by the object's first byte."""
        answer = self._remote.read([self._asked(self._name, 0, 1)])[0]
        return Found(answer.object_bytes, answer.tag)

    def open(self, start: int, found: Found) -> Stream:
        """Return the bytes from `start`; another object is RemoteChangedError."""
        return Stream(start, found, self._chunks(start, found))

    def _chunks(self, start: int, found: Found) -> Iterator[bytes]:
        assert found.n_bytes is not None
        step = self.RANGE_BYTES
        for first in range(start, found.n_bytes, step * self.AT_ONCE):
            stops = range(first, min(found.n_bytes, first + step * self.AT_ONCE), step)
            asked: list[Any] = [
                self._asked(self._name, at, min(at + step, found.n_bytes), found.tag, found.n_bytes) for at in stops
            ]
            try:
                answers = self._remote.read(asked)
            except RemoteChangedError:
                raise RemoteChangedError(
                    f"{self._remote.place(self._name)}: was replaced while it was fetched; run the same command again."
                ) from None
            yield from (answer.data for answer in answers)


def remove_download(download: Download, folder: Path) -> None:
    """Delete a file that was fetched, and what was noted of it."""
    place = folder / download.path.relative_to(folder).parts[0]
    download.path.unlink(missing_ok=True)
    for name in (RECEIPT, "lock"):
        (place / name).unlink(missing_ok=True)
    for empty in (download.path.parent, place):
        if empty.is_dir() and not any(empty.iterdir()):
            empty.rmdir()
