"""Mean, variance and detection of every gene, cell by cell and never whole (floor 4).

Knows how moments of batches merge without loss; must not know what the numbers are used for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from scipy import sparse

from cellmill.errors import InputError
from cellmill.statistics.blocks import F64, I64, Cells, column_sums, measure_blocks

if TYPE_CHECKING:
    from cellmill.store import Store

__all__ = [
    "CountSums",
    "GeneMoments",
    "GeneStatistics",
    "Normalise",
    "gene_statistics",
    "panel_statistics",
    "statistics_of_cells",
]

Normalise = Literal["raw", "cp10k"]


@dataclass(frozen=True)
class GeneStatistics:
    """Moments of each gene over a set of cells.

    Attributes
    ----------
    n_cells : int
        Cells that were read.
    mean, variance : float64 (n_genes,)
        Of the counts, or of the counts per 10,000; the variance is the unbiased one (ddof 1), 0 for a single cell.
    n_detected : int64 (n_genes,)
        Cells with at least one count of the gene.
    """

    n_cells: int
    mean: F64
    variance: F64
    n_detected: I64


class CountSums:
    """Adds up counts and their squares as whole numbers, so that the moments are exact in whatever order cells come.

    Genes with the same counts then have the same variance to the last bit: which of them is chosen is settled by their
    place in the store, and not by how the cells were cut into blocks.
    """

    def __init__(self, n_genes: int) -> None:
        self.n_cells = 0
        self._sums: I64 = np.zeros(n_genes, dtype=np.int64)
        # squares up to 2^64 are added in two lanes: each times 2^32, and the rest
        self._high: I64 = np.zeros(n_genes, dtype=np.int64)
        self._low: I64 = np.zeros(n_genes, dtype=np.int64)
        self._detected: I64 = np.zeros(n_genes, dtype=np.int64)

    def merge(self, other: CountSums) -> None:
        """Take in the sums of other cells."""
        self.n_cells += other.n_cells
        self._sums += other._sums
        self._high += other._high
        self._low += other._low
        self._detected += other._detected

    @classmethod
    def of(cls, counts: sparse.csr_array) -> CountSums:
        """Return the sums of up to 1,024 cells in memory: CSR, float64, whole numbers below 2^32."""
        made = cls(counts.shape[1])
        values = counts.data
        made.n_cells = counts.shape[0]
        made._sums = column_sums(counts, values).astype(np.int64)
        made._detected = column_sums(counts, (values > 0).astype(np.float64)).astype(np.int64)
        if not len(values) or values.max() < 1 << 21:  # 1,024 squares below 2^42: exact in float64
            squares = column_sums(counts, values * values).astype(np.int64)
            made._high, made._low = squares >> 32, squares & 0xFFFFFFFF
            return made
        high = np.floor(values / 65536.0)
        low = values - 65536.0 * high
        both = 2 * column_sums(counts, high * low).astype(np.int64)  # times 2^16
        made._high = column_sums(counts, high * high).astype(np.int64) + (both >> 16)
        made._low = column_sums(counts, low * low).astype(np.int64) + ((both & 0xFFFF) << 16)
        return made

    def result(self) -> GeneStatistics:
        """Return the statistics of everything that was added so far; each is rounded once."""
        n = self.n_cells
        degrees = n * max(n - 1, 1)
        if not n:
            zero = np.zeros(len(self._sums))
            return GeneStatistics(0, zero, zero.copy(), self._detected.copy())
        if self._is_small():
            spread = n * ((self._high << 32) + self._low) - self._sums * self._sums
            variance = spread / degrees
        else:  # Python's whole numbers have no largest one
            squares = self._high.astype(object) * (1 << 32) + self._low.astype(object)
            exact = n * squares - self._sums.astype(object) ** 2
            variance = np.array([spread / degrees for spread in exact], dtype=np.float64)
        return GeneStatistics(n, self._sums / n, variance, self._detected.copy())

    def _is_small(self) -> bool:
        """Whether float64 holds n times the squares, no less than the square of the sums, and the degrees exactly."""
        largest = (int(self._high.max(initial=0)) << 32) + int(self._low.max(initial=0))
        return self.n_cells * max(largest, self.n_cells) < 1 << 53


class GeneMoments:
    """Accumulates batches of cells; the result does not depend on their number but in the last bits.

    Each batch is centred on its own mean before its squares are summed, and batches are merged as pairs of moments,
    so that a large mean does not cancel a small variance.

    Source: Chan, Golub and LeVeque (1979), "Updating formulae and a pairwise algorithm for computing sample variances".
    """

    def __init__(self, n_genes: int) -> None:
        self.n_cells = 0
        self._mean: F64 = np.zeros(n_genes)
        self._squares: F64 = np.zeros(n_genes)
        self._detected: I64 = np.zeros(n_genes, dtype=np.int64)

    def add(self, counts: sparse.csr_array, *, scale: F64 | None = None) -> None:
        """Take in one batch of cells; `scale` (n_cells,) multiplies each cell's values when it is given."""
        if counts.shape[0]:
            self.merge(_scaled_statistics(counts.astype(np.float64), scale))

    def merge(self, other: GeneStatistics) -> None:
        """Take in the moments of other cells."""
        if not other.n_cells:
            return
        n_all = self.n_cells + other.n_cells
        shift = other.mean - self._mean
        self._mean += shift * (other.n_cells / n_all)
        self._squares += other.variance * max(other.n_cells - 1, 1)
        self._squares += shift * shift * (self.n_cells * (other.n_cells / n_all))
        self._detected += other.n_detected
        self.n_cells = n_all

    def result(self) -> GeneStatistics:
        """Return the statistics of everything that was added so far."""
        degrees = max(self.n_cells - 1, 1)
        return GeneStatistics(self.n_cells, self._mean.copy(), self._squares / degrees, self._detected.copy())


