"""Sparse matrices in a container of arrays, read by runs of cells (floor 3, sources).

Knows the compressed sparse layout (data, indices, indptr) by cell and by gene; `dense.py` knows the other one. Must not
know where in a file they lie: h5ad, zarr and 10x files share these readers.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellmill.errors import FormatError
from cellmill.sources.arrays import Array, Group, Vector, reading, require_chunks_within
from cellmill.sources.base import Limits, MatrixInfo
from cellmill.sources.rows import BrokenRows, Rows, check_indices, check_pointers, split_rows
from cellmill.sources.spill import CellHistogram, CellSorter, Entries

__all__ = ["Compressed", "CscReader", "CsrReader", "value_dtype"]

LARGEST_AXIS = 2**31 - 1


class Compressed:
    """The three arrays of a compressed matrix, checked as they are read.

    Parameters
    ----------
    group : Group
        Holds data, indices and indptr.
    n_major, n_minor : int
        Length of the axis that indptr runs over, and of the other.
    major, minor : {"cell", "gene"}
        Their names, for messages.
    """

    def __init__(
        self, group: Group, *, path: Path, place: str, n_major: int, n_minor: int, major: str, minor: str
    ) -> None:
        self.path, self.place, self.n_major, self.n_minor = path, place, n_major, n_minor
        self.major, self.minor = major, minor
        with reading(path, f"matrix {place}"):
            self.data, self.indices, self.indptr = (
                _vector(group, path, place, part) for part in ("data", "indices", "indptr")
            )
            self.dtype = value_dtype(self.data.dtype, path, place)
            self.stored = self._stored()
            if _length(self.data):
                for name, array in (("data", self.data), ("indices", self.indices), ("indptr", self.indptr)):
                    self._require_stored(name, array)
        self._vectors: dict[str, Vector] = {}
        if n_minor > LARGEST_AXIS:
            raise FormatError(f"{path}, matrix {place}: {n_minor} {minor}s are more than the {LARGEST_AXIS} supported.")

    def _stored(self) -> int:
        """Check what can be checked without reading everything; return the number of stored entries."""
        for name, array in (("indices", self.indices), ("indptr", self.indptr)):
            if array.dtype.kind not in "iu":
                raise self.broken(f"{name} are {array.dtype}, expected integers")
        if _length(self.indptr) != self.n_major + 1:
            raise self.broken(
                f"indptr has {_length(self.indptr)} entries, expected {self.n_major + 1} "
                f"for {self.n_major} {self.major}s"
            )
        if self.data.shape != self.indices.shape:
            raise self.broken(f"{_length(self.data)} values but {_length(self.indices)} indices are stored")
        ends = [self.indptr.read(slice(at, at + 1)) for at in (0, self.n_major)]
        first, last = int(ends[0][0]), int(ends[1][0])
        if first != 0 or not 0 <= last <= _length(self.data):
            raise self.broken(
                f"indptr runs from {first} to {last}, expected 0 to {_length(self.data)}, the number of stored entries"
            )
        return last

    @property
    def unused(self) -> int:
        """Entries that lie after the last pointer and so belong to nothing."""
        return _length(self.data) - self.stored

    def _require_stored(self, name: str, array: Array) -> None:
        """Refuse an array with chunks missing: they would read as zeros, and so as counts of the first gene."""
        missing = array.chunks_not_stored()
        if missing:
            raise self.broken(
                f"{missing} chunks of {name} are not stored, so their entries are unknown; the copy is incomplete, or "
                "the matrix holds stretches of stored zeros (write it again without them)"
            )

    def require_chunks_within(self, limits: Limits) -> None:
        """Refuse arrays of which a single chunk is beyond the bound of memory."""
        for name, array in (("data", self.data), ("indices", self.indices), ("indptr", self.indptr)):
            require_chunks_within(array, limits, path=self.path, place=f"matrix {self.place}, {name}")

    def broken(self, finding: str) -> FormatError:
        """Return the error for a finding in this matrix."""
        return FormatError(f"{self.path}, matrix {self.place}: {finding}. The file is damaged or was written wrongly.")

    def pointers(self, start: int, stop: int) -> NDArray[np.int64]:
        """Return indptr[start : stop + 1] as int64, proven to rise within the stored entries."""
        with reading(self.path, f"matrix {self.place}, indptr of {self.major}s {start} to {stop}"):
            pointers: NDArray[np.int64] = self._read("indptr", start, stop + 1).astype(np.int64)
        check_pointers(pointers, first=start, stored=self.stored, axis=self.major)
        return pointers

    def entries(self, start: int, stop: int) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return indices (proven in range) and values of the stored entries from `start` to `stop`."""
        with reading(self.path, f"matrix {self.place}, stored entries {start} to {stop}"):
            indices = self._read("indices", start, stop)
            values = self._read("data", start, stop).astype(self.dtype, copy=False)
        check_indices(indices, limit=self.n_minor, first=start, axis=self.minor)
        return indices.astype(np.int32, copy=False), values

    def _read(self, part: str, start: int, stop: int) -> NDArray[Any]:
        """Return a stretch of `data`, `indices` or `indptr`."""
        if part not in self._vectors:
            self._vectors[part] = getattr(self, part).vector()
        return self._vectors[part].read(start, stop)

    def indices_only(self, start: int, stop: int) -> NDArray[Any]:
        """Return indices of the stored entries from `start` to `stop`, proven in range."""
        with reading(self.path, f"matrix {self.place}, indices {start} to {stop}"):
            indices = self._read("indices", start, stop)
        check_indices(indices, limit=self.n_minor, first=start, axis=self.minor)
        return indices


