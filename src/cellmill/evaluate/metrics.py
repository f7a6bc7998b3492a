"""Measures of reconstruction (floor 7): arrays in, numbers out, nothing else.

Shape letters: B cells, H genes that are measured.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

__all__ = ["Interval", "bootstrap_groups", "interval", "log1p_cp10k", "pearson_per_cell", "r2_per_cell"]

F64 = npt.NDArray[np.float64]


def log1p_cp10k(counts: npt.NDArray[np.floating], totals: F64 | None = None) -> F64:
    """Return log(1 + 10,000 x count / total) of each cell, float64 (B, H); a cell without counts stays zero.

    `totals` (B,) are the sums over all genes of the model; the row sums when not given.
    """
    sums = counts.sum(axis=1, dtype=np.float64) if totals is None else totals
    scale = np.divide(1e4, sums, out=np.zeros(len(sums)), where=sums > 0)
    result: F64 = np.log1p(counts * scale[:, None])
    return result


def pearson_per_cell(predicted: npt.NDArray[np.floating], true: npt.NDArray[np.floating]) -> F64:
    """Return the Pearson correlation over genes of each cell, float64 (B,); NaN where a side has no variance.

    Parameters
    ----------
    predicted, true : float (B, H)
        On the same scale, log1p(CP10k) as published.

    Source: scFM-datamix, "Reconstruction R2": correlation per cell over 1,000 highly variable genes.
    """
    predicted_BH = predicted - predicted.mean(axis=1, keepdims=True, dtype=np.float64)
    true_BH = true - true.mean(axis=1, keepdims=True, dtype=np.float64)
    covariance = np.einsum("bh,bh->b", predicted_BH, true_BH)
    lengths = np.sqrt(np.einsum("bh,bh->b", predicted_BH, predicted_BH) * np.einsum("bh,bh->b", true_BH, true_BH))
    flat = _constant(predicted) | _constant(true) | (lengths == 0)
    ratio = np.divide(covariance, lengths, out=np.full(len(lengths), np.nan), where=~flat)
    result: F64 = np.clip(ratio, -1.0, 1.0)
    return result


def _constant(values: npt.NDArray[np.floating]) -> npt.NDArray[np.bool_]:
    """Return which rows hold one value only; rounding of their mean would give them a tiny, meaningless variance."""
    result: npt.NDArray[np.bool_] = values.max(axis=1) == values.min(axis=1)
    return result


def r2_per_cell(pearson: F64) -> F64:
    """Return the squared correlation, as the study publishes it; its sign is lost, so keep Pearson beside it."""
    return pearson * pearson


@dataclass(frozen=True)
class Interval:
    """A mean and how far repeats spread around it.

    Attributes
    ----------
    mean : float
        NaN when there are no values.
    low, high : float
        The bounds; equal to the mean for a single value.
    n : int
        Values that were not NaN.
    kind : str
        "t95": 95 % interval of the mean by Student's t, from three values on. "range": the lower and higher of two.
        "none": one value or none.
    """

    mean: float
    low: float
    high: float
    n: int
    kind: str

    def to_dict(self) -> dict[str, float | int | str | None]:
        """Return the interval as JSON holds it; NaN as null."""
        low, mean, high = (None if math.isnan(x) else x for x in (self.low, self.mean, self.high))
        return {"mean": mean, "low": low, "high": high, "n": self.n, "kind": self.kind}


def interval(values: Iterable[float]) -> Interval:
    """Return mean and interval of repeats, such as the seeds of one arm; NaN values are left out.

    From three values on the interval is Student's t at 95 %. For two it is their range: t would be honest and useless
    (12.7 standard errors). For one there is none, and the bounds are the value itself.

    Examples
    --------
    >>> interval([0.5, 0.7])
    Interval(mean=0.6, low=0.5, high=0.7, n=2, kind='range')
    """
    finite = np.array([value for value in values if not math.isnan(value)], dtype=np.float64)
    if len(finite) == 0:
        return Interval(math.nan, math.nan, math.nan, 0, "none")
    mean = float(finite.mean())
    if len(finite) == 1:
        return Interval(mean, mean, mean, 1, "none")
    if len(finite) == 2:
        return Interval(mean, float(finite.min()), float(finite.max()), 2, "range")
    half = float(stats.t.ppf(0.975, len(finite) - 1) * finite.std(ddof=1) / math.sqrt(len(finite)))
    return Interval(mean, mean - half, mean + half, len(finite), "t95")


def bootstrap_groups(
    values: F64, groups: npt.NDArray[np.int64], *, generator: np.random.Generator, draws: int = 500
) -> tuple[float, float] | None:
    """Return 95 % bounds of the mean over cells when whole groups (donors) are drawn again; None below three groups.

    Parameters
    ----------
    values : float64 (n_cells,)
        One measure per cell; NaN is left out.
    groups : int64 (n_cells,)
        Which group each cell is of; negative for none, which is left out.

    Notes
    -----
    Cells of one donor are alike, so an interval over cells would be far too narrow.
    """
    known = (groups >= 0) & ~np.isnan(values)
    codes, of = np.unique(groups[known], return_inverse=True)
    if len(codes) < 3:
        return None
    sums = np.bincount(of, weights=values[known])
    sizes = np.bincount(of)
    drawn = generator.integers(0, len(codes), size=(draws, len(codes)))
    means = sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)
