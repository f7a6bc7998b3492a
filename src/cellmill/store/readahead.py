"""Frames of cold files, asked for a batch at a time, then whole files (floor 3). Changes speed, never results."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cellmill import kernel
from cellmill.storage import available_memory

try:
    import resource
except ImportError:  # not on Windows, where nothing is asked for either
    resource = None  # type: ignore[assignment]

__all__ = ["ReadAhead"]

_BATCHES = 64
_WHOLE_AFTER_ROWS = 512
_WHOLE_SHARE = 0.25
_WHOLE_BYTES = 256 << 20  # read in a fifth of a second; larger files would make batches wait for seconds
_PIECE_BYTES = 1 << 20


class ReadAhead:
    """Notices that batches wait for the disk, and reads ahead of them.

    A page that is not in memory is read when a frame on it is decoded, one after the other; asked for together, before
    the first is decoded, those of a batch are read side by side. When some hundred cells were asked for, and all counts
    are few enough (256 MiB, a quarter of the memory that is free), a thread reads the files from beginning to end: a
    disk gives pages in order many times faster than at random. Where nothing had to be read nothing is asked for.

    Notes
    -----
    What is counted are the major page faults of the process: other threads' faults may be taken for ours, which costs
    a little time. What the thread reads lies in the system's page cache, not in this process.

    Parameters
    ----------
    files : callable
        Gives the files of counts and their bytes in all; asked at most once. It must not hold on to the store, or a
        store that nobody needs any more would keep its files mapped until a collection.
    """

    def __init__(self, files: Callable[[], tuple[Sequence[Path], int]]) -> None:
        self._files = files
        self._batches_left = 0
        self._faults = 0
        self._asked = 0
        self._starting = threading.Lock()
        self.reading: threading.Thread | None = None

    def before(self, table: kernel.RowTable, rows: npt.NDArray[np.int64]) -> None:
        """Call before the frames of `rows` are decoded."""
        if self._batches_left:
            self._batches_left -= 1
            self._asked += len(rows)
            if self._asked >= _WHOLE_AFTER_ROWS and self._starting.acquire(blocking=False):  # once, and for one thread
                self._read_whole()
            table.will_need(rows)
        self._faults = _major_faults()

    def after(self) -> None:
        """Call when they are."""
        if _major_faults() > self._faults:
            self._batches_left = _BATCHES

    def _read_whole(self) -> None:
        paths, n_bytes = self._files()
        if n_bytes > min(_WHOLE_BYTES, _WHOLE_SHARE * available_memory()):
            return
        reading = threading.Thread(target=_read_files, args=(paths,), name="cellmill-readahead", daemon=True)
        try:
            reading.start()
        except RuntimeError:  # the system gives no more threads, or the interpreter ends: batches are read all the same
            return
        self.reading = reading


def _read_files(paths: Sequence[Path]) -> None:
    buffer = bytearray(_PIECE_BYTES)
    for path in paths:
        try:
            with path.open("rb", buffering=0) as file:
                if hasattr(os, "posix_fadvise"):
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
                while file.readinto(buffer):
                    pass
        except OSError:
            return  # whoever reads the cells says what is wrong


def _major_faults() -> int:
    return 0 if resource is None else resource.getrusage(resource.RUSAGE_SELF).ru_majflt
