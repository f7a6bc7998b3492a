"""Is the store at a path still the one that was opened? (floor 3) A rebuilt store has files of the same names.

One to which cells were added since still is: its files are those that were there, and more.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cellmill.errors import CellmillError, StoreError
from cellmill.store.manifest import MANIFEST_NAME, Manifest

__all__ = ["Unchanged"]


class Unchanged:
    """A watch over one opened store, kept by whoever reads its files.

    Parameters
    ----------
    folder
        The store.
    opened
        The manifest it was opened with.
    """

    def __init__(self, folder: Path, opened: Manifest) -> None:
        self._manifest = folder / MANIFEST_NAME
        self._opened = opened
        self._stamp: tuple[int, ...] | None = None  # of the file that was last found to be this store's

    def check(self) -> None:
        """Check the manifest: one `stat`, and a look inside only when that differs from the last one.

        Raises
        ------
        StoreError
            When another store, or none, lies there now.
        """
        try:
            found = self._manifest.stat()
            stamp = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
            if stamp == self._stamp:
                return
            manifest = Manifest.from_json(self._manifest.read_bytes(), where=str(self._manifest))
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
