"""How variable a gene is, by its moments alone (floor 4, pure): two published definitions."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from cellmill.statistics.blocks import F64
from cellmill.statistics.moments import GeneStatistics

__all__ = ["bin_of_mean", "least_detected", "moments_of_bins", "score_dispersion", "score_seurat"]


def score_seurat(mean: F64, variance: F64, *, n_bins: int = 20) -> tuple[F64, F64, F64]:
    """Return (log mean, log dispersion, score) per gene as Seurat's first method defines them.

    The dispersion (variance over mean of counts per 10,000, logarithmised) is compared with that of genes of similar
    mean: `n_bins` bins of equal width over log1p(mean), minus the bin's mean, over the bin's standard deviation (ddof
    1). A gene alone in its bin scores 1. Genes without variance score NaN.

    Parameters
    ----------
    mean, variance : float64 (n_genes,)
        Of counts per 10,000, not logarithmised; ddof 1.

    Source: Satija et al. (2015); equal to scanpy 1.11.5 `pp.highly_variable_genes(flavor="seurat")`.
    """
    floored = np.where(mean == 0, 1e-12, mean)
    with np.errstate(divide="ignore", invalid="ignore"):
        dispersion = np.log(np.where(variance == 0, np.nan, variance / floored))
    log_mean = np.log1p(floored)
    bins = bin_of_mean(log_mean, n_bins)
    average, deviation = moments_of_bins(dispersion, bins, n_bins)
    with np.errstate(divide="ignore", invalid="ignore"):
        score = (dispersion - average[bins]) / deviation[bins]
    return log_mean, dispersion, score


def bin_of_mean(log_mean: F64, n_bins: int) -> npt.NDArray[np.int64]:
    """Return the bin (0..n_bins-1) of each value, in bins of equal width that are closed on the right.

    Source: pandas 2 `cut(values, bins=n)`; the lowest edge is moved down by 0.1 % of the range.
    """
    low, high = float(log_mean.min()), float(log_mean.max())
    if low == high:
        spread = 0.001 * abs(low) if low != 0 else 0.001
        edges = np.linspace(low - spread, high + spread, n_bins + 1)
    else:
        edges = np.linspace(low, high, n_bins + 1)
        edges[0] -= (high - low) * 0.001
    return np.searchsorted(edges, log_mean, side="left").astype(np.int64) - 1


def moments_of_bins(dispersion: F64, bins: npt.NDArray[np.int64], n_bins: int) -> tuple[F64, F64]:
    """Return mean and standard deviation (ddof 1) of the finite dispersions of each bin.

    Where only one gene of a bin has a dispersion, mean 0 and a deviation equal to that dispersion make its score 1.
    """
    average, deviation = np.full(n_bins, np.nan), np.full(n_bins, np.nan)
    for number in range(n_bins):
        members = dispersion[bins == number]
        members = members[~np.isnan(members)]
        if len(members) == 1:
            average[number], deviation[number] = 0.0, members[0]
        elif len(members) > 1:
            average[number], deviation[number] = members.mean(), members.std(ddof=1)
    return average, deviation


def least_detected(n_cells: int, min_cells_percent: float) -> int:
    """Return in how many cells a gene must be detected to be a share of them, and in one at least.

    Examples
    --------
    >>> least_detected(3000, 0.1), least_detected(3001, 0.1), least_detected(50, 0.1)
    (3, 4, 1)
    """
    # rounded first: 0.1 % of 3,000 is 3, and a hair more in floating point
    return max(math.ceil(round(n_cells * min_cells_percent / 100, 6)), 1)


def score_dispersion(statistics: GeneStatistics, *, min_cells_percent: float = 0.1) -> F64:
    """Return variance over mean of the raw counts per gene; NaN for genes detected in too few cells.

    Parameters
    ----------
    statistics : GeneStatistics
        Of raw counts.
    min_cells_percent : float
        A gene must be detected in at least this share of the cells, and in one.

    Source: pythonlearner1025/vcc `preprocess_hvgs.py` at d5f4732 (`select_hvgs`), where the share is rounded down.
    """
    least = least_detected(statistics.n_cells, min_cells_percent)
    kept = (statistics.n_detected >= least) & (statistics.mean > 0)
    score = np.full(len(kept), np.nan)
    np.divide(statistics.variance, statistics.mean, out=score, where=kept)
    return score
