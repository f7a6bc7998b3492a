"""Arithmetic on rows of counts (floor 3, sources). Pure: arrays in, arrays out.

Knows the compressed row layout (indptr, indices, values), what is wrong with one, and how to put one in order.
Must not know files: errors are raised as `BrokenRows`, to which the reader adds file and matrix.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "BrokenRows",
    "Rows",
    "canonical",
    "check_indices",
    "check_pointers",
    "group_by_cell",
    "keep_columns",
    "split_rows",
]

EXACT_FLOAT = float(2**53)


class BrokenRows(Exception):  # noqa: N818 - a place and a finding, not yet an error for the user
    """A compressed layout that contradicts itself; the message says where and what."""


@dataclass(frozen=True)
class Rows:
    """A run of cells as it lies in a file: order and repetition of genes within a cell are the file's.

    Attributes
    ----------
    first : int
        Position of the first cell.
    indptr : int64[n + 1]
        Starts at 0.
    indices : integer[nnz]
    values : number[nnz]
    """

    first: int
    indptr: NDArray[np.int64]
    indices: NDArray[Any]
    values: NDArray[Any]


def check_pointers(pointers: NDArray[np.int64], *, first: int, stored: int, axis: str) -> None:
    """Refuse pointers that fall, or that point outside the stored entries.

    Raises
    ------
    BrokenRows
        With the first offending position, counted from `first`, on the axis named `axis`.
    """
    if pointers.size == 0:
        return
    falls = np.flatnonzero(pointers[1:] < pointers[:-1])
    if falls.size:
        at = int(falls[0])
        raise BrokenRows(
            f"indptr falls from {int(pointers[at])} to {int(pointers[at + 1])} at {axis} {first + at} "
            "(it must never fall)"
        )
    if pointers[0] < 0 or pointers[-1] > stored:
        raise BrokenRows(
            f"indptr of {axis} {first} to {first + pointers.size - 1} runs from {int(pointers[0])} "
            f"to {int(pointers[-1])}, but {stored} entries are stored"
        )


def check_indices(indices: NDArray[Any], *, limit: int, first: int, axis: str) -> None:
    """Refuse indices outside 0..limit-1; `first` is the position of the first entry in the file.

    Raises
    ------
    BrokenRows
        With the position of the first entry that is out of range, and what it is.
    """
    # One look instead of two: as unsigned numbers, negative ones are beyond any limit.
    unsigned = indices.view(f"{indices.dtype.byteorder}u{indices.itemsize}")
    if indices.size == 0 or int(unsigned.max()) < min(limit, 1 << (8 * indices.itemsize - (indices.dtype.kind == "i"))):
        return
    at = int(np.flatnonzero((indices < 0) | (indices >= limit))[0])
    raise BrokenRows(
        f"entry {first + at} has {axis} index {int(indices[at])}, but there are {limit} (0 to {limit - 1})"
    )


def split_rows(indptr: NDArray[np.int64], *, block_cells: int, max_entries: int) -> Iterator[tuple[int, int]]:
    """Yield (start, stop) of consecutive rows: at most `block_cells` rows, and `max_entries` entries unless one row."""
    n, start = indptr.size - 1, 0
    while start < n:
        fits = int(np.searchsorted(indptr, indptr[start] + max_entries, side="right")) - 1
        stop = min(n, start + block_cells, max(fits, start + 1))
        yield start, stop
        start = stop


def keep_columns(rows: Rows, target: NDArray[np.int32] | None) -> Rows:
    """Return the rows with each column moved to `target[column]`; columns whose target is -1 are left out."""
    if target is None:
        return rows
    moved = target[rows.indices]
    kept = moved >= 0
    before = np.concatenate(([0], np.cumsum(kept, dtype=np.int64)))
    return Rows(rows.first, before[rows.indptr], moved[kept], rows.values[kept])


def group_by_cell(cells: NDArray[Any], genes: NDArray[Any], values: NDArray[Any], *, first: int, n_cells: int) -> Rows:
    """Return entries in any order as rows of cells `first` .. `first + n_cells - 1`, stable within a cell."""
    local = cells.astype(np.int64) - first
    if local.size and np.any(local[1:] < local[:-1]):
        order = np.argsort(local, kind="stable")
        genes, values = genes[order], values[order]
    indptr = np.zeros(n_cells + 1, np.int64)
    np.cumsum(np.bincount(local, minlength=n_cells), out=indptr[1:])
    return Rows(first, indptr, genes, values)


def canonical(rows: Rows, n_genes: int) -> tuple[Rows, int]:
    """Return the rows with genes ascending and unique in each cell, and how many entries were summed away.

    Notes
    -----
    Entries of the same cell and gene are summed exactly: in the file's dtype where the sum fits, in float64 otherwise.
    Entries that are no counts (negative, not whole, not finite) are never summed with others, since 0.5 + 0.5 would
    hide them from the audit: they stay as they are, side by side.
    """
    indices, indptr = rows.indices, rows.indptr
    if indices.size < 2:
        return rows, 0
    rises = indices[1:] > indices[:-1]
    borders = indptr[1:-1]
    rises[borders[(borders > 0) & (borders < indices.size)] - 1] = True
    if rises.all():
        return rows, 0
    row_of = np.repeat(np.arange(indptr.size - 1, dtype=np.int64), np.diff(indptr))
    key = row_of * np.int64(max(n_genes, 1)) + indices
    order = np.argsort(key, kind="stable")
    key, values = key[order], rows.values[order]
    sorted_rows = Rows(rows.first, indptr, indices[order], values)
    if not np.any(key[1:] == key[:-1]):
        return sorted_rows, 0
    return _sum_duplicates(sorted_rows, row_of, key)


def _sum_duplicates(rows: Rows, row_of: NDArray[np.int64], key: NDArray[np.int64]) -> tuple[Rows, int]:
    """Sum runs of equal keys; `row_of` is ascending, so it is the same before and after sorting by key."""
    first = np.concatenate(([True], key[1:] != key[:-1]))
    run = np.cumsum(first) - 1
    odd = ~_are_counts(rows.values)
    if odd.any():
        first |= np.isin(run, np.unique(run[odd]))
    starts = np.flatnonzero(first)
    sizes = np.diff(starts, append=key.size)
    multiple = sizes > 1
    sums = np.add.reduceat(rows.values.astype(np.float64), starts)[multiple]
    values = _with_sums(rows.values[starts], multiple, sums)
    indptr = np.searchsorted(row_of[starts], np.arange(rows.indptr.size)).astype(np.int64)
    return Rows(rows.first, indptr, rows.indices[starts], values), int(key.size - starts.size)


def _are_counts(values: NDArray[Any]) -> NDArray[np.bool_]:
    if values.dtype.kind in "ub":
        return np.ones(values.size, bool)
    if values.dtype.kind == "i":
        return np.asarray(values >= 0)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.isfinite(values) & (values >= 0) & (values == np.floor(values)))


def _with_sums(values: NDArray[Any], at: NDArray[np.bool_], sums: NDArray[np.float64]) -> NDArray[Any]:
    """Return `values` with `sums` at `at`, widened to float64 only when the dtype cannot hold a sum exactly."""
    if sums.size == 0:
        return values
    if values.dtype.kind in "iu":
        fits = float(sums.max()) <= min(float(np.iinfo(values.dtype).max), EXACT_FLOAT)
    else:
        with np.errstate(over="ignore"):
            fits = bool(np.all(sums.astype(values.dtype) == sums))
    out = values.copy() if fits else values.astype(np.float64)
    out[at] = sums.astype(out.dtype)
    return out
