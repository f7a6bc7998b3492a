"""What recipes of tokens share, in NumPy (floor 1, kernel): the k smallest numbers, quantile edges, bins.

The same rules as native/tokens.hpp. Pure.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from cellmill.kernel.reference.random import keyed_u64

__all__ = ["between", "edges32", "edges64", "gene_numbers", "levels32", "pick", "pooled", "to_uniform"]

I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]
F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]


def gene_numbers(key: int, tokens: I64, purpose: int) -> U64:
    """Return the number of each gene of a cell for one purpose."""
    return keyed_u64(int(key), tokens.astype(np.uint64), purpose)


def to_uniform(numbers: U64) -> F64:
    """Return 53 bits of each number, in [0, 1)."""
    return (numbers >> np.uint64(11)).astype(np.float64) * 2.0**-53


def pick(numbers: U64, k: int) -> npt.NDArray[np.bool_]:
    """Return which of the numbers are among the k smallest; equal ones by place."""
    chosen = np.zeros(len(numbers), dtype=bool)
    chosen[np.argsort(numbers, kind="stable")[:k]] = True
    return chosen


def edges64(values: npt.NDArray[Any], n_edges: int) -> F64:
    """Return the quantiles of some values as `numpy.quantile(values, numpy.linspace(0, 1, n_edges))` gives them.

    Notes
    -----
    ``v = q (n - 1)``, ``d = s[b + 1] - s[b]`` in the dtype of the values, and ``s[b] + d g`` where the fraction g is
    below a half, else ``s[b + 1] - d (1 - g)``, in float64.
    """
    ordered = np.sort(values)
    n = len(ordered)
    levels = np.arange(n_edges) * (1.0 / (n_edges - 1)) if n_edges > 1 else np.zeros(1)
    if n_edges > 1:
        levels[-1] = 1.0
    place = levels * (n - 1)
    lower = np.floor(place)
    part = place - lower
    low = ordered[lower.astype(np.int64)]
    high = ordered[np.minimum(lower.astype(np.int64) + 1, n - 1)]
    step = (high - low).astype(np.float64)
    made: F64 = np.where(part < 0.5, low + step * part, high - step * (1.0 - part)).astype(np.float64)
    return made


def levels32(n_edges: int) -> F32:
    """Return `torch.linspace(0, 1, n_edges)` as torch's vector kernels compute it in float32."""
    if n_edges == 1:
        return np.zeros(1, dtype=np.float32)
    step = np.float32(1) / np.float32(n_edges - 1)
    at = np.arange(n_edges)
    rising = step * at.astype(np.float32)
    falling = (1.0 - np.float64(step) * (n_edges - 1 - at)).astype(np.float32)  # the product is exact in float64
    return np.where(at < n_edges // 2, rising, falling).astype(np.float32)


def edges32(values: F32, n_edges: int) -> F32:
    """Return the quantiles of some values as `torch.quantile` gives them for float32 at `levels32`.

    Notes
    -----
    All steps in float32; the last one is a multiplication and an addition rounded once.
    """
    ordered = np.sort(values.astype(np.float32))
    place = levels32(n_edges) * np.float32(len(ordered) - 1)
    lower, upper = np.trunc(place).astype(np.int64), np.ceil(place).astype(np.int64)
    weight = (place - np.trunc(place)).astype(np.float32)
    low, high = ordered[lower], ordered[np.minimum(upper, len(ordered) - 1)]
    step = (high - low).astype(np.float32)
    from_low = weight.astype(np.float64) * step + low  # the product is exact in float64
    from_high = (weight - np.float32(1)).astype(np.float64) * step + high
    made: F32 = np.where(weight < np.float32(0.5), from_low, from_high).astype(np.float32)
    return made


def between(values: npt.NDArray[Any], edges: npt.NDArray[Any]) -> tuple[I64, I64]:
    """Return for each value how many edges lie below it, and how many at it or below."""
    return np.searchsorted(edges, values, side="left"), np.searchsorted(edges, values, side="right")


def pooled(n_bytes: int) -> npt.NDArray[np.uint8]:
    """Return memory for a result; here there is no pool."""
    return np.empty(n_bytes, dtype=np.uint8)
