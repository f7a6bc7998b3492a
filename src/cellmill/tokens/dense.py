"""A dense matrix of all genes or of a panel (floor 5, tokens)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from scipy import sparse

from cellmill.errors import ConfigError, nearest
from cellmill.tokens.batch import TokenBatch
from cellmill.tokens.recipe import as_panel

__all__ = ["Dense", "Transform"]

Transform = Literal["raw", "cp10k", "log1p_cp10k"]


@dataclass(frozen=True)
class Dense:
    """One float32 value for each cell and gene: `batch.values`, shape (n, n_columns).

    Parameters
    ----------
    genes
        Gene ids of a panel, in order; all genes when None.
    transform
        "raw" counts; "cp10k", counts per 10,000 of the whole cell; "log1p_cp10k", its natural log1p. Empty cells give
        zeros.

    Examples
    --------
    >>> counts = sparse.csr_array(np.array([[1, 3]], dtype=np.uint32))
    >>> Dense(transform="cp10k").encode(counts, np.arange(2), np.zeros(1, np.uint64)).values.tolist()
    [[2500.0, 7500.0]]
    """

    genes: tuple[str, ...] | None = None
    transform: Transform = "raw"

    def __init__(self, genes: Sequence[str] | None = None, *, transform: Transform = "raw") -> None:
        if transform not in get_args(Transform):
            known = get_args(Transform)
            raise ConfigError(
                f"transform must be one of {', '.join(known)}, found {transform!r}.{nearest(str(transform), known)}"
            )
        object.__setattr__(self, "genes", as_panel(genes))
        object.__setattr__(self, "transform", transform)

    def encode(
        self,
        counts: sparse.csr_array,
        genes: npt.NDArray[np.int64],
        keys: npt.NDArray[np.uint64],
        *,
        totals: npt.NDArray[np.int64] | None = None,
    ) -> TokenBatch:
        """Return the matrix; computed in float64 and rounded once, as the kernel does."""
        del genes, keys
        values = counts.data.astype(np.float64)
        if self.transform != "raw":
            whole = np.asarray(counts.sum(axis=1)).ravel() if totals is None else totals
            whole = whole.astype(np.float64)
            scale = np.divide(1e4, whole, out=np.zeros(len(whole)), where=whole > 0)
            values = values * np.repeat(scale, np.diff(counts.indptr))
        if self.transform == "log1p_cp10k":
            values = np.log1p(values)
        out = np.zeros(counts.shape, dtype=np.float32)
        out[np.repeat(np.arange(counts.shape[0]), np.diff(counts.indptr)), counts.indices] = values.astype(np.float32)
        return self.wrap(out)

    def wrap(self, matrix: npt.NDArray[np.float32]) -> TokenBatch:
        """Return a matrix that the kernel has filled already, shape (n, n_columns), as tokens; no copy."""
        return TokenBatch(values=torch.from_numpy(matrix), n_columns=int(matrix.shape[1]))

    def to_dict(self) -> dict[str, Any]:
        """Return the configuration as JSON values."""
        genes = None if self.genes is None else list(self.genes)
        return {"recipe": "dense", "genes": genes, "transform": self.transform}
