"""The order of training: a keyed bijection, whatever its size, and far beyond memory."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellmill.errors import ConfigError
from cellmill.mixture import Blocked, Exact, Stored, choose_order

orders = st.one_of(
    st.just(Exact()),
    st.just(Stored()),
    st.builds(Blocked, block_cells=st.integers(1, 17), window_blocks=st.integers(1, 9)),
)


@given(order=orders, n=st.integers(1, 700), key=st.integers(0, 2**64 - 1))
@settings(max_examples=150, deadline=None)
def test_every_index_once(order, n, key):
    image = order.index(np.arange(n, dtype=np.int64), n, key)
    assert image.dtype == np.int64
    assert np.array_equal(np.sort(image), np.arange(n))


@given(order=orders, n=st.integers(2, 700), key=st.integers(0, 2**64 - 1), data=st.data())
@settings(max_examples=80, deadline=None)
def test_a_position_does_not_depend_on_what_else_is_asked(order, n, key, data):
    positions = np.array(data.draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=20)), dtype=np.int64)
    whole = order.index(np.arange(n, dtype=np.int64), n, key)
    assert np.array_equal(order.index(positions, n, key), whole[positions])


@pytest.mark.parametrize("order", [Exact(), Blocked()])
def test_a_billion_cells_in_no_time(order):
    n = 10**9 + 7
    positions = np.arange(n - 20_000, n, dtype=np.int64)
    image = order.index(positions, n, 3)
    assert image.min() >= 0
    assert image.max() < n
    assert len(np.unique(image)) == len(image)


def test_keys_give_unrelated_orders():
    n = 5_000
    at = np.arange(n, dtype=np.int64)
    for order in (Exact(), Blocked(block_cells=8, window_blocks=64)):
        one, other = order.index(at, n, 1), order.index(at, n, 2)
        assert abs(np.corrcoef(one, other)[0, 1]) < 0.1
        assert (one == other).mean() < 0.01


def test_blocks_are_read_together_and_mixed_within_their_window():
    order = Blocked(block_cells=16, window_blocks=32)
    n = 16 * 32 * 20
    image = order.index(np.arange(n, dtype=np.int64), n, 5)
    window = image[: 16 * 32]
    assert len(np.unique(window)) == 16 * 32
    runs = np.flatnonzero(np.diff(np.sort(window)) > 1)
    assert len(runs) <= 34  # at most 32 runs of neighbours (and the one that the rotation cuts in two)
    assert np.abs(np.diff(window)).mean() > 100  # neighbours in the order are no neighbours in the store


def test_windows_are_mixed_each_in_its_own_way():
    order = Blocked(block_cells=64, window_blocks=1)  # one block a window: its offsets show the mixing alone
    inner = order.index(np.arange(640, dtype=np.int64), 640, 5).reshape(10, 64)
    offsets = (inner - inner.min(axis=1, keepdims=True))[(np.ptp(inner, axis=1) == 63)]
    assert len(offsets) >= 9
    assert len({tuple(row) for row in offsets.tolist()}) == len(offsets)


def test_blocked_windows_hold_sixteen_blocks_for_each_cell_of_a_batch():
    assert choose_order("blocked", batch_size=100) == Blocked(block_cells=64, window_blocks=1600)


def test_an_unknown_order_names_the_nearest():
    with pytest.raises(ConfigError, match="Did you mean 'blocked'"):
        choose_order("bloked", batch_size=1)


def test_the_borders_of_blocks_lie_elsewhere_under_another_key():
    order, n = Blocked(block_cells=16, window_blocks=1), 160
    borders = set()
    for key in range(12):
        runs = np.sort(order.index(np.arange(n, dtype=np.int64), n, key).reshape(10, 16), axis=1)
        whole = runs[np.ptp(runs, axis=1) == 15]
        assert len(set((whole[:, 0] % 16).tolist())) == 1
        borders.add(int(whole[0, 0] % 16))
    assert len(borders) > 3
