"""Entries of a matrix sorted by cell in bounded memory (floor 3, sources).

Knows a replayable stream of (cell, gene, value) entries in any order: small ones are sorted in memory, large ones are
spread over bucket files by cell and read back a bucket at a time. Must not know where entries come from.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellmill.errors import DiskSpaceError
from cellmill.events import emit
from cellmill.sources.base import Limits
from cellmill.sources.rows import Rows, group_by_cell, split_rows
from cellmill.storage import room_told
from cellmill.units import size_text

__all__ = ["CellHistogram", "CellSorter", "Entries"]

HISTOGRAM_BINS = 1 << 16
_REMEDY = "Make room, or name another folder with --scratch (scratch= or spill_dir= in Python, or TMPDIR)."
SORTING_BYTES = 64
"""Bytes that one entry takes while its bucket is sorted: record, key, order and result."""


@dataclass(frozen=True)
class Entries:
    """Some entries of a matrix: cells int[k], genes int[k], values number[k], all zero-based and in range."""

    cells: NDArray[Any]
    genes: NDArray[Any]
    values: NDArray[Any]


class CellHistogram:
    """How many entries fall into equal ranges of cells; at most 65,536 ranges."""

    def __init__(self, n_cells: int) -> None:
        self.cells_per_bin = max(1, -(-n_cells // HISTOGRAM_BINS))
        self.counts = np.zeros(max(1, -(-n_cells // self.cells_per_bin)), np.int64)
        self.n_cells = n_cells

    def add(self, cells: NDArray[Any]) -> None:
        """Count some entries by their cells."""
        self.counts += np.bincount(cells // self.cells_per_bin, minlength=self.counts.size)

    def bounds(self, entries_per_bucket: int) -> NDArray[np.int64]:
        """Return ascending cell bounds int64[n + 1] of buckets that hold about `entries_per_bucket` entries at most."""
        ends = np.concatenate(([0], np.cumsum(self.counts)))
        cuts = [stop for _, stop in split_rows(ends, block_cells=self.counts.size, max_entries=entries_per_bucket)]
        return np.minimum(np.array([0, *cuts], np.int64) * self.cells_per_bin, self.n_cells)


class CellSorter:
    """Rows of cells from entries in any order; sorted once, kept until `close`.

    Parameters
    ----------
    stream : callable
        Returns the entries from the beginning, each time it is called.
    histogram : callable
        Returns the histogram of all entries; called only when they do not fit in memory.
    stored : int
        Entries in all, as far as known beforehand.
    dtype : numpy.dtype
        Of the values.
    """

    def __init__(
        self,
        stream: Callable[[], Iterator[Entries]],
        histogram: Callable[[], CellHistogram],
        *,
        n_cells: int,
        stored: int,
        dtype: np.dtype[Any],
        limits: Limits,
        label: str,
    ) -> None:
        self._stream, self._histogram = stream, histogram
        self._n_cells, self._stored, self._limits, self._label = n_cells, stored, limits, label
        self._record = np.dtype([("cell", "<u4"), ("gene", "<i4"), ("value", dtype)])
        self._memory: Rows | None = None
        self._folder: Path | None = None
        self._bounds: NDArray[np.int64] = np.array([0, n_cells], np.int64)

    @property
    def fits_memory(self) -> bool:
        """Whether all entries are sorted in memory, at 16 bytes an entry."""
        return self._stored * 16 <= self._limits.memory_budget

    @property
    def spill_bytes(self) -> int:
        """Bytes of disk that the bucket files take; 0 where all is sorted in memory."""
        return 0 if self.fits_memory else self._stored * self._record.itemsize

    @property
    def n_buckets(self) -> int:
        """Bucket files written; 0 before the first read, and when sorted in memory."""
        return self._bounds.size - 1 if self._folder is not None else 0

    def rows(self, start: int, stop: int, *, block_cells: int) -> Iterator[Rows]:
        """Yield cells `start` to `stop` in order, at most `block_cells` at a time."""
        if start == stop:
            return
        self._prepare()
        for bucket in range(self._bounds.size - 1):
            first, last = int(self._bounds[bucket]), int(self._bounds[bucket + 1])
            if last > start and first < stop:
                whole = self._memory if self._memory is not None else self._load(bucket)
                a, b = max(start, first) - first, min(stop, last) - first
                yield from _pieces(whole, a, b, block_cells, self._limits.max_block_entries)

    def _prepare(self) -> None:
        if self._memory is not None or self._folder is not None:
            return
        if self.fits_memory:
            parts = list(self._stream())
            self._memory = group_by_cell(
                _joined([part.cells for part in parts], np.dtype(np.int64)),
                _joined([part.genes for part in parts], np.dtype(np.int32)),
                _joined([part.values for part in parts], self._record["value"]),
                first=0,
                n_cells=self._n_cells,
            )
        else:
            self._spill()

    def _spill(self) -> None:
        self._check_disk()
        self._bounds = self._histogram().bounds(max(1, self._limits.memory_budget // SORTING_BYTES))
        folder = Path(tempfile.mkdtemp(prefix="cellmill-spill-", dir=self._limits.spill_dir))
        try:
            done = 0
            for entries in self._stream():
                with room_told(folder.parent, self.spill_bytes, what=f"Sorting {self._label} by cell", remedy=_REMEDY):
                    self._scatter(entries, folder)
                done += entries.cells.size
                emit(f"sorting {self._label} by cell", done=done, total=self._stored, unit="entries")
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        self._folder = folder

    def _check_disk(self) -> None:
        folder = self._limits.spill_dir or Path(tempfile.gettempdir())
        needed, free = self.spill_bytes, shutil.disk_usage(folder).free
        if needed > free:
            raise DiskSpaceError(
                f"Sorting {self._label} by cell needs {size_text(needed)} in {folder}, where {size_text(free)} are "
                f"free. {_REMEDY}"
            )

    def _scatter(self, entries: Entries, folder: Path) -> None:
        if not entries.cells.size:
            return
        bucket_of = np.searchsorted(self._bounds, entries.cells, side="right") - 1
        order = np.argsort(bucket_of, kind="stable")
        buckets = bucket_of[order]
        records = np.empty(order.size, self._record)
        records["cell"] = entries.cells[order] - self._bounds[buckets]
        records["gene"] = entries.genes[order]
        records["value"] = entries.values[order]
        starts = np.flatnonzero(np.concatenate(([True], buckets[1:] != buckets[:-1])))
        for start, stop in zip(starts, [*starts[1:], buckets.size], strict=True):
            # Opened and closed each time, so that any number of buckets stays below the limit of open files.
            with (folder / f"{buckets[start]}.bin").open("ab") as file:
                file.write(records[start:stop].tobytes())

    def _load(self, bucket: int) -> Rows:
        assert self._folder is not None
        path = self._folder / f"{bucket}.bin"
        records = np.fromfile(path, self._record) if path.exists() else np.empty(0, self._record)
        first, last = int(self._bounds[bucket]), int(self._bounds[bucket + 1])
        local = group_by_cell(records["cell"], records["gene"], records["value"], first=0, n_cells=last - first)
        return Rows(first, local.indptr, local.indices, local.values)

    def close(self) -> None:
        """Delete the bucket files and let go of the memory."""
        self._memory = None
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None


def _joined(parts: list[NDArray[Any]], dtype: np.dtype[Any]) -> NDArray[Any]:
    return np.concatenate(parts) if parts else np.empty(0, dtype)


def _pieces(rows: Rows, start: int, stop: int, block_cells: int, max_entries: int) -> Iterator[Rows]:
    pointers = rows.indptr[start : stop + 1]
    for a, b in split_rows(pointers, block_cells=block_cells, max_entries=max_entries):
        part = slice(int(pointers[a]), int(pointers[b]))
        yield Rows(rows.first + start + a, pointers[a : b + 1] - pointers[a], rows.indices[part], rows.values[part])
