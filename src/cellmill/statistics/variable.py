"""Highly variable genes (floor 4): two published definitions, and nothing else.

Knows the formulae; must not know how the moments were gathered.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cellmill.errors import InputError
from cellmill.statistics.moments import F64, I64, GeneStatistics, Normalise, gene_statistics, panel_statistics

if TYPE_CHECKING:
    from cellmill.store import Store

__all__ = ["Flavor", "HvgResult", "hvg", "hvg_of_cells", "hvg_of_statistics", "score_dispersion", "score_seurat"]

Flavor = Literal["seurat", "dispersion"]


@dataclass(frozen=True)
class HvgResult:
    """Highly variable genes, best first.

    Attributes
    ----------
    gene_ids : tuple of str
        The chosen genes, highest score first; ties by position in the store.
    table : pyarrow.Table
        Every gene in storage order: gene_id, symbol, mean, dispersion, score (null where a gene has none), selected.
    """

    gene_ids: tuple[str, ...]
    table: pa.Table


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
    return log_mean, dispersion, (dispersion - average[bins]) / deviation[bins]


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


def score_dispersion(statistics: GeneStatistics, *, min_cells_percent: float = 0.1) -> F64:
    """Return variance over mean of the raw counts per gene; NaN for genes detected in too few cells.

    Parameters
    ----------
    statistics : GeneStatistics
        Of raw counts.
    min_cells_percent : float
        A gene must be detected in at least int(n_cells * percent / 100) cells, and in one.

    Source: pythonlearner1025/vcc `preprocess_hvgs.py` at d5f4732 (`select_hvgs`).
    """
    least = max(int(statistics.n_cells * min_cells_percent / 100), 1)
    kept = (statistics.n_detected >= least) & (statistics.mean > 0)
    score = np.full(len(kept), np.nan)
    np.divide(statistics.variance, statistics.mean, out=score, where=kept)
    return score


def hvg(
    store: Store, n: int = 2000, *, flavor: Flavor = "seurat", rows: I64 | None = None, batch: int = 4096
) -> HvgResult:
    """Return the `n` most variable genes of `store`, best first, from one streaming pass.

    Parameters
    ----------
    n : int
        How many genes; fewer come back when fewer have a score.
    flavor : "seurat" or "dispersion"
        "seurat": binned dispersion of counts per 10,000, as scanpy computes it from log1p(CP10k).
        "dispersion": variance over mean of raw counts, genes in less than 0.1 % of cells left out.
    rows : int64 (n,), optional
        The cells to look at; all when not given.

    Raises
    ------
    InputError
        When `flavor` is unknown, `n` is below 1, or there is no cell to look at.

    Examples
    --------
    >>> cm.hvg(store, n=2000).gene_ids[:3]  # doctest: +SKIP
    """
    check_request(n, flavor)
    statistics = gene_statistics(store, rows, normalise="cp10k" if flavor == "seurat" else "raw", batch=batch)
    genes = store.genes
    ids, symbols = genes.column("gene_id").to_pylist(), genes.column("symbol").to_pylist()
    return hvg_of_statistics(statistics, ids, n, flavor=flavor, symbols=symbols)


def hvg_of_cells(
    cells: Sequence[tuple[Store, I64]], genes: Sequence[str], n: int, *, flavor: Flavor = "seurat", batch: int = 4096
) -> HvgResult:
    """Return the `n` most variable of `genes` over cells of one or more stores, best first.

    Counts per 10,000 are of the panel `genes`, which every store must have.

    Raises
    ------
    InputError
        As `hvg`.
    QueryError
        When a store lacks a gene of the panel.
    """
    check_request(n, flavor)
    normalise: Normalise = "cp10k" if flavor == "seurat" else "raw"
    statistics = panel_statistics(cells, genes, normalise=normalise, batch=batch)
    return hvg_of_statistics(statistics, genes, n, flavor=flavor)


def check_request(n: int, flavor: str) -> None:
    """Raise InputError when `n` or `flavor` cannot be meant."""
    if flavor not in ("seurat", "dispersion"):
        raise InputError(f"flavor is {flavor!r}: expected 'seurat' or 'dispersion'")
    if n < 1:
        raise InputError(f"{n} highly variable genes were asked for: expected at least 1")


def hvg_of_statistics(
    statistics: GeneStatistics,
    gene_ids: Sequence[str],
    n: int,
    *,
    flavor: Flavor = "seurat",
    symbols: Sequence[str | None] | None = None,
) -> HvgResult:
    """Return the `n` best genes of moments that were gathered already.

    `statistics` are of counts per 10,000 for "seurat" and of raw counts for "dispersion".

    Raises
    ------
    InputError
        As `hvg`.
    """
    check_request(n, flavor)
    if statistics.n_cells == 0:
        raise InputError("highly variable genes of no cells: the selection is empty; widen it")
    if flavor == "seurat":
        mean, dispersion, score = score_seurat(statistics.mean, statistics.variance)
    else:
        mean, score = statistics.mean, score_dispersion(statistics)
        dispersion = score
    chosen = best_first(score, n)
    selected = np.zeros(len(score), dtype=bool)
    selected[chosen] = True
    table = pa.table(
        {
            "gene_id": pa.array(list(gene_ids), pa.string()),
            "symbol": pa.array(list(symbols) if symbols is not None else [None] * len(score), pa.string()),
            "mean": mean,
            "dispersion": pa.array(dispersion, mask=np.isnan(dispersion)),
            "score": pa.array(score, mask=np.isnan(score)),
            "selected": selected,
        }
    )
    return HvgResult(tuple(gene_ids[i] for i in chosen), table)


def best_first(score: F64, n: int) -> npt.NDArray[np.int64]:
    """Return the positions of the `n` highest scores, best first; NaN never, ties by position."""
    usable = np.flatnonzero(~np.isnan(score))
    order = np.argsort(-score[usable], kind="stable")
    return usable[order[:n]].astype(np.int64)
