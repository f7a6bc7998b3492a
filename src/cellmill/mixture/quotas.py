"""Shares as periodic patterns of exact quotas (floor 4, mixture). Pure: numbers in, numbers out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from cellmill.errors import MixtureError

__all__ = ["MAX_PERIOD", "Pattern", "largest_remainder", "quota_pattern"]

I64 = npt.NDArray[np.int64]

MAX_PERIOD = 65_536
FEW_COMPONENTS = 60  # up to here a loop over them in Python is faster than NumPy


@dataclass(frozen=True)
class Pattern:
    """Which component is drawn at each position, for ever: one period, repeated.

    Attributes
    ----------
    component : int32[period]
        Component of each draw of a period.
    rank : int64[period]
        How many draws that component had before, within the period.
    quota : int64[n_components]
        Draws of each component in one period.
    """

    component: npt.NDArray[np.int32]
    rank: I64
    quota: I64

    @property
    def period(self) -> int:
        """Number of draws after which the pattern repeats."""
        return len(self.component)

    def at(self, positions: I64) -> tuple[I64, I64]:
        """Return the component of each draw and its number among the draws of that component; int64[k] each."""
        period, place = np.divmod(positions, self.period)
        component = self.component[place].astype(np.int64)
        return component, period * self.quota[component] + self.rank[place]

    def counts(self, n_draws: int) -> I64:
        """Return how many of the first `n_draws` draws fall to each component; int64[n_components]."""
        periods, rest = divmod(n_draws, self.period)
        head = np.bincount(self.component[:rest], minlength=len(self.quota))
        counts: I64 = periods * self.quota + head.astype(np.int64)
        return counts


def largest_remainder(shares: Sequence[float], total: int) -> list[int]:
    """Return whole quotas that add up to `total`, each within one of its share; ties go to the first.

    Examples
    --------
    >>> largest_remainder([0.5, 0.25, 0.25], 6)
    [3, 2, 1]
    """
    exact = [share / sum(shares) * total for share in shares]
    quotas = [int(value + 1e-9) for value in exact]
    order = sorted(range(len(shares)), key=lambda i: (-round(exact[i] - quotas[i], 9), i))
    for i in order[: total - sum(quotas)]:
        quotas[i] += 1
    return quotas


def smallest_period(shares: Sequence[float]) -> int:
    """Return the smallest number of draws that holds all shares in whole cells, at most `MAX_PERIOD`."""
    fractions = np.asarray(shares, dtype=np.float64)
    for first in range(1, MAX_PERIOD, 4096):
        lengths = np.arange(first, min(first + 4096, MAX_PERIOD))
        exact = fractions[:, None] * lengths
        good = (np.abs(exact - np.rint(exact)) < 1e-7).all(axis=0)
        if good.any():
            return int(lengths[good.argmax()])
    return MAX_PERIOD


@lru_cache(maxsize=32)
def quota_pattern(shares: tuple[float, ...]) -> Pattern:
    """Return the pattern whose every prefix holds each share to within one cell.

    Parameters
    ----------
    shares
        One positive number for each component; only their ratios count.

    Raises
    ------
    MixtureError
        For a share so small that it gets no draw in 65,536.

    Notes
    -----
    Draw by draw, of the components that are owed enough, the one that would first fall a whole cell behind: the
    largest deficit in relation to its share. Plain largest deficit can fall behind by more than one cell with six
    components or more. Source: R. Tijdeman, "The chairman assignment problem", Discrete Mathematics 32 (1980),
    theorem 1; prefixes differ from their shares by at most 1 - 1/(2k-2), exactly, in integers.
    """
    total = sum(shares)
    fractions = [share / total for share in shares]
    period = smallest_period(fractions)
    quota = largest_remainder(fractions, period)
    if min(quota) < 1:
        raise MixtureError(
            f"a share of {min(fractions):.2g} gets less than one draw in {period:,}. "
            "Give the component a larger proportion, or leave it out"
        )
    component = np.array(_assign(quota, period), dtype=np.int32)
    rank = np.empty(period, dtype=np.int64)
    for index, n in enumerate(quota):
        rank[component == index] = np.arange(n)
    return Pattern(component=component, rank=rank, quota=np.array(quota, dtype=np.int64))


def _assign(quota: Sequence[int], period: int) -> list[int]:
    """Return the component of each draw of a period; deviations are counted in 1/period cells, so all is exact."""
    k = len(quota)
    if k == 1:
        return [0] * period
    if k > FEW_COMPONENTS:
        return _assign_many(np.asarray(quota, dtype=np.int64), period)
    width = 2 * k - 2
    owed = [0] * k  # quota * draws so far - period * own draws so far
    chosen = []
    for _ in range(period):
        best, best_slack = -1, 0.0
        for i in range(k):
            owed[i] += quota[i]
            if width * owed[i] >= period:
                slack = (width * (period - owed[i]) - period) / quota[i]
                if best < 0 or slack < best_slack:
                    best, best_slack = i, slack
        owed[best] -= period
        chosen.append(best)
    return chosen


def _assign_many(quota: I64, period: int) -> list[int]:
    """`_assign` with one array operation for all components: of equal slacks the first, as there."""
    width = 2 * len(quota) - 2
    owed = np.zeros(len(quota), dtype=np.int64)
    chosen = np.empty(period, dtype=np.int64)
    # (width * (period - owed) - period) / quota is the slack, and width * owed >= period says that a draw is due
    least, offset = -(-period // width), width * period - period
    for place in range(period):
        owed += quota
        slack = np.where(owed >= least, (offset - width * owed) / quota, np.inf)
        best = int(slack.argmin())
        owed[best] -= period
        chosen[place] = best
    found: list[int] = chosen.tolist()
    return found
