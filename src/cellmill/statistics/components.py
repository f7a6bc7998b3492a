"""Principal components of cells in streaming passes (floor 4), for sketches and baselines.

Knows blocks of counts; memory is that of a square of the panel's genes, whatever the number of cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
from scipy import sparse

from cellmill.errors import InputError
from cellmill.statistics.blocks import F64, I64, Cells, measure_blocks, n_cells_of
from cellmill.store import Store

__all__ = ["Components", "principal_components"]

F32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Components:
    """Cells in the space of their principal components.

    Attributes
    ----------
    coordinates : float32, shape (n_cells, n)
    loadings : float32, shape (n_genes, n)
        Unit vectors; the largest entry of each is positive.
    variance : float64, shape (n,)
        Of the cells along each component, descending.
    genes : tuple of str
    mean, scale : float64, shape (n_genes,)
        Of log1p(counts per 10,000) over the cells; scale is 1 where a gene does not vary.
    """

    coordinates: F32
    loadings: F32
    variance: F64
    genes: tuple[str, ...]
    mean: F64
    scale: F64


def principal_components(
    store: Store,
    genes: Sequence[str],
    n: int = 50,
    *,
    rows: I64 | None = None,
    clip: float = 10.0,
    block_cells: int = 4096,
    threads: int = 0,
) -> Components:
    """Return the principal components of log1p(counts per 10,000) over a panel of genes, each scaled to unit variance.

    Counts are divided by the totals over the panel; scaled values are cut at `clip`, as is usual before geometric
    sketching. The covariance of what is cut is exact, over all cells.

    Parameters
    ----------
    genes
        The panel, for instance `hvg(store).gene_ids`.
    n
        Components; fewer come back when there are fewer genes or cells.
    rows
        Cells; all when None.

    Raises
    ------
    InputError
        For fewer than two cells or genes.
    QueryError
        For a gene that the store does not have.

    Notes
    -----
    Three passes over the cells: mean and variance, covariance of the scaled and cut values, projection.
    """
    cells: Cells = [(store, range(store.n_cells) if rows is None else np.asarray(rows, dtype=np.int64))]
    n_cells = n_cells_of(cells)
    if n_cells < 2 or len(genes) < 2:
        raise InputError(f"principal components need two cells and two genes; there are {n_cells} and {len(genes)}")
    stream = partial(measure_blocks, cells, genes=genes, block_cells=block_cells, threads=threads)
    total, squares = np.zeros(len(genes)), np.zeros(len(genes))
    for one, two in stream(_sums, told="components: means"):
        total += one
        squares += two
    mean = total / n_cells
    variance = np.maximum(squares / n_cells - mean**2, 0.0) * n_cells / (n_cells - 1)
    scale = np.where(variance > 1e-12, np.sqrt(variance), 1.0)
    centre, products = np.zeros(len(genes)), np.zeros((len(genes), len(genes)))
    for one, two in stream(partial(_products, mean=mean, scale=scale, clip=clip), told="components: covariance"):
        centre += one
        products += two
    centre /= n_cells
    covariance = (products - n_cells * np.outer(centre, centre)) / (n_cells - 1)
    values, vectors = np.linalg.eigh(covariance)
    kept = min(n, len(genes), n_cells - 1)
    values, vectors = values[::-1][:kept], vectors[:, ::-1][:, :kept]
    signs = np.sign(vectors[np.abs(vectors).argmax(axis=0), np.arange(kept)])
    vectors = vectors * np.where(signs == 0, 1.0, signs)
    project = partial(_projected, mean=mean, scale=scale, clip=clip, centre=centre, vectors=vectors)
    parts = list(stream(project, told="components: projection"))
    coordinates = np.concatenate(parts) if parts else np.zeros((0, kept), np.float32)
    return Components(coordinates, vectors.astype(np.float32), np.maximum(values, 0.0), tuple(genes), mean, scale)


def _logged(counts: sparse.csr_array) -> sparse.csr_array:
    """Return log1p of counts per 10,000; a cell without counts stays zero."""
    totals = np.asarray(counts.sum(axis=1)).ravel()
    logged = counts.copy()
    logged.data = np.log1p(counts.data * np.repeat(1e4 / np.where(totals > 0, totals, 1.0), np.diff(counts.indptr)))
    return logged


def _sums(counts: sparse.csr_array) -> tuple[F64, F64]:
    logged = _logged(counts)
    ones = np.ones(logged.shape[0])
    one: F64 = logged.T @ ones
    logged.data **= 2
    two: F64 = logged.T @ ones
    return one, two


def _scaled(counts: sparse.csr_array, mean: F64, scale: F64, clip: float) -> F64:
    dense: F64 = (_logged(counts).toarray() - mean) / scale
    return np.clip(dense, -clip, clip, out=dense)


def _products(counts: sparse.csr_array, *, mean: F64, scale: F64, clip: float) -> tuple[F64, F64]:
    scaled = _scaled(counts, mean, scale, clip)
    products: F64 = scaled.T @ scaled
    return scaled.sum(axis=0), products


def _projected(counts: sparse.csr_array, *, mean: F64, scale: F64, clip: float, centre: F64, vectors: F64) -> F32:
    projected: F32 = ((_scaled(counts, mean, scale, clip) - centre) @ vectors).astype(np.float32)
    return projected
