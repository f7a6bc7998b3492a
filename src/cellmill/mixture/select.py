"""Which cells a component has (floor 4, mixture): where, split, exclusion, duplicates, choice. Row ids and obs only.

Each step takes cells and gives fewer, and says how many it removed and why.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from cellmill.errors import ConfigError, MixtureError, QueryError, nearest
from cellmill.kernel import derive_key, keyed_u64, keyed_uniform
from cellmill.mixture.cells import Cells, Segment
from cellmill.mixture.config import SPLIT_NAMES, Exclusion, Split
from cellmill.store import Store
from cellmill.store.equal_cells import FEW_COUNTS, repeats_earlier

__all__ = [
    "Duplicated",
    "Removal",
    "SplitCount",
    "apply_split",
    "build_removals",
    "choice_keys",
    "count_values",
    "duplicated",
    "match_removals",
    "select_cells",
    "uids_of",
]

I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]
Mask = npt.NDArray[np.bool_]
HASHES = ("uid", "fingerprint")


def select_cells(stores: Sequence[tuple[int, Store]], where: str | None) -> Cells:
    """Return the cells of some stores that meet a condition; all of them when it is None."""
    segments = []
    for index, store in stores:
        rows: range | I64 = range(store.n_cells) if where is None else store.select(where)
        if len(rows):
            segments.append(Segment.of(index, rows))
    return Cells(tuple(segments))


def uids_of(cells: Cells, stores: Sequence[Store]) -> U64:
    """Return the uids of all cells of a component, uint64[n_cells]."""
    return _joined([stores[s.store].uids(s.array) for s in cells.segments])


def choice_keys(cells: Cells, stores: Sequence[Store], *, seed: int) -> U64:
    """Return the number by which `choose` ranks cells, uint64[n_cells]: keyed by seed and uid alone.

    The smallest numbers are taken. So a larger choice holds every smaller one, whatever component asks, and cells that
    are added to a store change a choice only where they enter it.
    """
    return keyed_u64(derive_key(seed, "choose"), uids_of(cells, stores))


# ---- split ------------------------------------------------------------------------------------------------------


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


def apply_split(
    cells: Cells, stores: Sequence[Store], split: Split, wanted: str, *, seed: int, found: SplitCount
) -> Cells:
    """Return the cells of one split; adds what it saw to `found`.

    Notes
    -----
    A value's place is a number in [0, 1) keyed by its text and the seed alone, so it stays when cells, donors or whole
    stores are added, and the same donor falls on the same side in every store.
    """
    edges = np.cumsum([0.0, *split.shares])
    low, high = edges[SPLIT_NAMES.index(wanted)], edges[SPLIT_NAMES.index(wanted) + 1]
    value_key, cell_key = derive_key(seed, "split"), derive_key(seed, "split by cell")
    kept = []
    for segment in cells.segments:
        store, rows = stores[segment.store], segment.array
        if split.by == "cell":
            place = keyed_uniform(cell_key, store.uids(rows))
        else:
            codes, values = _encoded(_column(store, split.by, rows, needed_for="split"))
            u_value = keyed_uniform(value_key, _hash_texts(values))
            side = np.searchsorted(edges, u_value, side="right") - 1
            for value, number in zip(values, side.tolist(), strict=True):
                found.values[value] = SPLIT_NAMES[number] if number < len(SPLIT_NAMES) else ""
            null = codes < 0
            place = u_value[codes] if len(u_value) else np.empty(len(rows))
            if null.any():
                found.n_null += int(null.sum())
                place[null] = keyed_uniform(cell_key, store.uids(rows[null]))
        kept.append((place >= low) & (place < high))
    return cells.keep(_joined(kept) if kept else np.empty(0, dtype=bool))


def _hash_texts(texts: Sequence[str]) -> U64:
    return np.array([xxhash.xxh3_64_intdigest(text.encode()) for text in texts], dtype=np.uint64)


# ---- exclusion --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Removal:
    """One rule of an exclusion: cells whose `by` is among these are removed.

    Attributes
    ----------
    hashes : uint64, sorted
        For "uid" and "fingerprint".
    texts : frozenset of str
        For a column of obs.
    """

    by: str
    hashes: U64
    texts: frozenset[str]

    def matches(self, store: Store, rows: I64) -> Mask:
        """Return which rows share this rule's property with a registered cell."""
        if self.by in HASHES:
            return np.isin(_hashes(store, self.by, rows), self.hashes)
        codes, values = _encoded(_column(store, self.by, rows, needed_for="exclude"))
        hit = np.array([*(value in self.texts for value in values), False], dtype=bool)  # the last for nulls, code -1
        found: Mask = hit[codes]
        return found


