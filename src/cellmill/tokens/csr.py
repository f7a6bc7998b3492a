"""The counts as they are, compressed by rows (floor 5, tokens)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy import sparse

from cellmill.tokens.batch import TokenBatch
from cellmill.tokens.cells import checked_counts
from cellmill.tokens.recipe import as_panel, tell_no_memory

__all__ = ["CSR"]

INT32_MAX = np.iinfo(np.int32).max


@dataclass(frozen=True)
class CSR:
    """Raw counts of the detected genes of each cell: `batch.indptr`, `batch.genes`, `batch.values`.

    Parameters
    ----------
    genes
        Gene ids of a panel, in order; all genes when None.

    Examples
    --------
    >>> counts = sparse.csr_array(np.array([[0, 2], [1, 0]], dtype=np.uint32))
    >>> CSR().encode(counts, np.arange(2), np.zeros(2, np.uint64)).to_dense().tolist()
    [[0.0, 2.0], [1.0, 0.0]]
    """

    genes: tuple[str, ...] | None = None

    def __init__(self, genes: Sequence[str] | None = None) -> None:
        object.__setattr__(self, "genes", as_panel(genes))

    @tell_no_memory
    def encode(
        self,
        counts: sparse.csr_array,
        genes: npt.NDArray[np.int64],
        keys: npt.NDArray[np.uint64],
        *,
        totals: npt.NDArray[np.int64] | None = None,
    ) -> TokenBatch:
        """Return the counts as tensors; shares memory with `counts` where types allow.

        Raises
        ------
        NotRawCountsError
            For counts that are negative or fractional.
        InputError
            For arguments that do not fit each other.
        """
        del totals
        counts, values, _, _ = checked_counts(counts, genes, keys)
        return self.wrap(counts.indptr, counts.indices, values, n_columns=int(counts.shape[1]))

    def wrap(
        self,
        indptr: npt.NDArray[np.integer],
        indices: npt.NDArray[np.integer],
        values: npt.NDArray[np.integer],
        *,
        n_columns: int,
        most: int | None = None,
    ) -> TokenBatch:
        """Return arrays that the kernel has filled already as tokens; no copy where types allow.

        `most` is a number that no value is above, where one is known: the largest total of the cells.
        """
        if most is None or most > INT32_MAX:  # a pass over all values
            most = int(values.max(initial=0))
        fits = values.dtype == np.uint32 and most <= INT32_MAX
        return TokenBatch(
            values=torch.from_numpy(values.view(np.int32) if fits else values.astype(np.int64)),
            genes=torch.from_numpy(indices.astype(np.int32, copy=False)),
            indptr=torch.from_numpy(indptr.astype(np.int64, copy=False)),
            n_columns=n_columns,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the configuration as JSON values."""
        return {"recipe": "csr", "genes": None if self.genes is None else list(self.genes)}
