"""Is the store at a path still the one that was opened? (floor 3) A rebuilt store has files of the same names.

One to which cells were added since still is: its files are those that were there, and more.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cellmill.errors import CellmillError, StoreError
from cellmill.storage.stamps import Stamp, stamp_of
from cellmill.store.manifest import MANIFEST_NAME, Manifest

__all__ = ["Stamp", "Unchanged", "read_stamped"]


def read_stamped(path: Path) -> tuple[bytes, Stamp]:
    """Return a file's bytes, and what tells it from every other file that may come to lie there."""
    with path.open("rb") as file:
        stamp = stamp_of(os.fstat(file.fileno()))
        return file.read(), stamp


class Unchanged:
    """A watch over one opened store, kept by whoever reads its files.

    Parameters
    ----------
    folder
        The store.
    opened
        The manifest it was opened with.
    stamp
        Of the file that manifest was read from, where it is known: while the file is that, it need not be read again.
    """

    def __init__(self, folder: Path, opened: Manifest, stamp: Stamp | None = None) -> None:
        self._manifest = folder / MANIFEST_NAME
        self._opened = opened
        self._stamp = stamp  # of the file that was last found to be this store's

    def check(self) -> None:
        """Check the manifest: one `stat`, and a look inside only when that differs from the last one.

        Raises
        ------
        StoreError
            When another store, or none, lies there now.
        """
        try:
            if stamp_of(self._manifest.stat()) == self._stamp:
                return
            raw, stamp = read_stamped(self._manifest)
            manifest = Manifest.from_json(raw, where=str(self._manifest))
        except (FileNotFoundError, NotADirectoryError):
            raise StoreError(
                f"{self._manifest.parent}: the store was moved or removed after it was opened; open it again"
            ) from None
        if manifest.digest != self._opened.digest and not manifest.extends(self._opened):
            raise StoreError(
                f"{self._manifest.parent}: the store was replaced after it was opened (its digest was "
                f"{self._opened.digest}, now it is {manifest.digest}); open it again. Rows and plans of the old store "
                "do not fit the new one."
            )
        self._stamp = stamp

    @property
    def stamp(self) -> Stamp | None:
        """Of the file that was last found to be this store's."""
        return self._stamp

    @contextmanager
    def during(self) -> Iterator[None]:
        """Check when the enclosed read is over: what was read before the check was of this store.

        An error of the read itself is raised only when the store is the same; else its replacement is the reason.
        """
        try:
            yield
        except CellmillError:
            self.check()
            raise
        self.check()
