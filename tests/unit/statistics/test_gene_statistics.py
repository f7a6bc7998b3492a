"""Moments and scores of genes against direct formulae."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from cellmill.errors import InputError
from cellmill.statistics import gene_statistics, hvg, hvg_of_cells, hvg_of_statistics, panel_statistics, score_seurat
from cellmill.statistics.moments import GeneStatistics
from cellmill.statistics.scores import bin_of_mean


@dataclass
class MatrixStore:
    """The few members of a store that statistics reads, over a matrix in memory."""

    counts: sparse.csr_array
    largest_read: int = field(default=0)

    @property
    def n_cells(self) -> int:
        return int(self.counts.shape[0])

    @property
    def n_genes(self) -> int:
        return int(self.counts.shape[1])

    @property
    def genes(self) -> pa.Table:
        ids = [f"ENSG{i:011d}" for i in range(self.n_genes)]
        return pa.table({"gene_id": ids, "symbol": [f"G{i}" for i in range(self.n_genes)]})

    def read(self, rows: Any, *, genes: Any = None, threads: int = 0) -> sparse.csr_array:
        self.largest_read = max(self.largest_read, len(rows))
        return self.counts[rows] if genes is None else self.counts[rows][:, [int(g[4:]) for g in genes]]


def random_store(n_cells: int = 211, n_genes: int = 60, seed: int = 0) -> MatrixStore:
    generator = np.random.default_rng(seed)
    rates = generator.gamma(0.6, 2.0, size=n_genes)
    dense = generator.poisson(rates, size=(n_cells, n_genes)).astype(np.uint32)
    dense[3] = 0
    dense[:, 7] = 0
    return MatrixStore(sparse.csr_array(dense))


@pytest.mark.parametrize("normalise", ["raw", "cp10k"])
@pytest.mark.parametrize("batch", [1, 7, 50, 4096])
def test_moments_equal_numpy_whatever_the_batch(normalise: Any, batch: int) -> None:
    store = random_store()
    dense = store.counts.toarray().astype(np.float64)
    if normalise == "cp10k":
        totals = dense.sum(axis=1, keepdims=True)
        dense = np.divide(dense * 1e4, totals, out=np.zeros_like(dense), where=totals > 0)
    found = gene_statistics(store, normalise=normalise, block_cells=batch)  # type: ignore[arg-type]
    np.testing.assert_allclose(found.mean, dense.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(found.variance, dense.var(axis=0, ddof=1), rtol=1e-11)
    np.testing.assert_array_equal(found.n_detected, (dense > 0).sum(axis=0))
    assert found.n_cells == store.n_cells


def test_a_small_variance_on_a_large_mean_is_not_cancelled() -> None:
    counts = np.full((1000, 1), 3_000_000_000, dtype=np.uint32)
    counts[::2] += 1
    found = gene_statistics(MatrixStore(sparse.csr_array(counts)), block_cells=64)  # type: ignore[arg-type]
    np.testing.assert_allclose(found.variance, counts.astype(np.float64).var(axis=0, ddof=1), rtol=1e-9)


def test_only_the_rows_asked_for_are_read_and_in_batches() -> None:
    store = random_store()
    rows = np.array([5, 5, 100, 20], dtype=np.int64)
    found = gene_statistics(store, rows, block_cells=2)  # type: ignore[arg-type]
    np.testing.assert_allclose(found.mean, store.counts[rows].toarray().mean(axis=0))
    assert (found.n_cells, store.largest_read) == (4, 2)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 40), min_size=1, max_size=30), st.integers(1, 30))
def test_any_batch_size_gives_the_same_moments(values: list[int], batch: int) -> None:
    store = MatrixStore(sparse.csr_array(np.array(values, dtype=np.uint32)[:, None]))
    found = gene_statistics(store, block_cells=batch)  # type: ignore[arg-type]
    np.testing.assert_allclose(found.mean, [np.mean(values)], rtol=1e-12)
    expected = np.var(values, ddof=1) if len(values) > 1 else 0.0
    np.testing.assert_allclose(found.variance, [expected], rtol=1e-9, atol=1e-12)


def test_a_gene_alone_in_its_bin_scores_one_and_a_constant_gene_has_no_score() -> None:
    mean = np.array([0.0, 1.0, 1.1, 1.2, 500.0])
    variance = np.array([0.0, 2.0, 3.0, 5.0, 900.0])
    _, _, score = score_seurat(mean, variance)
    assert np.isnan(score[0])
    assert score[4] == pytest.approx(1.0)


def test_hvg_comes_best_first_and_marks_what_it_chose() -> None:
    result = hvg(random_store(), 10, flavor="dispersion")  # type: ignore[arg-type]
    table = result.table.to_pydict()
    scores = dict(zip(table["gene_id"], table["score"], strict=True))
    chosen = [scores[gene] for gene in result.gene_ids]
    assert chosen == sorted(chosen, reverse=True)
    assert {g for g, s in zip(table["gene_id"], table["selected"], strict=True) if s} == set(result.gene_ids)
    assert table["score"][7] is None  # never detected


def test_dispersion_leaves_out_genes_detected_in_too_few_cells() -> None:
    statistics = GeneStatistics(4000, np.array([1.0, 0.1]), np.array([2.0, 90.0]), np.array([3000, 3]))
    assert hvg_of_statistics(statistics, ["a", "b"], 2, flavor="dispersion").gene_ids == ("a",)


@pytest.mark.parametrize(("n", "flavor"), [(0, "seurat"), (5, "cellranger")])
def test_a_request_that_cannot_be_meant_is_refused(n: int, flavor: Any) -> None:
    with pytest.raises(InputError, match=flavor if n else "at least 1"):
        hvg(random_store(), n, flavor=flavor)  # type: ignore[arg-type]


def test_no_cells_is_an_error_not_a_list_of_genes() -> None:
    with pytest.raises(InputError, match="no cells"):
        hvg(random_store(), 5, rows=np.empty(0, dtype=np.int64))  # type: ignore[arg-type]


def test_a_panel_over_two_stores_equals_the_panel_over_both_together() -> None:
    first, second = random_store(seed=1), random_store(n_cells=90, seed=2)
    both = MatrixStore(sparse.csr_array(sparse.vstack([first.counts, second.counts])))
    panel = [first.genes["gene_id"][i].as_py() for i in (30, 4, 12, 50, 9)]
    cells = [(store, np.arange(store.n_cells)) for store in (first, second)]
    split = panel_statistics(cells, panel, normalise="cp10k", block_cells=64)  # type: ignore[arg-type]
    whole = panel_statistics([(both, np.arange(both.n_cells))], panel, normalise="cp10k")  # type: ignore[list-item]
    np.testing.assert_allclose(split.mean, whole.mean, rtol=1e-12)
    np.testing.assert_allclose(split.variance, whole.variance, rtol=1e-10)
    chosen = hvg_of_cells(cells, panel, 3)  # type: ignore[arg-type]
    assert set(chosen.gene_ids) <= set(panel)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0, 12), min_size=2, max_size=40), st.integers(1, 25))
def test_bins_of_the_mean_are_those_of_pandas_cut(means: list[float], n_bins: int) -> None:
    pandas = pytest.importorskip("pandas")
    values = np.array(means)
    if 0 < values.max() - values.min() < 1e-9:  # pandas refuses bins that are too narrow to tell apart
        return
    np.testing.assert_array_equal(bin_of_mean(values, n_bins), pandas.cut(values, bins=n_bins).codes)
