from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from scipy import sparse

import cellmill as cm
from cellmill.errors import ConfigError
from cellmill.simulate import reference_blocks, reference_model, write_reference
from cellmill.simulate.write_reference import shard_sizes


def stacked(n_cells: int, **keywords: int) -> sparse.csr_array:
    model = reference_model(n_genes=keywords.pop("n_genes", 36_000))
    blocks = reference_blocks(model, n_cells=n_cells, **keywords)
    return sparse.csr_array(sparse.vstack([block.counts for block in blocks]))


@pytest.fixture(scope="module")
def sample() -> sparse.csr_array:
    return stacked(1500)


def test_the_sample_has_the_statistics_of_the_reference(sample: sparse.csr_array) -> None:
    per_cell = sample.nnz / sample.shape[0]
    assert 1650 < per_cell < 1870
    assert 0.57 < (sample.data == 1).mean() < 0.61
    assert 0.80 < (sample.data <= 3).mean() < 0.84
    assert 5400 < np.median(sample.sum(axis=1)) < 6600


def test_counts_are_canonical_and_positive() -> None:
    for block in reference_blocks(reference_model(n_genes=2000), n_cells=70, block_cells=50):
        plain = sparse.csr_array((block.counts.data, block.counts.indices, block.counts.indptr), block.counts.shape)
        assert plain.has_canonical_format
        assert plain.data.dtype == np.uint32
        assert plain.indices.dtype == np.int32
        assert plain.data.min() == 1


def test_rare_genes_are_gamma_poisson_too() -> None:
    """The mean and the share of zeros of the genes drawn by thinned events are those of the distribution."""
    model = reference_model(n_genes=400, seed=3)
    kind = 0
    block = next(iter(reference_blocks(model, n_cells=20_000, seed=3, block_cells=20_000)))
    chosen = np.flatnonzero(block.cell_type == kind)
    genes = model.others[kind][np.argsort(model.share[kind][model.others[kind]])[-20:]]
    counts = block.counts[chosen][:, genes].toarray()
    rng = np.random.default_rng(0)
    depth = np.exp(rng.normal(np.log(6000), 0.55, chosen.size))
    mean = depth[:, None] * model.share[kind][genes]
    expected = rng.poisson(rng.gamma(0.45, mean / 0.45))
    assert counts.mean() == pytest.approx(expected.mean(), rel=0.1)
    assert (counts == 0).mean() == pytest.approx((expected == 0).mean(), rel=0.02)
    assert (counts >= 2).mean() == pytest.approx((expected >= 2).mean(), rel=0.15)


def test_seed_and_shard_name_the_cells() -> None:
    few = {"n_genes": 500}
    assert (stacked(300, **few) != stacked(300, **few)).nnz == 0
    assert (stacked(300, **few) != stacked(300, shard=1, **few)).nnz > 0
    assert (stacked(300, **few) != stacked(300, seed=1, **few)).nnz > 0


def test_files_do_not_depend_on_the_number_of_processes(tmp_path: Path) -> None:
    one = write_reference(tmp_path / "one", n_cells=90, n_genes=300, n_shards=3, seed=5)
    two = write_reference(tmp_path / "two", n_cells=90, n_genes=300, n_shards=3, seed=5, processes=2)
    assert [path.name for path in one] == ["shard_0.h5ad", "shard_1.h5ad", "shard_2.h5ad"]
    for first, second in zip(one, two, strict=True):
        with h5py.File(first) as a, h5py.File(second) as b:
            for name in ("X/data", "X/indices", "X/indptr", "obs/cell_type/codes", "obs/donor_id/codes"):
                assert np.array_equal(a[name][:], b[name][:])


def test_anndata_reads_a_shard_and_a_store_holds_its_counts(tmp_path: Path) -> None:
    anndata = pytest.importorskip("anndata")
    paths = write_reference(tmp_path / "h5ad", n_cells=80, n_genes=500, n_shards=2)
    adata = anndata.read_h5ad(paths[1])
    expected = next(iter(reference_blocks(reference_model(n_genes=500), n_cells=40, shard=1))).counts
    assert adata.X.dtype == np.float32
    assert (sparse.csr_array(adata.X) != expected).nnz == 0
    assert adata.obs["n_counts"].to_numpy().tolist() == np.asarray(expected.sum(axis=1)).tolist()
    assert adata.obs["cell_type"].dtype == "category"
    with h5py.File(paths[1]) as file:
        assert file["X/data"].compression is None
    store = cm.build(tmp_path / "s.mill", paths)
    rows = np.arange(40, 80)
    read = store.read(rows, genes=[g for g in adata.var_names if g in store.gene_ids])
    shown = [i for i, g in enumerate(adata.var_names) if g in store.gene_ids]
    assert (read != expected[:, shown]).nnz == 0
    assert read.sum() == expected.sum()


@pytest.mark.parametrize(
    "wrong", [{"n_cells": 2, "n_shards": 3}, {"n_genes": 0}, {"n_genes": 10**6}, {"processes": 0}, {"seed": -1}]
)
def test_numbers_that_fit_no_sample_are_refused(tmp_path: Path, wrong: dict[str, int]) -> None:
    with pytest.raises(ConfigError):
        write_reference(tmp_path, **{"n_cells": 10, "n_genes": 100, "n_shards": 1, **wrong})


def test_shards_share_the_cells_evenly() -> None:
    sizes = shard_sizes(200_003, 4)
    assert sum(sizes) == 200_003
    assert max(sizes) - min(sizes) <= 1
