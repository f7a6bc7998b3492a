"""Highly variable genes (floor 4): four published definitions, in one group of cells or across batches.

Knows which definition needs which numbers; the formulae are in `scores`, `standardised` and `residuals`.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import pyarrow as pa

from cellmill.errors import InputError, nearest
from cellmill.statistics.blocks import F64, I64, CellRows, Cells, n_cells_of
from cellmill.statistics.groups import rows_by_label
from cellmill.statistics.moments import GeneMoments, GeneStatistics, statistics_of_cells
from cellmill.statistics.ranking import Choice, RanksOfBatches, ShareOfBatches, best_first
from cellmill.statistics.residuals import score_residuals
from cellmill.statistics.scores import least_detected, score_dispersion, score_seurat

if TYPE_CHECKING:
    from cellmill.store import Store

__all__ = ["FLAVORS", "Flavor", "HvgResult", "hvg", "hvg_of_cells", "hvg_of_statistics"]

Flavor = Literal["seurat", "seurat_v3", "pearson", "dispersion"]
FLAVORS: tuple[Flavor, ...] = get_args(Flavor)


@dataclass(frozen=True)
class HvgResult:
    """Highly variable genes, best first.

    Attributes
    ----------
    gene_ids : tuple of str
        The chosen genes, best first; ties by position in the store.
    table : pyarrow.Table
        Every gene in storage order: gene_id, symbol, mean, variance, n_detected (cells), dispersion (of seurat and
        dispersion), score (null where a gene has none), selected, rank (from 1, null where not selected); and across
        batches n_batches, and median_rank where ranks are used.

        mean and variance are of raw counts; with seurat mean is log1p of the mean of counts per 10,000 and variance
        that of counts per 10,000. Across batches they are of all cells together, the score is the mean over batches.
    flavor : str
    n_cells : int
        Cells looked at.
    batches : tuple of str
        Labels of the batches; empty when the cells were one group.
    least_detected : int
        Cells in which a gene had to be detected.
    """

    gene_ids: tuple[str, ...]
    table: pa.Table
    flavor: Flavor = "seurat"
    n_cells: int = 0
    batches: tuple[str, ...] = ()
    least_detected: int = 1


@dataclass(frozen=True)
class _Work:
    """What is looked at, and how."""

    genes: Sequence[str] | None
    flavor: Flavor
    min_cells_percent: float
    block_cells: int
    threads: int


@dataclass(frozen=True)
class _Scores:
    """Scores of one group of cells: moments, score, and what the table shows as mean and dispersion."""

    statistics: GeneStatistics
    score: F64
    mean: F64
    dispersion: F64 | None = field(default=None)


def hvg(
    store: Store,
    n: int = 2000,
    *,
    flavor: Flavor = "seurat",
    rows: I64 | None = None,
    where: str | None = None,
    batch: str | None = None,
    min_cells_percent: float = 0.1,
    block_cells: int = 4096,
    threads: int = 0,
) -> HvgResult:
    """Return the `n` most variable genes of `store`, best first, in memory that does not grow with the cells.

    Parameters
    ----------
    n : int
        How many genes; fewer come back when fewer have a score.
    flavor : "seurat", "seurat_v3", "pearson" or "dispersion"
        "seurat": binned dispersion of counts per 10,000, as scanpy computes it from log1p(CP10k). One pass.
        "seurat_v3": variance of standardised, clipped counts (extra `hvg`). Two passes: the clip follows a fit.
        "pearson": variance of analytic Pearson residuals. Two passes: residuals need each gene's sum.
        "dispersion": variance over mean of raw counts. One pass.
    rows : int64 (n,), optional
        The cells to look at, for instance those of training; all when not given.
    where : str, optional
        The same as a condition over obs, instead of `rows`.
    batch : str, optional
        Column of obs: genes are scored within each of its values, and those best in most of them are chosen, as
        scanpy does with `batch_key`.
    min_cells_percent : float
        With "dispersion": genes detected in a smaller share of the cells are left out.
    block_cells : int
        Cells read at once.
    threads : int
        0 for one per core; the result does not depend on it.

    Raises
    ------
    InputError
        When `flavor` is unknown, `n` is below 1, there is no cell to look at, a batch has a single cell, or both
        `rows` and `where` are given.
    QueryError
        When `where` or `batch` names no column of obs.
    MissingDependencyError
        For "seurat_v3" without scikit-misc (extra `hvg`).

    Notes
    -----
    "seurat", "seurat_v3" and "pearson" choose what scanpy 1.11.5 chooses on the same cells, in double precision.
    Where they could differ: equal scores at the cut (here by position in the store), and genes that do not vary,
    which are never chosen here. Across batches "pearson" clips all of them at the square root of the first one's
    cells, as scanpy does. Rows that are given take 8 bytes a cell, batches 16 more.

    Examples
    --------
    >>> cm.hvg(store, n=2000).gene_ids[:3]  # doctest: +SKIP
    >>> cm.hvg(store, n=2000, flavor="seurat_v3", batch="donor_id")  # doctest: +SKIP
    """
    _check_request(n, flavor)
    if rows is not None and where is not None:
        raise InputError("hvg was given both rows and where; give one of them")
    wanted: CellRows = range(store.n_cells)
    if rows is not None:
        wanted = np.asarray(rows, dtype=np.int64)
    elif where is not None:
        wanted = store.select(where)
    work = _Work(None, flavor, min_cells_percent, block_cells, threads)
    genes = store.genes
    ids, symbols = genes.column("gene_id").to_pylist(), genes.column("symbol").to_pylist()
    if batch is None:
        return _in_one_group([(store, wanted)], work, n, ids, symbols)
    return _across(store, rows_by_label(store, wanted, batch), work, n, ids, symbols)


def hvg_of_cells(
    cells: Cells,
    genes: Sequence[str],
    n: int,
    *,
    flavor: Flavor = "seurat",
    block_cells: int = 4096,
    threads: int = 0,
) -> HvgResult:
    """Return the `n` most variable of `genes` over cells of one or more stores, best first.

    Counts per 10,000, and totals of cells, are of the panel `genes`, which every store must have.

    Raises
    ------
    InputError
        As `hvg`.
    QueryError
        When a store lacks a gene of the panel.
    """
    _check_request(n, flavor)
    return _in_one_group(cells, _Work(genes, flavor, 0.1, block_cells, threads), n, genes, None)


def hvg_of_statistics(
    statistics: GeneStatistics,
    gene_ids: Sequence[str],
    n: int,
    *,
    flavor: Literal["seurat", "dispersion"] = "seurat",
    symbols: Sequence[str | None] | None = None,
) -> HvgResult:
    """Return the `n` best genes of moments that were gathered already.

    `statistics` are of counts per 10,000 for "seurat" and of raw counts for "dispersion".

    Raises
    ------
    InputError
        As `hvg`, and for a flavor that needs more than moments.
    """
    _check_request(n, flavor)
    if flavor not in ("seurat", "dispersion"):
        raise InputError(f"{flavor} needs the counts themselves, not their moments; call hvg or hvg_of_cells")
    _check_cells(statistics.n_cells)
    scores = _of_moments(statistics, flavor, 0.1)
    return _result(scores, _one_group_choice(scores, n), flavor, gene_ids, symbols)


def _check_request(n: int, flavor: str) -> None:
    if flavor not in FLAVORS:
        raise InputError(f"flavor is {flavor!r}: expected {', '.join(FLAVORS)}.{nearest(flavor, FLAVORS)}")
    if n < 1:
        raise InputError(f"{n} highly variable genes were asked for: expected at least 1")


def _check_cells(n_cells: int) -> None:
    if n_cells == 0:
        raise InputError("highly variable genes of no cells: the selection is empty; widen it")


# ---- scores of one group ----------------------------------------------------------------------------------------


def _score(cells: Cells, work: _Work, *, clip: float | None = None) -> _Scores:
    how: dict[str, Any] = {"block_cells": work.block_cells, "threads": work.threads}
    if work.flavor == "pearson":
        statistics, score = score_residuals(cells, work.genes, clip=clip, **how)
        return _Scores(statistics, score, statistics.mean)
    if work.flavor == "seurat_v3":
        standardised = importlib.import_module("cellmill.statistics.standardised")  # with scikit-misc, an extra
        statistics, score = standardised.score_standardised(cells, work.genes, **how)
        return _Scores(statistics, score, statistics.mean)
    statistics = statistics_of_cells(cells, work.genes, normalise="cp10k" if work.flavor == "seurat" else "raw", **how)
    return _of_moments(statistics, work.flavor, work.min_cells_percent)


def _of_moments(statistics: GeneStatistics, flavor: Flavor, min_cells_percent: float) -> _Scores:
    if flavor == "seurat":
        mean, dispersion, score = score_seurat(statistics.mean, statistics.variance)
        return _Scores(statistics, score, mean, dispersion)
    score = score_dispersion(statistics, min_cells_percent=min_cells_percent)
    return _Scores(statistics, score, statistics.mean, score)


def _in_one_group(
    cells: Cells, work: _Work, n: int, ids: Sequence[str], symbols: Sequence[str | None] | None
) -> HvgResult:
    _check_cells(n_cells_of(cells))
    scores = _score(cells, work)
    least = least_detected(scores.statistics.n_cells, work.min_cells_percent) if work.flavor == "dispersion" else 1
    return _result(scores, _one_group_choice(scores, n), work.flavor, ids, symbols, least=least)


def _one_group_choice(scores: _Scores, n: int) -> Choice:
    return Choice(best_first(scores.score, n), scores.score, np.zeros(len(scores.score), dtype=np.int64))


# ---- across batches ---------------------------------------------------------------------------------------------


def _across(
    store: Store,
    groups: list[tuple[str, I64]],
    work: _Work,
    n: int,
    ids: Sequence[str],
    symbols: Sequence[str | None] | None,
) -> HvgResult:
    _check_cells(len(groups))
    first_cells = len(groups[0][1])
    together = GeneMoments(store.n_genes)
    chooser: ShareOfBatches | RanksOfBatches = ShareOfBatches(store.n_genes, n)
    if work.flavor in ("seurat_v3", "pearson"):
        chooser = RanksOfBatches(store.n_genes, n, median_first=work.flavor == "seurat_v3")
    for label, rows in groups:
        try:
            scores = _score([(store, rows)], work, clip=float(np.sqrt(first_cells)))
        except InputError as error:
            error.add_note(f"in the batch {label!r} of {len(rows):,} cells")
            raise
        together.merge(scores.statistics)
        score = _seurat_of_detected(scores.statistics) if work.flavor == "seurat" else scores.score
        chooser.add(score, scores.statistics.n_detected)
    choice = chooser.choice()
    statistics = together.result()
    mean = np.log1p(statistics.mean) if work.flavor == "seurat" else statistics.mean
    shown = _Scores(statistics, choice.score, mean)
    labels = tuple(label for label, _ in groups)
    least = least_detected(first_cells, work.min_cells_percent) if work.flavor == "dispersion" else 1
    return _result(shown, choice, work.flavor, ids, symbols, batches=labels, least=least)


def _seurat_of_detected(statistics: GeneStatistics) -> F64:
    """Return the score of each gene among those that the batch has: the others would shift the bins."""
    there = statistics.n_detected > 0
    score = np.full(len(there), np.nan)
    if there.any():
        score[there] = score_seurat(statistics.mean[there], statistics.variance[there])[2]
    return score


# ---- the table --------------------------------------------------------------------------------------------------


def _result(
    scores: _Scores,
    choice: Choice,
    flavor: Flavor,
    gene_ids: Sequence[str],
    symbols: Sequence[str | None] | None,
    *,
    batches: tuple[str, ...] = (),
    least: int = 1,
) -> HvgResult:
    n_genes = len(choice.score)
    rank = np.zeros(n_genes, dtype=np.int64)
    rank[choice.chosen] = np.arange(1, len(choice.chosen) + 1)
    columns: dict[str, Any] = {
        "gene_id": pa.array(list(gene_ids), pa.string()),
        "symbol": pa.array(list(symbols) if symbols is not None else [None] * n_genes, pa.string()),
        "mean": scores.mean,
        "variance": scores.statistics.variance,
        "n_detected": scores.statistics.n_detected,
    }
    if scores.dispersion is not None:
        columns["dispersion"] = pa.array(scores.dispersion, mask=np.isnan(scores.dispersion))
    columns["score"] = pa.array(choice.score, mask=np.isnan(choice.score))
    columns["selected"] = rank > 0
    columns["rank"] = pa.array(rank, mask=rank == 0)
    if batches:
        columns["n_batches"] = choice.n_batches
    if batches and choice.median_rank is not None:
        columns["median_rank"] = pa.array(choice.median_rank, mask=np.isnan(choice.median_rank))
    return HvgResult(
        tuple(gene_ids[i] for i in choice.chosen), pa.table(columns), flavor, scores.statistics.n_cells, batches, least
    )
