"""Variance of analytic Pearson residuals (floor 4), in two passes over the stored counts.

Every pair of cell and gene has a residual, also where nothing was counted; that of a zero depends on the cell by its
total alone. Zeros are therefore summed once for each distinct total, not for each cell.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
from scipy import sparse

from cellmill.kernel.checks import count_threads
from cellmill.statistics.blocks import F64, Cells, column_sums, measure_blocks
from cellmill.statistics.moments import CountSums, GeneStatistics

__all__ = ["THETA", "score_residuals"]

THETA = 100.0
_TOTALS_AT_ONCE = 64


def score_residuals(
    cells: Cells, genes: Sequence[str] | None, *, clip: float | None, block_cells: int, threads: int
) -> tuple[GeneStatistics, F64]:
    """Return the moments of the raw counts, and the variance of each gene's Pearson residuals; NaN where undetected.

    The residual of a count x is (x - mu) / sqrt(mu + mu^2 / 100) with mu = gene's sum * cell's sum / sum of all,
    clipped to -clip..clip; the variance is over all cells (ddof 0).

    Parameters
    ----------
    clip : float or None
        None: sqrt(n_cells).

    Notes
    -----
    Memory beyond blocks of cells: the distinct totals of cells, which are whole numbers of some range however many
    cells there are. Time: stored counts, twice, and distinct totals x genes.

    Source: Lause, Berens and Kobak (2021); equal to scanpy 1.11.5
    `experimental.pp.highly_variable_genes(flavor="pearson_residuals")`.
    """
    added_up = CountSums(cells[0][0].n_genes if genes is None else len(genes))
    totals, n_of_total = np.empty(0), np.empty(0)
    for found, own, n_own in measure_blocks(
        cells, _sums_and_totals, genes=genes, block_cells=block_cells, threads=threads, told="gene statistics"
    ):
        added_up.merge(found)
        totals, n_of_total = _merged(totals, n_of_total, own, n_own)
    statistics = added_up.result()
    n = statistics.n_cells
    sums = np.rint(statistics.mean * n)
    share = sums / max(sums.sum(), 1.0)
    limit = float(np.sqrt(n)) if clip is None else clip
    first, second = _of_zeros(share, totals, n_of_total, limit, threads)
    measure = partial(_beyond_zeros, share=share, limit=limit)
    for added, added_squares in measure_blocks(
        cells, measure, genes=genes, block_cells=block_cells, threads=threads, told="Pearson residuals"
    ):
        first += added
        second += added_squares
    score = second / n - (first / n) ** 2
    return statistics, np.where(sums > 0, score, np.nan)


def _sums_and_totals(counts: sparse.csr_array) -> tuple[CountSums, F64, F64]:
    totals, n_of_total = np.unique(counts @ np.ones(counts.shape[1]), return_counts=True)
    return CountSums.of(counts), totals, n_of_total.astype(np.float64)


def _merged(totals: F64, n_of_total: F64, own: F64, n_own: F64) -> tuple[F64, F64]:
    both, at = np.unique(np.concatenate([totals, own]), return_inverse=True)
    added: F64 = np.bincount(at, weights=np.concatenate([n_of_total, n_own]), minlength=len(both)).astype(np.float64)
    return both, added


def _of_zeros(share: F64, totals: F64, n_of_total: F64, limit: float, threads: int) -> tuple[F64, F64]:
    """Return per gene the sum, and the sum of squares, of the residuals as if no cell had a count of it."""
    first, second = np.zeros(len(share)), np.zeros(len(share))
    starts = range(0, len(totals), _TOTALS_AT_ONCE)

    def some(start: int) -> tuple[F64, F64]:
        weights = n_of_total[start : start + _TOTALS_AT_ONCE]
        squares = _zero_squares(np.outer(totals[start : start + _TOTALS_AT_ONCE], share), limit)
        return -(weights @ np.sqrt(squares)), weights @ squares

    with ThreadPoolExecutor(count_threads(threads)) as pool:
        for added, added_squares in pool.map(some, starts):
            first += added
            second += added_squares
    return first, second


def _zero_squares(mu: F64, limit: float) -> F64:
    """Return the squared residual of a zero where `mu` is expected: (0 - mu)^2 / (mu + mu^2 / theta)."""
    squares: F64 = mu / (1.0 + mu / THETA)
    return np.minimum(squares, limit * limit, out=squares)


def _beyond_zeros(counts: sparse.csr_array, *, share: F64, limit: float) -> tuple[F64, F64]:
    """Return what the stored counts add to the sums of residuals and of their squares, beyond those of zeros."""
    totals = counts @ np.ones(counts.shape[1])
    mu = share[counts.indices] * np.repeat(totals, np.diff(counts.indptr))
    residual = np.clip((counts.data - mu) / np.sqrt(mu + mu * mu / THETA), -limit, limit)
    zero = _zero_squares(mu, limit)
    return column_sums(counts, residual + np.sqrt(zero)), column_sums(counts, residual * residual - zero)
