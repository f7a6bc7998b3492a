"""Objects behind a URL (floor 2): whole, or in ranges, several at once. The one module that knows obstore.

Every request is tried again after a pause when the fault may pass (no connection, 5xx, a body cut off, silence); what
cannot pass is an error at once. An object's validator (its ETag, or when it was modified) is compared with the one
remembered before a byte of the body is used.

obstore's threads do not survive a fork. A process that inherits them asks through a helper process of its own
(`cellmill.storage.forked`); so connections are never shared between processes.
"""

from __future__ import annotations

import itertools
import os
import random
import re
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import xxhash

from cellmill.errors import (
    ConfigError,
    MissingDependencyError,
    NotFoundError,
    RemoteChangedError,
    RemoteDeniedError,
    RemoteError,
    RemoteTimeoutError,
)
from cellmill.storage import forked
from cellmill.storage.urls import is_loopback

try:
    import obstore
    from obstore import exceptions
    from obstore.store import GCSStore, HTTPStore, S3Store
except ImportError as error:
    raise MissingDependencyError(error.name or "obstore", extra="cloud", needed_for="a store at a URL") from None

__all__ = ["Answer", "Asked", "Downloaded", "Remote"]

_REQUESTS_AT_ONCE = 16
_CHUNK_BYTES = 1 << 20
_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 5.0
_STATUS = re.compile(r"status(?: code)?:? (\d{3})")
# scheme -> options and variables that name a server
_ENDPOINTS = {
    "s3": (
        ("endpoint", "endpoint_url", "aws_endpoint", "aws_endpoint_url", "aws_endpoint_url_s3"),
        ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"),
    ),
    "gs": (("base_url", "google_base_url"), ("GOOGLE_BASE_URL",)),
}
_CREDENTIALS = {
    "s3": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN, AWS_REGION, AWS_ENDPOINT_URL where "
    "needed); for a public bucket set AWS_SKIP_SIGNATURE=true",
    "gs": "set GOOGLE_SERVICE_ACCOUNT or GOOGLE_APPLICATION_CREDENTIALS to the path of a key file; for a public bucket "
    "set GOOGLE_SKIP_SIGNATURE=true",
    "https": "over https only what is public can be read; credentials are for s3:// and gs://",
}
T = TypeVar("T")


@dataclass(frozen=True)
class Asked:
    """Bytes that are wanted.

    Attributes
    ----------
    path : str
        Of the object, below the URL.
    start, stop : int or None
        Range of bytes; the whole object when None.
    tag : str or None
        Validator that the object must have; any when None.
    object_bytes : int or None
        Length that the object must have; any when None.
    """

    path: str
    start: int | None = None
    stop: int | None = None
    tag: str | None = None
    object_bytes: int | None = None


@dataclass(frozen=True)
class Answer:
    """Bytes that came, the validator of their object (empty where the server gives none), and its length."""

    data: bytes
    tag: str
    object_bytes: int = 0


@dataclass(frozen=True)
class Downloaded:
    """A whole object that was written to a file: its length, its xxh3-128, its validator."""

    n_bytes: int
    xxh3: str
    tag: str


@dataclass(frozen=True)
class Remote:
    """Where objects lie, and how they are asked for. Picklable; holds no connection.

    Parameters
    ----------
    url
        Of the folder, as `checked_url` returns it.
    options
        Of obstore's S3Store or GCSStore: credentials, region, endpoint; its environment variables where not given.
    client_options
        Of obstore's client.
    timeout_seconds
        Longest silence of a server.
    max_retries
        How often a request is tried again.
    """

    url: str
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    client_options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    timeout_seconds: float = 30.0
    max_retries: int = 6

    def read(self, asked: Sequence[Asked]) -> list[Answer]:
        """Return what is asked for, in that order; several requests run side by side.

        Raises
        ------
        NotFoundError
            When there is no such object.
        RemoteDeniedError, RemoteTimeoutError, RemoteChangedError, RemoteError
            When the server refuses, stays silent, has another object now, or fails in other ways, retries included.
        """
        if forked.is_inherited():
            answers: list[Answer] = forked.helper().call(_read_here, self, list(asked))
            return answers
        return _read_here(self, asked)

    def download(self, path: str, to: Path) -> Downloaded:
        """Write a whole object to a file, in pieces; raises as `read` does."""
        if forked.is_inherited():
            downloaded: Downloaded = forked.helper().call(_download_here, self, path, to)
            return downloaded
        return _download_here(self, path, to)

    def place(self, path: str) -> str:
        """Return the URL of an object."""
        return f"{self.url}/{path}"