def build_removals(exclusions: Iterable[tuple[Exclusion, Store]]) -> tuple[list[Removal], list[str]]:
    """Return the rules of all exclusions, with the properties of the registered cells, and what to warn of.

    Raises
    ------
    MixtureError
        When an exclusion registers no cell: it would protect nothing.
    """
    rules, warnings = [], []
    for exclusion, store in exclusions:
        rows = store.select(exclusion.where)
        if not len(rows):
            condition = "" if exclusion.where is None else f" meets {exclusion.where!r}"
            raise MixtureError(
                f"exclude: no cell of {store.path}{condition}, so the exclusion would protect nothing; "
                "check its `where`, or leave it out"
            )
        for by in exclusion.by:
            if by in HASHES:
                rules.append(Removal(by, np.unique(_hashes(store, by, rows)), frozenset()))
            else:
                _, values = _encoded(_column(store, by, rows, needed_for="exclude"))
                rules.append(Removal(by, np.empty(0, dtype=np.uint64), frozenset(values)))
                if not values:
                    warnings.append(
                        f"exclude: none of the {len(rows):,} registered cells of {store.path} has a {by}, "
                        f"so the rule {by!r} removes nothing"
                    )
    return rules, warnings


def match_removals(cells: Cells, stores: Sequence[Store], rules: Sequence[Removal]) -> tuple[Cells, dict[str, int]]:
    """Return the cells that no rule removes, and how many each rule removed (the first that matches counts)."""
    removed: dict[str, int] = {}
    gone = np.zeros(len(cells), dtype=bool)
    for rule in rules:
        hit = _joined([rule.matches(stores[s.store], s.array) for s in cells.segments]) & ~gone
        removed[rule.by] = removed.get(rule.by, 0) + int(hit.sum())
        gone |= hit
    return (cells.keep(~gone) if gone.any() else cells), removed


@dataclass(frozen=True)
class Duplicated:
    """Which cells of each component equal an earlier cell of the mixture, and how many of these have few counts."""

    masks: list[Mask]
    n_few: int


def duplicated(parts: Sequence[Cells], stores: Sequence[Store]) -> Duplicated:
    """Return which cells equal an earlier cell of the mixture: in fingerprint, number of genes and total."""
    segments = [segment for cells in parts for segment in cells.segments]
    prints = _joined([_hashes(stores[s.store], "fingerprint", s.array) for s in segments]).astype(np.uint64)
    detected, totals = (
        _joined([stores[s.store].obs.stored(name, s.array) for s in segments]).astype(np.int64)
        for name in ("n_genes_stored", "stored_counts")
    )
    repeated = repeats_earlier(prints, detected, totals)
    edges = np.cumsum([len(cells) for cells in parts])[:-1]
    masks = [np.asarray(part) for part in np.split(repeated, edges)]
    return Duplicated(masks, int((repeated & (totals < FEW_COUNTS)).sum()))


# ---- obs --------------------------------------------------------------------------------------------------------


def count_values(cells: Cells, stores: Sequence[Store], column: str) -> int | None:
    """Return how many different values a column has among the cells; None when no store has the column."""
    seen: set[str] = set()
    known = False
    for segment in cells.segments:
        store = stores[segment.store]
        if column in store.obs.columns:
            known = True
            codes, values = _encoded(store.column(column, segment.array))
            seen.update(values[code] for code in np.unique(codes) if code >= 0)
    return len(seen) if known else None


def _hashes(store: Store, name: str, rows: I64) -> U64:
    if name == "uid":
        return store.uids(rows)
    values: U64 = _column(store, name, rows, needed_for="mixture").to_numpy(zero_copy_only=False)
    return values.astype(np.uint64)


def _column(store: Store, name: str, rows: I64, *, needed_for: str) -> pa.Array:
    columns = store.obs.columns
    if name not in columns:
        raise ConfigError(
            f"{needed_for}: {store.path} has no column {name!r} in obs.{nearest(name, columns)} "
            f"Columns: {', '.join(columns)}"
        )
    try:
        return store.column(name, rows)
    except QueryError as error:
        error.add_note(f"needed for: {needed_for}")
        raise


def _encoded(column: pa.Array) -> tuple[I64, list[str]]:
    """Return codes (int64, -1 for null) and the texts of the values that occur."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    encoded = pc.dictionary_encode(column.cast(pa.string()))
    codes: I64 = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    return codes, encoded.dictionary.to_pylist()


def _joined(parts: Sequence[npt.NDArray[np.generic]]) -> npt.NDArray:  # type: ignore[type-arg]
    return np.concatenate(parts) if parts else np.empty(0, dtype=bool)
