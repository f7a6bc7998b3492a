"""A plan whose positions count sets, pairs or chunks (floor 4, mixture): (plan, units, seed, position) -> cells.

Knows row ids, columns of obs, keys. Knows no counts, no bytes of cells, no torch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cellmill.errors import MixtureError
from cellmill.kernel import derive_key, permute
from cellmill.mixture.cells import Cells, Segment
from cellmill.mixture.groups import Controls, Cut, Groups, group_cells
from cellmill.mixture.order import Exact, Order
from cellmill.mixture.plan import Part, Plan, checked_positions
from cellmill.mixture.select import NO_VALUE, cell_numbers, class_codes
from cellmill.mixture.sets import Units
from cellmill.store import Store

__all__ = ["UnitCounts", "UnitDraw", "UnitPlan", "plan_units"]

I64 = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
UNITS_FORMAT = 1
UNITS_HELP = "units=...: "


class UnitDraw(NamedTuple):
    """The cells of k units: for each unit its S cells, then its S controls where there are any; n = k * (S or 2 S).

    Attributes
    ----------
    component, store, row : int64[n]
        Codes into `names` and `stores`, row id in that store.
    unit : int64[n]
        Which of the k units.
    is_control, fills : bool[n]
        Controls; cells that only fill up a short unit.
    epoch : int64[k]
        Number of the epoch of each unit.
    """

    component: I64
    store: I64
    row: I64
    unit: I64
    is_control: Mask
    fills: Mask
    epoch: I64


@dataclass(frozen=True)
class UnitCounts:
    """What becomes of the cells of a plan, while every unit is drawn once.

    Attributes
    ----------
    units, groups, cells : int
        Units, the groups they are cut from, and the cells of these.
    small_groups : int
        Groups of fewer cells than a unit has.
    cells_filled_up : int
        Cells that fill up short units (`short` "repeat" or "pad").
    cells_left_out : int
        Cells in no unit (`short` "drop").
    cells_without_value : int
        Cells whose group is "no value" in some column.
    controls : int
        Different cells that are controls.
    groups_unmatched, cells_unmatched : int
        Groups that no control matches, and their cells (`unmatched` "any" or "drop"); these cells are among `cells`
        only with "any".
    """

    units: int
    groups: int
    cells: int
    small_groups: int = 0
    cells_filled_up: int = 0
    cells_left_out: int = 0
    cells_without_value: int = 0
    controls: int = 0
    groups_unmatched: int = 0
    cells_unmatched: int = 0


@dataclass(frozen=True)
class UnitPlan:
    """A plan of which each draw is a unit. Its attributes mean what they mean for `Plan`; amounts are of units.

    Attributes
    ----------
    plan : Plan
        The plan of the cells.
    units : Sets, Pairs or Chunks
    cuts : tuple of Cut
        For each component its groups and how they are cut.
    controls : tuple of Controls
        For each component which controls its groups get; empty when `units` has none.
    pool : int64 array
        Controls by index: the cells of all components, one component after the other.
    counts : UnitCounts
        What becomes of the cells.
    """

    plan: Plan
    units: Units
    cuts: tuple[Cut, ...]
    controls: tuple[Controls, ...]
    pool: I64
    counts: UnitCounts

    @property
    def stores(self) -> tuple[Store, ...]:
        """Stores of the plan."""
        return self.plan.stores

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the components."""
        return self.plan.names

    @property
    def n_cells(self) -> int:
        """Unique cells that are drawn: those of the groups, and the controls."""
        return self.counts.cells + self.counts.controls

    @property
    def n_draws(self) -> int:
        """Units of one epoch."""
        return self._inner.n_draws

    @property
    def cells_per_unit(self) -> int:
        """Cells of one unit, its controls too."""
        return self.units.size * (2 if self.controls else 1)

    @property
    def keys(self) -> tuple[str, ...]:
        """Columns of obs that units are made by."""
        names = (*self.units.by, *self.units.match, *([] if self.units.along is None else [self.units.along]))
        return tuple(dict.fromkeys(names))

    @cached_property
    def hash(self) -> str:
        """Hash of everything that decides which cell comes where: the plan's, the units' settings, the groups."""
        said = {
            "format": UNITS_FORMAT,
            "plan": self.plan.hash,
            "units": self.units.to_dict(),
            "groups": [cut.groups.digest() for cut in self.cuts],
            "controls": [_digest(each.of_group) for each in self.controls],
            "pool": [self.controls[0].pool.digest(), _digest(self.pool)] if self.controls else [],
        }
        return hashlib.blake2b(json.dumps(said, sort_keys=True).encode(), digest_size=16).hexdigest()

    @cached_property
    def _inner(self) -> Plan:
        """The plan with units in the place of cells: shares, repeats and order mean the same."""
        pairs = zip(self.plan.parts, self.cuts, strict=True)
        parts = tuple(_unit_part(part, cut.n_units, self.plan) for part, cut in pairs)
        n_draws = sum(len(part.cells) if self.plan.kind == "proportion" else part.n_slots for part in parts)
        if self.plan.n_draws != _natural_draws(self.plan):  # a budget of draws, of cells
            n_draws = max(1, self.plan.n_draws // self.units.size)
        return Plan(self.plan.name, self.plan.kind, self.plan.stores, parts, n_draws, self.plan.seeds)

    def check(self) -> None:
        """Raise MixtureError if a component has units, but an epoch none of them."""
        for part, inner, cut in zip(self.plan.parts, self._inner.parts, self.cuts, strict=True):
            if cut.n_units and not inner.n_slots:
                repeat = part.n_extra / len(part.cells)
                raise MixtureError(
                    f"{UNITS_HELP}component {part.name!r}: repeat={repeat:.3g} of {cut.n_units:,} units is no unit; "
                    "repeat more, or choose a smaller unit"
                )

    @cached_property
    def _before(self) -> tuple[I64, ...]:
        return tuple(each.units_before(cut) for each, cut in zip(self.controls, self.cuts, strict=False))

    @cached_property
    def _starts(self) -> I64:
        return np.concatenate([[0], np.cumsum([len(part.cells) for part in self.plan.parts])]).astype(np.int64)

    def draw(self, positions: npt.ArrayLike, *, seed: int = 0, order: Order | None = None) -> UnitDraw:
        """Return the cells of units at positions of the run: a pure function, any positions in any order.

        Parameters
        ----------
        positions : int array, shape (k,)
            Units, counted over epochs: epoch e is the positions e * n_draws to (e + 1) * n_draws - 1.
        seed
            The run's seed for the order; the plan's own order seed counts as well.
        order
            Of the units, of the cells of a group, and of the controls; `Exact()` when None.

        Raises
        ------
        InputError
            For a negative position.
        """
        at = checked_positions(positions)
        chosen, size = order or Exact(), self.units.size
        component, unit, rounds = self._inner.rounds(at, seed=seed, order=chosen)
        index = np.empty((len(at), self.cells_per_unit), dtype=np.int64)
        fills = np.zeros(index.shape, dtype=bool)
        for code in np.unique(component).tolist():
            here = np.flatnonzero(component == code)
            made = self._cells(code, unit[here], rounds[here], seed=seed, order=chosen)
            index[here], fills[here, :size] = made
        whole = index.ravel()
        of = np.searchsorted(self._starts, whole, side="right").astype(np.int64) - 1
        store, row = self.plan.locate(of, whole - self._starts[of])
        lane = np.tile(np.arange(self.cells_per_unit) >= size, len(at))
        number = np.repeat(np.arange(len(at), dtype=np.int64), self.cells_per_unit)
        return UnitDraw(of, store, row, number, lane, fills.ravel(), at // self.n_draws)

    def _cells(self, code: int, units: I64, rounds: I64, *, seed: int, order: Order) -> tuple[I64, Mask]:
        """Cells of units of one component, and their controls, by index over all components; and which fill up."""
        name, cut = self.names[code], self.cuts[code]

        def key(purpose: str) -> Any:
            return lambda *parts: derive_key(seed, f"{purpose} of {name}", self.plan.seeds.order, *parts)

        cells, fills = cut.cells(units, rounds, order=order, key=key("sets"))
        cells = cells + self._starts[code]
        if not self.controls:
            return cells, fills
        chosen = self.controls[code].cells(cut, self._before[code], units, rounds, order=order, key=key("controls"))
        return np.concatenate([cells, self.pool[chosen]], axis=1), fills

    def to_dict(self) -> dict[str, Any]:
        """Return what the plan says, as JSON values."""
        return {
            **self.plan.to_dict(),
            "hash": self.hash,
            "n_cells": self.n_cells,
            "n_draws": self.n_draws,
            "units": {**self.units.to_dict(), "counts": asdict(self.counts)},
        }

    def __str__(self) -> str:
        told = [f"{value:,} {name.replace('_', ' ')}" for name, value in asdict(self.counts).items() if value]
        return f"{self.units}\n{', '.join(told)}; {self.n_draws:,} units an epoch\nmade of:\n{self.plan}"


def plan_units(plan: Plan, units: Units) -> UnitPlan:
    """Return a plan of sets, pairs or chunks of the cells of a plan. Reads the columns of obs that `units` names.

    Raises
    ------
    ConfigError
        For a column that is not there.
    MixtureError
        When there is no unit, or no control, or none that matches and `unmatched` is "refuse"; and for a plan that
        says how often single cells are drawn (`balance`).
    """
    balanced = [part.name for part in plan.parts if part.turns is not None]
    if balanced:
        raise MixtureError(
            f"{UNITS_HELP}component {balanced[0]!r} has a `balance`, which says how often each single cell is drawn, "
            "and that cannot hold for cells in units; leave `balance` out, or `units`. To weigh classes of units, make "
            "each class a component with a `proportion` or `repeat`"
        )
    parts = [part.cells for part in plan.parts]
    everything = Cells(tuple(segment for cells in parts for segment in cells.segments))
    edges = np.cumsum([len(cells) for cells in parts])[:-1]
    keyed = _Keyed.of(everything, plan.stores, units)
    codes = [None] * len(parts) if keyed.codes is None else np.split(keyed.codes, edges)
    along = [None] * len(parts)
    if units.along is not None:
        numbers = cell_numbers(everything, plan.stores, units.along, needed_for=f"{UNITS_HELP}along")
        along = np.split(numbers, edges)  # type: ignore[assignment]
    made = [group_cells(c, len(cells), along=a) for c, cells, a in zip(codes, parts, along, strict=True)]
    cuts = tuple(Cut(groups, units.size, units.shuffled, units.short == "drop") for groups, _ in made)
    _check_any(plan, cuts, units)
    controls: tuple[Controls, ...] = ()
    if keyed.pool is not None:
        controls = tuple(Controls(keyed.pool, keyed.pool_of[found]) for _, found in made)
    found = UnitPlan(plan, units, cuts, controls, keyed.controls, _counts(cuts, keyed))
    found.check()
    return found


@dataclass
class _Keyed:
    """All cells of a plan by what they share.

    Attributes
    ----------
    codes : int64[n_cells] or None
        Group of each cell, -1 for controls and what is left out; None for all in one.
    controls : int64 array
        Index of each control, once.
    pool : Groups or None
        The controls by what they match.
    pool_of : int64[n_codes]
        Which of these groups the cells of each code get.
    """

    codes: I64 | None
    controls: I64
    pool: Groups | None = None
    pool_of: I64 = None  # type: ignore[assignment]
    without_value: Mask | None = None
    groups_unmatched: int = 0
    cells_unmatched: int = 0

    @classmethod
    def of(cls, cells: Cells, stores: Sequence[Store], units: Units) -> _Keyed:
        """Read the columns that units are made by, and decide who gets which controls."""
        codes, names = _joint_codes(cells, stores, units.by) if units.by else (None, [()])
        made = cls(codes, np.empty(0, dtype=np.int64))
        made.without_value = np.array([NO_VALUE in values for values in names])
        if units.control is not None:
            made.find_controls(cells, stores, units, names)
        return made

    def find_controls(
        self, cells: Cells, stores: Sequence[Store], units: Units, names: Sequence[tuple[str, ...]]
    ) -> None:
        """Set controls apart, and match them to groups."""
        is_control = _controls(cells, stores, str(units.control))
        codes = np.zeros(len(cells), dtype=np.int64) if self.codes is None else self.codes
        self.controls = _unique_cells(cells, np.flatnonzero(is_control))
        if not len(self.controls):
            raise MixtureError(
                f"{UNITS_HELP}no cell of the plan is a control: none meets {units.control!r}. Check the condition, and "
                "that the `where` of some component lets controls in"
            )
        chosen = [units.by.index(name) for name in units.match]
        matched = sorted({tuple(values[i] for i in chosen) for values in names})
        place = {values: i for i, values in enumerate(matched)}
        match_of = np.array([place[tuple(values[i] for i in chosen)] for values in names], dtype=np.int64)
        self.pool, found = group_cells(match_of[codes[self.controls]], len(self.controls))
        self.pool_of = np.full(len(matched), -1, dtype=np.int64)
        self.pool_of[found] = np.arange(len(found))
        self.pool_of = self.pool_of[match_of]
        self.codes = np.where(is_control, -1, codes)
        used, counts = np.unique(self.codes[self.codes >= 0], return_counts=True)
        lacking = self.pool_of[used] < 0
        if lacking.any():
            self._settle(units, used[lacking], int(counts[lacking].sum()), names)

    def _settle(self, units: Units, lacking: I64, n_cells: int, names: Sequence[tuple[str, ...]]) -> None:
        """Do with groups that no control matches what `unmatched` says."""
        if units.unmatched == "refuse":
            values = dict(zip(units.by, names[int(lacking[0])], strict=True))
            example = ", ".join(f"{name}={values[name]!r}" for name in units.match)
            raise MixtureError(
                f"{UNITS_HELP}{n_cells:,} cells ({len(lacking):,} groups) have no control that matches: none meets "
                f"{units.control!r} where {example}, for instance. Match fewer columns, or choose unmatched='any' or "
                "unmatched='drop'"
            )
        self.groups_unmatched, self.cells_unmatched = len(lacking), n_cells
        if units.unmatched == "drop":
            gone = np.zeros(len(names), dtype=bool)
            gone[lacking] = True
            assert self.codes is not None
            self.codes = np.where((self.codes >= 0) & gone[self.codes], -1, self.codes)
            return
        assert self.pool is not None
        assert self.pool.members is not None
        everyone = np.arange(len(self.controls), dtype=np.int64)
        starts = np.append(self.pool.starts, self.pool.starts[-1] + len(everyone))
        self.pool_of[lacking] = len(self.pool.sizes)
        self.pool = Groups(np.concatenate([self.pool.members, everyone]), starts)


def _joint_codes(cells: Cells, stores: Sequence[Store], columns: Sequence[str]) -> tuple[I64, list[tuple[str, ...]]]:
    """Return columns together as codes, int64[n_cells], and the values behind each code, sorted."""
    joint = np.zeros(len(cells), dtype=np.int64)
    names: list[tuple[str, ...]] = [()]
    for column in columns:
        codes, values = class_codes(cells, stores, column, needed_for=f"{UNITS_HELP}by or match")
        found, joint = np.unique(joint * len(values) + codes, return_inverse=True)
        joint = joint.astype(np.int64)
        names = [(*names[code // len(values)], values[code % len(values)]) for code in found.tolist()]
    return joint, names


def _controls(cells: Cells, stores: Sequence[Store], condition: str) -> Mask:
    """Return which cells meet a condition, bool[n_cells]."""
    chosen = {index: stores[index].select(condition) for index in {segment.store for segment in cells.segments}}
    return np.concatenate([np.isin(s.array, chosen[s.store], kind="sort") for s in cells.segments])


def _unique_cells(cells: Cells, index: I64) -> I64:
    """Return the indices without those of a cell that another component holds as well, ascending."""
    store, row = cells.take(index)
    _, first = np.unique(np.stack([store, row]), axis=1, return_index=True)
    return index[np.sort(first)]


def _unit_part(part: Part, n_units: int, plan: Plan) -> Part:
    """Return a component with units in the place of cells."""
    cells = Cells((Segment(0, range(n_units)),))
    n_extra = round(part.n_extra / len(part.cells) * n_units)
    ladder = np.empty(0, dtype=np.int64)
    if n_extra:
        every = np.arange(n_units, dtype=np.uint64)
        ladder = permute(every, n_units, derive_key(plan.seeds.data, f"units of {part.name}")).astype(np.int64)
    return Part(part.name, cells, part.copies, n_extra, ladder, part.share)


def _natural_draws(plan: Plan) -> int:
    return sum(len(part.cells) if plan.kind == "proportion" else part.n_slots for part in plan.parts)


def _check_any(plan: Plan, cuts: Sequence[Cut], units: Units) -> None:
    """Raise where nothing could be drawn."""
    empty = [part.name for part, cut in zip(plan.parts, cuts, strict=True) if not cut.n_units]
    if len(empty) == len(cuts) or (empty and plan.kind == "proportion"):
        largest = max((int(cut.groups.sizes.max(initial=0)) for cut in cuts), default=0)
        raise MixtureError(
            f"{UNITS_HELP}component {empty[0]!r} has no unit of {units.size} cells: the largest group of the plan has "
            f"{largest:,} cells that are no controls. Choose a smaller unit, or short='repeat', name fewer columns, or "
            "leave out a component that has controls alone"
        )


def _digest(array: I64) -> str:
    return hashlib.blake2b(np.ascontiguousarray(array, dtype="<i8").tobytes(), digest_size=16).hexdigest()


def _counts(cuts: Sequence[Cut], keyed: _Keyed) -> UnitCounts:
    sizes = np.concatenate([cut.groups.sizes for cut in cuts])
    size, drops = cuts[0].size, cuts[0].drops
    n_cells, n_units, rest = int(sizes.sum()), sum(cut.n_units for cut in cuts), sizes % size
    without = 0
    if keyed.codes is not None and keyed.without_value is not None and keyed.without_value.any():
        without = int(keyed.without_value[keyed.codes[keyed.codes >= 0]].sum())
    return UnitCounts(
        units=n_units,
        groups=len(sizes),
        cells=n_cells,
        small_groups=int((sizes < size).sum()),
        cells_filled_up=0 if drops else n_units * size - n_cells,
        cells_left_out=int(rest.sum()) if drops else 0,
        cells_without_value=without,
        controls=len(keyed.controls),
        groups_unmatched=keyed.groups_unmatched,
        cells_unmatched=keyed.cells_unmatched,
    )
