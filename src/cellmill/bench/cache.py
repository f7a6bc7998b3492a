"""Pages of files in memory (floor 4, bench): which are there, and giving them back. Knows files, not stores."""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

__all__ = ["evict", "resident_share"]

_WINDOW_BYTES = 1 << 30


def evict(paths: Iterable[Path]) -> float | None:
    """Ask the system to drop the cached pages of files; return the share of their pages that stayed.

    Returns
    -------
    float or None
        0.0 when all pages are gone; None where the system cannot drop pages or cannot tell.

    Notes
    -----
    By ``posix_fadvise(DONTNEED)``, which needs no privileges. Pages that some process has mapped and touched stay, and
    so do pages that are not written to the disk yet; those are written first.
    """
    files = list(paths)
    if not hasattr(os, "posix_fadvise"):
        return None
    for path in files:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)
    return resident_share(files)


def resident_share(paths: Iterable[Path]) -> float | None:
    """Return the share of the pages of files that lie in memory, by ``mincore``; None where it is not to be had."""
    try:
        mincore = ctypes.CDLL(None, use_errno=True).mincore
    except (OSError, AttributeError):
        return None
    resident, pages = 0, 0
    for path in paths:
        size = path.stat().st_size
        with path.open("rb") as file:
            for start in range(0, size, _WINDOW_BYTES):
                found = _resident_pages(file.fileno(), start, min(_WINDOW_BYTES, size - start), mincore)
                if found is None:
                    return None
                resident += int(found.sum())
                pages += found.size
    return resident / pages if pages else 0.0


def _resident_pages(descriptor: int, start: int, length: int, mincore: object) -> np.ndarray | None:
    """Return which pages of a part of a file lie in memory, bool; mapping a page does not load it."""
    with mmap.mmap(descriptor, length, prot=mmap.PROT_READ, offset=start) as mapped:
        found = np.zeros(-(-length // mmap.PAGESIZE), dtype=np.uint8)
        view = np.frombuffer(mapped, dtype=np.uint8)
        address, pages = ctypes.c_void_p(view.ctypes.data), ctypes.c_void_p(found.ctypes.data)
        failed = mincore(address, ctypes.c_size_t(length), pages)  # type: ignore[operator]
        del view  # the map cannot be closed while an array looks into it
    return None if failed else (found & 1).astype(bool)
