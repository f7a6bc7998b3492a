"""Baselines against dense arithmetic on the same cells."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from scipy import sparse

from cellmill.evaluate.baselines import fit_baselines, fit_components


def cells(n: int = 80, g: int = 30, seed: int = 0) -> sparse.csr_array:
    generator = np.random.default_rng(seed)
    rates = generator.gamma(1.0, 2.0, size=(3, g))[generator.integers(0, 3, n)]
    counts = generator.poisson(rates)
    counts[5] = 0
    return sparse.csr_array(counts.astype(np.uint32))


def batches_of(counts: sparse.csr_array, size: int = 33) -> Iterator[sparse.csr_array]:
    for start in range(0, counts.shape[0], size):
        yield counts[start : start + size]


def dense_cp10k(counts: sparse.csr_array) -> np.ndarray:
    dense = counts.toarray().astype(float)
    totals = dense.sum(axis=1, keepdims=True)
    return np.divide(dense * 1e4, totals, out=np.zeros_like(dense), where=totals > 0)


def test_the_mean_profile_is_of_every_training_cell() -> None:
    counts = cells()
    fitted = fit_baselines(lambda: batches_of(counts), n_genes=30, n_cells=80, n_components=5)
    np.testing.assert_allclose(fitted.mean_profile, np.log1p(dense_cp10k(counts).mean(axis=0)), rtol=1e-12)
    assert (fitted.n_cells, fitted.n_cells_components) == (80, 80)


@pytest.mark.parametrize("k", [1, 4, 10])
def test_reconstruction_equals_that_of_a_dense_decomposition(k: int) -> None:
    counts = cells()
    fitted = fit_baselines(lambda: batches_of(counts), n_genes=30, n_cells=80, n_components=12)
    logged = np.log1p(dense_cp10k(counts))
    mean = logged.mean(axis=0)
    _, _, vt = np.linalg.svd(logged - mean, full_matrices=False)
    expected = (logged - mean) @ vt[:k].T @ vt[:k] + mean
    np.testing.assert_allclose(fitted.components.reconstruct(logged, k), expected, atol=1e-8)


def test_the_components_are_of_a_bounded_repeatable_sample() -> None:
    counts = cells(n=200)
    fits = [
        fit_baselines(
            lambda: batches_of(counts), n_genes=30, n_cells=200, n_components=3, max_cells_components=50, seed=seed
        )
        for seed in (0, 0, 1)
    ]
    assert fits[0].n_cells_components == 50
    np.testing.assert_array_equal(fits[0].components.components, fits[1].components.components)
    assert not np.allclose(np.abs(fits[0].components.components), np.abs(fits[2].components.components), atol=1e-3)


def test_too_few_cells_give_fewer_components_and_no_error() -> None:
    generator = np.random.default_rng(0)
    logged = sparse.csr_array(np.log1p(dense_cp10k(cells(n=8))[:4]))
    assert fit_components(logged, 50, generator=generator).components.shape == (3, 30)
    alone = fit_components(logged[:1], 50, generator=generator)
    np.testing.assert_allclose(alone.reconstruct(logged[1:3].toarray(), 50), np.tile(alone.mean, (2, 1)))
