"""Components on their way into a plan (floor 4, mixture): what is selected, what was removed, and what to warn of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cellmill.errors import InputError, MixtureError
from cellmill.mixture.cells import Cells
from cellmill.mixture.config import SPLIT_NAMES, Component, Split, StoreLike
from cellmill.mixture.quotas import MAX_PERIOD
from cellmill.mixture.select import duplicated, uids_of
from cellmill.mixture.splitting import Sides, SplitCount
from cellmill.mixture.table import ClassRow, PlanRow
from cellmill.store import Store, open_store
from cellmill.store.equal_cells import FEW_COUNTS

__all__ = [
    "Draft",
    "OpenStores",
    "changed_set_warnings",
    "drop_duplicates",
    "in_component",
    "leak_warnings",
    "mixed_split_warnings",
    "never_warnings",
    "no_cells",
    "overlap_warnings",
    "repeat_warnings",
    "share_warnings",
    "smallest",
    "split_warnings",
]

Mask = npt.NDArray[np.bool_]


@dataclass
class Draft:
    """A component on its way into a plan."""

    component: Component
    split: str
    cells: Cells
    story: list[str]
    excluded: dict[str, int]
    duplicates: int = 0
    repeat: float = 1.0
    refused: dict[str, int] = field(default_factory=dict)
    classes: tuple[ClassRow, ...] = ()
    selected_none: bool = False


class OpenStores:
    """The stores of a mixture, each opened once: the same contents are the same store, however it is named."""

    def __init__(self) -> None:
        self.stores: list[Store] = []
        self._known: dict[object, int] = {}
        self._digests: dict[str, int] = {}

    def index(self, store: StoreLike) -> int:
        """Return the position of a store, opening it where that is needed."""
        key: object = Path(store).absolute() if isinstance(store, str | Path) else id(store)
        if key not in self._known:
            found = open_store(store) if isinstance(store, str | Path) else store
            self._known[key] = self._digests.setdefault(found.digest, len(self.stores))
            if self._known[key] == len(self.stores):
                self.stores.append(found)
        return self._known[key]

    def get(self, store: StoreLike) -> Store:
        """Return the open store."""
        return self.stores[self.index(store)]

    def drop_unused(self, drafts: Sequence[Draft]) -> None:
        """Forget stores that no component names, as those of exclusions, so that they have no part in the plan."""
        named = {self.index(store) for draft in drafts for store in draft.component.stores}
        if len(named) == len(self.stores):
            return
        used = sorted({s.store for d in drafts for s in d.cells.segments})
        place = {old: new for new, old in enumerate(used)}
        self.stores = [self.stores[old] for old in used]
        for draft in drafts:
            draft.cells = Cells(tuple(type(s)(place[s.store], s.rows) for s in draft.cells.segments))


def smallest(keys: npt.NDArray[np.uint64], n: int) -> Mask:
    """Return a mask of the `n` smallest keys; of equal ones the first."""
    mask = np.zeros(len(keys), dtype=bool)
    mask[np.argsort(keys, kind="stable")[:n]] = True
    return mask


@contextmanager
def in_component(component: Component) -> Iterator[None]:
    """Name the component in errors that arise within."""
    try:
        yield
    except InputError as error:
        error.add_note(f"in component {component.name!r}")
        raise


def no_cells(draft: Draft) -> MixtureError:
    """Return the error for a component without cells: its stores, its condition, and what each step left."""
    component = draft.component
    stores = [store.location if isinstance(store, Store) else str(store) for store in component.stores]
    where = "no `where`" if component.where is None else f"`where`: {component.where}"
    remedy = "Widen what it selects, or change the step that left none"
    if draft.selected_none and component.where is not None:
        remedy = (
            "No cell meets its `where`. To see what values a column has: "
            f'cellmill query {stores[0]} "SELECT DISTINCT dataset FROM obs"'
        )
    return MixtureError(
        f"component {component.name!r} has no cells: {', '.join(draft.story)} "
        f"(store: {', '.join(stores)}; {where}). {remedy}"
    )


def drop_duplicates(drafts: Sequence[Draft], stores: Sequence[Store]) -> list[str]:
    """Keep the first of equal cells; returns what to warn of."""
    found = duplicated([d.cells for d in drafts], stores)
    for draft, mask in zip(drafts, found.masks, strict=True):
        draft.duplicates = int(mask.sum())
        draft.cells = draft.cells.keep(~mask) if draft.duplicates else draft.cells
        draft.story.append(f"{len(draft.cells):,} without duplicates")
    if not found.n_few:
        return []
    advice = f"`where: stored_counts >= {FEW_COUNTS}` leaves such cells out from the beginning"
    few = f"{found.n_few:,} of the cells removed have fewer than {FEW_COUNTS} counts"
    return [f"dedupe: {few}, where equality by chance is likely; {advice}"]


def overlap_warnings(drafts: Sequence[Draft], stores: Sequence[Store]) -> list[str]:
    """Say which cells come twice: those are trained on more often than the table shows.

    Over several stores cells are compared by uid, in one store by row id.
    """
    used = {segment.store for draft in drafts for segment in draft.cells.segments}
    if len(used) == 1 and len(drafts) == 1:
        return []
    several = len(used) > 1
    said, seen = [], []
    for draft in drafts:
        ids = uids_of(draft.cells, stores) if several else draft.cells.rows(min(used))
        unique = np.unique(ids)
        if len(unique) < len(ids):
            said.append(
                f"{draft.component.name!r} holds {len(ids) - len(unique):,} cells more than once, from several "
                "stores; `dedupe: true` keeps the first"
            )
        seen.append(unique)
    for i, one in enumerate(drafts):
        for j in range(i + 1, len(drafts)):
            shared = len(np.intersect1d(seen[i], seen[j], assume_unique=True))
            if shared:
                names = f"{one.component.name!r} and {drafts[j].component.name!r}"
                said.append(f"{names} share {shared:,} cells, which count in both; `dedupe: true` keeps the first")
    return said


MANY_REPEATS = 10.0


def repeat_warnings(table: Sequence[PlanRow]) -> list[str]:
    """Say of which components cells come very often: what is learnt of few cells is learnt by heart."""
    said = []
    for row in table:
        if row.effective_epochs > MANY_REPEATS:
            said.append(
                f"{row.name!r}: each of its {row.cells:,} cells comes {row.effective_epochs:.3g} times in an epoch; "
                "a smaller share, or more cells, would repeat less"
            )
        elif row.most_repeats > MANY_REPEATS:
            said.append(
                f"{row.name!r}: some of its cells come {row.most_repeats:.3g} times in an epoch; "
                "`max_repeat` bounds that"
            )
    return said


def changed_set_warnings(exclusions: Sequence[Mapping[str, Any]]) -> list[str]:
    """Say which registered evaluation sets are not what they were when they were registered."""
    return [
        f"exclude: {one['store']} is protected as {one['protected_as']!r} with digest {one['protected_digest'][:12]}, "
        f"and is {one['digest'][:12]} now: it was changed or replaced, and results on it are of another set"
        for one in exclusions
        if one["protected_digest"] not in (None, one["digest"])
    ]


def never_warnings(table: Sequence[PlanRow], n_never: Sequence[int]) -> list[str]:
    """Say how many cells are counted and never drawn."""
    return [
        f"{row.name!r}: {n:,} of its {row.cells:,} cells have weight 0 in its balance and are never drawn"
        for row, n in zip(table, n_never, strict=True)
        if n
    ]


def share_warnings(table: Sequence[PlanRow], n_draws: int) -> list[str]:
    """Say which shares are missed by more than a hundredth, and by more than the cell that rounding costs."""
    return [
        f"{row.name!r} gets {row.draws:,} draws, where its share of {row.share_wanted:.3g} means "
        f"{row.share_wanted * n_draws:,.0f}: shares are held in a pattern of at most {MAX_PERIOD:,} draws"
        for row in table
        if abs(row.draws - row.share_wanted * n_draws) > max(1.0, 0.01 * row.share_wanted * n_draws)
    ]


def leak_warnings(shared: Mapping[str, int], split: Split) -> list[str]:
    """Say how many donors have cells in several splits."""
    if split.by == "donor_id":
        return []
    return [
        f"{n:,} donors have cells in {pair}, since the split is by {split.by}: results are 'within donor'"
        for pair, n in shared.items()
    ]


def mixed_split_warnings(drafts: Sequence[Draft], sides: Sides) -> list[str]:
    """Say which cells of validation and test are trained on, since their component is not of the training split."""
    if not any(draft.split == SPLIT_NAMES[0] for draft in drafts):
        return []
    said = []
    for draft in drafts:
        n = sum(int((sides.of(s.store, s.array) != 0).sum()) for s in draft.cells.segments)
        if draft.split != SPLIT_NAMES[0] and n:
            said.append(
                f"{draft.component.name!r} is of split {draft.split!r}, beside components of 'train': {n:,} of its "
                "cells are of validation or test by the split, and are in this plan all the same"
            )
    return said


def split_warnings(split: Split, found: SplitCount) -> list[str]:
    """Say what of a split is less than it promises."""
    if split.by == "cell":
        return ["split by cell: cells of one donor are on both sides, so results are 'within donor'"]
    said = []
    if found.n_null:
        said.append(f"{found.n_null:,} cells have no {split.by} and are split one by one: a donor may be on both sides")
    if found.values:
        for name, share in zip(SPLIT_NAMES, split.shares, strict=True):
            if share and name not in found.values.values():
                said.append(
                    f"split {name!r} ({share:.0%}) holds none of the {len(found.values)} values of {split.by}: "
                    "too few for this share; choose another split seed or larger shares"
                )
    return said
