"""Frames of cold files, asked for a batch at a time (floor 3). Knows tables of rows; changes speed, never results."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from cellmill import kernel

try:
    import resource
except ImportError:  # not on Windows, where nothing is asked for either
    resource = None  # type: ignore[assignment]

__all__ = ["ReadAhead"]

_BATCHES = 64


class ReadAhead:
    """Notices that batches wait for the disk, and then asks for all frames of a batch before the first is decoded.

    A page that is not in memory is read when a frame on it is decoded, one after the other; asked for together they
    are read side by side. Where nothing had to be read nothing is asked for, since asking costs a system call a cell.

    Notes
    -----
    What is counted are the major page faults of the process: other threads' faults may be taken for ours, which costs
    a little time.
    """

    def __init__(self) -> None:
        self._batches_left = 0
        self._faults = 0

    def before(self, table: kernel.RowTable, rows: npt.NDArray[np.int64]) -> None:
        """Call before the frames of `rows` are decoded."""
        if self._batches_left:
            self._batches_left -= 1
            table.will_need(rows)
        self._faults = _major_faults()

    def after(self) -> None:
        """Call when they are."""
        if _major_faults() > self._faults:
            self._batches_left = _BATCHES


def _major_faults() -> int:
    return 0 if resource is None else resource.getrusage(resource.RUSAGE_SELF).ru_majflt
