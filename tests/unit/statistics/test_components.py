"""Principal components of a store in streaming passes are those of the whole matrix in memory."""

from __future__ import annotations

import numpy as np
import pytest

from cellmill.errors import InputError
from cellmill.ingest import build
from cellmill.statistics import principal_components


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    from cellmill.simulate import write_atlas

    folder = tmp_path_factory.mktemp("components")
    return build(folder / "a.mill", write_atlas(folder / "in", n_cells=300, n_genes=120, seed=2))


def in_memory(store, genes, rows, clip):
    x = store.read(rows, genes=genes).toarray().astype(np.float64)
    totals = x.sum(axis=1, keepdims=True)
    x = np.log1p(1e4 * x / np.where(totals > 0, totals, 1))
    sd = x.std(axis=0, ddof=1)
    x = np.clip((x - x.mean(axis=0)) / np.where(sd > 1e-6, sd, 1), -clip, clip)
    x -= x.mean(axis=0)
    _, singular, rotation = np.linalg.svd(x, full_matrices=False)
    return x, singular**2 / (len(x) - 1), rotation


@pytest.mark.parametrize(("clip", "block_cells"), [(10.0, 64), (1.0, 300)])
def test_components_are_those_of_the_matrix_in_memory(store, clip, block_cells):
    genes = store.gene_ids[:80]
    rows = np.random.default_rng(0).permutation(300)[:250]
    found = principal_components(store, genes, 8, rows=rows, clip=clip, block_cells=block_cells)
    x, variance, rotation = in_memory(store, genes, rows, clip)
    np.testing.assert_allclose(found.variance, variance[:8], rtol=1e-6)
    np.testing.assert_allclose(np.abs(found.loadings.T), np.abs(rotation[:8]), atol=1e-4)
    np.testing.assert_allclose(found.coordinates, x @ found.loadings, atol=1e-3)
    assert (found.loadings[np.abs(found.loadings).argmax(axis=0), np.arange(8)] > 0).all()


def test_blocks_and_threads_change_nothing_that_matters(store):
    one = principal_components(store, store.gene_ids, 5, block_cells=4096, threads=1)
    other = principal_components(store, store.gene_ids, 5, block_cells=32, threads=2)
    np.testing.assert_allclose(one.coordinates, other.coordinates, atol=1e-3)


def test_fewer_than_two_cells_or_genes_are_refused(store):
    with pytest.raises(InputError, match="two cells and two genes"):
        principal_components(store, store.gene_ids, rows=np.array([3]))
    assert principal_components(store, store.gene_ids[:4], 50).coordinates.shape == (300, 4)
