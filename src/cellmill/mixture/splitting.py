"""Which split a cell falls into (floor 4, mixture): by the keyed hash of its donor, or whatever stays together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import xxhash

from cellmill.kernel import derive_key, keyed_uniform
from cellmill.mixture.cells import Cells
from cellmill.mixture.config import SPLIT_NAMES, Split
from cellmill.mixture.quotas import largest_remainder
from cellmill.mixture.select import column_codes
from cellmill.store import Store

__all__ = ["Sides", "SplitCount", "apply_split", "donors_on_both_sides"]

I64 = npt.NDArray[np.int64]
NONE = len(SPLIT_NAMES)  # the side of what is in none of the splits


@dataclass
class SplitCount:
    """What a split found.

    Attributes
    ----------
    values : dict of str to str
        Each value of the column, and the split that it falls into ("" for none).
    n_null : int
        Cells without a value, which fall by their own uid.
    """

    values: dict[str, str]
    n_null: int = 0


class Sides:
    """The sides of a split.

    Notes
    -----
    Without strata a value's place is a number in [0, 1) keyed by its text and the seed alone, so it stays when cells,
    donors or whole stores are added, and the same donor falls on the same side in every store. With strata these
    numbers rank the values of a stratum, over the stores `strata_of` (all when empty), and the shares cut the ranking.
    """

    def __init__(self, split: Split, stores: Sequence[Store], *, seed: int, strata_of: Iterable[int] = ()) -> None:
        self.split = split
        self._stores = stores
        # the stores whose cells make the strata: not those of exclusions, which must move nobody
        self._strata_of = sorted(set(strata_of)) or range(len(stores))
        self._edges = np.cumsum([0.0, *split.shares])
        self._value_key, self._cell_key = derive_key(seed, "split"), derive_key(seed, "split by cell")
        self._fixed = self._cut_strata() if split.stratify is not None and split.by != "cell" else None

    def of(self, store: int, rows: I64, *, found: SplitCount | None = None) -> I64:
        """Return the side of each cell, int64: 0, 1, 2 as in SPLIT_NAMES, 3 for none; adds what it saw to `found`."""
        opened = self._stores[store]
        if self.split.by == "cell":
            return self._side(keyed_uniform(self._cell_key, opened.uids(rows)))
        codes, values = column_codes(opened, self.split.by, rows, needed_for="split")
        sides = np.append(self._sides_of_values(values), NONE)[codes]
        null = codes < 0
        if null.any():
            sides[null] = self._side(keyed_uniform(self._cell_key, opened.uids(rows[null])))
        if found is not None:
            found.n_null += int(null.sum())
            for value, side in zip(values, self._sides_of_values(values).tolist(), strict=True):
                found.values[value] = SPLIT_NAMES[side] if side < NONE else ""
        return sides

    def _sides_of_values(self, values: Sequence[str]) -> I64:
        if self._fixed is not None:
            return np.array([self._fixed[value] for value in values], dtype=np.int64)
        return self._side(self._place(values))

    def _place(self, values: Sequence[str]) -> npt.NDArray[np.float64]:
        hashes = np.array([xxhash.xxh3_64_intdigest(value.encode()) for value in values], dtype=np.uint64)
        return keyed_uniform(self._value_key, hashes)

    def _side(self, place: npt.NDArray[np.float64]) -> I64:
        return np.minimum(np.searchsorted(self._edges, place, side="right") - 1, NONE).astype(np.int64)

    def _cut_strata(self) -> dict[str, int]:
        """Return the side of each value, over all cells of all stores, whatever is selected of them."""
        cells: dict[str, Counter[str]] = {}
        for store in (self._stores[index] for index in self._strata_of):
            rows = np.arange(store.n_cells, dtype=np.int64)
            codes, values = column_codes(store, self.split.by, rows, needed_for="split")
            strata, names = column_codes(store, str(self.split.stratify), rows, needed_for="stratify")
            both = codes * (len(names) + 1) + strata + 1
            for pair, n in zip(*(x.tolist() for x in np.unique(both[codes >= 0], return_counts=True)), strict=True):
                value, stratum = divmod(pair, len(names) + 1)
                cells.setdefault(values[value], Counter())[names[stratum - 1] if stratum else ""] += n
        members: dict[str, list[str]] = {}
        for value, counts in cells.items():
            most = min(counts, key=lambda name, counts=counts: (-counts[name], name))  # type: ignore[misc]
            members.setdefault(most, []).append(value)
        sides: dict[str, int] = {}
        shares = [*self.split.shares, max(0.0, 1 - sum(self.split.shares))]
        for inside in members.values():
            ranked = [value for _, value in sorted(zip(self._place(inside).tolist(), inside, strict=True))]
            ends = np.cumsum(largest_remainder(shares, len(ranked)))
            for rank, value in enumerate(ranked):
                sides[value] = int(np.searchsorted(ends, rank, side="right"))
        return sides


def apply_split(cells: Cells, sides: Sides, wanted: str, *, found: SplitCount) -> Cells:
    """Return the cells of one split; adds what it saw to `found`."""
    number = SPLIT_NAMES.index(wanted)
    kept = [sides.of(segment.store, segment.array, found=found) == number for segment in cells.segments]
    return cells.keep(np.concatenate(kept) if kept else np.empty(0, dtype=bool))


def donors_on_both_sides(parts: Sequence[Cells], sides: Sides, column: str = "donor_id") -> dict[str, int]:
    """Return how many donors have cells in several splits, by the pair of splits: "train and test" and so on."""
    seen: dict[str, set[int]] = {}
    for cells in parts:
        for segment in cells.segments:
            store = sides._stores[segment.store]
            if column not in store.obs.columns:
                continue
            codes, values = column_codes(store, column, segment.array, needed_for="split")
            of = sides.of(segment.store, segment.array)
            for pair in np.unique(codes[codes >= 0] * (NONE + 1) + of[codes >= 0]).tolist():
                value, side = divmod(pair, NONE + 1)
                seen.setdefault(values[value], set()).add(side)
    shared: Counter[str] = Counter()
    for found in seen.values():
        for other in (1, 2):
            if {0, other} <= found:
                shared[f"{SPLIT_NAMES[0]} and {SPLIT_NAMES[other]}"] += 1
    return dict(shared)
