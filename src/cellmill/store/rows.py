"""Row ids as callers give them (floor 3, pure): checked in one place, so that every reader means the same cells."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from cellmill.errors import InputError

__all__ = ["checked_rows"]


def checked_rows(rows: npt.ArrayLike, *, n_cells: int, where: str) -> npt.NDArray[np.int64]:
    """Return row ids, int64, in the order given; a mask of all cells becomes the rows that it marks.

    Raises
    ------
    InputError
        For values that are not whole numbers, more than one dimension, or a mask of another length.
    IndexError
        For a row id outside 0..n_cells-1.
    """
    ids = np.atleast_1d(np.asarray(rows))
    if ids.ndim != 1:
        raise InputError(f"rows must be whole numbers in one dimension, not {ids.dtype} of shape {ids.shape}")
    if ids.dtype == bool:
        if len(ids) != n_cells:
            raise InputError(f"a mask of rows must have {n_cells} entries, not {len(ids)}")
        return np.flatnonzero(ids).astype(np.int64)
    if ids.size == 0:
        return np.empty(0, dtype=np.int64)
    if not np.issubdtype(ids.dtype, np.integer):
        raise InputError(f"rows must be whole numbers in one dimension, not {ids.dtype} of shape {ids.shape}")
    lowest, highest = int(ids.min()), int(ids.max())
    if lowest < 0 or highest >= n_cells:
        raise IndexError(f"{where}: row {lowest if lowest < 0 else highest} is outside 0..{n_cells - 1}")
    return ids.astype(np.int64, copy=False)
