"""Random cells for tests of recipes, and the checks that all of them share."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse

from cellmill.kernel import TokenCells


def some_counts(rng: np.random.Generator, n: int = 6, n_columns: int = 50) -> sparse.csr_array:
    """Return over-dispersed counts; the first cell has huge ones, the middle one none."""
    dense = rng.negative_binomial(1, 0.3, (n, n_columns)) * (rng.random((n, n_columns)) < rng.random((n, 1)))
    dense[0, :3] += 70_000
    dense[n // 2] = 0
    return sparse.csr_array(dense.astype(np.uint32))


def some_keys(rng: np.random.Generator, n: int) -> np.ndarray:
    return rng.integers(0, 2**63, n).astype(np.uint64)


def some_cells(rng: np.random.Generator, n: int = 6, n_columns: int = 50) -> TokenCells:
    counts = some_counts(rng, n, n_columns)
    tokens = rng.permutation(2 * n_columns)[:n_columns]
    return TokenCells(counts.indptr, counts.indices, counts.data, token_of=tokens, keys=some_keys(rng, n))


def rows_of(batch: Any) -> list[tuple[Any, ...]]:
    """Return what each cell became, without padding: sequences of (gene, value, target, mask)."""
    return [
        tuple(
            tuple(part[i, :n].tolist())
            for part in (batch.genes, batch.values, batch.target, batch.mask)
            if part is not None
        )
        for i, n in enumerate(batch.lengths.tolist())
    ]
