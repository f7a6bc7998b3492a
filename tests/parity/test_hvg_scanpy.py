"""Highly variable genes equal those of the originals, on their own stored outputs and on a store of real layout."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import sparse

from cellmill.statistics import GeneMoments, hvg_of_statistics, score_seurat
from cellmill.statistics.moments import GeneStatistics

SHARED = Path(os.environ.get("CELLMILL_SHARED", Path(__file__).resolve().parents[2].parent / "shared"))
VECTORS = SHARED / "reference" / "parity" / "hvg.npz"


@pytest.fixture(scope="module")
def vectors() -> Any:
    if not VECTORS.exists():
        pytest.skip("the parity vectors (reference/parity/hvg.npz) are not here")
    return np.load(VECTORS)


def statistics_of(counts: sparse.csr_array, *, normalise: bool) -> GeneStatistics:
    moments = GeneMoments(counts.shape[1])
    for start in range(0, counts.shape[0], 100):
        part = counts[start : start + 100]
        totals = np.asarray(part.sum(axis=1), dtype=np.float64).ravel()
        moments.add(part, scale=1e4 / totals if normalise else None)
    return moments.result()


def matrix_of(vectors: Any, prefix: str = "") -> sparse.csr_array:
    parts = (vectors[f"{prefix}matrix.{part}"] for part in ("data", "indices", "indptr"))
    return sparse.csr_array(tuple(parts), shape=tuple(vectors[f"{prefix}matrix.shape"]))


@pytest.mark.parametrize("prefix", ["", "b."])
def test_seurat_scores_equal_scanpys(vectors: Any, prefix: str) -> None:
    statistics = statistics_of(matrix_of(vectors, prefix), normalise=True)
    mean, dispersion, score = score_seurat(statistics.mean, statistics.variance)
    stored = {
        name: vectors[f"{prefix}scanpy.seurat.all.{name}"] for name in ("means", "dispersions", "dispersions_norm")
    }
    np.testing.assert_allclose(mean, stored["means"], rtol=2e-6)
    np.testing.assert_allclose(dispersion, stored["dispersions"], rtol=2e-6, atol=1e-6)
    np.testing.assert_allclose(score, stored["dispersions_norm"], rtol=2e-5, atol=1e-5)


@pytest.mark.parametrize("prefix", ["", "b."])
def test_seurat_selects_the_genes_that_scanpy_selects(vectors: Any, prefix: str) -> None:
    counts = matrix_of(vectors, prefix)
    mask = vectors[f"{prefix}scanpy.seurat.all.highly_variable"]
    ids = [str(i) for i in range(counts.shape[1])]
    chosen = hvg_of_statistics(statistics_of(counts, normalise=True), ids, int(mask.sum())).gene_ids
    assert sorted(map(int, chosen)) == np.flatnonzero(mask).tolist()


@pytest.mark.parametrize(("case", "percent"), [("pct0.1", 0.1), ("pct5", 5.0)])
def test_dispersion_selects_what_the_original_selects(vectors: Any, case: str, percent: float) -> None:
    from cellmill.statistics import score_dispersion

    statistics = statistics_of(matrix_of(vectors), normalise=False)
    np.testing.assert_allclose(statistics.mean, vectors[f"seed.fixed.{case}.mean"], rtol=1e-12)
    np.testing.assert_allclose(statistics.variance, vectors[f"seed.fixed.{case}.var"], rtol=1e-9)
    np.testing.assert_array_equal(statistics.n_detected, vectors[f"seed.fixed.{case}.n_cells_expressing"])
    score = score_dispersion(statistics, min_cells_percent=percent)
    wanted = vectors[f"seed.fixed.{case}.selected"]
    order = np.argsort(-np.nan_to_num(score, nan=-np.inf), kind="stable")[: len(wanted)]
    np.testing.assert_allclose(score[order], vectors[f"seed.fixed.{case}.dispersion"][wanted], rtol=1e-9)
    assert set(order.tolist()) == set(wanted.tolist())


def test_seurat_equals_the_scanpy_that_is_installed() -> None:
    scanpy = pytest.importorskip("scanpy", reason="scanpy is a peer; `make peers` installs it")
    anndata = pytest.importorskip("anndata")
    generator = np.random.default_rng(4)
    rates = generator.gamma(0.4, 3.0, size=500) * generator.lognormal(0, 0.6, size=(400, 1))
    counts = sparse.csr_array(generator.poisson(rates).astype(np.uint32))
    adata = anndata.AnnData(sparse.csr_matrix(counts.astype(np.float64)))
    scanpy.pp.normalize_total(adata, target_sum=1e4)
    scanpy.pp.log1p(adata)
    scanpy.pp.highly_variable_genes(adata, flavor="seurat", n_top_genes=120)
    ids = adata.var_names.tolist()
    result = hvg_of_statistics(statistics_of(counts, normalise=True), ids, 120)
    np.testing.assert_allclose(
        np.array(result.table.column("score").to_pylist(), dtype=float), adata.var["dispersions_norm"], rtol=1e-6
    )
    assert set(result.gene_ids) == set(adata.var_names[adata.var["highly_variable"]])
