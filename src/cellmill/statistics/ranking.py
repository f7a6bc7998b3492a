"""From scores to genes, best first, in one group of cells or across batches (floor 4, pure)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cellmill.statistics.blocks import F64, I64

__all__ = ["Choice", "RanksOfBatches", "ShareOfBatches", "best_first", "pass_cut"]


@dataclass(frozen=True)
class Choice:
    """Genes chosen, and how they fared.

    Attributes
    ----------
    chosen : int64 (n,)
        Positions of the genes, best first.
    score : float64 (n_genes,)
        Mean over the batches; NaN for genes without a score.
    n_batches : int64 (n_genes,)
        Batches in which the gene is among the best n.
    median_rank : float64 (n_genes,) or None
        From 0, over those batches; NaN for a gene that is in none. None where ranks are not used.
    """

    chosen: I64
    score: F64
    n_batches: I64
    median_rank: F64 | None = None


def best_first(score: F64, n: int) -> I64:
    """Return the positions of the `n` highest scores, best first; NaN never, ties by position."""
    usable = np.flatnonzero(~np.isnan(score))
    order = np.argsort(-score[usable], kind="stable")
    return usable[order[:n]].astype(np.int64)


def pass_cut(score: F64, n: int) -> I64:
    """Return the positions of the scores that reach the n-th highest one: with ties at the cut, more than `n`."""
    best = best_first(score, n)
    if not len(best):
        return best
    with np.errstate(invalid="ignore"):
        return np.flatnonzero(score >= score[best[-1]]).astype(np.int64)


class ShareOfBatches:
    """Chooses the genes that reach the cut in most batches, those of equal number by their mean score.

    A gene that is not detected in a batch counts as 0 in the mean, one that is and has no score is left out of it.

    Source: scanpy 1.11.5 `pp.highly_variable_genes(batch_key=...)`, flavors seurat and cell_ranger.
    """

    def __init__(self, n_genes: int, n: int) -> None:
        self._n = n
        self._n_batches: I64 = np.zeros(n_genes, dtype=np.int64)
        self._total: F64 = np.zeros(n_genes)
        self._counted: I64 = np.zeros(n_genes, dtype=np.int64)
        self._scored = np.zeros(n_genes, dtype=bool)

    def add(self, score: F64, n_detected: I64) -> None:
        """Take in the scores of one batch, and in how many of its cells each gene is detected."""
        has_score = ~np.isnan(score)
        self._n_batches[pass_cut(score, self._n)] += 1
        self._total += np.where(has_score, score, 0.0)
        self._counted += has_score | (n_detected == 0)
        self._scored |= has_score

    def choice(self) -> Choice:
        """Return the genes chosen from what was taken in."""
        mean = np.full(len(self._total), np.nan)
        np.divide(self._total, self._counted, out=mean, where=self._scored)
        order = np.lexsort((-mean, -self._n_batches))  # stable; NaN comes last
        order = order[~np.isnan(mean[order])]
        return Choice(order[: self._n].astype(np.int64), mean, self._n_batches)


class RanksOfBatches:
    """Chooses genes by their median rank over the batches in which they are among the best `n`.

    Parameters
    ----------
    median_first : bool
        Whether genes are ordered by median rank and then by number of batches (Seurat 3 as scanpy has it), or the
        other way round (Pearson residuals).

    Notes
    -----
    Memory: 16 bytes for each of the best `n` genes of each batch.

    Source: scanpy 1.11.5, flavors seurat_v3 and pearson_residuals.
    """

    def __init__(self, n_genes: int, n: int, *, median_first: bool) -> None:
        self._n, self._median_first = n, median_first
        self._best: list[I64] = []
        self._total: F64 = np.zeros(n_genes)
        self._scored = np.zeros(n_genes, dtype=bool)

    def add(self, score: F64, n_detected: I64) -> None:
        """Take in the scores of one batch; NaN counts as 0 in the mean and has no rank."""
        self._best.append(best_first(score, self._n))
        self._total += np.where(np.isnan(score), 0.0, score)
        self._scored |= ~np.isnan(score)

    def choice(self) -> Choice:
        """Return the genes chosen from what was taken in."""
        ranks = [np.arange(len(best), dtype=np.int64) for best in self._best]
        n_batches, median = _medians(np.concatenate(self._best), np.concatenate(ranks), len(self._total))
        keys = (-n_batches, median) if self._median_first else (median, -n_batches)  # the last one leads
        order = np.lexsort(keys)
        order = order[n_batches[order] > 0]
        mean = np.where(self._scored, self._total / len(self._best), np.nan)
        return Choice(order[: self._n].astype(np.int64), mean, n_batches, median)


def _medians(genes: I64, ranks: I64, n_genes: int) -> tuple[I64, F64]:
    """Return how often each gene occurs, and the median of its ranks (NaN where it does not occur)."""
    order = np.lexsort((ranks, genes))
    ranks = ranks[order].astype(np.float64)
    n_of = np.bincount(genes, minlength=n_genes)
    first = np.cumsum(n_of) - n_of
    median = np.full(n_genes, np.nan)
    there = n_of > 0
    low, high = first[there] + (n_of[there] - 1) // 2, first[there] + n_of[there] // 2
    median[there] = (ranks[low] + ranks[high]) / 2
    return n_of.astype(np.int64), median
