"""The gene-wise entropy of counts (floor 4, bench, pure): what no code that takes each gene alone can beat."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["GeneEntropy"]

_SMALL = 64


class GeneEntropy:
    """Adds up how often each gene has each count, block by block.

    Parameters
    ----------
    n_genes : int

    Notes
    -----
    Counts below 64 are tallied in a table of genes x 64; the few larger ones are kept as pairs and their numbers.
    Memory: 512 bytes a gene and 16 bytes a distinct large pair.

    Examples
    --------
    >>> entropy = GeneEntropy(2)
    >>> entropy.add(np.array([0, 1]), np.array([1, 3]), n_cells=2)
    >>> entropy.bytes_per_nonzero  # each gene is seen in one of two cells: one bit a cell and gene, four bits for two
    0.25
    """

    def __init__(self, n_genes: int) -> None:
        self._small = np.zeros(n_genes * _SMALL, dtype=np.int64)
        self._large = np.empty(0, dtype=np.int64)
        self._large_times = np.empty(0, dtype=np.int64)
        self.n_cells = 0
        self.nnz = 0

    def add(self, indices: npt.NDArray[np.integer], values: npt.NDArray[np.integer], *, n_cells: int) -> None:
        """Add cells: genes and counts of all their nonzeros, in any order; no stored zeros."""
        genes, counts = indices.astype(np.int64), values.astype(np.int64)
        small = counts < _SMALL
        self._small += np.bincount(genes[small] * _SMALL + counts[small], minlength=self._small.size)
        keys = np.concatenate([self._large, genes[~small] << 32 | counts[~small]])
        times = np.concatenate([self._large_times, np.ones(keys.size - self._large.size, dtype=np.int64)])
        self._large, where = np.unique(keys, return_inverse=True)
        self._large_times = np.bincount(where, weights=times, minlength=self._large.size).astype(np.int64)
        self.n_cells += n_cells
        self.nnz += int(counts.size)

    @property
    def bytes_per_nonzero(self) -> float:
        """Sum over genes of the entropy of the gene's counts, zeros included, in bytes for each nonzero count."""
        if not self.nnz:
            return 0.0
        table = self._small.reshape(-1, _SMALL)
        seen = table.sum(axis=1) + np.bincount(self._large >> 32, weights=self._large_times, minlength=len(table))
        times = np.concatenate([table.ravel(), self._large_times, self.n_cells - seen])
        times = times[times > 0]
        return float(-(times * np.log2(times / self.n_cells)).sum() / 8 / self.nnz)