def _vector(group: Group, path: Path, place: str, part: str) -> Array:
    node = group.get(part)
    if not isinstance(node, Array) or node.ndim != 1:
        found = "missing" if node is None else "no vector"
        raise FormatError(
            f"{path}, matrix {place}: {part} is {found}; a sparse matrix needs data, indices and indptr, "
            f"here are {', '.join(sorted(group.names())) or 'none'}."
        )
    return node


def _length(array: Array) -> int:
    return int(array.shape[0]) if array.shape else 0


def value_dtype(dtype: np.dtype[Any], path: Path, place: str) -> np.dtype[Any]:
    """Return the native dtype in which values are handed on; booleans become uint8."""
    if dtype.kind == "b":
        return np.dtype(np.uint8)
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise FormatError(f"{path}, matrix {place}: values are {dtype}, expected integers or floats.")
    return dtype.newbyteorder("=")


class CsrReader:
    """A matrix compressed by cell: each run of cells is one slice."""

    def __init__(self, stored: Compressed, *, limits: Limits) -> None:
        stored.require_chunks_within(limits)
        self.stored, self._limits = stored, limits
        self.info = MatrixInfo(stored.place, "csr", stored.dtype.name, stored.n_major, stored.n_minor, stored.stored)

    def rows(self, start: int, stop: int, *, block_cells: int) -> Iterator[Rows]:
        """Yield the cells from `start` to `stop`."""
        for block in range(start, stop, block_cells):
            pointers = self.stored.pointers(block, min(stop, block + block_cells))
            limit = self._limits.max_block_entries
            for a, b in split_rows(pointers, block_cells=block_cells, max_entries=limit):
                yield self.run(block + a, pointers[a : b + 1])

    def run(self, first: int, pointers: NDArray[np.int64]) -> Rows:
        """Read the cells whose pointers are given; a single cell beyond all measure is refused."""
        n_entries = int(pointers[-1] - pointers[0])
        if n_entries > max(self._limits.max_block_entries, 4 * self.stored.n_minor):
            raise BrokenRows(f"cell {first} holds {n_entries} entries, but there are {self.stored.n_minor} genes")
        indices, values = self.stored.entries(int(pointers[0]), int(pointers[-1]))
        return Rows(first, pointers - pointers[0], indices, values)

    def close(self) -> None:
        """Nothing is held."""


class CscReader:
    """A matrix compressed by gene: sorted by cell once, in memory or through bucket files."""

    def __init__(self, stored: Compressed, *, limits: Limits) -> None:
        stored.require_chunks_within(limits)
        self.stored, self._limits = stored, limits
        self.info = MatrixInfo(stored.place, "csc", stored.dtype.name, stored.n_minor, stored.n_major, stored.stored)
        self.sorter = CellSorter(
            self._stream,
            self._histogram,
            n_cells=stored.n_minor,
            stored=stored.stored,
            dtype=stored.dtype,
            limits=limits,
            label=f"{stored.path.name} {stored.place}",
        )

    def rows(self, start: int, stop: int, *, block_cells: int) -> Iterator[Rows]:
        """Yield the cells from `start` to `stop`."""
        yield from self.sorter.rows(start, stop, block_cells=block_cells)

    def _stream(self) -> Iterator[Entries]:
        pointers = self.stored.pointers(0, self.stored.n_major)
        step = self._limits.chunk_entries
        for start in range(0, self.stored.stored, step):
            stop = min(self.stored.stored, start + step)
            cells, values = self.stored.entries(start, stop)
            a = int(np.searchsorted(pointers, start, side="right")) - 1
            b = int(np.searchsorted(pointers, stop, side="left"))
            lengths: NDArray[np.int64] = np.diff(np.clip(pointers[a : b + 1], start, stop)).astype(np.int64)
            yield Entries(cells, np.repeat(np.arange(a, b, dtype=np.int32), lengths), values)

    def _histogram(self) -> CellHistogram:
        histogram = CellHistogram(self.stored.n_minor)
        step = self._limits.chunk_entries
        for start in range(0, self.stored.stored, step):
            histogram.add(self.stored.indices_only(start, min(self.stored.stored, start + step)))
        return histogram

    @property
    def spill_bytes(self) -> int:
        """Bytes of disk that sorting by cell takes; 0 where it fits in memory."""
        return self.sorter.spill_bytes

    def close(self) -> None:
        """Delete the bucket files."""
        self.sorter.close()
