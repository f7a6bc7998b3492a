"""Fewer counts per cell, as if it had been sequenced less deeply (floor 6, loader). Pure: counts and keys."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.special import bdtr, bdtrik

from cellmill.kernel import mix64

__all__ = ["thin_counts"]

U64 = npt.NDArray[np.uint64]
# a count up to here is thinned one molecule after the other; a larger one by inverting its binomial distribution
MOLECULES: Final = 32


def thin_counts(
    counts: sparse.csr_array, tokens: npt.NDArray[np.int64], keys: U64, totals: npt.NDArray[np.int64], *, target: int
) -> sparse.csr_array:
    """Return counts of which each molecule was kept with probability target / total of its cell, independently.

    Cells whose total is not above the target stay as they are. The total of a thinned cell is the target on average,
    with the spread of a binomial distribution.

    Parameters
    ----------
    counts : csr_array, shape (n, n_genes), uint32
        Raw counts.
    tokens : int64[n_genes]
        A number for each gene, which says with the cell's key what becomes of its count: neither the order of the
        genes nor what else is in the batch matters.
    keys : uint64[n]
        A number for each cell, from (seed, epoch, uid).
    totals : int64[n]
        Counts of each whole cell.
    target
        Counts that a cell is thinned to.

    Notes
    -----
    Time grows with the number of molecules in counts up to 32, and with the number of larger counts.

    Examples
    --------
    >>> x = sparse.csr_array(np.array([[3, 0, 50], [2, 1, 0]], dtype=np.uint32))
    >>> thin_counts(x, np.arange(3), np.array([1, 2], np.uint64), np.array([53, 3]), target=10).toarray()[1].tolist()
    [2, 1, 0]
    """
    n_each = np.diff(counts.indptr)
    share = np.minimum(1.0, target / np.maximum(totals, 1))
    share_each = np.repeat(share, n_each)
    key_each = mix64(np.repeat(keys, n_each) ^ mix64(tokens.astype(np.uint64)[counts.indices]))
    values = counts.data.copy()
    small = np.flatnonzero((share_each < 1) & (values <= MOLECULES))
    large = np.flatnonzero((share_each < 1) & (values > MOLECULES))
    values[small] = _by_molecule(values[small], share_each[small], key_each[small])
    if len(large):
        uniform = ((key_each[large] >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53  # never 0, never 1
        values[large] = _by_inversion(values[large], share_each[large], uniform)
    thinned = sparse.csr_array((values, counts.indices.copy(), counts.indptr.copy()), shape=counts.shape)
    thinned.eliminate_zeros()
    return thinned


def _by_inversion(
    values: npt.NDArray[np.uint32], share: npt.NDArray[np.float64], uniform: npt.NDArray[np.float64]
) -> npt.NDArray[np.uint32]:
    """Return the smallest k of which P(binomial(value, share) <= k) is at least the uniform number."""
    n = values.astype(np.float64)
    found = np.ceil(bdtrik(uniform, n, share))
    below = np.maximum(found - 1, 0)  # bdtrik rounds: an inverse that is a hair above a whole number is that number
    kept: npt.NDArray[np.uint32] = np.where(bdtr(below, n, share) >= uniform, below, found).astype(np.uint32)
    return kept


def _by_molecule(values: npt.NDArray[np.uint32], share: npt.NDArray[np.float64], keys: U64) -> npt.NDArray[np.uint32]:
    """Return how many molecules of each count are kept; the m-th one by a number from its key and m."""
    limit = (share * 2.0**53).astype(np.uint64)
    kept = np.zeros(len(values), dtype=np.uint32)
    left = np.arange(len(values))
    for molecule in range(MOLECULES):
        left = left[values[left] > molecule]
        if not len(left):
            break
        kept[left] += (mix64(keys[left] + np.uint64(molecule)) >> np.uint64(11)) < limit[left]
    return kept
