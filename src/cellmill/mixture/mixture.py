"""A mixture: what to train on, said in components, and the plan that follows from it (floor 4, mixture).

Knows stores by their obs and uids. Knows no counts, no batches, no torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cellmill.errors import ConfigError, InputError, MixtureError
from cellmill.mixture.cells import Cells
from cellmill.mixture.config import (
    SPLIT_NAMES,
    Component,
    Exclusion,
    Kind,
    Seeds,
    Split,
    SplitName,
    StoreLike,
    kind_of,
    parse,
    read_yaml,
)
from cellmill.mixture.plan import Part, Plan, PlanRow
from cellmill.mixture.quotas import MAX_PERIOD, quota_pattern
from cellmill.mixture.select import (
    Removal,
    SplitCount,
    apply_split,
    build_removals,
    choice_keys,
    count_values,
    duplicated,
    match_removals,
    select_cells,
    uids_of,
)
from cellmill.store import Store, open_store
from cellmill.store.equal_cells import FEW_COUNTS

__all__ = ["Mixture"]

Mask = npt.NDArray[np.bool_]


@dataclass
class _Draft:
    """A component on its way into a plan."""

    component: Component
    split: str
    cells: Cells
    story: list[str]
    excluded: dict[str, int]
    duplicates: int = 0
    repeat: float = 1.0


class Mixture:
    """A list of components, each a selection of cells with an amount.

    Parameters
    ----------
    components
        At least one; names are unique.
    name
        For reports.
    seed
        One number for `data`, `split` and `order`; or a mapping with some of them.
    split
        How cells are divided into train, validation and test; needed where a component names a split.
    exclude
        Registered evaluation sets, whose cells (and duplicates, donors, ...) are not trained on.
    dedupe
        Keep the first of all cells with the same counts, in the order of components, stores and rows. Splits are made
        after that, so that no cell lies in one split and its duplicate in another.
    cells
        Budget of unique cells. Shares stay as they are with `proportion`; with `repeat`, a keyed choice of all cells.
    draws
        Cells presented in one epoch. None: each cell as often as `repeat` says; with `proportion`, as many draws as
        there are cells.

    Examples
    --------
    >>> mix = Mixture([Component("blood", "atlas.mill", where="tissue = 'blood'")])  # doctest: +SKIP
    >>> print(mix.plan())  # doctest: +SKIP
    """

    def __init__(
        self,
        components: Sequence[Component],
        *,
        name: str = "",
        seed: int | Mapping[str, int] | Seeds = 0,
        split: Split | Mapping[str, Any] | None = None,
        exclude: Iterable[Exclusion] = (),
        dedupe: bool = False,
        cells: int | None = None,
        draws: int | None = None,
    ) -> None:
        self.components = tuple(components)
        self.name = name
        self.seeds = Seeds.of(seed)
        self.split = Split(**split) if isinstance(split, Mapping) else split
        self.exclude = tuple(exclude)
        self.dedupe = dedupe
        self.cells = cells
        self.draws = draws
        self._check()

    def __repr__(self) -> str:
        names = ", ".join(one.name for one in self.components[:6]) + (", ..." if len(self.components) > 6 else "")
        title = f" {self.name!r}" if self.name else ""
        return f"<Mixture{title} of {len(self.components)} components: {names}; plan() shows cells and shares>"

    @classmethod
    def from_yaml(cls, path: str | Path) -> Mixture:
        """Return the mixture that a YAML file describes; store paths begin at the file's folder.

        Raises
        ------
        NotFoundError
            When there is no such file.
        ConfigError
            For an unknown key, naming the nearest known one, and for values that cannot be meant.
        """
        arguments = parse(read_yaml(path), Path(path).parent, where=str(path))
        return cls(**{"name": Path(path).stem, **arguments})

    @classmethod
    def from_dict(cls, content: Mapping[str, Any], base: str | Path | None = None) -> Mixture:
        """Return the mixture that a mapping describes, as `from_yaml` does; store paths begin at `base`."""
        return cls(**parse(content, None if base is None else Path(base), where="mixture"))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the components."""
        return tuple(component.name for component in self.components)

    @property
    def kind(self) -> Kind:
        """What amounts mean: "proportion", "repeat" or "choose"."""
        return kind_of(self.components)

    def with_split(self, split: SplitName) -> Mixture:
        """Return the same mixture with every component in another split: the validation cells of a training mixture.

        A `choose` or `repeat` becomes repeat=1, and the budgets go: what is evaluated is all of the split.
        """
        components = [Component(c.name, c.store, where=c.where, split=split) for c in self.components]
        return Mixture(
            components,
            name=f"{self.name} {split}".strip(),
            seed=self.seeds,
            split=self.split,
            exclude=self.exclude,
            dedupe=self.dedupe,
        )

    def _check(self) -> None:
        if not self.components:
            raise ConfigError("a mixture needs at least one component")
        twice = sorted({name for name in self.names if self.names.count(name) > 1})
        if twice:
            raise ConfigError(f"names of components are unique, but {', '.join(map(repr, twice))} comes twice")
        for label, number in (("cells", self.cells), ("draws", self.draws)):
            if number is not None and (isinstance(number, bool) or not isinstance(number, int) or number < 1):
                raise ConfigError(f"`{label}` must be a whole number above 0, found {number!r}")
        if not isinstance(self.dedupe, bool):
            raise ConfigError(f"`dedupe` must be true or false, found {self.dedupe!r}")
        if self.kind == "choose" and self.cells is not None:
            raise ConfigError("`choose` already says how many cells each component has; leave `cells` out")
        needing = [c.name for c in self.components if c.split in SPLIT_NAMES]
        if needing and self.split is None:
            raise ConfigError(
                f"component {needing[0]!r} names a split, but the mixture has none; "
                "add for example  split: {by: donor_id, train: 0.8, validation: 0.1, test: 0.1}"
            )

    # ---- planning ---------------------------------------------------------------------------------------------

    def plan(self) -> Plan:
        """Return what the mixture comes to, before anything runs.

        Raises
        ------
        MixtureError
            When a component ends without cells, saying which step took them, or has fewer than it must choose; and when
            an exclusion registers no cell.
        QueryError, ConfigError
            For a `where`, a split or an exclusion that names a column that is not there.
        """
        opened = _Stores()
        warnings: list[str] = []
        drafts = self._select(opened, warnings)
        stores = tuple(opened.stores)
        for draft in drafts:
            if not len(draft.cells):
                raise MixtureError(f"component {draft.component.name!r} has no cells: {', '.join(draft.story)}")
        self._limit(drafts, stores)
        if not self.dedupe:
            warnings += _overlaps(drafts, stores)
        return self._finish(drafts, stores, warnings)

    def _select(self, opened: _Stores, warnings: list[str]) -> list[_Draft]:
        rules, said = build_removals([(e, opened.get(e.store)) for e in self.exclude])
        warnings += said
        registered = len(opened.stores)
        found = SplitCount({})
        drafts = []
        for component in self.components:
            with _in_component(component):
                drafts.append(self._begin(component, opened))
        if self.dedupe:
            warnings += _drop_duplicates(drafts, opened.stores)
        for draft in drafts:
            with _in_component(draft.component):
                self._narrow(draft, opened.stores, rules, found)
        opened.drop_unused(registered, drafts)
        if self.split is not None:
            warnings += _split_warnings(self.split, found)
        return drafts

    def _begin(self, component: Component, opened: _Stores) -> _Draft:
        unique = dict.fromkeys(opened.index(store) for store in component.stores)
        cells = select_cells([(i, opened.stores[i]) for i in unique], component.where)
        split = component.split or ("train" if self.split is not None else "")
        return _Draft(component, split, cells, [f"{len(cells):,} cells selected"], {})

    def _narrow(self, draft: _Draft, stores: Sequence[Store], rules: Sequence[Removal], found: SplitCount) -> None:
        """Take the cells of the split, without those that are excluded."""
        if self.split is not None and draft.split in SPLIT_NAMES:
            draft.cells = apply_split(draft.cells, stores, self.split, draft.split, seed=self.seeds.split, found=found)
            draft.story.append(f"{len(draft.cells):,} of them in split {draft.split!r} by {self.split.by}")
        draft.cells, draft.excluded = match_removals(draft.cells, stores, rules)
        if rules:
            draft.story.append(f"{len(draft.cells):,} after exclusions")

    def _limit(self, drafts: Sequence[_Draft], stores: Sequence[Store]) -> None:
        """Apply `choose`, the budget of unique cells, and note repeats."""
        for draft in drafts:
            draft.repeat = float(draft.component.repeat or 1.0)
        if self.kind == "choose":
            for draft in drafts:
                self._choose(draft, int(draft.component.choose or 0), stores, "choose")
        elif self.cells is not None and self.kind == "proportion":
            counts = quota_pattern(tuple(float(d.component.proportion or 0) for d in drafts)).counts(self.cells)
            for draft, n in zip(drafts, counts.tolist(), strict=True):
                self._choose(draft, n, stores, f"cells={self.cells} at its proportion")
        elif self.cells is not None:
            available = sum(len(draft.cells) for draft in drafts)
            if available < self.cells:
                raise MixtureError(f"`cells` asks for {self.cells:,} unique cells, but there are {available:,}")
            keys = [choice_keys(draft.cells, stores, seed=self.seeds.data) for draft in drafts]
            kept = _smallest(np.concatenate(keys), self.cells)
            edges = np.cumsum([len(k) for k in keys])[:-1]
            for draft, mask in zip(drafts, np.split(kept, edges), strict=True):
                draft.cells = draft.cells.keep(mask)
                if not len(draft.cells):
                    raise MixtureError(f"`cells`={self.cells} leaves component {draft.component.name!r} without a cell")

    def _choose(self, draft: _Draft, n: int, stores: Sequence[Store], what: str) -> None:
        if not 0 < n <= len(draft.cells):
            raise MixtureError(
                f"component {draft.component.name!r}: {what} asks for {n:,} cells, but it has "
                f"{len(draft.cells):,} ({', '.join(draft.story)}). Ask for fewer, or widen its selection"
            )
        draft.cells = draft.cells.keep(_smallest(choice_keys(draft.cells, stores, seed=self.seeds.data), n))

    def _finish(self, drafts: Sequence[_Draft], stores: tuple[Store, ...], warnings: Sequence[str]) -> Plan:
        parts = tuple(self._part(draft, stores) for draft in drafts)
        if self.kind == "proportion":
            n_draws = self.draws or sum(len(part.cells) for part in parts)
            draws = quota_pattern(tuple(part.share for part in parts)).counts(n_draws).tolist()
        else:
            n_slots = sum(part.n_slots for part in parts)
            n_draws = self.draws or n_slots
            draws = [part.n_slots * n_draws / n_slots for part in parts]
        wanted = [
            part.share if self.kind == "proportion" else draw / n_draws for part, draw in zip(parts, draws, strict=True)
        ]
        column = self.split.by if self.split is not None and self.split.by != "cell" else "donor_id"
        table = tuple(
            PlanRow(
                name=part.name,
                split=draft.split,
                cells=len(part.cells),
                draws=round(draw),
                effective_epochs=draw / len(part.cells),
                share_wanted=want,
                share_obtained=draw / n_draws,
                donors=count_values(part.cells, stores, column),
                duplicates_removed=draft.duplicates,
                excluded=draft.excluded,
            )
            for part, draft, draw, want in zip(parts, drafts, draws, wanted, strict=True)
        )
        warnings = [*warnings, *_share_warnings(table, n_draws)]
        never = [row.name for row in table if row.draws == 0]
        if never:
            raise MixtureError(f"`draws`={n_draws} is too few: {', '.join(map(repr, never))} would never be drawn")
        return Plan(self.name, self.kind, stores, parts, n_draws, self.seeds, table, tuple(warnings))

    def _part(self, draft: _Draft, stores: Sequence[Store]) -> Part:
        copies = int(draft.repeat)
        n_extra = round((draft.repeat - copies) * len(draft.cells))
        ladder = np.empty(0, dtype=np.int64)
        if n_extra:
            ladder = np.argsort(choice_keys(draft.cells, stores, seed=self.seeds.data), kind="stable").astype(np.int64)
        if not copies and not n_extra:
            raise MixtureError(
                f"component {draft.component.name!r}: repeat={draft.repeat} of {len(draft.cells):,} cells is no cell"
            )
        share = float(draft.component.proportion or 0.0)
        return Part(draft.component.name, draft.cells, copies, n_extra, ladder, share)