# ---- in this process -------------------------------------------------------------------------------------------

_VARIABLES = ("AWS_", "GOOGLE_")
_connected: dict[str, tuple[tuple[Remote, dict[str, str]], Any]] = {}


def _read_here(remote: Remote, asked: Sequence[Asked]) -> list[Answer]:
    client = _connect(remote)
    if len(asked) == 1:
        return [_answer(remote, client, asked[0])]
    pool = ThreadPoolExecutor(min(len(asked), _REQUESTS_AT_ONCE), thread_name_prefix="cellmill-remote")
    try:
        return list(pool.map(lambda one: _answer(remote, client, one), asked))
    finally:
        pool.shutdown(cancel_futures=True)  # the first fault ends them all


def _download_here(remote: Remote, path: str, to: Path) -> Downloaded:
    client = _connect(remote)
    return _tried(remote, path, lambda: _write_once(client, path, to))


def _connect(remote: Remote) -> Any:
    """Return the obstore client of a remote, made once in each process."""
    # obstore looks at the environment when a client is made: another environment is another client
    way = remote, {name: value for name, value in os.environ.items() if name.startswith(_VARIABLES)}
    known = _connected.get(remote.url)
    if known is None or known[0] != way:
        forked.note_threads()
        known = way, _client(remote)
        _connected[remote.url] = known
    return known[1]


