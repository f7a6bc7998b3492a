"""Mean, variance and detection of every gene, cell by cell and never whole (floor 4).

Knows how moments of batches merge without loss; must not know what the numbers are used for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from cellmill.errors import InputError
from cellmill.events import emit

if TYPE_CHECKING:
    from cellmill.store import Store

__all__ = ["GeneMoments", "GeneStatistics", "Normalise", "gene_statistics", "panel_statistics"]

Normalise = Literal["raw", "cp10k"]
F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]


class CountsCSR(Protocol):
    """What a batch must offer: the three arrays and the shape of a CSR matrix."""

    indptr: npt.NDArray[Any]
    indices: npt.NDArray[Any]
    data: npt.NDArray[Any]
    shape: tuple[int, int]


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

    def add(self, counts: CountsCSR, *, scale: F64 | None = None) -> None:
        """Take in one batch of cells; `scale` (n_cells,) multiplies each cell's values when it is given."""
        n_new, n_genes = counts.shape
        if n_new == 0:
            return
        lengths = np.diff(counts.indptr)
        values = counts.data.astype(np.float64)
        if scale is not None:
            values *= np.repeat(scale, lengths)
        detected = np.bincount(counts.indices, minlength=n_genes)
        mean = np.bincount(counts.indices, weights=values, minlength=n_genes) / n_new
        deviations = values - mean[counts.indices]
        squares = (n_new - detected) * mean * mean
        squares += np.bincount(counts.indices, weights=deviations * deviations, minlength=n_genes)
        self._merge(n_new, mean, squares)
        self._detected += np.bincount(counts.indices[values > 0], minlength=n_genes)

    def _merge(self, n_new: int, mean: F64, squares: F64) -> None:
        n_all = self.n_cells + n_new
        shift = mean - self._mean
        self._mean += shift * (n_new / n_all)
        self._squares += squares + shift * shift * (self.n_cells * (n_new / n_all))
        self.n_cells = n_all

    def result(self) -> GeneStatistics:
        """Return the statistics of everything that was added so far."""
        degrees = max(self.n_cells - 1, 1)
        return GeneStatistics(self.n_cells, self._mean.copy(), self._squares / degrees, self._detected.copy())


def gene_statistics(
    store: Store, rows: I64 | None = None, *, normalise: Normalise = "raw", batch: int = 4096
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
    batch : int
        Cells in memory at a time.

    Raises
    ------
    InputError
        When `normalise` is neither of the two.

    Notes
    -----
    Memory is one batch plus three arrays of `n_genes`, whatever the size of the store.
    """
    wanted = np.arange(store.n_cells, dtype=np.int64) if rows is None else np.asarray(rows, dtype=np.int64)
    moments = GeneMoments(store.n_genes)
    add_cells(moments, store, wanted, genes=None, normalise=normalise, batch=batch)
    return moments.result()


def panel_statistics(
    cells: Sequence[tuple[Store, I64]], genes: Sequence[str], *, normalise: Normalise = "raw", batch: int = 4096
) -> GeneStatistics:
    """Return the moments of the panel `genes` over cells of one or more stores that all have these genes.

    "cp10k" is per 10,000 counts of the panel, since nothing else is known to be measured in every store.

    Raises
    ------
    QueryError
        When a store lacks a gene of the panel.
    """
    moments = GeneMoments(len(genes))
    for store, rows in cells:
        add_cells(moments, store, rows, genes=genes, normalise=normalise, batch=batch)
    return moments.result()


def add_cells(
    moments: GeneMoments, store: Store, rows: I64, *, genes: Sequence[str] | None, normalise: Normalise, batch: int
) -> None:
    """Take the cells `rows` of `store` into `moments`, a batch at a time."""
    if normalise not in ("raw", "cp10k"):
        raise InputError(f"normalise is {normalise!r}: expected 'raw' or 'cp10k'")
    for start in range(0, len(rows), batch):
        part = rows[start : start + batch]
        counts = store.read(part, genes=genes)
        scale = None
        if normalise == "cp10k":
            totals = np.asarray(counts.sum(axis=1), dtype=np.float64).ravel()
            scale = np.divide(1e4, totals, out=np.zeros_like(totals), where=totals > 0)
        moments.add(counts, scale=scale)
        emit("gene statistics", done=min(start + batch, len(rows)), total=len(rows), unit="cells")
