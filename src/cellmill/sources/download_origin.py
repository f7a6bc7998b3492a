"""What a server says of a file, and its bytes (floor 3, sources). Knows neither HTTP nor disks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import TracebackType

from cellmill.errors import RemoteError

__all__ = ["Found", "Passing", "Stream"]


@dataclass(frozen=True)
class Found:
    """What lies behind a URL.

    Attributes
    ----------
    n_bytes : int or None
        Length; None when the server does not say it.
    tag : str
        ETag, or "modified ..."; empty when the server says neither.
    name : str or None
        What the server calls the file.
    md5 : str
        Base64, as the server gives it; empty when it does not.
    """

    n_bytes: int | None
    tag: str
    name: str | None = None
    md5: str = ""

    def is_same(self, other: Found) -> bool:
        """Whether two answers are of one object, as far as the server tells."""
        return self.n_bytes == other.n_bytes and self.tag == other.tag


@dataclass(frozen=True)
class Stream:
    """The bytes of an object from `start`, in pieces. A context manager."""

    start: int
    found: Found
    chunks: Iterator[bytes]
    close: Callable[[], None] = field(default=lambda: None)

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Passing(Exception):  # noqa: N818 - never leaves the download
    """A fault that may pass; `typed` is the error if it does not, `wait_seconds` how long the server asks to wait."""

    def __init__(self, typed: RemoteError, wait_seconds: float | None = None) -> None:
        super().__init__(str(typed))
        self.typed, self.wait_seconds = typed, wait_seconds

    @classmethod
    def cut(cls, url: str, have: int, stated: int) -> Passing:
        """Return the fault of an answer that ended early."""
        return cls(
            RemoteError(
                f"{url}: the answer is cut off again and again; {have} of {stated} bytes are here. The same command "
                "goes on with the rest later."
            )
        )
