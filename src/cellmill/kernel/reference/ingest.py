"""Blocks of a source to frames in NumPy, a whole block at a time (floor 1, kernel).

The same numbers, bytes and refusals as native/ingest.cpp. Knows nothing of files.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cellmill.kernel.reference.gather import fingerprint
from cellmill.kernel.reference.model import HeadModel
from cellmill.kernel.reference.split import encode

__all__ = ["ingest"]

I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]

MAX_COUNT = 2**32 - 1
VALUE, INDEX, SUM = 1, 2, 3


class _Entries(NamedTuple):
    """Entries by ascending row, and by ascending key in a row, each key once."""

    rows: I64
    keys: I64
    counts: U64


def ingest(
    indptr: I64,
    indices: npt.NDArray[np.integer[Any]],
    values: npt.NDArray[Any],
    position_of: I32,
    gene_hashes: U64,
    head: HeadModel | None,
    threads: int,
    classes: npt.NDArray[np.uint8] | None = None,
) -> tuple[Any, ...]:
    """Return (None, frames, offsets, ...) as `IngestedCells` lists them, or ((why, cell, number),)."""
    _check(indptr, len(indices))
    n_cells, n_genes = len(indptr) - 1, len(gene_hashes)
    row = np.repeat(np.arange(n_cells), np.diff(indptr))
    refused = _first_refused(row, indices, values, len(position_of))
    upto = (
        n_cells if refused is None else refused[1]
    )  # the cells before it may hold repeated entries that are too large
    end = int(indptr[upto])
    counts = values[:end].astype(np.uint64)
    stored = _summed(row[:end], indices[:end].astype(np.int64), counts)
    too_large = np.flatnonzero(stored.counts > MAX_COUNT)
    if len(too_large):
        return ((VALUE, int(stored.rows[too_large[0]]), 0),)
    if refused is not None:
        return (refused,)

    umis = np.zeros(len(position_of), np.uint64)
    np.add.at(umis, stored.keys, stored.counts)
    position = position_of[stored.keys].astype(np.int64)
    kept = (position >= 0) & (stored.counts > 0)
    cells = _summed(stored.rows[kept], position[kept], stored.counts[kept])
    too_large = np.flatnonzero(cells.counts > MAX_COUNT)
    if len(too_large):
        cell = int(cells.rows[too_large[0]])
        return ((SUM, cell, int(cells.counts[cells.rows == cell].max())),)

    detected = np.bincount(cells.rows, minlength=n_cells)
    pointers = np.concatenate([[0], np.cumsum(detected)]).astype(np.int64)
    found = cells.counts.astype(np.uint32)
    frames, offsets = encode(pointers, cells.keys, found, n_genes, head, threads)
    sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(cells.counts, dtype=np.uint64)])
    return (
        None,
        frames,
        offsets,
        (sums[pointers[1:]] - sums[pointers[:-1]]).astype(np.int64),
        detected.astype(np.int32),
        fingerprint(pointers, cells.keys, found, gene_hashes, threads),
        umis,
        np.bincount(cells.keys, minlength=n_genes).astype(np.int64),
        int(found.max(initial=0)),
        len(found),
        len(indices) - len(stored.rows),
        None if classes is None else _whole(stored, n_cells, classes),
    )


def _whole(stored: _Entries, n_cells: int, classes: npt.NDArray[np.uint8]) -> tuple[Any, ...]:
    """Return totals, largest counts, genes with a count, and sums of the three classes, of each cell."""
    totals, most = np.zeros(n_cells, np.int64), np.zeros(n_cells, np.int64)
    counts = stored.counts.astype(np.int64)
    np.add.at(totals, stored.rows, counts)
    np.maximum.at(most, stored.rows, counts)
    of_class = np.zeros((n_cells, 3), np.int64)
    for number in range(3):
        belongs = (classes[stored.keys] >> number & 1) != 0
        np.add.at(of_class[:, number], stored.rows[belongs], counts[belongs])
    detected = np.bincount(stored.rows[counts > 0], minlength=n_cells).astype(np.int32)
    return totals, most, detected, of_class.reshape(-1)


def _check(indptr: I64, stored: int) -> None:
    if len(indptr) < 1 or indptr[0] != 0 or indptr[-1] != stored or (np.diff(indptr) < 0).any():
        raise ValueError("indptr must start at 0, never fall, and end at the number of stored entries")


def _first_refused(
    row: I64, indices: npt.NDArray[Any], values: npt.NDArray[Any], n_source: int
) -> tuple[int, int, int] | None:
    """Return (why, cell, entry) of the first cell with a value that is no count, or an index that is no gene."""
    no_count = np.flatnonzero(~_are_counts(values))
    no_gene = np.flatnonzero((indices < 0) | (indices >= n_source))
    found = [(int(row[at[0]]), why, number) for at, why, number in _firsts(no_count, no_gene) if len(at)]
    if not found:
        return None
    cell, why, number = min(found)
    return why, cell, number


def _firsts(no_count: I64, no_gene: I64) -> list[tuple[I64, int, int]]:
    return [(no_count, VALUE, 0), (no_gene, INDEX, int(no_gene[0]) if len(no_gene) else 0)]


def _are_counts(values: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    if values.dtype.kind == "u":
        return np.asarray(values <= MAX_COUNT)
    if values.dtype.kind == "i":
        return np.asarray((values >= 0) & (values.astype(np.int64) <= MAX_COUNT))
    with np.errstate(invalid="ignore"):
        # 2^32 is exact in every float, where 2^32 - 1 would be rounded up to it; NaN and infinity are on neither side
        return np.asarray((values >= 0) & (values < 2.0**32) & (np.floor(values) == values))


def _summed(row: I64, key: I64, count: U64) -> _Entries:
    """Return the entries in order, those of one row and key summed."""
    order = np.lexsort((key, row))
    row, key, count = row[order], key[order], count[order]
    first = np.ones(len(row), bool)
    first[1:] = (row[1:] != row[:-1]) | (key[1:] != key[:-1])
    starts = np.flatnonzero(first)
    sums = np.add.reduceat(count, starts) if len(starts) else count
    return _Entries(row[starts], key[starts], sums)
