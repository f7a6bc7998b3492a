"""Hashes of the inputs, made while they are read for the store (floor 4): their bytes are then still in memory."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType

from cellmill.storage import hash_file

__all__ = ["Digests"]


class _Ended(Exception):  # noqa: N818 - no error: nobody waits for this hash any more
    """The hashes are not wanted any more."""


class Digests:
    """Hashes files in threads of its own. A context manager: what is unfinished at its end is given up.

    Examples
    --------
    >>> with Digests() as digests:  # doctest: +SKIP
    ...     digests.start(path)
    ...     ...  # read it
    ...     digests.of(path)
    """

    def __init__(self) -> None:
        self._found: dict[Path, Future[str]] = {}
        self._threads: list[threading.Thread] = []
        self._ended = threading.Event()

    def start(self, path: Path) -> None:
        """Begin with a file or folder, unless that was done before."""
        if path in self._found:
            return
        found = self._found[path] = Future()
        # a daemon, so that a read that hangs cannot keep a process alive that was told to end
        thread = threading.Thread(target=self._hash, args=(path, found), name="cellmill-digest", daemon=True)
        self._threads.append(thread)
        thread.start()

    def of(self, path: Path) -> str:
        """Return `hash_file(path)`, started here if it was not; what it raises is raised here."""
        self.start(path)
        return self._found[path].result()

    def _hash(self, path: Path, found: Future[str]) -> None:
        try:
            found.set_result(hash_file(path, between_blocks=self._stop_when_ended))
        except BaseException as error:
            found.set_exception(error)

    def _stop_when_ended(self) -> None:
        if self._ended.is_set():
            raise _Ended

    def __enter__(self) -> Digests:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()
