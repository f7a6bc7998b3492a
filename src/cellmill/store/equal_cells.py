"""Which cells are equal (floor 3): same fingerprint, same number of genes, same total. Arrays, no files of a store.

A fingerprint of 64 bits is the same for cells with equal counts, and by chance for others; that the number of genes and
the total are the same too is asked beside it. A cell of few counts may equal another by chance, or hold the same few
molecules: such cells are counted apart and never called duplicates.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from cellmill.store.buckets import Buckets

__all__ = ["FEW_COUNTS", "MARK", "EqualCells", "FewCounts", "Repeats", "equals_known", "repeats_earlier"]

FEW_COUNTS = 50
_MOST_SOURCES = 256  # of one group in the table of sources: pairs grow with the square
_PAIRS_AT_ONCE = 1 << 20

I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]
CellFacts = tuple[U64, npt.NDArray[np.integer[Any]], npt.NDArray[np.integer[Any]]]

# `count` is 1, but for cells of few counts, of which equal ones of a block are one record
_RECORD = np.dtype(
    [("fingerprint", "<u8"), ("total", "<i8"), ("row", "<i8"), ("detected", "<i4"), ("source", "<i4"), ("count", "<i8")]
)
_NAME = np.dtype([("uid", "<u8"), ("row", "<i8")])
MARK = np.dtype([("row", "<i8"), ("first", "<i8"), ("n_copies", "<i8")])


def repeats_earlier(
    fingerprints: U64, detected: npt.NDArray[np.integer[Any]], totals: npt.NDArray[np.integer[Any]]
) -> npt.NDArray[np.bool_]:
    """Return which cells equal an earlier one of the same arrays, bool, shape (n_cells,).

    Parameters
    ----------
    fingerprints, detected, totals
        uint64 and whole numbers, shape (n_cells,): fingerprint, number of genes and sum of counts of each cell.
    """
    order, starts = _sorted_groups(fingerprints, detected, totals)
    repeated = np.zeros(len(fingerprints), dtype=bool)
    repeated[order] = ~starts
    return repeated


def equals_known(known: CellFacts, asked: CellFacts) -> npt.NDArray[np.bool_]:
    """Return which of the cells asked for equal a known one, bool, shape (n_asked,).

    Parameters
    ----------
    known, asked
        Fingerprint (uint64), number of genes and total (whole numbers) of cells, as three arrays. A cell of fewer than
        `FEW_COUNTS` counts, an empty one too, equals none: such cells are alike by chance.
    """
    candidates = np.flatnonzero(np.isin(asked[0], known[0]) & (asked[2] >= FEW_COUNTS))
    both = [np.concatenate([old, new[candidates]]).astype(np.uint64) for old, new in zip(known, asked, strict=True)]
    _, kind = np.unique(np.stack(both, axis=1), axis=0, return_inverse=True)
    kind = kind.ravel()
    equal = np.zeros(len(asked[0]), dtype=bool)
    equal[candidates] = np.isin(kind[len(known[0]) :], kind[: len(known[0])])
    return equal


def _sorted_groups(
    fingerprints: U64, detected: npt.NDArray[Any], totals: npt.NDArray[Any]
) -> tuple[I64, npt.NDArray[np.bool_]]:
    """Positions of the cells whose fingerprint is not alone, equal ones side by side in order, and where groups begin.

    Sorting by all three keys is dear and needed for the few alone that share a fingerprint.
    """
    by_print = np.argsort(fingerprints, kind="stable")
    sorted_prints = fingerprints[by_print]
    same = sorted_prints[1:] == sorted_prints[:-1]
    shared = np.zeros(len(fingerprints), dtype=bool)
    shared[1:] |= same
    shared[:-1] |= same
    chosen = by_print[shared]
    chosen = chosen[np.lexsort((chosen, detected[chosen], totals[chosen], fingerprints[chosen]))]
    starts = np.ones(len(chosen), dtype=bool)
    starts[1:] = False
    for key in (fingerprints, detected, totals):
        column = key[chosen]
        starts[1:] |= column[1:] != column[:-1]
    return chosen, starts


@dataclass
class FewCounts:
    """Cells of too few counts to be called duplicates.

    Attributes
    ----------
    empty : int
        Without any count; in no other number here.
    cells : int
        With counts, fewer than the limit.
    repeats : int
        Of these, how many equal an earlier one.
    groups : int
        Sets of equal ones.
    """

    empty: int = 0
    cells: int = 0
    repeats: int = 0
    groups: int = 0


@dataclass
class Repeats:
    """What was found among cells.

    Attributes
    ----------
    cells : int
        Cells looked at, those of few counts included.
    repeats : int
        Cells that equal an earlier one: what removing duplicates would remove.
    groups : int
        Sets of equal cells.
    by_source : int64, shape (n_sources,)
        Cells of each source that equal an earlier cell.
    table : dict of (source, other) to int
        Cells of `source` that equal a cell of `other`; for a source and itself, another cell of it.
    wide_groups : int
        Sets of equal cells from more than 256 sources, which are left out of `table`.
    collisions : int
        Fingerprints that cells with other numbers of genes or totals share: chance, and no duplicates.
    uids : list of (uid, rows)
        Uids that several cells have, the first hundred, and
    uid_repeats : int
        how many cells have a uid that an earlier one has.
    """

    by_source: I64
    cells: int = 0
    repeats: int = 0
    groups: int = 0
    table: dict[tuple[int, int], int] = field(default_factory=dict)
    wide_groups: int = 0
    collisions: int = 0
    few: FewCounts = field(default_factory=FewCounts)
    uids: list[tuple[int, list[int]]] = field(default_factory=list)
    uid_repeats: int = 0


class EqualCells:
    """Finds equal cells among many, in memory that does not grow with them. A context manager.

    Cells are divided by fingerprint into buckets on disk, and each bucket is looked at by itself; the marks that come
    out are divided by row in the same way, so that they leave in order.

    Parameters
    ----------
    n_cells
        How many will be added, at most.
    n_sources
        Their sources are numbered below it.
    min_counts
        Cells of fewer counts are counted apart.
    memory_bytes
        About what may be taken.
    folder
        Where buckets go that do not fit; the system's temporary folder when None.

    Notes
    -----
    Disk: 40 bytes a cell for as long as it takes, none if that is less than a quarter of the memory; 16 more for uids.
    A bucket holds the cells of its share of fingerprints. Only millions of equal cells of `min_counts` or more could
    make one much larger than others; equal cells of few counts, of which raw droplets hold millions, are added up
    before.
    """

    def __init__(
        self,
        *,
        n_cells: int,
        n_sources: int,
        min_counts: int = FEW_COUNTS,
        memory_bytes: int = 512 << 20,
        folder: Path | None = None,
    ) -> None:
        self.min_counts = min_counts
        self.found = Repeats(by_source=np.zeros(n_sources, dtype=np.int64))
        self._n_cells = n_cells
        half = memory_bytes // 2
        self._cells = Buckets(_RECORD, n_records=n_cells, memory_bytes=half, folder=folder)
        self._names = Buckets(_NAME, n_records=n_cells, memory_bytes=half, folder=folder)
        self._marks = Buckets(MARK, n_records=n_cells, memory_bytes=half, folder=folder)

    @property
    def spilled(self) -> bool:
        """Whether the disk was needed."""
        return self._cells.spilled or self._names.spilled or self._marks.spilled

    def add(
        self,
        *,
        fingerprints: U64,
        detected: npt.NDArray[np.integer[Any]],
        totals: npt.NDArray[np.integer[Any]],
        first_row: int,
        source: int,
        uids: U64 | None = None,
    ) -> None:
        """Add consecutive cells of one source, in order of rows; arrays of shape (n_cells,)."""
        records = np.empty(len(fingerprints), dtype=_RECORD)
        records["fingerprint"], records["total"], records["detected"] = fingerprints, totals, detected
        records["row"] = np.arange(first_row, first_row + len(fingerprints))
        records["source"], records["count"] = source, 1
        self.found.cells += len(records)
        few = records["total"] < self.min_counts
        empty = records["total"] == 0
        self.found.few.empty += int(empty.sum())
        self.found.few.cells += int((few & ~empty).sum())
        self._put(records[~few & ~empty])
        self._put(_added_up(records[few & ~empty]))
        if uids is not None:
            names = np.empty(len(uids), dtype=_NAME)
            names["uid"], names["row"] = uids, records["row"]
            self._names.add(_bucket_of(uids, self._names.n_buckets), names)

    def _put(self, records: npt.NDArray[Any]) -> None:
        self._cells.add(_bucket_of(records["fingerprint"], self._cells.n_buckets), records)

    def marks(self) -> Iterator[npt.NDArray[Any]]:
        """Yield the marks of all cells that equal others, `MARK`, rows ascending; afterwards `found` is complete.

        `first` is the row of the first cell of the set, its own row for that cell itself.
        """
        for bucket in range(self._cells.n_buckets):
            self._look_at(self._cells.take(bucket))
        for bucket in range(self._names.n_buckets):
            self._look_at_names(self._names.take(bucket))
        for bucket in range(self._marks.n_buckets):
            marks = self._marks.take(bucket)
            if len(marks):
                yield marks[np.argsort(marks["row"], kind="stable")]

    def _look_at(self, records: npt.NDArray[Any]) -> None:
        few = records["total"] < self.min_counts
        self._count_few(records[few])
        cells = records[~few]
        order, starts = _sorted_groups(cells["fingerprint"], cells["detected"], cells["total"])
        self.found.collisions += _n_collisions(cells["fingerprint"][order], starts)
        group = np.cumsum(starts) - 1
        sizes = np.bincount(group) if len(group) else np.empty(0, dtype=np.int64)
        several = sizes[group] > 1 if len(group) else np.empty(0, dtype=bool)
        cells, starts, sizes = cells[order[several]], starts[several], sizes[sizes > 1]
        if not len(cells):
            return
        group = np.cumsum(starts) - 1
        marks = np.empty(len(cells), dtype=MARK)
        marks["row"], marks["n_copies"] = cells["row"], sizes[group]
        marks["first"] = cells["row"][starts][group]
        at = marks["row"] * self._marks.n_buckets // max(1, self._n_cells)
        self._marks.add(np.minimum(at, self._marks.n_buckets - 1), marks)
        self.found.groups += len(sizes)
        self.found.repeats += len(cells) - len(sizes)
        n_sources = len(self.found.by_source)
        self.found.by_source += np.bincount(cells["source"][~starts], minlength=n_sources)
        self._tabulate(group, cells["source"].astype(np.int64), len(sizes), n_sources)

    def _tabulate(self, group: I64, source: I64, n_groups: int, n_sources: int) -> None:
        """Add groups to the table of sources: for each group, every pair of the sources that it has cells of."""
        pair, count = np.unique(group * n_sources + source, return_counts=True)
        group, source = np.divmod(pair, n_sources)
        width = np.bincount(group, minlength=n_groups)
        self.found.wide_groups += int((width > _MOST_SOURCES).sum())
        begins = np.cumsum(width) - width
        width[width > _MOST_SOURCES] = 0
        part_of = np.cumsum(width * width) // _PAIRS_AT_ONCE
        for part in np.unique(part_of):
            self._tabulate_part(np.flatnonzero(part_of == part), begins, width, source, count)

    def _tabulate_part(self, groups: I64, begins: I64, width: I64, source: I64, count: I64) -> None:
        """Add some groups, whose entries (source, count) begin at `begins` and are `width` many."""
        left = np.repeat(begins[groups], width[groups]) + _counting(width[groups])
        n_others = np.repeat(width[groups], width[groups])  # each entry stands beside all entries of its group
        right = np.repeat(np.repeat(begins[groups], width[groups]), n_others) + _counting(n_others)
        left = np.repeat(left, n_others)
        n_cells = np.where((left == right) & (count[left] < 2), 0, count[left])
        n_sources = len(self.found.by_source)
        keys, inverse = np.unique(source[left] * n_sources + source[right], return_inverse=True)
        sums = np.bincount(inverse, weights=n_cells).astype(np.int64)
        table = self.found.table
        for key, n in zip(keys.tolist(), sums.tolist(), strict=True):
            if n:
                at = divmod(key, n_sources)
                table[at] = table.get(at, 0) + n

    def _count_few(self, records: npt.NDArray[Any]) -> None:
        groups = _added_up(records)
        counts = groups["count"]
        self.found.few.groups += int((counts > 1).sum())
        self.found.few.repeats += int((counts - 1).sum())

    def _look_at_names(self, names: npt.NDArray[Any]) -> None:
        order = np.argsort(names["uid"], kind="stable")
        uid, row = names["uid"][order], names["row"][order]
        repeated = np.flatnonzero(uid[1:] == uid[:-1]) + 1
        self.found.uid_repeats += len(repeated)
        for value in np.unique(uid[repeated])[: max(0, 100 - len(self.found.uids))].tolist():
            left, right = np.searchsorted(uid, np.uint64(value)), np.searchsorted(uid, np.uint64(value), side="right")
            self.found.uids.append((value, row[left:right].tolist()))

    def __enter__(self) -> EqualCells:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for buckets in (self._cells, self._names, self._marks):
            buckets.__exit__(kind, error, trace)


def _bucket_of(hashes: U64, n_buckets: int) -> I64:
    """Return a bucket for each hash, by its upper 32 bits: equal hashes share one."""
    upper = (hashes >> np.uint64(32)).astype(np.int64)
    return upper * n_buckets >> 32


def _counting(lengths: I64) -> I64:
    """Return 0, 1, ... for each length, end to end.

    Examples
    --------
    >>> _counting(np.array([2, 3])).tolist()
    [0, 1, 0, 1, 2]
    """
    ends = np.cumsum(lengths)
    counted: I64 = np.arange(int(ends[-1]) if len(ends) else 0) - np.repeat(ends - lengths, lengths)
    return counted


def _added_up(records: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return one record for each set of equal cells, its `count` the sum of theirs."""
    if not len(records):
        return records
    order = np.lexsort((records["row"], records["detected"], records["total"], records["fingerprint"]))
    records = records[order]
    starts = np.ones(len(records), dtype=bool)
    starts[1:] = False
    for key in ("fingerprint", "detected", "total"):
        starts[1:] |= records[key][1:] != records[key][:-1]
    firsts = np.flatnonzero(starts)
    summed = records[firsts].copy()
    summed["count"] = np.add.reduceat(records["count"], firsts)
    return summed


def _n_collisions(fingerprints: U64, starts: npt.NDArray[np.bool_]) -> int:
    """Return how many fingerprints stand in more than one group; both arrays are sorted by fingerprint."""
    of_groups = fingerprints[starts]
    return len(np.unique(of_groups[1:][of_groups[1:] == of_groups[:-1]]))
