"""A dense matrix of all genes or of a panel (floor 5, tokens)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from scipy import sparse

from cellmill.tokens.batch import TokenBatch
from cellmill.tokens.cells import as_totals, check_choice, checked_counts
from cellmill.tokens.recipe import as_panel, tell_no_memory

__all__ = ["Dense", "DenseType", "Transform"]

Transform = Literal["raw", "cp10k", "log1p_cp10k"]
DenseType = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class Dense:
    """One value for each cell and gene: `batch.values`, shape (n, n_columns).

    Parameters
    ----------
    genes
        Gene ids of a panel, in order; all genes when None.
    transform
        "raw" counts; "cp10k", counts per 10,000 of the whole cell; "log1p_cp10k", its natural log1p. Empty cells give
        zeros.
    dtype
        "float32"; or "bfloat16", half the bytes: the float32 rounded to nearest, ties to even (8 bits of precision, so
        raw counts above 256 are rounded).

    Examples
    --------
    >>> counts = sparse.csr_array(np.array([[1, 3]], dtype=np.uint32))
    >>> Dense(transform="cp10k").encode(counts, np.arange(2), np.zeros(1, np.uint64)).values.tolist()
    [[2500.0, 7500.0]]
    """

    genes: tuple[str, ...] | None = None
    transform: Transform = "raw"
    dtype: DenseType = "float32"

    def __init__(
        self, genes: Sequence[str] | None = None, *, transform: Transform = "raw", dtype: DenseType = "float32"
    ) -> None:
        object.__setattr__(self, "dtype", check_choice("dtype", dtype, DenseType))
        object.__setattr__(self, "genes", as_panel(genes))
        object.__setattr__(self, "transform", check_choice("transform", transform, Transform))

    @tell_no_memory
    def encode(
        self,
        counts: sparse.csr_array,
        genes: npt.NDArray[np.int64],
        keys: npt.NDArray[np.uint64],
        *,
        totals: npt.NDArray[np.int64] | None = None,
    ) -> TokenBatch:
        """Return the matrix; computed in float64 and rounded once, as the kernel does.

        Raises
        ------
        NotRawCountsError
            For counts that are negative or fractional.
        InputError
            For arguments that do not fit each other, and totals that are not finite or below 0.
        """
        counts, raw, _, _ = checked_counts(counts, genes, keys)
        values = raw.astype(np.float64)
        if self.transform != "raw":
            whole, _ = as_totals(counts, totals)
            scale = np.divide(1e4, whole, out=np.zeros(len(whole)), where=whole > 0)
            values = values * np.repeat(scale, np.diff(counts.indptr))
        if self.transform == "log1p_cp10k":
            values = np.log1p(values)
        out = np.zeros(counts.shape, dtype=np.float32)
        out[np.repeat(np.arange(counts.shape[0]), np.diff(counts.indptr)), counts.indices] = values.astype(np.float32)
        return self.wrap(out)

    def wrap(self, matrix: npt.NDArray[np.float32]) -> TokenBatch:
        """Return a matrix that the kernel has filled already, shape (n, n_columns), as tokens; no copy of float32."""
        return TokenBatch(values=torch.from_numpy(matrix).to(getattr(torch, self.dtype)), n_columns=matrix.shape[1])

    def to_dict(self) -> dict[str, Any]:
        """Return the configuration as JSON values."""
        genes = None if self.genes is None else list(self.genes)
        said = {"recipe": "dense", "genes": genes, "transform": self.transform}
        return said if self.dtype == "float32" else {**said, "dtype": self.dtype}  # records of before name no dtype