def _client(remote: Remote) -> Any:
    scheme = remote.url.partition(":")[0]
    how: dict[str, Any] = {
        "client_options": {
            "connect_timeout": timedelta(seconds=min(10.0, remote.timeout_seconds)),
            "read_timeout": timedelta(seconds=remote.timeout_seconds),
            "timeout": timedelta(days=1),  # of a whole answer: a large file over a slow line is no fault
            **({"allow_http": True} if _is_plain_on_loopback(remote, scheme) else {}),
            **remote.client_options,
        },
        "retry_config": {"max_retries": 0},  # this module does it, since it can check what came as well
    }
    options: Any = dict(remote.options)  # obstore checks the names itself
    try:
        if scheme == "s3":
            return S3Store.from_url(remote.url, config=options, **how)
        if scheme == "gs":
            return GCSStore.from_url(remote.url, config=options, **how)
        if remote.options:
            raise ConfigError(f"{remote.url}: {', '.join(remote.options)} have no meaning here; they are for s3 and gs")
        return HTTPStore.from_url(remote.url, **how)
    except (exceptions.BaseError, TypeError, ValueError, OSError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(
            f"{remote.url}: storage_options or environment variables that obstore does not take: {_first_line(error)}"
        ) from None


def _is_plain_on_loopback(remote: Remote, scheme: str) -> bool:
    """Whether the server is on this machine and speaks http: the one case where that is allowed unasked."""
    if scheme == "http":
        return True
    options, variables = _ENDPOINTS.get(scheme, ((), ()))
    named = [str(remote.options[name]) for name in options if name in remote.options]
    named += [os.environ[name] for name in variables if name in os.environ]
    named += re.findall(r'"gcs_base_url":\s*"([^"]*)"', str(remote.options.get("service_account_key", "")))
    return any(one.startswith("http://") and is_loopback(one) for one in named)


def _answer(remote: Remote, client: Any, asked: Asked) -> Answer:
    return _tried(remote, asked.path, lambda: _get_once(remote, client, asked))


def _get_once(remote: Remote, client: Any, asked: Asked) -> Answer:
    wanted = None if asked.start is None or asked.stop is None else (asked.start, asked.stop)
    result = obstore.get(client, asked.path, options={} if wanted is None else {"range": wanted})
    tag = _tag(result.meta)
    where = remote.place(asked.path)
    if asked.tag is not None and tag != asked.tag:
        raise RemoteChangedError(
            f"{where}: the object was replaced after it was opened: its ETag was {asked.tag}, now it is "
            f"{tag or 'missing'}. Open the store again; rows and plans of the old one do not fit a new one."
        )
    size = int(result.meta["size"])
    if asked.object_bytes is not None and size != asked.object_bytes:
        raise RemoteError(
            f"{where}: the object has {size} bytes, the manifest says {asked.object_bytes}. "
            "It was not copied whole, or belongs to another store: copy the store there again."
        )
    data = bytes(result.bytes())
    first, last = wanted or (0, size)
    if tuple(result.range) != (first, last) or len(data) != last - first:
        raise _Passing(f"asked for bytes {first} to {last}, {len(data)} came, said to be {result.range}")
    return Answer(data, tag, size)


def _write_once(client: Any, path: str, to: Path) -> Downloaded:
    result = obstore.get(client, path)
    state, n_bytes = xxhash.xxh3_128(), 0
    with to.open("wb") as file:
        for chunk in result.stream(min_chunk_size=_CHUNK_BYTES):
            file.write(chunk)
            state.update(chunk)
            n_bytes += len(chunk)
    if n_bytes != int(result.meta["size"]):
        raise _Passing(f"{n_bytes} bytes came, said to be {result.meta['size']}")
    return Downloaded(n_bytes, state.hexdigest(), _tag(result.meta))


def _tag(meta: Mapping[str, Any]) -> str:
    """Return what tells one state of an object from another; empty when the server says nothing."""
    if meta["e_tag"]:
        return str(meta["e_tag"])
    modified = meta["last_modified"]
    return "" if modified == datetime.fromtimestamp(0, UTC) else f"modified {modified.isoformat()}"


# ---- faults ----------------------------------------------------------------------------------------------------


class _Passing(Exception):  # noqa: N818 -- never leaves this module
    """An answer that is not what was asked for, and may be the next time."""


def _tried(remote: Remote, path: str, attempt: Callable[[], T]) -> T:
    """Return what `attempt` does, again after growing pauses as long as its faults may pass."""
    jitter = random.Random()  # pauses of many readers shall differ; no result depends on it
    for number in itertools.count():
        try:
            return attempt()
        except (FileNotFoundError, exceptions.BaseError, _Passing) as error:
            if isinstance(error, NotFoundError):
                raise
            if number >= remote.max_retries or not _may_pass(error):
                raise _typed(error, remote, path, tries=number + 1) from None
        pause = min(_LONGEST_PAUSE_SECONDS, _FIRST_PAUSE_SECONDS * 2**number)
        time.sleep(pause * jitter.uniform(0.5, 1.0))
    raise AssertionError("itertools.count ends never")


def _may_pass(error: Exception) -> bool:
    if isinstance(error, _Passing):
        return True
    if not isinstance(error, exceptions.GenericError):
        return False
    status = _status(error)
    return status is None or status >= 500 or status in (408, 429)


def _typed(error: Exception, remote: Remote, path: str, *, tries: int) -> Exception:
    """Return the error that a caller sees: what, where, and what to do."""
    scheme = remote.url.partition(":")[0].replace("http", "https").replace("httpss", "https")
    where, text, said = remote.place(path), str(error), _first_line(error)
    again = f", {tries} times" if tries > 1 else ""
    if isinstance(error, FileNotFoundError):
        return NotFoundError(f"{where}: there is no such object. Check bucket, folder and spelling.")
    denied = (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError)
    if isinstance(error, denied) or _status(error) in (401, 403) or "169.254.169.254" in text:
        return RemoteDeniedError(
            f"{where}: the server refuses to give it, or there are no credentials ({said}). To read it: "
            f"{_CREDENTIALS[scheme]}."
        )
    if isinstance(error, exceptions.NotSupportedError):
        return RemoteError(
            f"{where}: the server does not give parts of a file (it ignores the header Range). Stores can be read only "
            "from servers that do; put it on another one, or download it and open the copy."
        )
    if "TimedOut" in text or "timed out" in text:
        return RemoteTimeoutError(
            f"{where}: no answer within {remote.timeout_seconds:g} s{again} ({said}). Check the network, or wait "
            "longer: storage_options={'timeout_seconds': ...}."
        )
    if "dns error" in text:
        return RemoteError(
            f"{where}: no server of this name can be found{again} ({said}). Check the URL and the network."
        )
    if isinstance(error, _Passing) or "Body" in text or "IncompleteMessage" in text or "Requested " in said:
        return RemoteError(
            f"{where}: the answer was cut off or not what was asked for{again} ({said}). Try again later."
        )
    return RemoteError(f"{where}: cannot be read{again}: {said}. Check the URL and the network, or try again later.")


def _status(error: Exception) -> int | None:
    found = _STATUS.search(str(error))
    return int(found[1]) if found else None


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or repr(error)).splitlines()[0]
