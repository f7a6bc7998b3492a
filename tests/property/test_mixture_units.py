"""Sets, pairs and chunks over imaginary stores: cells once per epoch, controls matched and even, rules as stated."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cellmill.errors import ConfigError
from cellmill.loader.schedule import Schedule
from cellmill.mixture import Blocked, Chunks, Exact, Pairs, Plan, Seeds, Sets, Stored, plan_cells, plan_units
from cellmill.mixture.cells import Cells, Segment
from cellmill.mixture.plan import Part

CONTROL = "target = 'ctrl'"


@dataclass(frozen=True, eq=False)
class Imaginary:
    """A store of labels alone; it understands one condition."""

    digest: str
    n_cells: int
    labels: dict[str, list[str | None]] = field(default_factory=dict)
    path: str = "imaginary.mill"

    @property
    def obs(self) -> SimpleNamespace:
        return SimpleNamespace(columns=list(self.labels))

    def column(self, name, rows):
        return pa.array(self.labels[name]).take(pa.array(rows))

    def select(self, where):
        assert where == CONTROL
        return np.flatnonzero([value == "ctrl" for value in self.labels["target"]]).astype(np.int64)

    def key(self, row, columns):
        return tuple(self.labels[name][row] for name in columns)


@st.composite
def plans(draw, *, kinds=("repeat",)):
    stores = []
    for number in range(draw(st.integers(1, 2))):
        n = draw(st.integers(4, 40))
        label = {
            "target": st.sampled_from(["ctrl", "ctrl", "A", "B", None]),
            "line": st.sampled_from(["x", "y"]),
            "batch": st.sampled_from(["1", "2", "3"]),
        }
        columns = {name: draw(st.lists(one, min_size=n, max_size=n)) for name, one in label.items()}
        stores.append(Imaginary(f"s{number}", n, columns))
    parts = []
    kind = draw(st.sampled_from(kinds))
    for number in range(draw(st.integers(1, 2))):
        segments = tuple(Segment.of(i, range(store.n_cells)) for i, store in enumerate(stores))
        copies = draw(st.integers(1, 2)) if kind == "repeat" else 1
        parts.append(Part(f"c{number}", Cells(segments), copies, share=0.5))
    if len(parts) == 1:
        parts[0] = Part("c0", parts[0].cells, parts[0].copies, share=1.0)
    n_draws = sum(p.n_slots for p in parts)
    return Plan("p", kind, tuple(stores), tuple(parts), n_draws, Seeds(order=draw(st.integers(0, 3))))


keys = st.sampled_from([(), ("target",), ("target", "batch"), ("target", "line", "batch")])
shorts = st.sampled_from(["repeat", "drop", "pad"])
orders = st.sampled_from([Exact(), Blocked(block_cells=4, window_blocks=3), Stored()])


def planned(plan, units):
    try:
        return plan_units(plan, units)
    except Exception as error:
        assume("no unit" not in str(error) and "no cell of the plan is a control" not in str(error))
        raise


@st.composite
def any_units(draw):
    kind = draw(st.sampled_from(["sets", "control", "pairs", "chunks"]))
    by, size, short = draw(keys), draw(st.integers(1, 7)), draw(shorts)
    if kind == "sets":
        return Sets(size, by=by, short=short)
    if kind == "control":
        match = [name for name in by if name != "target" and draw(st.booleans())]
        return Sets(
            size, by=by, short=short, control=CONTROL, match=match, unmatched=draw(st.sampled_from(["any", "drop"]))
        )
    if kind == "pairs":
        match = draw(st.sampled_from([(), ("batch",), ("line", "batch")]))
        return Pairs(CONTROL, match=match, unmatched=draw(st.sampled_from(["any", "drop"])))
    return Chunks(size, by=by, short=short)


def drawn(made, positions, **how):
    """Units as (component, cells, fills, controls), a cell being (store, row)."""
    got = made.draw(positions, **how)
    width, size = made.cells_per_unit, made.units.size
    cells = list(zip(got.store.tolist(), got.row.tolist(), strict=True))
    assert got.unit.tolist() == [i // width for i in range(len(cells))]
    assert got.is_control.tolist() == [i % width >= size for i in range(len(cells))]
    units = []
    for start in range(0, len(cells), width):
        targets = cells[start : start + size]
        fills = got.fills[start : start + size].tolist()
        assert len(set(got.component[start : start + size].tolist())) == 1
        assert not got.fills[start + size : start + width].any()
        units.append((int(got.component[start]), targets, fills, cells[start + size : start + width]))
    return units


def members(plan, made, code):
    """The groups of a component as they must be: key -> cells in stored order."""
    units, stores = made.units, plan.stores
    groups = defaultdict(list)
    every = list(
        zip(*(x.tolist() for x in plan.parts[code].cells.take(np.arange(len(plan.parts[code].cells)))), strict=True)
    )
    controls = {(s, r) for s, r in every if stores[s].labels["target"][r] == "ctrl"} if units.control else set()
    matches = {stores[s].key(r, units.match) for s, r in controls}
    for s, r in every:
        lost = units.control and units.unmatched == "drop" and stores[s].key(r, units.match) not in matches
        if (s, r) not in controls and not lost:
            groups[stores[s].key(r, units.by)].append((s, r))
    return groups


@given(plan=plans(), units=any_units(), seed=st.integers(0, 9), order=orders)
@settings(max_examples=80, deadline=None)
def test_each_cell_of_a_group_once_per_round_and_short_units_as_stated(plan, units, seed, order):
    made = planned(plan, units)
    size = units.size
    for epoch in (0, 2):
        units_of = defaultdict(list)
        for unit in drawn(made, np.arange(made.n_draws) + epoch * made.n_draws, seed=seed, order=order):
            store, row = unit[1][0]
            units_of[unit[0], plan.stores[store].key(row, units.by)].append(unit)
        expected = {
            (c, key)
            for c in range(len(plan.parts))
            for key, cells in members(plan, made, c).items()
            if units.short != "drop" or len(cells) >= size
        }
        assert units_of.keys() == expected
        for (code, key), got in units_of.items():
            cells, copies = members(plan, made, code)[key], plan.parts[code].copies
            own = Counter(
                cell for _, targets, fills, _ in got for cell, fill in zip(targets, fills, strict=True) if not fill
            )
            rest = len(cells) % size
            if units.short == "drop":
                assert len(got) == len(cells) // size * copies
                assert own.total() == (len(cells) - rest) * copies
                assert max(own.values()) <= copies
                assert own.keys() <= set(cells)
            else:
                assert len(got) == -(-len(cells) // size) * copies
                assert own == Counter(dict.fromkeys(cells, copies))
                assert sum(sum(fills) for _, _, fills, _ in got) == (size - rest) % size * copies
            for _, targets, _, _ in got:  # a unit is of one group, and repeats a cell only where it must
                assert set(targets) <= set(cells)
                counts = Counter(targets)
                assert max(counts.values()) <= -(-size // len(cells))


@given(plan=plans(kinds=("repeat", "proportion")), units=any_units(), data=st.data(), order=orders)
@settings(max_examples=60, deadline=None)
def test_a_unit_does_not_depend_on_what_else_is_drawn(plan, units, data, order):
    made = planned(plan, units)
    positions = np.array(data.draw(st.lists(st.integers(0, 150), min_size=1, max_size=9)))
    whole = drawn(made, np.arange(151), seed=1, order=order)
    assert drawn(made, positions, seed=1, order=order) == [whole[p] for p in positions]


@given(plan=plans(), units=any_units(), seed=st.integers(0, 9), order=orders)
@settings(max_examples=80, deadline=None)
def test_controls_match_and_are_used_alike(plan, units, seed, order):
    assume(units.control is not None)
    made = planned(plan, units)
    stores = plan.stores
    pool = defaultdict(set)
    for number, store in enumerate(stores):
        for row in store.select(CONTROL).tolist():
            pool[store.key(row, units.match)].add((number, row))
    everyone = set().union(*pool.values())
    used = defaultdict(Counter)
    for code, targets, _, controls in drawn(made, np.arange(made.n_draws), seed=seed, order=order):
        assert len(controls) == units.size
        key = stores[targets[0][0]].key(targets[0][1], units.match)
        allowed = pool.get(key, everyone)
        assert set(controls) <= allowed
        assert max(Counter(controls).values()) - min(Counter(controls)[c] for c in allowed) <= 1
        used[code, key if key in pool else None].update(controls)
    for (code, key), counts in used.items():
        times = [counts[cell] for cell in (everyone if key is None else pool[key])]
        assert max(times) - min(times) <= plan.parts[code].copies
    held = [c for c in range(len(plan.parts)) for _ in members(plan, made, c)]
    assert made.counts.groups == len(held)
    assert made.counts.controls == len(everyone)


@given(plan=plans(), units=any_units(), world=st.integers(1, 3), other=st.integers(1, 3), data=st.data())
@settings(max_examples=40, deadline=None)
def test_ranks_and_resumption_give_the_same_units(plan, units, world, other, data):
    made = planned(plan, units)
    batch = data.draw(st.integers(3, 9))
    try:
        before = [Schedule(made.n_draws, batch, "pad", rank, world) for rank in range(world)]
        after = [Schedule(made.n_draws, batch, "pad", rank, other) for rank in range(other)]
    except ConfigError:
        assume(False)
    k = data.draw(st.integers(0, before[0].steps_per_epoch - 1))
    start = before[0].step(k, start=0).after

    def step(ranks, index, start):
        return [unit for rank in ranks for unit in drawn(made, rank.step(index, start=start).positions, seed=4)]

    for index in range(3):
        assert step(before, k + 1 + index, 0) == step(after, index, start)


def test_sets_are_composed_anew_in_every_epoch_and_chunks_are_not():
    plan = plan_cells({"all": [(Imaginary("s", 96), range(96))]})
    for units, fixed in ((Sets(8), False), (Chunks(8), True)):
        made = plan_units(plan, units)
        first, second = ({frozenset(u[1]) for u in drawn(made, e * 12 + np.arange(12))} for e in (0, 1))
        assert (first == second) == fixed
        assert drawn(made, np.arange(12)) != drawn(made, 12 + np.arange(12))
        assert drawn(made, np.arange(12)) != drawn(made, np.arange(12), seed=1)


def test_control_sets_are_composed_anew_once_all_controls_were_used_alike():
    store = Imaginary("s", 96, {"target": ["ctrl" if row < 16 else "A" for row in range(96)]})
    made = plan_units(plan_cells({"all": [(store, range(96))]}), Sets(8, control=CONTROL))
    assert made.n_draws == 10  # five times through 16 controls, two sets each
    assert len({frozenset(unit[3]) for unit in drawn(made, np.arange(10))}) > 4


def test_chunks_are_neighbours_and_the_last_one_begins_earlier():
    plan = plan_cells({"all": [(Imaginary("s", 21), range(21))]})
    for short, marked in (("repeat", 3), ("pad", 3)):
        made = plan_units(plan, Chunks(8, short=short))
        rows = {tuple(row for _, row in cells): sum(fills) for _, cells, fills, _ in drawn(made, np.arange(3))}
        assert rows == {tuple(range(8)): 0, tuple(range(8, 16)): 0, tuple(range(13, 21)): marked}
    assert len(drawn(plan_units(plan, Chunks(8, short="drop")), np.arange(2))) == 2
    small = plan_units(plan_cells({"all": [(Imaginary("s", 3), range(3))]}), Chunks(8))
    assert [row for _, row in drawn(small, [0])[0][1]] == [0, 1, 2, 0, 1, 2, 0, 1]


def test_what_a_set_leaves_out_differs_from_epoch_to_epoch():
    made = plan_units(plan_cells({"all": [(Imaginary("s", 21), range(21))]}), Sets(8, short="drop"))
    seen = Counter(row for unit in drawn(made, np.arange(2 * 200)) for _, row in unit[1])
    assert made.counts.cells_left_out == 5
    assert set(seen) == set(range(21))
    assert max(seen.values()) < 200  # no cell is in every epoch


def test_shares_hold_for_units():
    store = Imaginary("s", 400)
    parts = tuple(
        Part(name, Cells((Segment.of(0, rows),)), share=share)
        for name, rows, share in (("a", range(300), 0.75), ("b", range(300, 400), 0.25))
    )
    made = plan_units(Plan("p", "proportion", (store,), parts, 400), Sets(10))
    codes = [unit[0] for unit in drawn(made, np.arange(80))]
    assert made.n_draws == 40
    assert all(Counter(codes[i : i + 8]) == {0: 6, 1: 2} for i in range(0, 80, 8))
    fewer = plan_units(Plan("p", "proportion", (store,), parts, 100), Sets(10))
    assert fewer.n_draws == 10  # a budget of 100 cells


def test_a_fraction_of_a_repeat_is_of_units():
    store = Imaginary("s", 100)
    cells = Cells((Segment.of(0, range(100)),))
    plan = Plan("p", "repeat", (store,), (Part("a", cells, 2, 50, np.arange(100)),), 250)
    made = plan_units(plan, Sets(10))
    assert made.n_draws == 25
    for epochs in (1, 2):
        seen = Counter(row for unit in drawn(made, np.arange(25 * epochs)) for _, row in unit[1])
        assert seen.total() == 250 * epochs
        if epochs == 1:
            assert set(seen.values()) == {2, 3}
        else:
            assert set(seen.values()) <= {4, 5, 6}


def test_a_billion_imaginary_cells_cost_nothing():
    began = time.process_time()  # another process may slow this one down
    plan = plan_cells({"all": [(Imaginary("s", 10**9), range(10**9))]})
    for units in (Sets(128), Chunks(64), Sets(512, short="drop")):
        made = plan_units(plan, units)
        got = made.draw(np.arange(7 * made.n_draws, 7 * made.n_draws + 32), seed=3)
        assert len(np.unique(got.row)) == 32 * units.size
        assert (got.epoch == 7).all()
        assert made.hash
    assert time.process_time() - began < 2
