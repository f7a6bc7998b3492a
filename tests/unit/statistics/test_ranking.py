"""Sums of counts are exact, and genes are chosen from scores by rules that do not depend on noise."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from cellmill.statistics.moments import CountSums
from cellmill.statistics.ranking import RanksOfBatches, ShareOfBatches, best_first, pass_cut
from cellmill.statistics.scores import least_detected


def exact(values: list[int]) -> tuple[float, float]:
    """Return mean and variance from whole numbers, each rounded once."""
    n, total = len(values), sum(values)
    return total / n, (n * sum(v * v for v in values) - total**2) / (n * max(n - 1, 1))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=40), st.integers(1, 40))
def test_moments_of_counts_are_exact_in_whatever_blocks(values: list[int], block: int) -> None:
    sums = CountSums(1)
    for start in range(0, len(values), block):
        part = sparse.csr_array(np.array(values[start : start + block], dtype=np.float64)[:, None])
        sums.merge(CountSums.of(part))
    found = sums.result()
    assert (found.mean[0], found.variance[0]) == exact(values)
    assert found.n_detected[0] == sum(v > 0 for v in values)


def test_a_thousand_largest_counts_do_not_overflow() -> None:
    values = [2**32 - 1, 0] * 512
    sums = CountSums(1)
    for _ in range(50):
        sums.merge(CountSums.of(sparse.csr_array(np.array(values, dtype=np.float64)[:, None])))
    found = sums.result()
    assert (found.mean[0], found.variance[0]) == exact(values * 50)


def test_no_cells_have_no_moments() -> None:
    found = CountSums(3).result()
    assert found.n_cells == 0
    assert found.mean.tolist() == [0, 0, 0]


def test_equal_scores_are_taken_by_position_and_none_without() -> None:
    score = np.array([1.0, np.nan, 3.0, 3.0, 2.0])
    assert best_first(score, 3).tolist() == [2, 3, 4]
    assert best_first(score, 99).tolist() == [2, 3, 4, 0]
    assert pass_cut(score, 1).tolist() == [2, 3]  # both reach the highest
    assert pass_cut(np.array([np.nan]), 1).tolist() == []


def test_genes_of_most_batches_come_first_then_the_better_mean() -> None:
    chooser = ShareOfBatches(4, 2)
    detected = np.array([5, 5, 5, 0])
    chooser.add(np.array([9.0, 8.0, 1.0, np.nan]), detected)  # 0 and 1
    chooser.add(np.array([1.0, 7.0, 9.0, np.nan]), detected)  # 2 and 1
    choice = chooser.choice()
    assert choice.chosen.tolist() == [1, 0]  # 0 and 2 are in one batch each, and of equal mean
    assert choice.n_batches.tolist() == [1, 2, 1, 0]
    assert choice.score[:3].tolist() == [5.0, 7.5, 5.0]
    assert np.isnan(choice.score[3])


@pytest.mark.parametrize(("median_first", "wanted"), [(True, [0, 3]), (False, [0, 1])])
def test_median_rank_and_number_of_batches_lead_in_turn(median_first: bool, wanted: list[int]) -> None:
    chooser = RanksOfBatches(4, 3, median_first=median_first)
    scores: list[Any] = [[9, 8, 7, 0], [9, 8, 7, 0], [8, 7, 0, 9]]
    for score in scores:
        chooser.add(np.array(score, dtype=float), np.full(4, 9))
    choice = chooser.choice()
    # gene 0: ranks 0, 0, 1; 1: ranks 1, 1, 2; 2: rank 2 twice; 3: rank 0, once
    np.testing.assert_array_equal(choice.median_rank, [0, 1, 2, 0])
    assert choice.n_batches.tolist() == [3, 3, 2, 1]
    chosen = choice.chosen[:2]
    assert chosen.tolist() == wanted


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(0, 9), min_size=6, max_size=6), min_size=1, max_size=7), st.integers(1, 6))
def test_medians_of_ranks_are_numpys(scores: list[list[int]], n: int) -> None:
    chooser = RanksOfBatches(6, n, median_first=True)
    ranks = np.full((len(scores), 6), np.nan)
    for row, score in zip(ranks, scores, strict=True):
        values = np.array(score, dtype=float)
        chooser.add(values, np.ones(6, dtype=np.int64))
        best = np.argsort(-values, kind="stable")[:n]
        row[best] = np.arange(len(best))
    choice = chooser.choice()
    there = ~np.isnan(ranks).all(axis=0)
    assert choice.median_rank is not None
    np.testing.assert_array_equal(choice.median_rank[there], np.nanmedian(ranks[:, there], axis=0))
    assert np.isnan(choice.median_rank[~there]).all()
    np.testing.assert_array_equal(choice.n_batches, (~np.isnan(ranks)).sum(axis=0))


def test_a_share_of_the_cells_is_rounded_up() -> None:
    assert [least_detected(n, 0.1) for n in (1, 999, 1000, 1001, 3000, 7000)] == [1, 1, 1, 2, 3, 7]
    assert least_detected(500, 0) == 1
