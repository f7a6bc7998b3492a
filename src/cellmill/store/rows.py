"""Row ids and dtypes as callers give them (floor 3, pure): checked in one place, so that all readers mean the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from cellmill import kernel
from cellmill.errors import InputError

__all__ = ["checked_rows", "exact_counts"]


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
    return np.ascontiguousarray(ids, dtype=np.int64)  # the kernel takes no views with strides


def exact_counts(got: kernel.Gathered, dtype: np.dtype[Any], rows: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
    """Return the counts of a batch (uint32) as another integer or float type, each of them exactly.

    Raises
    ------
    InputError
        For another kind of type, and for the first row with a count that the type does not hold.
    """
    if dtype.kind not in "iuf":
        raise InputError(f"counts can be read as integers or floats, not as {dtype}")
    most = int(np.iinfo(dtype).max) if dtype.kind in "iu" else 2 ** (np.finfo(dtype).nmant + 1)
    beyond = np.flatnonzero(got.values > most)
    if len(beyond):
        row = rows[np.searchsorted(got.indptr, beyond[0], side="right") - 1]
        raise InputError(
            f"row {row} holds the count {got.values[beyond[0]]}, above what {dtype} holds exactly ({most}). "
            "Read it as uint32, int64 or float64."
        )
    return got.values.astype(dtype)
