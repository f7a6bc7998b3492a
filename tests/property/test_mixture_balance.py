"""Balanced components: every pass holds what was promised, no cell runs ahead, any draw is known alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellmill.errors import MixtureError
from cellmill.mixture.balance import Grouped, Weighted, capped_weights, class_draws, even_quotas

sizes = st.lists(st.integers(1, 300), min_size=1, max_size=12)


@given(sizes=sizes, total=st.integers(1, 4000), temperature=st.sampled_from([1.0, 1.5, 2.0, float("inf")]))
@settings(max_examples=200, deadline=None)
def test_draws_add_up_and_are_near_their_shares(sizes, total, temperature):
    draws = class_draws(sizes, total, temperature=temperature)
    n = np.array(sizes, dtype=float) ** (1 / temperature)
    assert sum(draws) == total
    if total >= len(sizes):
        assert min(draws) >= 1
    if (n / n.sum() * total).min() >= 1:
        assert np.abs(np.array(draws) - n / n.sum() * total).max() < 1 + 1e-6


@given(sizes=sizes, repeat=st.floats(1, 6), most=st.integers(1, 6), floor=st.floats(0, 1))
@settings(max_examples=200, deadline=None)
def test_caps_hold_exactly_and_what_they_cut_goes_to_the_others(sizes, repeat, most, floor):
    total, floor = round(sum(sizes) * min(repeat, most)), floor / len(sizes)
    draws = np.array(class_draws(sizes, total, temperature=float("inf"), max_repeat=most, floor=floor))
    assert draws.sum() == total
    assert (draws <= np.array(sizes) * most).all()
    full = draws >= np.array(sizes) * most
    if (~full).sum() > 1:  # the others have the same
        assert draws[~full].max() - draws[~full].min() <= 1


def test_floors_raise_small_classes_and_take_it_from_the_large():
    draws = class_draws([1000, 10, 1], 10_000, floor=0.05)
    assert draws == [9000, 500, 500]
    with pytest.raises(MixtureError, match="more than all"):
        class_draws([1, 1, 1], 10, floor=0.4)
    with pytest.raises(MixtureError, match="allows 20 draws of 10 cells"):
        class_draws([6, 4], 21, max_repeat=2)


def test_a_class_of_weight_zero_is_never_drawn_whatever_else_is_asked():
    assert class_draws([200, 100], 150, weights=[0.0, 1.0]) == [0, 150]
    assert class_draws([200, 100, 5], 200, weights=[0.0, 1.0, 0.001], floor=0.1) == [0, 180, 20]
    with pytest.raises(MixtureError, match="allows 200 draws of 100 cells"):
        class_draws([200, 100], 300, weights=[0.0, 1.0], max_repeat=2)


@given(sizes=st.lists(st.integers(1, 40), min_size=1, max_size=6), data=st.data())
@settings(max_examples=100, deadline=None)
def test_classes_take_turns_so_that_no_cell_is_two_ahead(sizes, data):
    draws = [data.draw(st.integers(0, 3 * size)) for size in sizes]
    draws[0] = max(1, draws[0])
    members = np.random.default_rng(0).permutation(sum(sizes)).astype(np.int64)
    starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    turns = Grouped(members, starts, np.array(draws, dtype=np.int64))
    seen = np.zeros(sum(sizes), dtype=int)
    for number in range(5):
        slots = np.arange(turns.n_slots)
        drawn = turns.cells_at(slots, np.full(turns.n_slots, number))
        seen += np.bincount(drawn, minlength=len(seen))
        for c, n in enumerate(draws):
            own = members[starts[c] : starts[c + 1]]
            assert np.isin(drawn, own).sum() == n
            assert np.ptp(seen[own]) <= 1
        some = slots[::3]
        assert np.array_equal(turns.cells_at(some, np.full(len(some), number)), drawn[some])


@given(weights=st.lists(st.floats(0, 10), min_size=2, max_size=40), total=st.integers(1, 200), seed=st.integers(0, 9))
@settings(max_examples=200, deadline=None)
def test_weights_are_held_to_less_than_one_draw_in_each_pass(weights, total, seed):
    w = np.array(weights)
    if w.sum() < 0.1:
        return
    turns = Weighted(np.concatenate([[0.0], np.cumsum(w)]), total, seed)
    for number in (0, 1, 7):
        slots = np.arange(total)
        drawn = turns.cells_at(slots, np.full(total, number))
        seen = np.bincount(drawn, minlength=len(w))
        assert np.abs(seen - w / w.sum() * total).max() < 1 + 1e-6
        assert (seen[w == 0] == 0).all()
        alone = [int(turns.cells_at(np.array([i]), np.array([number]))[0]) for i in slots[:20].tolist()]
        assert alone == drawn[:20].tolist()


def test_over_many_passes_each_cell_comes_as_often_as_its_weight_says():
    w = np.array([0.2, 1.0, 2.3, 0.05])
    turns = Weighted(np.concatenate([[0.0], np.cumsum(w)]), 5, 3)
    n = 4000
    drawn = turns.cells_at(np.tile(np.arange(5), n), np.repeat(np.arange(n), 5))
    assert np.bincount(drawn, minlength=4) / (5 * n) == pytest.approx(w / w.sum(), abs=0.01)


def test_capped_weights_bound_the_repeats():
    w = np.array([100.0, 1.0, 1.0, 0.0, 1.0])
    capped = capped_weights(w, 8, max_repeat=3)
    assert (capped / capped.sum() * 8).max() == pytest.approx(3)
    assert capped[3] == 0
    with pytest.raises(MixtureError, match="allows 4 draws of 4 cells"):
        capped_weights(w, 8, max_repeat=1)


@given(sizes=st.lists(st.integers(1, 30), min_size=1, max_size=7))
@settings(max_examples=60, deadline=None)
def test_even_quotas_are_even_complete_and_nested(sizes):
    before = [0] * len(sizes)
    for total in range(sum(sizes) + 1):
        quotas = even_quotas(sizes, total)
        assert sum(quotas) == total
        assert all(q <= n for q, n in zip(quotas, sizes, strict=True))
        assert all(q >= b for q, b in zip(quotas, before, strict=True))
        open_ones = [q for q, n in zip(quotas, sizes, strict=True) if q < n]
        assert not open_ones or max(quotas) - min(open_ones) <= 1
        before = quotas
    with pytest.raises(MixtureError):
        even_quotas(sizes, sum(sizes) + 1)
