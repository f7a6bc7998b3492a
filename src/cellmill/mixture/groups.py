"""Cells in groups, cut into units (floor 4, mixture): (unit, round) -> cells in closed form. Pure: numbers only.

Shape letters: k units asked for, S cells of a unit, G groups, n cells of a component.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from cellmill.mixture.order import Order

__all__ = ["Controls", "Cut", "Groups", "group_cells"]

I64 = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Key = Callable[..., int]  # whole numbers that name a group and a round -> key


@dataclass(frozen=True)
class Groups:
    """Which cells of a component stand in which group; groups one after the other.

    Attributes
    ----------
    members : int64[n] or None
        Index of each cell, group after group; None where that is 0..n-1, which takes no memory.
    starts : int64[G + 1]
        Where each group begins in `members`.
    """

    members: I64 | None
    starts: I64

    @cached_property
    def sizes(self) -> I64:
        """Cells of each group, int64[G]."""
        return np.diff(self.starts)

    def at(self, groups: I64, places: I64) -> I64:
        """Return the index of the cell at a place of a group; int64 as `places`."""
        found = self.starts[groups] + places
        return found if self.members is None else self.members[found]

    def digest(self) -> str:
        """Return a hash of groups and members, in order."""
        state = hashlib.blake2b(digest_size=16)
        for array in (self.starts, self.members):
            state.update(b"none" if array is None else f"{len(array)}:".encode())
            state.update(b"" if array is None else np.ascontiguousarray(array, dtype="<i8").tobytes())
        return state.hexdigest()


def group_cells(codes: I64 | None, n: int, *, along: npt.NDArray[np.float64] | None = None) -> tuple[Groups, I64]:
    """Return cells in groups, and the code of each group, ascending.

    Parameters
    ----------
    codes
        int64[n], group of each cell; negative for cells that are left out. All in one when None.
    n
        Number of cells.
    along
        float64[n], what the cells of a group are sorted by, NaN last; by index when None.
    """
    if codes is None and along is None:
        return Groups(None, np.array([0, n] if n else [0], dtype=np.int64)), np.zeros(min(n, 1), dtype=np.int64)
    codes = np.zeros(n, dtype=np.int64) if codes is None else codes
    order = np.argsort(codes, kind="stable") if along is None else np.lexsort((along, codes))
    members = order[np.searchsorted(codes[order], 0) :].astype(np.int64)
    found, counts = np.unique(codes[members], return_counts=True)
    return Groups(members, np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)), found.astype(np.int64)


@dataclass(frozen=True)
class Cut:
    """Groups of one component, cut into units of `size` cells.

    Attributes
    ----------
    groups : Groups
    size : int
        S.
    shuffled : bool
        Whether the cells of a group are in another order in each round, or are neighbours.
    drops : bool
        Whether a unit that would be short is left out; else it is filled up.
    """

    groups: Groups
    size: int
    shuffled: bool
    drops: bool

    @cached_property
    def starts(self) -> I64:
        """First unit of each group, and the number of units; int64[G + 1]."""
        up = 0 if self.drops else self.size - 1
        return np.concatenate([[0], np.cumsum((self.groups.sizes + up) // self.size)]).astype(np.int64)

    @property
    def n_units(self) -> int:
        """Units of a round."""
        return int(self.starts[-1])

    def of(self, units: I64) -> tuple[I64, I64]:
        """Return the group of each unit, and which of its units it is; int64[k] each."""
        group = np.searchsorted(self.starts, units, side="right").astype(np.int64) - 1
        return group, units - self.starts[group]

    def cells(self, units: I64, rounds: I64, *, order: Order, key: Key) -> tuple[I64, Mask]:
        """Return the cells of units, int64[k, S], and which only fill them up, bool[k, S].

        A short unit goes on with the beginning of its group's order; where cells are neighbours, it begins earlier.
        """
        group, number = self.of(units)
        lane = np.arange(self.size, dtype=np.int64)
        first, n = (number * self.size)[:, None], self.groups.sizes[group][:, None]
        begin = first if self.shuffled else np.minimum(first, np.maximum(n - self.size, 0))
        places = begin + lane
        fills = (places >= n) | (places < first)
        places %= n
        if self.shuffled:
            places = _shuffled(places, n[:, 0], np.stack([group, rounds], axis=1), order=order, key=key)
        return self.groups.at(group[:, None], places), fills


@dataclass(frozen=True)
class Controls:
    """Which controls each unit of a component gets: those that match its group, round and round.

    Attributes
    ----------
    pool : Groups
        Controls of the plan, by what they match.
    of_group : int64[G]
        Group of the pool for each group of the component.
    """

    pool: Groups
    of_group: I64

    def units_before(self, cut: Cut) -> I64:
        """Return how many units of a round that use the same controls come before each group's, int64[G]."""
        counts = np.diff(cut.starts)
        order = np.argsort(self.of_group, kind="stable")
        upto = np.cumsum(counts[order]) - counts[order]
        new = np.diff(self.of_group[order], prepend=-1) != 0
        before = np.empty(len(counts), dtype=np.int64)
        before[order] = upto - np.maximum.accumulate(np.where(new, upto, 0))
        return before

    def cells(self, cut: Cut, before: I64, units: I64, rounds: I64, *, order: Order, key: Key) -> I64:
        """Return the controls of units, by index into the pool; int64[k, S].

        The units that share m controls take S of them each in turn, around; after lcm(m, S) controls, when all have
        been used alike, these are shuffled anew. So no two controls are used a different number of times by more than
        one, and the S of one unit differ wherever m is at least S.
        """
        group, number = cut.of(units)
        wanted, turn = self.of_group[group], before[group] + number
        n = self.pool.sizes[wanted]
        shuffle, inside = np.divmod(turn, n // np.gcd(n, cut.size))
        places = ((inside * cut.size)[:, None] + np.arange(cut.size, dtype=np.int64)) % n[:, None]
        places = _shuffled(places, n, np.stack([wanted, rounds, shuffle], axis=1), order=order, key=key)
        return self.pool.at(wanted[:, None], places)


def _shuffled(places: I64, n: I64, labels: I64, *, order: Order, key: Key) -> I64:
    """Return the image of places, int64[k, S], each row under the bijection of 0..n-1 that its labels name."""
    out = np.empty_like(places)
    if not len(labels):
        return out
    by_label = np.lexsort(labels.T)
    new = np.flatnonzero((np.diff(labels[by_label], axis=0) != 0).any(axis=1)) + 1
    for rows in np.split(by_label, new):
        one = rows[0]
        image = order.index(places[rows].ravel(), int(n[one]), key(*labels[one].tolist()))
        out[rows] = image.reshape(len(rows), -1)
    return out
