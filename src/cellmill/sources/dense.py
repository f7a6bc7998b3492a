"""Dense matrices in a container of arrays, read by runs of cells (floor 3, sources).

Knows dense arrays in either orientation, contiguous or in chunks of any shape, and how to read each chunk few times in
bounded memory. Must not know where in a file they lie: h5ad, zarr and loom files share this reader.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cellmill.errors import FormatError
from cellmill.events import emit
from cellmill.sources.arrays import Array, reading, require_chunks_within
from cellmill.sources.base import Limits, MatrixInfo
from cellmill.sources.matrix import value_dtype
from cellmill.sources.rows import Rows
from cellmill.sources.spill import CellHistogram, CellSorter, Entries

__all__ = ["DenseReader", "band_cells", "is_sorted_on_disk"]

MOST_UNPACKINGS = 3
"""How often a chunk may be unpacked before sorting by cell, which unpacks it twice and writes, is the lesser cost."""

Axes = Literal["cells x genes", "genes x cells"]


def band_cells(n_genes: int, *, chunk_cells: int, max_values: int) -> int:
    """Return the most cells to read at once: whole chunks where memory allows, else an even part of one.

    Examples
    --------
    >>> band_cells(1000, chunk_cells=64, max_values=200_000), band_cells(1000, chunk_cells=501, max_values=200_000)
    (192, 167)
    """
    fits = max(1, max_values // max(1, n_genes))
    return ceil(chunk_cells / ceil(chunk_cells / fits)) if fits < chunk_cells else fits // chunk_cells * chunk_cells


def is_sorted_on_disk(n_genes: int, *, chunk_cells: int, max_values: int) -> bool:
    """Whether chunks hold so many cells that reading by cell would unpack each of them too often."""
    return ceil(chunk_cells / band_cells(n_genes, chunk_cells=chunk_cells, max_values=max_values)) > MOST_UNPACKINGS


class DenseReader:
    """A dense array of cells x genes or genes x cells.

    Parameters
    ----------
    axes : {"cells x genes", "genes x cells"}
        What its rows and columns are.

    Notes
    -----
    Read by bands of cells, at most `Limits.max_dense_values` values at a time, which begin where chunks begin. Where
    chunks hold more cells than that, each is unpacked up to three times; where they hold far more, all nonzero values
    are sorted by cell once, in memory or through files (`spill.py`).
    """

    def __init__(
        self,
        array: Array,
        *,
        path: Path,
        place: str,
        n_cells: int,
        n_genes: int,
        limits: Limits,
        axes: Axes = "cells x genes",
    ) -> None:
        self._by_cell = axes == "cells x genes"
        expected = (n_cells, n_genes) if self._by_cell else (n_genes, n_cells)
        if array.shape != expected:
            raise FormatError(
                f"{path}, matrix {place}: its shape is {array.shape}, expected {expected} "
                f"({axes.replace(' x ', ', ')})."
            )
        require_chunks_within(array, limits, path=path, place=f"matrix {place}")
        self._array, self._path, self._place, self._limits = array, path, place, limits
        self._dtype = value_dtype(array.dtype, path, place)
        self.info = MatrixInfo(place, "dense", self._dtype.name, n_cells, n_genes, n_cells * n_genes)
        tall, wide = self._as_cells_genes(array.chunks) if array.chunks else (1, n_genes)
        self._chunk = (max(1, min(tall, n_cells)), max(1, min(wide, n_genes)))
        how = {"chunk_cells": self._chunk[0], "max_values": limits.max_dense_values}
        self._band = band_cells(n_genes, **how)
        self._sorts = is_sorted_on_disk(n_genes, **how)
        self._sorter: CellSorter | None = None

    def _as_cells_genes(self, pair: tuple[Any, ...]) -> tuple[Any, Any]:
        return (pair[0], pair[1]) if self._by_cell else (pair[1], pair[0])

    def rows(self, start: int, stop: int, *, block_cells: int) -> Iterator[Rows]:
        """Yield the cells from `start` to `stop`, zeros left out."""
        if self._sorts:
            yield from self._sorted().rows(start, stop, block_cells=block_cells)
            return
        band = min(self._band, ceil(block_cells / self._chunk[0]) * self._chunk[0])
        first = start
        while first < stop:
            last = min(stop, self._border(first, band))
            yield from self._band_rows(first, last, block_cells)
            first = last

    def _border(self, first: int, band: int) -> int:
        """Return where a band from `first` ends: where a chunk ends, so that none is unpacked for two bands."""
        tall = self._chunk[0]
        return min(first + band, (first // tall + 1) * tall) if band < tall else (first + band) // tall * tall

    def _band_rows(self, first: int, last: int, block_cells: int) -> Iterator[Rows]:
        x_CG = self._values(slice(first, last), slice(0, self.info.n_genes))
        for a in range(0, last - first, block_cells):
            part = x_CG[a : a + block_cells]
            cells, genes = np.nonzero(part)
            indptr = np.zeros(len(part) + 1, np.int64)
            np.cumsum(np.bincount(cells, minlength=len(part)), out=indptr[1:])
            yield Rows(first + a, indptr, genes.astype(np.int32), part[cells, genes])

    def _values(self, cells: slice, genes: slice) -> NDArray[Any]:
        """Return a rectangle as cells x genes."""
        with reading(self._path, f"matrix {self._place}, cells {cells.start} to {cells.stop}"):
            if self._by_cell:
                return self._array.read(cells, genes).astype(self._dtype, copy=False)
            return np.ascontiguousarray(self._array.read(genes, cells).T).astype(self._dtype, copy=False)

    @property
    def spill_bytes(self) -> int:
        """Bytes of disk that sorting by cell takes; before the first read at most, as if no value were zero."""
        if not self._sorts:
            return 0
        return (self._sorter or self._make_sorter(self.info.stored)).spill_bytes

    def _sorted(self) -> CellSorter:
        if self._sorter is None:
            histogram = self._histogram()
            self._sorter = self._make_sorter(int(histogram.counts.sum()), histogram)
        return self._sorter

    def _make_sorter(self, stored: int, histogram: CellHistogram | None = None) -> CellSorter:
        return CellSorter(
            self._stream,
            lambda: histogram or self._histogram(),
            n_cells=self.info.n_cells,
            stored=stored,
            dtype=self._dtype,
            limits=self._limits,
            label=f"{self._path.name} {self._place}",
        )

    def _histogram(self) -> CellHistogram:
        """Count the nonzero values of all cells."""
        histogram = CellHistogram(self.info.n_cells)
        done = 0
        for cells, genes in self._tiles():
            x_CG = self._values(cells, genes)
            histogram.add(np.repeat(np.arange(cells.start, cells.stop), np.count_nonzero(x_CG, axis=1)))
            done += x_CG.size
            emit(f"counting {self._path.name} {self._place}", done=done, total=self.info.stored, unit="values")
        return histogram

    def _stream(self) -> Iterator[Entries]:
        for cells, genes in self._tiles():
            x_CG = self._values(cells, genes)
            row, column = np.nonzero(x_CG)
            at = row + cells.start
            yield Entries(at, (column + genes.start).astype(np.int32), x_CG[row, column])

    def _tiles(self) -> Iterator[tuple[slice, slice]]:
        """Yield rectangles of whole chunks, genes outermost, each within the bound of one read or a single chunk."""
        n_cells, n_genes = self.info.n_cells, self.info.n_genes
        tall, wide = self._chunk
        most = self._limits.max_dense_values // 8  # entries of a tile take more room than its values
        tall_tile = max(1, min(ceil(n_cells / tall), most // (tall * wide))) * tall
        wide_tile = max(1, most // (tall_tile * wide)) * wide
        for gene in range(0, n_genes, wide_tile):
            for cell in range(0, n_cells, tall_tile):
                yield slice(cell, min(n_cells, cell + tall_tile)), slice(gene, min(n_genes, gene + wide_tile))

    def close(self) -> None:
        """Delete the bucket files."""
        if self._sorter is not None:
            self._sorter.close()