class _Stores:
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

    def drop_unused(self, n_registered: int, drafts: Sequence[_Draft]) -> None:
        """Forget stores that only exclusions named, so that they have no part in the plan."""
        if not n_registered:
            return
        used = sorted({s.store for d in drafts for s in d.cells.segments})
        place = {old: new for new, old in enumerate(used)}
        self.stores = [self.stores[old] for old in used]
        for draft in drafts:
            draft.cells = Cells(tuple(type(s)(place[s.store], s.rows) for s in draft.cells.segments))


def _smallest(keys: npt.NDArray[np.uint64], n: int) -> Mask:
    """Return a mask of the `n` smallest keys; of equal ones the first."""
    mask = np.zeros(len(keys), dtype=bool)
    mask[np.argsort(keys, kind="stable")[:n]] = True
    return mask


@contextmanager
def _in_component(component: Component) -> Iterator[None]:
    """Name the component in errors that arise within."""
    try:
        yield
    except InputError as error:
        error.add_note(f"in component {component.name!r}")
        raise


def _drop_duplicates(drafts: Sequence[_Draft], stores: Sequence[Store]) -> list[str]:
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


def _overlaps(drafts: Sequence[_Draft], stores: Sequence[Store]) -> list[str]:
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


def _share_warnings(table: Sequence[PlanRow], n_draws: int) -> list[str]:
    """Say which shares are missed by more than a hundredth, and by more than the cell that rounding costs."""
    return [
        f"{row.name!r} gets {row.draws:,} draws, where its share of {row.share_wanted:.3g} means "
        f"{row.share_wanted * n_draws:,.0f}: shares are held in a pattern of at most {MAX_PERIOD:,} draws"
        for row in table
        if abs(row.draws - row.share_wanted * n_draws) > max(1.0, 0.01 * row.share_wanted * n_draws)
    ]


def _split_warnings(split: Split, found: SplitCount) -> list[str]:
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
