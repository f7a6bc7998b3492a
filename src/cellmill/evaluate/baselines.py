"""What a model has to beat (floor 7): the mean profile of the training cells, and principal components.

Knows how the baselines are fitted and how they reconstruct; must not know models or reports.
Shape letters: B cells of a batch, N training cells, G genes of the model, K components.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.sparse.linalg import LinearOperator, svds

__all__ = ["Baselines", "PrincipalComponents", "fit_baselines", "fit_components"]

F64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class PrincipalComponents:
    """Principal components of log1p(CP10k) of the training cells.

    Attributes
    ----------
    mean : float64 (G,)
    components : float64 (K, G)
        Orthonormal rows, the largest variance first.
    """

    mean: F64
    components: F64

    def reconstruct(self, cells: F64, n_components: int, *, columns: npt.NDArray[np.int64] | None = None) -> F64:
        """Return cells, float64 (B, G) in log1p(CP10k), projected on the first components and back.

        `columns`: the genes to come back to; all of them when not given.
        """
        used = self.components[:n_components]
        back = slice(None) if columns is None else columns
        scores_BK = cells @ used.T - self.mean @ used.T
        result: F64 = scores_BK @ used[:, back] + self.mean[back]
        return result


@dataclass(frozen=True)
class Baselines:
    """The baselines of one training set.

    Attributes
    ----------
    mean_profile : float64 (G,)
        log1p of the mean counts per 10,000 of the training cells: the same prediction for every cell.
    components : PrincipalComponents
    n_cells : int
        Training cells that the mean is of.
    n_cells_components : int
        Training cells that the components are of.
    """

    mean_profile: F64
    components: PrincipalComponents
    n_cells: int
    n_cells_components: int


def fit_baselines(
    batches: Callable[[], Iterator[sparse.csr_array]],
    *,
    n_genes: int,
    n_cells: int,
    n_components: int,
    max_cells_components: int = 20_000,
    seed: int = 0,
) -> Baselines:
    """Fit the mean profile on all training cells and the components on at most `max_cells_components` of them.

    Parameters
    ----------
    batches : callable
        Gives the training cells, raw counts as CSR (B, G), in batches; called once.
    n_cells : int
        How many cells `batches` gives in all.
    seed : int
        Which cells the components are of, when there are more than `max_cells_components`; and the start of the solver.

    Notes
    -----
    Memory: the sparse log1p(CP10k) of `max_cells_components` cells, whatever the number of training cells.
    """
    generator = np.random.default_rng([seed, 0x9CA])
    sampled = np.sort(generator.permutation(n_cells)[:max_cells_components])
    total, kept, seen = np.zeros(n_genes), [], 0
    for counts in batches():
        normalised = cp10k_sparse(counts)
        total += np.asarray(normalised.sum(axis=0)).ravel()
        inside = sampled[(sampled >= seen) & (sampled < seen + counts.shape[0])] - seen
        if len(inside):
            kept.append(normalised[inside])
        seen += counts.shape[0]
    logged = sparse.csr_array(sparse.vstack(kept)) if kept else sparse.csr_array((0, n_genes))
    logged.data = np.log1p(logged.data)
    components = fit_components(logged, n_components, generator=generator)
    return Baselines(np.log1p(total / max(seen, 1)), components, seen, logged.shape[0])


def cp10k_sparse(counts: sparse.csr_array) -> sparse.csr_array:
    """Return counts per 10,000 of each cell's own total, CSR float64; a cell without counts stays empty."""
    totals = np.asarray(counts.sum(axis=1), dtype=np.float64).ravel()
    scale = np.divide(1e4, totals, out=np.zeros_like(totals), where=totals > 0)
    result = sparse.csr_array(counts, dtype=np.float64, copy=True)
    result.data *= np.repeat(scale, np.diff(result.indptr))
    return result


def fit_components(
    cells: sparse.csr_array, n_components: int, *, generator: np.random.Generator
) -> PrincipalComponents:
    """Return the leading principal components of cells (N, G), without making them dense.

    Fewer than `n_components` come back when there are too few cells or genes: at most min(N, G) - 1.
    """
    n_cells, n_genes = cells.shape
    mean = np.asarray(cells.sum(axis=0)).ravel() / max(n_cells, 1)
    k = min(n_components, n_cells - 1, n_genes - 1)
    if k < 1:
        return PrincipalComponents(mean, np.zeros((0, n_genes)))
    centred = LinearOperator(
        shape=(n_cells, n_genes),
        dtype=np.float64,
        matvec=lambda v: cells @ v - float(mean @ v.ravel()),
        rmatvec=lambda u: cells.T @ u - mean * float(u.sum()),
        matmat=lambda v: cells @ v - (mean @ v)[None, :],
        rmatmat=lambda u: cells.T @ u - np.outer(mean, u.sum(axis=0)),
    )
    _, _, rows_KG = svds(centred, k=k, v0=generator.standard_normal(min(n_cells, n_genes)), solver="arpack")
    return PrincipalComponents(mean, np.ascontiguousarray(rows_KG[::-1]))
