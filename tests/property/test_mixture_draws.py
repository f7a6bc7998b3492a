"""Plans over imaginary stores: exactly once per epoch, any position on its own, a billion cells in a moment."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from cellmill.mixture import Blocked, Exact, Plan, Seeds, plan_cells
from cellmill.mixture.cells import Cells, Segment
from cellmill.mixture.plan import Part


@dataclass(frozen=True)
class Imaginary:
    digest: str = "d"
    path: str = "imaginary.mill"
    n_cells: int = 500


STORES = (Imaginary("a"), Imaginary("b"))


def segments(draw: st.DrawFn) -> tuple[Segment, ...]:
    made = []
    for store in draw(st.sampled_from([(0,), (1,), (0, 1)])):
        if draw(st.booleans()):
            start = draw(st.integers(0, 50))
            made.append(Segment.of(store, range(start, start + draw(st.integers(1, 60)))))
        else:
            rows = sorted(draw(st.sets(st.integers(0, 200), min_size=1, max_size=40)))
            made.append(Segment.of(store, np.array(rows, dtype=np.int64)))
    return tuple(made)


@st.composite
def plans(draw: st.DrawFn, *, kind: str) -> Plan:
    parts = []
    k = draw(st.integers(1, 4))
    weights = draw(st.lists(st.integers(1, 9), min_size=k, max_size=k))
    for i in range(k):
        cells = Cells(segments(draw))
        copies = draw(st.integers(0, 3)) if kind == "repeat" else 1
        n_extra = draw(st.integers(0 if copies else 1, len(cells))) if kind == "repeat" else 0
        ladder = np.random.default_rng(i).permutation(len(cells)).astype(np.int64)
        parts.append(Part(f"c{i}", cells, copies, n_extra, ladder, weights[i] / sum(weights)))
    natural = sum(p.n_slots for p in parts)
    n_draws = draw(st.sampled_from([natural, natural, max(1, natural // 3), natural * 2 + 1]))
    return Plan("p", kind, STORES, tuple(parts), n_draws, Seeds(order=draw(st.integers(0, 9))))


orders = st.sampled_from([Exact(), Blocked(block_cells=4, window_blocks=3)])


@given(plan=plans(kind="repeat"), seed=st.integers(0, 99), order=orders)
@settings(max_examples=80, deadline=None)
def test_every_cell_exactly_as_often_as_promised_in_each_pass(plan, seed, order):
    n_slots = int(plan.slot_starts[-1])
    for number in (0, 3):
        component, store, row, epoch = plan.draw(np.arange(n_slots) + number * n_slots, seed=seed, order=order)
        assert np.array_equal(epoch, (np.arange(n_slots) + number * n_slots) // plan.n_draws)
        for code, part in enumerate(plan.parts):
            here = component == code
            drawn = sorted(zip(store[here].tolist(), row[here].tolist(), strict=True))
            all_cells = np.arange(len(part.cells))
            turn = (number * part.n_extra + np.arange(part.n_extra)) % len(part.cells)
            promised = np.concatenate([np.repeat(all_cells, part.copies), part.ladder[turn]])
            expected = sorted(zip(*(x.tolist() for x in part.cells.take(promised)), strict=True))
            assert drawn == expected


@given(plan=plans(kind="proportion"), seed=st.integers(0, 99), order=orders)
@settings(max_examples=80, deadline=None)
def test_each_pass_of_a_component_draws_each_of_its_cells_once(plan, seed, order):
    positions = np.arange(4 * plan.pattern.period + 50 * len(plan.parts))
    component, store, row, _ = plan.draw(positions, seed=seed, order=order)
    for code, part in enumerate(plan.parts):
        here = component == code
        cells = list(zip(store[here].tolist(), row[here].tolist(), strict=True))
        n = len(part.cells)
        expected = set(zip(*(x.tolist() for x in part.cells.take(np.arange(n))), strict=True))
        for start in range(0, len(cells) - n + 1, n):
            assert set(cells[start : start + n]) == expected


@given(kind=st.sampled_from(["repeat", "proportion"]), data=st.data())
@settings(max_examples=60, deadline=None)
def test_a_draw_does_not_depend_on_what_else_is_drawn(kind, data):
    plan = data.draw(plans(kind=kind))
    order = data.draw(orders)
    positions = np.array(data.draw(st.lists(st.integers(0, 400), min_size=1, max_size=12)))
    whole = plan.draw(np.arange(401), seed=1, order=order)
    for alone, together in zip(plan.draw(positions, seed=1, order=order), whole, strict=True):
        assert np.array_equal(alone, together[positions])


def test_epochs_and_seeds_give_other_orders():
    plan = plan_cells({"all": [(Imaginary(), range(500))]})
    one = plan.draw(np.arange(500), seed=0)[2]
    assert not np.array_equal(one, plan.draw(np.arange(500, 1000), seed=0)[2])
    assert not np.array_equal(one, plan.draw(np.arange(500), seed=1)[2])
    assert np.array_equal(one, plan.draw(np.arange(500), seed=0)[2])


def test_a_billion_imaginary_cells_take_no_memory_and_no_time():
    began = time.process_time()  # another process may slow this one down
    parts = (
        Part("a", Cells((Segment.of(0, range(10**9)),)), share=0.75),
        Part("b", Cells((Segment.of(1, range(3 * 10**8)),)), share=0.25),
    )
    for kind in ("repeat", "proportion"):
        plan = Plan("big", kind, STORES, parts, 10**9)
        component, store, row, epoch = plan.draw(np.arange(7 * 10**9, 7 * 10**9 + 512), seed=3)
        assert (epoch == 7).all()
        assert len(set(zip(store.tolist(), row.tolist(), strict=True))) == 512
        if kind == "proportion":
            assert (component == 0).sum() == 384
        assert plan.hash
    assert time.process_time() - began < 2
