"""Quotas: every prefix holds the promised shares to within a cell, and the k-th draw is known in closed form."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellmill.errors import MixtureError
from cellmill.mixture.quotas import MAX_PERIOD, _assign, _assign_many, largest_remainder, quota_pattern

weights = st.lists(st.integers(1, 60), min_size=1, max_size=12)


@given(weights=weights)
@settings(max_examples=120, deadline=None)
def test_every_prefix_is_within_one_cell_of_its_share(weights):
    pattern = quota_pattern(tuple(w / sum(weights) for w in weights))
    drawn = np.arange(1, pattern.period + 1)
    for i, weight in enumerate(weights):
        count = np.cumsum(pattern.component == i)
        assert np.abs(count - drawn * weight / sum(weights)).max() < 1
        assert pattern.quota[i] * sum(weights) == weight * pattern.period


@given(weights=weights, start=st.integers(0, 10**15), n=st.integers(1, 50))
@settings(max_examples=80, deadline=None)
def test_the_number_of_a_draw_counts_the_draws_before_it(weights, start, n):
    pattern = quota_pattern(tuple(w / sum(weights) for w in weights))
    component, draw = pattern.at(np.arange(start, start + n))
    before = pattern.counts(start)
    for c, k in zip(component, draw, strict=True):
        assert k == before[c]
        before[c] += 1
    assert np.array_equal(before, pattern.counts(start + n))


@given(quota=st.lists(st.integers(1, 30), min_size=2, max_size=40))
@settings(max_examples=60, deadline=None)
def test_many_components_are_laid_out_as_few_are(quota):
    assert _assign_many(np.array(quota), sum(quota)) == _assign(quota, sum(quota))


def test_shares_without_a_small_common_period_are_met_to_one_in_65536():
    shares = (2**0.5 - 1.3, 3**0.5 - 1.5, 3.8 - 2**0.5 - 3**0.5)
    pattern = quota_pattern(shares)
    assert pattern.period == MAX_PERIOD
    assert np.allclose(pattern.quota / pattern.period, shares, atol=1 / MAX_PERIOD)


def test_a_share_below_one_draw_in_a_period_is_refused():
    with pytest.raises(MixtureError, match="less than one draw"):
        quota_pattern((1e-9, 1 - 1e-9))


@given(weights=st.lists(st.floats(0.01, 10), min_size=1, max_size=9), total=st.integers(0, 1000))
def test_largest_remainders_add_up_and_are_within_one(weights, total):
    quotas = largest_remainder(weights, total)
    assert sum(quotas) == total
    assert all(abs(q - w / sum(weights) * total) < 1 + 1e-6 for q, w in zip(quotas, weights, strict=True))
