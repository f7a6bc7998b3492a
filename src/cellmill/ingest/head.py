"""Which genes of a new store are coded by a model, and that model (floor 4, pure): from the windows read for the plan.

Pays where cells have few nonzeros, as in gene panels; ordinary stores have no head genes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from cellmill import kernel
from cellmill.ingest.audit import find_violation
from cellmill.sources import CountBlock

if TYPE_CHECKING:
    from scipy import sparse

__all__ = ["plan_head"]

_MOST_GENES = 8192  # of a store whose head is worth a look: histograms of more are large
_MOST_NONZEROS = 256


def plan_head(
    windows: Iterable[tuple[CountBlock, npt.NDArray[np.int64]]], *, n_genes: int, n_cells: int
) -> bytes | None:
    """Return the model of the head genes, or None where blocks are better.

    Parameters
    ----------
    windows
        Blocks of the inputs, each with the storage position of its input's genes (int64, -1 for none).
    n_genes
        Number of genes of the store.
    n_cells
        How many cells the store will have.
    """
    if not 0 < n_genes <= _MOST_GENES:
        return None
    from scipy import sparse  # here: stores of all genes need none of it

    sampled = [_cells(block, position_of, n_genes) for block, position_of in windows]
    cells = [matrix for matrix in sampled if matrix is not None]
    if len(cells) < len(sampled) or not cells:
        return None  # not raw counts: the build will say so
    together = sparse.vstack(cells, format="csr")
    if not together.nnz or together.nnz >= _MOST_NONZEROS * together.shape[0]:
        return None
    histograms = kernel.count_histograms(together.indptr, together.indices, together.data, n_genes)
    n_head = kernel.choose_head(histograms, n_genes=n_genes, n_cells=n_cells)
    return kernel.fit_model(histograms, n_head=n_head) if n_head else None


def _cells(block: CountBlock, position_of: npt.NDArray[np.int64], n_genes: int) -> sparse.csr_array | None:
    """Return cells over storage positions, genes that share one summed; None where they are no counts."""
    from scipy import sparse

    if find_violation(block) is not None:
        return None
    position = position_of[block.indices]
    kept = (position >= 0) & (block.data != 0)
    indptr = np.concatenate([[0], np.cumsum(kept, dtype=np.int64)])[block.indptr]
    data = block.data[kept].astype(np.int64)
    matrix = sparse.csr_array((data, position[kept], indptr), shape=(len(block.indptr) - 1, n_genes))
    matrix.sum_duplicates()
    matrix.data = np.minimum(matrix.data, 2**32 - 1)  # a sum beyond is refused later, with its place
    return matrix
