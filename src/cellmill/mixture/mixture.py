"""A mixture: what to train on, said in components, and the plan that follows from it (floor 4, mixture).

Knows stores by their obs and uids. Knows no counts, no batches, no torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from cellmill.errors import ConfigError, MixtureError
from cellmill.mixture.bases import onto_base, replace_cells
from cellmill.mixture.config import (
    SPLIT_NAMES,
    Balance,
    Component,
    Exclusion,
    Kind,
    Seeds,
    Split,
    SplitName,
    StoreLike,
    balance_of,
    kind_of,
    parse,
    read_yaml,
)
from cellmill.mixture.coverage import coverage_warnings, gene_coverage
from cellmill.mixture.drafts import (
    Draft,
    OpenStores,
    changed_set_warnings,
    drop_duplicates,
    in_component,
    leak_warnings,
    mixed_split_warnings,
    never_warnings,
    no_cells,
    overlap_warnings,
    repeat_warnings,
    share_warnings,
    smallest,
    split_warnings,
)
from cellmill.mixture.plan import Part, Plan, PlanRow
from cellmill.mixture.quotas import quota_pattern
from cellmill.mixture.select import (
    Removal,
    build_removals,
    choice_keys,
    count_values,
    match_removals,
    select_cells,
)
from cellmill.mixture.sets import Units, units_of
from cellmill.mixture.sketch import sketch_choice
from cellmill.mixture.splitting import Sides, SplitCount, apply_split, donors_on_both_sides
from cellmill.mixture.turns import even_choice, turns_of
from cellmill.storage.urls import is_url
from cellmill.store import Store, protection_of

__all__ = ["Mixture"]

LADDER = (0.01, 0.1, 0.25, 0.5, 1.0)


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
    balance
        How often the cells of each component are drawn, where not all are drawn alike: by classes of a column of obs,
        or by a weight of each cell (`Balance`, or a mapping of its arguments).
    units
        `Sets`, `Pairs` or `Chunks` that a `Loader` of this mixture draws in the place of cells, unless told otherwise;
        in YAML ``{kind: sets, size: 32, ...}``. Amounts and shares count units then; not with `balance`.
    ladder
        Shares of the cells, such as [0.1, "50%"], that `mix.ladder()` makes mixtures of, and `cellmill plan` plans.
    base
        Another mixture (or the path of its YAML file) that this one differs from: each component's `op` says how. Its
        split, exclusions, seeds, balance, units and `dedupe` hold where this one has none.

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
        seed: int | Mapping[str, int] | Seeds | None = None,
        split: Split | Mapping[str, Any] | None = None,
        exclude: Iterable[Exclusion] = (),
        dedupe: bool = False,
        cells: int | None = None,
        draws: int | None = None,
        balance: Balance | Mapping[str, Any] | None = None,
        units: Units | Mapping[str, Any] | None = None,
        ladder: Sequence[float | str] | None = None,
        base: Mixture | Mapping[str, Any] | str | Path | None = None,
    ) -> None:
        if isinstance(base, str | Path):
            base = Mixture.from_yaml(base)
        self.base = Mixture.from_dict(base) if isinstance(base, Mapping) else base
        self.own_components = tuple(components)
        self.components = self.own_components
        self.name = name
        inherited = Seeds() if self.base is None else self.base.seeds
        self.seeds: Seeds = inherited if seed is None else Seeds.of(seed)
        self.split = Split(**split) if isinstance(split, Mapping) else split
        self.exclude = tuple(exclude)
        self.dedupe = dedupe
        self.cells = cells
        self.draws = draws
        self.balance = None if balance is None else balance_of(balance, where="balance")
        self.units = units_of(units, where="units")
        self.ladder_shares = None if ladder is None else _shares_of(ladder)
        self._split_over: tuple[StoreLike, ...] = ()  # of a part of a mixture: the stores of the whole
        self._check_values()
        if self.base is not None:
            self._take_over(self.base)
        self._check()

    def _take_over(self, base: Mixture) -> None:
        """Put the components onto those of the base, whose settings hold where this mixture has none."""
        self.components = onto_base(base.components, self.own_components)
        self.split = self.split or base.split
        self.exclude = (*base.exclude, *self.exclude)
        self.dedupe = self.dedupe or base.dedupe
        self.balance = self.balance or base.balance
        self.units = self.units or base.units

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
        return cls._from_yaml(Path(path), ())

    @classmethod
    def _from_yaml(cls, path: Path, within: tuple[Path, ...]) -> Mixture:
        if path.absolute() in within:
            raise ConfigError(f"{path}: it is its own base, by way of {', '.join(map(str, within))}")
        arguments = parse(read_yaml(path), path.parent, where=str(path))
        if isinstance(arguments.get("base"), str | Path):
            arguments["base"] = cls._from_yaml(Path(arguments["base"]), (*within, path.absolute()))
        return cls(**{"name": path.stem, **arguments})

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

    def with_split(self, split: SplitName, *, only: Iterable[str] | None = None) -> Mixture:
        """Return the same mixture with its components in another split: the validation cells of a training mixture.

        A `choose` or `repeat` becomes repeat=1, and the budgets go: what is evaluated is all of the split.

        Parameters
        ----------
        split
            For "validation" and "test", components of split "all" are left out: all of their cells are trained on.
        only
            Names of the components to keep; all when None. Donors fall where they fall in the whole mixture.

        Raises
        ------
        ConfigError
            When no component is left.
        """
        kept = self.components if only is None else [c for c in self.components if c.name in set(only)]
        if split in SPLIT_NAMES[1:]:
            kept = [c for c in kept if c.split != "all"]
        if not kept:
            raise ConfigError(
                f"no component has cells of split {split!r} that are not trained on: those of split 'all' have none. "
                "Give one of them split: train"
            )
        part = Mixture(
            [Component(c.name, c.store, where=c.where, split=split) for c in kept],
            name=f"{self.name} {split}".strip(),
            seed=self.seeds,
            split=self.split,
            exclude=self.exclude,
            dedupe=self.dedupe,
            units=self.units,
        )
        part._split_over = self._split_over or tuple(store for c in self.components for store in c.stores)
        return part

    def ladder(self, shares: Sequence[float | str] | None = None) -> list[Mixture]:
        """Return the same mixture with a share of the cells of every component, nested: each holds those before it.

        Shares are as given, or the mixture's own, or 1, 10, 25, 50 and 100 %.

        Those of a base are taken by the same share, and replaced as in the whole.

        Raises
        ------
        ConfigError
            When components have an amount already, or the mixture a budget of cells, or a share is not above 0 and at
            most 1.
        """
        if self.cells is not None:
            raise ConfigError("a ladder says how many cells there are, and so does `cells`; leave one of them out")
        if any(c.proportion is not None or c.repeat is not None or c.choose is not None for c in self.components):
            raise ConfigError("a ladder says how many cells of each component; leave proportion, repeat and choose out")
        chosen = (self.ladder_shares or LADDER) if shares is None else _shares_of(shares)
        return [self._rung(f"{100 * share:.10g}%") for share in chosen]

    def _rung(self, text: str) -> Mixture:
        return Mixture(
            [replace(component, choose=text) for component in self.own_components],
            name=f"{self.name} {text}".strip(), seed=self.seeds, split=self.split, exclude=self.exclude,
            dedupe=self.dedupe, draws=self.draws, balance=self.balance, units=self.units,
            base=None if self.base is None else self.base._rung(text),
        )  # fmt: skip

    def _check(self) -> None:
        balanced = self.balance or next((c.balance for c in self.components if c.balance is not None), None)
        if self.units is not None and balanced is not None:
            raise ConfigError(
                "`balance` says how often each single cell is drawn, which cannot hold for cells in `units`; leave one "
                "of them out. To weigh classes of units, make each class a component with a `proportion` or `repeat`"
            )
        if self.base is None and (ops := [c for c in self.components if c.op != "add"]):
            raise ConfigError(
                f"component {ops[0].name!r}: `op: {ops[0].op}` says how it differs from a base, but the mixture "
                "has none; add  base: other-mix.yaml"
            )
        twice = sorted({name for name in self.names if self.names.count(name) > 1})
        if twice:
            raise ConfigError(f"names of components are unique, but {', '.join(map(repr, twice))} comes twice")
        if self.kind == "choose" and self.cells is not None:
            raise ConfigError("`choose` already says how many cells each component has; leave `cells` out")
        needing = [c.name for c in self.components if c.split in SPLIT_NAMES]
        if needing and self.split is None:
            raise ConfigError(
                f"component {needing[0]!r} names a split, but the mixture has none; "
                "add for example  split: {by: donor_id, train: 0.8, validation: 0.1, test: 0.1}"
            )

    def _check_values(self) -> None:
        if not self.own_components:
            raise ConfigError("a mixture needs at least one component")
        for label, number in (("cells", self.cells), ("draws", self.draws)):
            if number is not None and (isinstance(number, bool) or not isinstance(number, int) or number < 1):
                raise ConfigError(f"`{label}` must be a whole number above 0, found {number!r}")
        if not isinstance(self.dedupe, bool):
            raise ConfigError(f"`dedupe` must be true or false, found {self.dedupe!r}")

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
        opened = OpenStores()
        exclusions = tuple(_exclusion_facts(one, opened.get(one.store)) for one in self.exclude)
        warnings = changed_set_warnings(exclusions)
        drafts = self._select(opened, warnings)
        stores = tuple(opened.stores)
        for draft in drafts:
            if not len(draft.cells):
                raise no_cells(draft)
        self._choose_all(drafts, stores)
        replace_cells(drafts, stores, seed=self.seeds.data)
        self._limit(drafts, stores)
        if not self.dedupe:
            warnings += overlap_warnings(drafts, stores)
        return self._finish(drafts, stores, warnings, exclusions)

    def _select(self, opened: OpenStores, warnings: list[str]) -> list[Draft]:
        rules, said = build_removals([(e, opened.get(e.store)) for e in self.exclude])
        warnings += said
        found = SplitCount({})
        drafts = []
        for component in self.components:
            with in_component(component):
                drafts.append(self._begin(component, opened))
        if self.dedupe:
            warnings += drop_duplicates(drafts, opened.stores)
        sides = None
        if self.split is not None:
            whole = self._split_over or tuple(store for c in self.components for store in c.stores)
            strata_of = [opened.index(store) for store in whole] if self.split.stratify else ()
            sides = Sides(self.split, opened.stores, seed=self.seeds.split, strata_of=strata_of)
            warnings += leak_warnings(donors_on_both_sides([draft.cells for draft in drafts], sides), self.split)
        for draft in drafts:
            with in_component(draft.component):
                self._narrow(draft, opened.stores, rules, sides, found)
        self._refuse_leaks(drafts)
        if sides is not None:
            warnings += mixed_split_warnings(drafts, sides)
        opened.drop_unused(drafts)
        if self.split is not None:
            warnings += split_warnings(self.split, found)
        return drafts

    def _refuse_leaks(self, drafts: Sequence[Draft]) -> None:
        told = [
            f"{draft.component.name!r}: " + ", ".join(f"{n:,} by {rule}" for rule, n in draft.refused.items() if n)
            for draft in drafts
            if any(draft.refused.values())
        ]
        if told:
            raise MixtureError(
                f"cells of an evaluation set are among those to train on ({'; '.join(told)}). Leave them out with "
                "`where`, or have them removed: on_leak: remove"
            )

    def _begin(self, component: Component, opened: OpenStores) -> Draft:
        unique = dict.fromkeys(opened.index(store) for store in component.stores)
        cells = select_cells([(i, opened.stores[i]) for i in unique], component.where)
        split = component.split or ("train" if self.split is not None else "")
        return Draft(component, split, cells, [f"{len(cells):,} cells selected"], {}, selected_none=not len(cells))

    def _narrow(
        self,
        draft: Draft,
        stores: Sequence[Store],
        rules: Sequence[Removal],
        sides: Sides | None,
        found: SplitCount,
    ) -> None:
        """Take the cells of the split, without those that are excluded."""
        if sides is not None and draft.split in SPLIT_NAMES:
            draft.cells = apply_split(draft.cells, sides, draft.split, found=found)
            draft.story.append(f"{len(draft.cells):,} of them in split {draft.split!r} by {sides.split.by}")
        draft.cells, draft.excluded, draft.refused = match_removals(draft.cells, stores, rules)
        if rules:
            draft.story.append(f"{len(draft.cells):,} after exclusions")

    def _choose_all(self, drafts: Sequence[Draft], stores: Sequence[Store]) -> None:
        """Apply `choose`, and note repeats."""
        for draft in drafts:
            draft.repeat = float(draft.component.repeat or 1.0)
            if self.kind == "choose":
                self._choose(draft, draft.component.n_chosen(len(draft.cells)) or 0, stores, "choose")

    def _limit(self, drafts: Sequence[Draft], stores: Sequence[Store]) -> None:
        """Apply the budget of unique cells, last of all: a plan has as many as it says."""
        if self.cells is not None and self.kind == "proportion":
            counts = quota_pattern(tuple(float(d.component.proportion or 0) for d in drafts)).counts(self.cells)
            for draft, n in zip(drafts, counts.tolist(), strict=True):
                self._choose(draft, n, stores, f"cells={self.cells} at its proportion")
        elif self.cells is not None:
            available = sum(len(draft.cells) for draft in drafts)
            if available < self.cells:
                raise MixtureError(f"`cells` asks for {self.cells:,} unique cells, but there are {available:,}")
            keys = [choice_keys(draft.cells, stores, seed=self.seeds.data) for draft in drafts]
            kept = smallest(np.concatenate(keys), self.cells)
            edges = np.cumsum([len(k) for k in keys])[:-1]
            for draft, mask in zip(drafts, np.split(kept, edges), strict=True):
                draft.cells = draft.cells.keep(mask)
                if not len(draft.cells):
                    raise MixtureError(f"`cells`={self.cells} leaves component {draft.component.name!r} without a cell")

    def _choose(self, draft: Draft, n: int, stores: Sequence[Store], what: str) -> None:
        if not 0 < n <= len(draft.cells):
            raise MixtureError(
                f"component {draft.component.name!r}: {what} asks for {n:,} cells, but it has "
                f"{len(draft.cells):,} ({', '.join(draft.story)}). Ask for fewer, or widen its selection"
            )
        if draft.component.evenly is not None:
            mask = even_choice(draft.cells, stores, draft.component.evenly, n, seed=self.seeds.data)
        elif draft.component.sketch is not None:
            mask = sketch_choice(draft.cells, stores, Path(draft.component.sketch), n, seed=self.seeds.data)
        else:
            mask = smallest(choice_keys(draft.cells, stores, seed=self.seeds.data), n)
        draft.cells = draft.cells.keep(mask)

    def _finish(
        self,
        drafts: Sequence[Draft],
        stores: tuple[Store, ...],
        warnings: Sequence[str],
        exclusions: tuple[dict[str, Any], ...],
    ) -> Plan:
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
        coverage, common = gene_coverage([draft.cells for draft in drafts], stores)
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
                most_repeats=_most_repeats(part) * draw / part.n_slots,
                genes_measured=genes,
                classes=draft.classes,
            )
            for part, draft, draw, want, genes in zip(parts, drafts, draws, wanted, coverage, strict=True)
        )
        warnings = [*warnings, *share_warnings(table, n_draws), *repeat_warnings(table)]
        warnings += never_warnings(table, [0 if part.turns is None else part.turns.n_never for part in parts])
        warnings += coverage_warnings(coverage, common)
        never = [row.name for row in table if row.draws == 0]
        if never:
            raise MixtureError(f"`draws`={n_draws} is too few: {', '.join(map(repr, never))} would never be drawn")
        return Plan(
            self.name, self.kind, stores, parts, n_draws, self.seeds, table, tuple(warnings), exclusions, common,
            self.units,
        )  # fmt: skip

    def _part(self, draft: Draft, stores: Sequence[Store]) -> Part:
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
        balance = draft.component.balance or self.balance
        if isinstance(balance, Balance):
            total = round(draft.repeat * len(draft.cells))
            with in_component(draft.component):
                turns, draft.classes = turns_of(draft.cells, stores, balance, total, seed=self.seeds.data)
            return Part(draft.component.name, draft.cells, share=share, turns=turns)
        return Part(draft.component.name, draft.cells, copies, n_extra, ladder, share)


def _shares_of(ladder: object) -> tuple[float, ...]:
    """Return the shares of a ladder, written as 0.1 or "10%"."""
    if isinstance(ladder, str) or not isinstance(ladder, Sequence) or not ladder:
        raise ConfigError(f"a ladder is a list of shares, such as [0.1, 50%], found {ladder!r}")
    return tuple(map(_share_of, ladder))


def _share_of(value: object) -> float:
    is_text = isinstance(value, str) and value.endswith("%")
    try:
        share = float(value[:-1]) / 100 if is_text else float(value)  # type: ignore[index, arg-type]
    except (TypeError, ValueError):
        share = 0.0
    if isinstance(value, bool) or not 0 < share <= 1:
        raise ConfigError(f"a share of a ladder is above 0 and at most 1, found {value!r}")
    return share


def _most_repeats(part: Part) -> float:
    """Draws of the cell that a pass draws most."""
    return part.turns.most_repeats if part.turns is not None else float(part.copies + (part.n_extra > 0))


def _exclusion_facts(exclusion: Exclusion, store: Store) -> dict[str, Any]:
    """What a plan keeps of an evaluation set."""
    protection = None if is_url(store.location) else protection_of(store.path)
    return {
        "store": store.location,
        "digest": store.digest,
        "where": exclusion.where,
        "by": list(exclusion.by),
        "on_leak": exclusion.on_leak,
        "protected_as": None if protection is None else protection.name,
        "protected_digest": None if protection is None else protection.digest,
    }
