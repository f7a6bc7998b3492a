"""What a mixture will train on, decided and frozen (floor 4, mixture): (plan, seed, position) -> cell.

Knows row ids, quotas and keys. Knows no counts, no bytes of cells, no torch.
"""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cellmill.errors import InputError, MixtureError
from cellmill.kernel import derive_key
from cellmill.mixture.balance import Grouped, Weighted
from cellmill.mixture.cells import Cells, Segment
from cellmill.mixture.config import Kind, Seeds
from cellmill.mixture.order import Exact, Order, by_group
from cellmill.mixture.quotas import Pattern, quota_pattern
from cellmill.mixture.sets import Units
from cellmill.mixture.table import PlanRow, plan_text
from cellmill.store import Store

__all__ = ["Part", "Plan", "PlanRow", "checked_positions", "plan_cells"]

I64 = npt.NDArray[np.int64]
PLAN_FORMAT = 2


@dataclass(frozen=True)
class Part:
    """One component of a plan.

    Attributes
    ----------
    name : str
    cells : Cells
        Its unique cells.
    copies : int
        How often an epoch holds each of them (kinds "repeat" and "choose").
    n_extra : int
        How many of its cells an epoch holds once more: the fraction of a `repeat`, such as 0.5 of 2.5.
    ladder : int64 array
        All cells by index, in the order in which they are held once more; empty where `n_extra` is 0. Pass p takes the
        places p * n_extra to (p + 1) * n_extra - 1, around: no cell comes again before all others had their turn.
    share : float
        Share of the draws (kind "proportion").
    turns : Grouped, Weighted or None
        How the cells take turns where not all are drawn alike; then `copies`, `n_extra` and `ladder` do not count.
    """

    name: str
    cells: Cells
    copies: int = 1
    n_extra: int = 0
    ladder: I64 = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    share: float = 0.0
    turns: Grouped | Weighted | None = None

    @property
    def n_slots(self) -> int:
        """Draws in one pass: cells times copies, and the extra ones; or what `turns` say."""
        if self.turns is not None:
            return self.turns.n_slots
        return len(self.cells) * self.copies + self.n_extra

    def cells_at(self, slots: I64, number: I64) -> I64:
        """Return the index of the cell in each slot of a pass, int64[k]; `number` is the pass of each."""
        if self.turns is not None:
            return self.turns.cells_at(slots, number)
        if self.copies == 1 and not self.n_extra:
            return slots
        cells = slots % len(self.cells)
        whole = self.copies * len(self.cells)
        extra = slots >= whole
        cells[extra] = self.ladder[(number[extra] * self.n_extra + slots[extra] - whole) % len(self.cells)]
        return cells

    def rounds_at(self, slots: I64, number: I64) -> I64:
        """Return which round over all cells each slot of a pass is in, int64[k]: even, or odd for those once more."""
        n, whole = len(self.cells), self.copies * len(self.cells)
        once_more = 2 * ((number * self.n_extra + slots - whole) // n) + 1
        rounds: I64 = np.where(slots < whole, 2 * (number * self.copies + slots // n), once_more)
        return rounds


@dataclass(frozen=True)
class Plan:
    """A mixture, decided. Order and content of training follow from it, a seed and a position.

    Attributes
    ----------
    name : str
    kind : str
        "repeat", "choose" or "proportion".
    stores : tuple of Store
    parts : tuple of Part
    n_draws : int
        Cells presented in one epoch.
    seeds : Seeds
    table : tuple of PlanRow
        One row for each component.
    warnings : tuple of str
        What a reader should know before training.
    exclusions : tuple of dict
        Evaluation sets: their paths, digests and rules, and as what they are protected.
    common_genes : float or None
        Share of the genes of all stores that every source of the cells measured, where that is known.
    units : Sets, Pairs, Chunks or None
        What the mixture says is drawn in the place of cells. Positions of this plan count cells all the same; a
        `Loader`, or `plan_units(plan, plan.units)`, makes the plan of the units.
    """

    name: str
    kind: Kind
    stores: tuple[Store, ...]
    parts: tuple[Part, ...]
    n_draws: int
    seeds: Seeds = field(default_factory=Seeds)
    table: tuple[PlanRow, ...] = ()
    warnings: tuple[str, ...] = ()
    exclusions: tuple[dict[str, Any], ...] = ()
    common_genes: float | None = None
    units: Units | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the components; `component` codes count into it."""
        return tuple(part.name for part in self.parts)

    @property
    def n_cells(self) -> int:
        """Unique cells of all components (a cell that two components hold counts twice)."""
        return sum(len(part.cells) for part in self.parts)

    @cached_property
    def hash(self) -> str:
        """Hash of everything that decides which cell comes where: digests, row ids, amounts, order seed; not paths.

        Data and split seeds count by the row ids that they chose.
        """
        digests = [store.digest for store in self.stores]
        said = {
            "format": PLAN_FORMAT,
            "kind": self.kind,
            "n_draws": self.n_draws,
            "order_seed": self.seeds.order,
            "parts": [
                {
                    "name": part.name,
                    "cells": part.cells.digest(digests),
                    "copies": part.copies,
                    "n_extra": part.n_extra,
                    "ladder": hashlib.blake2b(part.ladder.astype("<i8").tobytes(), digest_size=16).hexdigest(),
                    "share": repr(part.share),
                    **({} if part.turns is None else {"turns": part.turns.digest()}),
                }
                for part in self.parts
            ],
        }
        return hashlib.blake2b(json.dumps(said, sort_keys=True).encode(), digest_size=16).hexdigest()

    @cached_property
    def pattern(self) -> Pattern:
        """Which component each draw falls to (kind "proportion")."""
        return quota_pattern(tuple(part.share for part in self.parts))

    @cached_property
    def slot_starts(self) -> I64:
        """First slot of each component, and the number of slots of a pass; int64[n_components + 1]."""
        return np.concatenate([[0], np.cumsum([part.n_slots for part in self.parts])]).astype(np.int64)

    def rows(self, store: int = 0) -> I64:
        """Return the row ids of all cells of the plan in one store, int64, ascending, each once."""
        return np.unique(np.concatenate([part.cells.rows(store) for part in self.parts]))

    def draw(self, positions: npt.ArrayLike, *, seed: int = 0, order: Order | None = None) -> tuple[I64, I64, I64, I64]:
        """Return the cells at positions of the run: a pure function, any positions in any order.

        Parameters
        ----------
        positions : int array, shape (k,)
            Draws, counted over epochs: epoch e is the positions e * n_draws to (e + 1) * n_draws - 1.
        seed
            The run's seed for the order; the plan's own order seed counts as well.
        order
            `Exact()` when None.

        Returns
        -------
        component, store, row, epoch : int64[k] each
            Codes into `names` and `stores`, row id in that store, number of the epoch.

        Raises
        ------
        InputError
            For a negative position.
        """
        at = checked_positions(positions)
        component, slot, number = self._slots(at, seed, order or Exact())
        if len(self.parts) == 1:  # most runs, and their every batch waits for this
            only = self.parts[0]
            return component, *only.cells.take(only.cells_at(slot, number)), at // self.n_draws
        index = slot.copy()
        for code, part in enumerate(self.parts):
            here = component == code
            index[here] = part.cells_at(slot[here], number[here])
        store, row = self.locate(component, index)
        return component, store, row, at // self.n_draws

    def rounds(self, positions: I64, *, seed: int, order: Order) -> tuple[I64, I64, I64]:
        """Return what is drawn by index, and which round of its component a draw belongs to; int64[k] each.

        For parts without `turns`: all of a component is drawn once in a round before the next one begins, and of the
        fraction of a `repeat` likewise, in rounds of its own (odd numbers).

        Returns
        -------
        component, index, round : int64[k] each
            Code into `names`, index into the cells of the part, number of the round, not negative.
        """
        component, slot, number = self._slots(positions, seed, order)
        index, turn = slot.copy(), number.copy()
        for code, part in enumerate(self.parts):
            here = component == code
            index[here] = part.cells_at(slot[here], number[here])
            turn[here] = part.rounds_at(slot[here], number[here])
        return component, index, turn

    def _slots(self, at: I64, seed: int, order: Order) -> tuple[I64, I64, I64]:
        """Component, slot of the component's pass, and number of that pass, of each draw."""
        return (self._by_share if self.kind == "proportion" else self._by_slot)(at, seed, order)

    def _by_slot(self, at: I64, seed: int, order: Order) -> tuple[I64, I64, I64]:
        """Where each draw falls when one keyed bijection runs over all slots of a pass."""
        n_slots = int(self.slot_starts[-1])

        def one_pass(inside: I64, number: int) -> I64:
            return order.index(inside, n_slots, derive_key(seed, "order", self.seeds.order, number))

        number, inside = np.divmod(at, n_slots)
        slot = by_group(number, inside, one_pass)
        if len(self.parts) == 1:
            return np.zeros(len(slot), dtype=np.int64), slot, number
        component = np.searchsorted(self.slot_starts, slot, side="right").astype(np.int64) - 1
        return component, slot - self.slot_starts[component], number

    def _by_share(self, at: I64, seed: int, order: Order) -> tuple[I64, I64, I64]:
        """Where each draw falls when quotas decide: component c's k-th is order_c(k div n_c)[k mod n_c]."""
        component, draw = self.pattern.at(at)
        slot = np.empty(len(at), dtype=np.int64)
        passes = np.empty(len(at), dtype=np.int64)
        for code, part in enumerate(self.parts):
            here = component == code
            n = part.n_slots
            number, inside = np.divmod(draw[here], n)

            def one_pass(places: I64, number: int, n: int = n, name: str = part.name) -> I64:
                return order.index(places, n, derive_key(seed, f"order of {name}", self.seeds.order, number))

            slot[here], passes[here] = by_group(number, inside, one_pass), number
        return component, slot, passes

    def locate(self, component: I64, index: I64) -> tuple[I64, I64]:
        """Return store and row id of cells that are known by component and index; int64[k] each."""
        if len(self.parts) == 1:
            return self.parts[0].cells.take(index)
        store = np.empty(len(index), dtype=np.int64)
        row = np.empty(len(index), dtype=np.int64)
        for code, part in enumerate(self.parts):
            here = component == code
            store[here], row[here] = part.cells.take(index[here])
        return store, row

    # ---- telling ----------------------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """Return what the plan says, as JSON values."""
        return {
            "name": self.name,
            "hash": self.hash,
            "kind": self.kind,
            "n_cells": self.n_cells,
            "n_draws": self.n_draws,
            "seeds": asdict(self.seeds),
            "stores": [{"path": str(getattr(s, "path", "")), "digest": s.digest} for s in self.stores],
            "components": [row.to_dict() for row in self.table],
            "exclusions": list(self.exclusions),
            "common_genes": self.common_genes,
            "warnings": list(self.warnings),
        }

    def to_json(self) -> str:
        """Return what the plan says as a JSON text."""
        return json.dumps(self.to_dict(), indent=2)

    def figure(self, path: str | Path) -> None:
        """Write the plan as a figure (PNG): shares, how often cells come, and what was left out (extra `report`)."""
        figure = importlib.import_module("cellmill.mixture.figure")  # with matplotlib, which is optional
        Path(path).write_bytes(figure.draw_plan(self.name, self.table))

    def __str__(self) -> str:
        return plan_text(
            self.name, self.kind, self.table, n_draws=self.n_draws, digest=self.hash, warnings=self.warnings
        )


def checked_positions(positions: npt.ArrayLike) -> I64:
    """Return positions of a run, int64[k]; InputError for a negative one."""
    at = np.atleast_1d(np.asarray(positions)).astype(np.int64)
    if len(at) and int(at.min()) < 0:
        raise InputError(f"positions count from 0, found {int(at.min())}")
    return at


def plan_cells(rows: Mapping[str, Sequence[tuple[Store, npt.ArrayLike | range]]], *, name: str = "") -> Plan:
    """Return a plan over given rows: each cell once per epoch. For those who select cells by other means.

    Parameters
    ----------
    rows
        For each component its (store, row ids) pairs; row ids are sorted and must be unique.
        A boolean mask is no list of row ids: give ``np.flatnonzero(mask)``.

    Raises
    ------
    MixtureError
        When there is no cell, a row id comes twice, or is none of the store's.

    Examples
    --------
    >>> plan = plan_cells({"train": [(store, store.select("split = 1"))]})  # doctest: +SKIP
    """
    stores: list[Store] = []
    parts = []
    for component, pairs in rows.items():
        segments = []
        for store, ids in pairs:
            known = next((i for i, other in enumerate(stores) if other is store), None)
            if known is None:
                stores.append(store)
            unique = _unique_rows(ids, store, component)
            if len(unique):
                segments.append(Segment.of(len(stores) - 1 if known is None else known, unique))
        _check_once(segments, component)
        parts.append(Part(component, Cells(tuple(segments))))
    empty = [part.name for part in parts if not len(part.cells)]
    if empty or not parts:
        raise MixtureError(f"no cell in {', '.join(map(repr, empty)) or 'any component'}")
    n_draws = sum(part.n_slots for part in parts)
    table = tuple(
        PlanRow(
            name=part.name,
            split="",
            cells=len(part.cells),
            draws=part.n_slots,
            effective_epochs=1.0,
            share_wanted=part.n_slots / n_draws,
            share_obtained=part.n_slots / n_draws,
        )
        for part in parts
    )
    return Plan(name, "repeat", tuple(stores), tuple(parts), n_draws, table=table)


def _check_once(segments: Sequence[Segment], component: str) -> None:
    """Refuse segments of one store that share a row."""
    for i, one in enumerate(segments):
        for other in (s for s in segments[i + 1 :] if s.store == one.store):
            apart = one.rows[-1] < other.rows[0] or other.rows[-1] < one.rows[0]
            if not apart and len(np.intersect1d(one.array, other.array, assume_unique=True)):
                raise MixtureError(f"component {component!r}: a row id comes twice; use `repeat` to draw cells again")


def _unique_rows(ids: npt.ArrayLike | range, store: Store, component: str) -> range | I64:
    """Return row ids ascending, each of them a row of the store."""
    if isinstance(ids, range) and ids.step == 1:
        unique: range | I64 = ids
    else:
        given = np.asarray(ids)
        if given.ndim != 1 or (len(given) and given.dtype.kind not in "iu"):
            raise MixtureError(
                f"component {component!r}: expected row ids, found {given.dtype} of shape {given.shape}; "
                "of a mask, give np.flatnonzero(mask)"
            )
        unique = np.unique(given.astype(np.int64))
        if len(unique) != len(given):
            raise MixtureError(f"component {component!r}: a row id comes twice; use `repeat` to draw cells again")
    if len(unique) and not 0 <= int(unique[0]) <= int(unique[-1]) < store.n_cells:
        raise MixtureError(
            f"component {component!r}: row ids of {store.path} lie in 0..{store.n_cells - 1}, "
            f"found {int(unique[0])}..{int(unique[-1])}"
        )
    return unique