def _scaled_statistics(counts: sparse.csr_array, scale: F64 | None) -> GeneStatistics:
    n_cells = counts.shape[0]
    values = counts.data if scale is None else counts.data * np.repeat(scale, np.diff(counts.indptr))
    stored = column_sums(counts, np.ones(len(values)))
    detected = stored if values.all() else column_sums(counts, (values > 0).astype(np.float64))
    mean = column_sums(counts, values) / n_cells
    deviations = values - mean[counts.indices]
    squares = column_sums(counts, deviations * deviations) + (n_cells - stored) * mean * mean
    return GeneStatistics(n_cells, mean, squares / max(n_cells - 1, 1), detected.astype(np.int64))


def gene_statistics(
    store: Store,
    rows: I64 | None = None,
    *,
    normalise: Normalise = "raw",
    block_cells: int = 4096,
    threads: int = 0,
) -> GeneStatistics:
    """Return mean, variance and detection of each gene of `store`, in storage order, from one pass over the cells.

    Parameters
    ----------
    store : Store
        Where the cells are.
    rows : int64 (n,), optional
        The cells to read; all of them when not given. A row given twice counts twice.
    normalise : "raw" or "cp10k"
        Counts as they are, or per 10,000 counts of the whole cell (a cell without counts stays zero).
    block_cells : int
        Cells read at a time.
    threads : int
        0 for one per core; the numbers do not depend on it.

    Raises
    ------
    InputError
        When `normalise` is neither of the two.

    Notes
    -----
    Memory is two blocks of cells plus a few arrays of `n_genes`, whatever the size of the store.
    """
    wanted = range(store.n_cells) if rows is None else np.asarray(rows, dtype=np.int64)
    return statistics_of_cells([(store, wanted)], None, normalise=normalise, block_cells=block_cells, threads=threads)


def panel_statistics(
    cells: Cells,
    genes: Sequence[str],
    *,
    normalise: Normalise = "raw",
    block_cells: int = 4096,
    threads: int = 0,
) -> GeneStatistics:
    """Return the moments of the panel `genes` over cells of one or more stores that all have these genes.

    "cp10k" is per 10,000 counts of the panel, since nothing else is known to be measured in every store.

    Raises
    ------
    QueryError
        When a store lacks a gene of the panel.
    """
    return statistics_of_cells(cells, genes, normalise=normalise, block_cells=block_cells, threads=threads)


def statistics_of_cells(
    cells: Cells,
    genes: Sequence[str] | None,
    *,
    normalise: Normalise,
    block_cells: int,
    threads: int,
) -> GeneStatistics:
    """Return the moments of all genes of one store (`genes` None), or of a panel over several."""
    if normalise not in ("raw", "cp10k"):
        raise InputError(f"normalise is {normalise!r}: expected 'raw' or 'cp10k'")
    n_genes = cells[0][0].n_genes if genes is None else len(genes)
    how: dict[str, Any] = {
        "genes": genes,
        "block_cells": block_cells,
        "threads": threads,
        "told": "gene statistics",
    }
    if normalise == "raw":
        sums = CountSums(n_genes)
        for own in measure_blocks(cells, CountSums.of, **how):
            sums.merge(own)
        return sums.result()
    moments = GeneMoments(n_genes)
    for found in measure_blocks(cells, _cp10k_statistics, **how):
        moments.merge(found)
    return moments.result()


def _cp10k_statistics(counts: sparse.csr_array) -> GeneStatistics:
    totals: F64 = counts @ np.ones(counts.shape[1])
    return _scaled_statistics(counts, np.divide(1e4, totals, out=np.zeros_like(totals), where=totals > 0))
