"""Measures of reconstruction against their definitions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from cellmill.evaluate.metrics import bootstrap_groups, interval, log1p_cp10k, pearson_per_cell, r2_per_cell


def two_matrices(seed: int = 0) -> tuple[Any, Any]:
    generator = np.random.default_rng(seed)
    true = generator.gamma(1.0, 2.0, size=(20, 50))
    return true + generator.normal(size=true.shape), true


def test_pearson_equals_scipys_cell_by_cell() -> None:
    predicted, true = two_matrices()
    expected = [stats.pearsonr(p, t).statistic for p, t in zip(predicted, true, strict=True)]
    np.testing.assert_allclose(pearson_per_cell(predicted, true), expected, rtol=1e-12)


def test_pearson_is_exact_for_float32_far_from_zero() -> None:
    predicted, true = two_matrices()
    shifted = pearson_per_cell((predicted + 1000).astype(np.float32), true.astype(np.float32))
    np.testing.assert_allclose(shifted, pearson_per_cell(predicted, true), atol=1e-4)


def test_r2_loses_the_sign_that_pearson_keeps() -> None:
    true = np.arange(12.0)[None, :]
    pearson = pearson_per_cell(-true, true)
    assert pearson[0] == pytest.approx(-1.0)
    assert r2_per_cell(pearson)[0] == pytest.approx(1.0)


@pytest.mark.parametrize("value", [0.0, 0.1, 1e-3, 7.7])
def test_a_cell_without_variance_has_no_correlation(value: float) -> None:
    true = np.random.default_rng(0).normal(size=(1, 1000))
    flat = np.full((1, 1000), value)
    assert math.isnan(pearson_per_cell(flat, true)[0])
    assert math.isnan(pearson_per_cell(true, flat)[0])


def test_log1p_cp10k_is_over_the_totals_given_and_leaves_empty_cells_at_zero() -> None:
    counts = np.array([[1.0, 3.0], [0.0, 0.0]])
    np.testing.assert_allclose(log1p_cp10k(counts)[0], np.log1p([2500.0, 7500.0]))
    np.testing.assert_allclose(log1p_cp10k(counts, np.array([8.0, 0.0])), [np.log1p([1250.0, 3750.0]), [0, 0]])


def test_intervals_of_few_and_many_repeats() -> None:
    one, two = interval([0.4]), interval([0.4, 0.8])
    assert (one.low, one.high, one.kind) == (0.4, 0.4, "none")
    assert (two.low, two.high, two.kind) == (0.4, 0.8, "range")
    many = interval([1.0, 2.0, 3.0, 4.0, math.nan])
    low, high = stats.t.interval(0.95, 3, loc=2.5, scale=stats.sem([1, 2, 3, 4]))
    assert (many.low, many.high) == (pytest.approx(low), pytest.approx(high))
    assert (many.n, many.kind) == (4, "t95")
    assert interval([]).to_dict() == {"mean": None, "low": None, "high": None, "n": 0, "kind": "none"}


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=1, max_size=8))
def test_the_mean_lies_within_its_interval(values: list[float]) -> None:
    found = interval(values)
    assert found.low - 1e-9 <= found.mean <= found.high + 1e-9


def test_the_bootstrap_draws_donors_not_cells() -> None:
    generator = np.random.default_rng(0)
    donors = np.repeat(np.arange(5), 200)
    values = np.repeat([0.1, 0.3, 0.5, 0.7, 0.9], 200)
    bounds = bootstrap_groups(values, donors, generator=generator)
    assert bounds is not None
    assert bounds[0] < 0.35
    assert bounds[1] > 0.65  # over cells it would be 0.48 to 0.52
    assert bootstrap_groups(values[:400], donors[:400], generator=generator) is None
    assert bootstrap_groups(values, np.full(1000, -1), generator=generator) is None
