"""Which texts are URLs of stores, and a path that prints as one (floor 2, pure). Knows nothing of how to fetch."""

from __future__ import annotations

import re
from pathlib import Path, PosixPath
from urllib.parse import urlsplit

from cellmill.errors import ConfigError

__all__ = ["SCHEMES", "UrlPath", "checked_url", "is_loopback", "is_url", "refuse_url"]

SCHEMES = ("s3", "gs", "https", "http")
# pathlib makes one slash of two, so that a URL that went through it has one
_URL = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]+):/{1,2}(?P<rest>.*)", re.DOTALL)
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


def is_url(path: str | Path) -> bool:
    """Whether this is a URL, not a path: a scheme of two letters or more, a colon, a slash.

    Examples
    --------
    >>> is_url("s3://bucket/atlas.mill"), is_url(Path("s3://bucket/atlas.mill")), is_url("atlas.mill")
    (True, True, False)
    """
    return _URL.fullmatch(str(path)) is not None


def checked_url(path: str | Path) -> str:
    """Return the URL of a folder that can be read, without a slash at its end; also of one that pathlib has mangled.

    Raises
    ------
    ConfigError
        For a scheme that is not known, a URL without host or bucket, one with a query, or http beyond this machine.

    Examples
    --------
    >>> checked_url(Path("s3://bucket/atlas.mill/"))
    's3://bucket/atlas.mill'
    """
    match = _URL.fullmatch(str(path))
    scheme = match["scheme"] if match else ""
    if match is None or scheme not in SCHEMES:
        raise ConfigError(f"{path}: cannot read from {scheme or 'this'}; stores lie in folders, or at s3, gs or https")
    url = f"{scheme}://{match['rest'].rstrip('/')}"
    parts = urlsplit(url)
    if not parts.netloc:
        raise ConfigError(f"{url}: no {'bucket' if scheme in ('s3', 'gs') else 'host'} in this URL")
    if parts.query or parts.fragment:
        raise ConfigError(f"{url}: a store is a folder of files; a URL with ? or # names one file")
    if parts.password is not None:
        raise ConfigError(f"{scheme}://{parts.hostname}: no password in a URL, please: it would end up in records")
    if scheme == "http" and not is_loopback(url):
        raise ConfigError(f"{url}: http is not encrypted and is read from this machine only; use https")
    return url


def refuse_url(path: str | Path, *, what: str) -> None:
    """Check that a path is one on this machine, where only that will do.

    Raises
    ------
    ConfigError
        For a URL.
    """
    if is_url(path):
        raise ConfigError(
            f"{checked_url(path)}: {what} works with stores on a disk of this machine; do it with a copy there, and "
            "copy the result to the URL"
        )


def is_loopback(url: str) -> bool:
    """Whether a URL names this machine itself.

    Examples
    --------
    >>> is_loopback("http://127.0.0.1:9000/bucket"), is_loopback("http://example.org")
    (True, False)
    """
    return urlsplit(url).hostname in _LOOPBACK


class UrlPath(PosixPath):
    """A URL that can be joined, named and printed as a path is; nothing can be opened through it.

    Examples
    --------
    >>> str(UrlPath("s3://bucket/atlas.mill") / "manifest.json")
    's3://bucket/atlas.mill/manifest.json'
    """

    def __str__(self) -> str:
        return re.sub(r"^([a-z][a-z0-9+.-]+):/", r"\1://", super().__str__())

    def __fspath__(self) -> str:
        return str(self)

    def absolute(self) -> UrlPath:
        """Return the same: a URL is absolute."""
        return self
