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

from cellmill.errors import ConfigError, MixtureError, QueryError, nearest
from cellmill.kernel import derive_key, keyed_u64
from cellmill.mixture.cells import Cells, Segment
from cellmill.mixture.config import Exclusion
from cellmill.store import Store
from cellmill.store.columns import numbers_of
from cellmill.store.equal_cells import FEW_COUNTS, CellFacts, equals_known, repeats_earlier

__all__ = [
    "Duplicated",
    "Removal",
    "build_removals",
    "cell_numbers",
    "choice_keys",
    "class_codes",
    "column_codes",
    "count_values",
    "duplicated",
    "match_removals",
    "select_cells",
    "uids_of",
]

I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]
Mask = npt.NDArray[np.bool_]
NO_HASHES: U64 = np.empty(0, dtype=np.uint64)
NO_VALUE = "(no value)"


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


# ---- exclusion --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Removal:
    """One rule of an exclusion: cells whose `by` is among these are removed.

    Attributes
    ----------
    hashes : uint64, sorted
        For "uid".
    facts : (uint64, int64, int64) or None
        For "fingerprint": that, number of genes and total of each registered cell.
    texts : frozenset of str
        For a column of obs.
    refuses : bool
        Whether such cells are refused instead.
    """

    by: str
    hashes: U64
    texts: frozenset[str]
    refuses: bool = False
    facts: CellFacts | None = None

    def matches(self, store: Store, rows: I64) -> Mask:
        """Return which rows share this rule's property with a registered cell."""
        if self.facts is not None:
            return equals_known(self.facts, _cell_facts(store, rows))
        if self.by == "uid":
            return np.isin(store.uids(rows), self.hashes)
        codes, values = column_codes(store, self.by, rows, needed_for="exclude")
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
        refuses = exclusion.on_leak == "refuse"
        rows = store.select(exclusion.where)
        if not len(rows):
            condition = "" if exclusion.where is None else f" meets {exclusion.where!r}"
            raise MixtureError(
                f"exclude: no cell of {store.path}{condition}, so the exclusion would protect nothing; "
                "check its `where`, or leave it out"
            )
        for by in exclusion.by:
            if by == "uid":
                rules.append(Removal(by, np.unique(store.uids(rows)), frozenset(), refuses))
            elif by == "fingerprint":
                facts = _cell_facts(store, rows)
                rules.append(Removal(by, NO_HASHES, frozenset(), refuses, facts))
                if n_few := int((facts[2] < FEW_COUNTS).sum()):
                    warnings.append(
                        f"exclude: {n_few:,} of the {len(rows):,} registered cells of {store.path} have fewer than "
                        f"{FEW_COUNTS} counts, where equality is chance: the rule 'fingerprint' looks for the others"
                    )
            else:
                _, values = column_codes(store, by, rows, needed_for="exclude")
                rules.append(Removal(by, NO_HASHES, frozenset(values), refuses))
                if not values:
                    warnings.append(
                        f"exclude: none of the {len(rows):,} registered cells of {store.path} has a {by}, "
                        f"so the rule {by!r} removes nothing"
                    )
    return rules, warnings


def match_removals(
    cells: Cells, stores: Sequence[Store], rules: Sequence[Removal]
) -> tuple[Cells, dict[str, int], dict[str, int]]:
    """Return the cells that no rule removes, and how many each removes, and refuses; the first that matches counts."""
    removed: dict[str, int] = {}
    refused: dict[str, int] = {}
    gone = np.zeros(len(cells), dtype=bool)
    for rule in rules:
        hit = _joined([rule.matches(stores[s.store], s.array) for s in cells.segments]) & ~gone
        told = refused if rule.refuses else removed
        told[rule.by] = told.get(rule.by, 0) + int(hit.sum())
        gone |= hit
    return (cells.keep(~gone) if gone.any() else cells), removed, refused


@dataclass(frozen=True)
class Duplicated:
    """Which cells of each component equal an earlier cell of the mixture, and how many of these have few counts."""

    masks: list[Mask]
    n_few: int


def duplicated(parts: Sequence[Cells], stores: Sequence[Store]) -> Duplicated:
    """Return which cells equal an earlier cell of the mixture: in fingerprint, number of genes and total."""
    facts = [_cell_facts(stores[s.store], s.array) for cells in parts for s in cells.segments]
    prints = _joined([one[0] for one in facts]).astype(np.uint64)
    detected, totals = (_joined([one[i] for one in facts]).astype(np.int64) for i in (1, 2))
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


def column_codes(store: Store, name: str, rows: I64, *, needed_for: str) -> tuple[I64, list[str]]:
    """Return the values of a column of obs as codes, int64, -1 for null, and the texts of those that occur.

    Raises
    ------
    ConfigError
        When there is no such column.
    """
    return _encoded(_column(store, name, rows, needed_for=needed_for))


def class_codes(cells: Cells, stores: Sequence[Store], name: str, *, needed_for: str) -> tuple[I64, list[str]]:
    """Return a column as codes over all stores, int64[n_cells], and its values, sorted; null is one, "(no value)"."""
    found = [column_codes(stores[s.store], name, s.array, needed_for=needed_for) for s in cells.segments]
    texts = [[*values, NO_VALUE] for _, values in found]  # the last for the code -1
    used = [set(np.unique(codes).tolist()) for codes, _ in found]
    named = {text[code] for text, codes in zip(texts, used, strict=True) for code in codes}
    names = sorted(named)
    place = {value: i for i, value in enumerate(names)}
    parts = [
        np.array([place.get(value, -1) for value in text], dtype=np.int64)[codes]
        for text, (codes, _) in zip(texts, found, strict=True)
    ]
    joined: I64 = _joined(parts).astype(np.int64)
    return joined, names


def cell_numbers(cells: Cells, stores: Sequence[Store], name: str, *, needed_for: str) -> npt.NDArray[np.float64]:
    """Return a numeric column of obs, float64[n_cells], NaN for null."""
    parts = []
    for segment in cells.segments:
        column = _column(stores[segment.store], name, segment.array, needed_for=needed_for)
        if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
            raise ConfigError(f"{needed_for}: {name!r} of {stores[segment.store].path} holds {column.type}, no numbers")
        parts.append(numbers_of(column.cast(pa.float64()), null=np.nan))
    joined: npt.NDArray[np.float64] = _joined(parts).astype(np.float64)
    return joined


def _cell_facts(store: Store, rows: I64) -> tuple[U64, I64, I64]:
    """Fingerprint, number of genes and total of cells: what equal cells have in common."""
    prints = numbers_of(_column(store, "fingerprint", rows, needed_for="mixture"))
    detected, totals = (store.obs.stored(name, rows).astype(np.int64) for name in ("n_genes_stored", "stored_counts"))
    return prints.astype(np.uint64), detected, totals


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
    codes: I64 = numbers_of(encoded.indices, null=-1).astype(np.int64)
    return codes, encoded.dictionary.to_pylist()


def _joined(parts: Sequence[npt.NDArray[np.generic]]) -> npt.NDArray:  # type: ignore[type-arg]
    return np.concatenate(parts) if parts else np.empty(0, dtype=bool)
