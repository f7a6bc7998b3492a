"""Rows of cells from a stream of entries, sorted by cell or not (floor 3, sources).

Knows how to hold one block of a stream that is sorted by cell, and hands any other to `spill`. Must not know what the
entries are read from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from cellmill.events import emit
from cellmill.sources.base import Limits, MatrixInfo
from cellmill.sources.rows import Rows, group_by_cell, keep_columns, split_rows
from cellmill.sources.spill import CellHistogram, CellSorter, Entries

__all__ = ["EntryReader"]


class EntryReader:
    """Entries of a text file by runs of cells.

    Parameters
    ----------
    info : MatrixInfo
        `stored` counts the entries of the stream.
    stream : callable
        Returns the entries from the beginning, each time it is called.
    target : int32[n_features] or None
        New column of each feature, -1 for those left out; None when all stay.
    scanned : (CellHistogram, bool), optional
        What a scan would find: entries by cell, and whether cells ascend.
    label : str
        What is read, for progress.

    Notes
    -----
    A matrix that fits the memory budget is parsed once and held. A larger one is scanned once: if it is sorted by
    cell, each pass parses it again and holds one block; if not, it goes through bucket files.
    """

    def __init__(
        self,
        info: MatrixInfo,
        stream: Callable[[], Iterator[Entries]],
        *,
        target: NDArray[np.int32] | None,
        limits: Limits,
        label: str,
        scanned: tuple[CellHistogram, bool] | None = None,
    ) -> None:
        self.info = info
        self._stream, self._target, self._limits, self._label = stream, target, limits, label
        self.sorter = CellSorter(
            stream,
            self._histogram,
            n_cells=info.n_cells,
            stored=info.stored,
            dtype=np.dtype(info.dtype),
            limits=limits,
            label=label,
        )
        self._counted: CellHistogram | None = None
        self._is_sorted = False
        if scanned is not None:
            self._counted, self._is_sorted = scanned

    def rows(self, start: int, stop: int, *, block_cells: int) -> Iterator[Rows]:
        """Yield the cells from `start` to `stop`, genes only."""
        if not self.sorter.fits_memory:
            self._histogram()
        if self._is_sorted and not self.sorter.fits_memory:
            whole = self._streamed(start, stop, block_cells)
        else:
            whole = self.sorter.rows(start, stop, block_cells=block_cells)
        for rows in whole:
            yield keep_columns(rows, self._target)

    def _histogram(self) -> CellHistogram:
        """Scan the whole file once: every line is proven before the first block leaves, and its order is known."""
        if self._counted is None:
            histogram, rising, last, done = CellHistogram(self.info.n_cells), True, -1, 0
            for part in self._stream():
                if part.cells.size:
                    rising = rising and bool(part.cells[0] >= last and np.all(part.cells[1:] >= part.cells[:-1]))
                    last = int(part.cells[-1])
                histogram.add(part.cells)
                done += part.cells.size
                emit(f"scanning {self._label}", done=done, total=self.info.stored, unit="entries")
            self._counted, self._is_sorted = histogram, rising
        return self._counted

    def _streamed(self, start: int, stop: int, block_cells: int) -> Iterator[Rows]:
        """Yield rows from text that is sorted by cell, holding one block and one chunk."""
        held: list[Entries] = []
        first = start
        for part in self._stream():
            inside = slice(*np.searchsorted(part.cells, [first, stop]).tolist())
            held.append(Entries(part.cells[inside], part.genes[inside], part.values[inside]))
            # The last cell seen may go on in the next chunk; all before it are whole.
            whole = min(stop, int(part.cells[-1])) if part.cells.size else first
            crowded = sum(item.cells.size for item in held) >= self._limits.max_block_entries
            if whole >= first + block_cells or (crowded and whole > first):
                end = whole if crowded else first + (whole - first) // block_cells * block_cells
                entries = _concatenated(held)
                cut = int(np.searchsorted(entries.cells, end))
                yield from self._blocks(_part(entries, 0, cut), first, end, block_cells)
                held, first = [_part(entries, cut, entries.cells.size)], end
            if first >= stop or (part.cells.size and int(part.cells[-1]) >= stop):
                break
        if first < stop:
            yield from self._blocks(_concatenated(held), first, stop, block_cells)

    def _blocks(self, entries: Entries, first: int, stop: int, block_cells: int) -> Iterator[Rows]:
        whole = group_by_cell(entries.cells, entries.genes, entries.values, first=first, n_cells=stop - first)
        for a, b in split_rows(whole.indptr, block_cells=block_cells, max_entries=self._limits.max_block_entries):
            lo, hi = int(whole.indptr[a]), int(whole.indptr[b])
            yield Rows(first + a, whole.indptr[a : b + 1] - lo, whole.indices[lo:hi], whole.values[lo:hi])

    @property
    def spill_bytes(self) -> int:
        """Bytes of disk that sorting by cell takes, should the text be in another order."""
        return 0 if self._is_sorted else self.sorter.spill_bytes

    def close(self) -> None:
        """Delete the bucket files."""
        self.sorter.close()


def _part(entries: Entries, start: int, stop: int) -> Entries:
    return Entries(entries.cells[start:stop], entries.genes[start:stop], entries.values[start:stop])


def _concatenated(parts: list[Entries]) -> Entries:
    if len(parts) == 1:
        return parts[0]
    return Entries(
        np.concatenate([part.cells for part in parts] or [np.empty(0, np.int32)]),
        np.concatenate([part.genes for part in parts] or [np.empty(0, np.int32)]),
        np.concatenate([part.values for part in parts] or [np.empty(0)]),
    )
