"""What was found out about files that are opened again and again (floor 3, sources).

A build opens each input to plan, to read its labels and to convert it. What does not change while a file does not is
kept here: that it leads to no other file, and its gene axis, which inputs of one study share. Knows files by their
stamps; must not know containers or layouts.
"""

from __future__ import annotations

import stat
from collections import OrderedDict
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Generic, TypeVar

from cellmill.storage.stamps import Stamp, stamp_of

__all__ = ["FileStamp", "KnownFiles", "Shared", "file_stamp"]

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

FileStamp = tuple[str, Stamp]
"""Path and state of a file."""


def file_stamp(path: Path) -> FileStamp | None:
    """Return what tells one state of a file from another, None for what is no regular file."""
    try:
        found = path.stat()
    except OSError:
        return None
    # a folder's own times say nothing of the files within
    return (str(path), stamp_of(found)) if stat.S_ISREG(found.st_mode) else None


class KnownFiles(Generic[K, V]):
    """The latest `most` things that were asked for, by key."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._known: OrderedDict[K, V] = OrderedDict()

    def get(self, key: K) -> V | None:
        """Return what is known under a key."""
        try:
            found = self._known[key]
            self._known.move_to_end(key)
        except KeyError:  # from the second line where another thread dropped it meanwhile
            return None
        return found

    def put(self, key: K, value: V) -> None:
        """Keep something; what was asked for longest ago makes room."""
        self._known[key] = value
        while len(self._known) > self._most:
            try:
                self._known.popitem(last=False)
            except KeyError:
                return


class Shared(Generic[V]):
    """Values by file and place, of which equal ones are one: many files, few values.

    Parameters
    ----------
    most_files, most_values : int
        How many are kept; a file whose value had to go is read again.
    digest : callable
        What values are equal by.
    """

    def __init__(self, *, most_files: int, most_values: int, digest: Callable[[V], str]) -> None:
        self._of_file: KnownFiles[tuple[FileStamp, str], str] = KnownFiles(most_files)
        self._of_digest: KnownFiles[str, V] = KnownFiles(most_values)
        self._digest = digest

    def get(self, stamp: FileStamp | None, place: str, read: Callable[[], V]) -> V:
        """Return the value of a file at a place, read where it is not known; an error of reading is kept by nobody."""
        key = None if stamp is None else (stamp, place)
        if key is not None and (digest := self._of_file.get(key)) is not None:
            known = self._of_digest.get(digest)
            if known is not None:
                return known
        value = read()
        digest = self._digest(value)
        known = self._of_digest.get(digest)
        if known is None:
            self._of_digest.put(digest, value)
            known = value
        if key is not None:
            self._of_file.put(key, digest)
        return known
