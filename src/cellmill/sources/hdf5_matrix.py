"""Matrices in HDF5 read by runs of cells (floor 3, sources).

Knows the compressed sparse layout (data, indices, indptr) by cell and by gene, and dense datasets. Must not know
where in a file they lie: h5ad and 10x files share these readers.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from cellmill.errors import FormatError
from cellmill.sources.base import Limits, MatrixInfo
from cellmill.sources.hdf5 import reading
from cellmill.sources.hdf5_plain import PlainVector, plain_vector
from cellmill.sources.rows import BrokenRows, Rows, check_indices, check_pointers, split_rows
from cellmill.sources.spill import CellHistogram, CellSorter, Entries

__all__ = ["Compressed", "CscReader", "CsrReader", "DenseReader"]

LARGEST_AXIS = 2**31 - 1


class Compressed:
    """The three datasets of a compressed matrix, checked as they are read.

    Parameters
    ----------
    group : h5py.Group
        Holds data, indices and indptr.
    n_major, n_minor : int
        Length of the axis that indptr runs over, and of the other.
    major, minor : {"cell", "gene"}
        Their names, for messages.
    """

    def __init__(
        self, group: h5py.Group, *, path: Path, place: str, n_major: int, n_minor: int, major: str, minor: str
    ) -> None:
        self.path, self.place, self.n_major, self.n_minor = path, place, n_major, n_minor
        self.major, self.minor = major, minor
        with reading(path, f"matrix {place}"):
            self.data, self.indices, self.indptr = (
                _vector(group, path, place, part) for part in ("data", "indices", "indptr")
            )
            self.dtype = _value_dtype(self.data.dtype, path, place)
            self.stored = self._stored()
        self._plain: dict[str, PlainVector | None] = {}
        if n_minor > LARGEST_AXIS:
            raise FormatError(f"{path}, matrix {place}: {n_minor} {minor}s are more than the {LARGEST_AXIS} supported.")

    def _stored(self) -> int:
        """Check what can be checked without reading everything; return the number of stored entries."""
        for name, dataset in (("indices", self.indices), ("indptr", self.indptr)):
            if dataset.dtype.kind not in "iu":
                raise self.broken(f"{name} are {dataset.dtype}, expected integers")
        if self.indptr.shape[0] != self.n_major + 1:
            raise self.broken(
                f"indptr has {self.indptr.shape[0]} entries, expected {self.n_major + 1} "
                f"for {self.n_major} {self.major}s"
            )
        if self.data.shape != self.indices.shape:
            raise self.broken(f"{self.data.shape[0]} values but {self.indices.shape[0]} indices are stored")
        first, last = int(self.indptr[0]), int(self.indptr[-1])
        if first != 0 or not 0 <= last <= self.data.shape[0]:
            raise self.broken(
                f"indptr runs from {first} to {last}, expected 0 to {self.data.shape[0]}, the number of stored entries"
            )
        return last

    @property
    def unused(self) -> int:
        """Entries that lie after the last pointer and so belong to nothing."""
        return int(self.data.shape[0]) - self.stored

    def broken(self, finding: str) -> FormatError:
        """Return the error for a finding in this matrix."""
        return FormatError(f"{self.path}, matrix {self.place}: {finding}. The file is damaged or was written wrongly.")

    def pointers(self, start: int, stop: int) -> NDArray[np.int64]:
        """Return indptr[start : stop + 1] as int64, proven to rise within the stored entries."""
        with reading(self.path, f"matrix {self.place}, indptr of {self.major}s {start} to {stop}"):
            pointers: NDArray[np.int64] = self.indptr[start : stop + 1].astype(np.int64)
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
        """Return a stretch of `indices` or `data`, past HDF5 where it adds nothing."""
        dataset = getattr(self, part)
        if part not in self._plain:
            self._plain[part] = plain_vector(dataset)
        plain = self._plain[part]
        return dataset[start:stop] if plain is None else plain.read(start, stop)

    def indices_only(self, start: int, stop: int) -> NDArray[Any]:
        """Return indices of the stored entries from `start` to `stop`, proven in range."""
        with reading(self.path, f"matrix {self.place}, indices {start} to {stop}"):
            indices = self._read("indices", start, stop)
        check_indices(indices, limit=self.n_minor, first=start, axis=self.minor)
        return indices


def _vector(group: h5py.Group, path: Path, place: str, part: str) -> h5py.Dataset:
    node = group.get(part)
    if not isinstance(node, h5py.Dataset) or node.ndim != 1:
        found = "missing" if node is None else "no vector"
        raise FormatError(
            f"{path}, matrix {place}: {part} is {found}; a sparse matrix needs data, indices and indptr, "
            f"here are {', '.join(sorted(group)) or 'none'}."
        )
    return node


def _value_dtype(dtype: np.dtype[Any], path: Path, place: str) -> np.dtype[Any]:
    """Return the native dtype in which values are handed on; booleans become uint8."""
    if dtype.kind == "b":
        return np.dtype(np.uint8)
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise FormatError(f"{path}, matrix {place}: values are {dtype}, expected integers or floats.")
    return dtype.newbyteorder("=")


class CsrReader:
    """A matrix compressed by cell: each run of cells is one slice."""

    def __init__(self, stored: Compressed, *, limits: Limits) -> None:
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

    def close(self) -> None:
        """Delete the bucket files."""
        self.sorter.close()


class DenseReader:
    """A dense dataset cells x genes, contiguous or chunked."""

    def __init__(
        self, dataset: h5py.Dataset, *, path: Path, place: str, n_cells: int, n_genes: int, limits: Limits
    ) -> None:
        if dataset.shape != (n_cells, n_genes):
            raise FormatError(
                f"{path}, matrix {place}: its shape is {dataset.shape}, expected {(n_cells, n_genes)} (cells, genes)."
            )
        self._dataset, self._path, self._place, self._limits = dataset, path, place, limits
        self._dtype = _value_dtype(dataset.dtype, path, place)
        self.info = MatrixInfo(place, "dense", self._dtype.name, n_cells, n_genes, n_cells * n_genes)

    def rows(self, start: int, stop: int, *, block_cells: int) -> Iterator[Rows]:
        """Yield the cells from `start` to `stop`, zeros left out."""
        step = max(1, min(block_cells, self._limits.max_dense_values // max(1, self.info.n_genes)))
        for first in range(start, stop, step):
            last = min(stop, first + step)
            with reading(self._path, f"matrix {self._place}, cells {first} to {last}"):
                x_CG = self._dataset[first:last].astype(self._dtype, copy=False)
            cells, genes = np.nonzero(x_CG)
            indptr = np.zeros(last - first + 1, np.int64)
            np.cumsum(np.bincount(cells, minlength=last - first), out=indptr[1:])
            yield Rows(first, indptr, genes.astype(np.int32), x_CG[cells, genes])

    def close(self) -> None:
        """Nothing is held."""
