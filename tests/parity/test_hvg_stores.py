"""Highly variable genes of stores of real and simulated cells are scanpy's: the same set, ranks and values.

Scanpy gets the same cells in double precision. Values agree to one part in 10^8 (scanpy's variances are differences of
large sums), seurat's scores to the float32 that scanpy keeps them in. Equal scores, of which there are many among rare
genes, scanpy ranks by the noise of their last bits and cellmill by position: here scanpy is made to do the latter.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cellmill as cm
from cellmill.statistics import HvgResult

scanpy = pytest.importorskip("scanpy", reason="scanpy is a peer; `make peers` installs it")
skmisc_loess = pytest.importorskip("skmisc.loess", reason="scikit-misc fits seurat_v3 (extra hvg)")

ATOL = {"seurat": 1e-7, "seurat_v3": 1e-9, "pearson": 1e-9}
RTOL = {"seurat": 2e-7, "seurat_v3": 1e-8, "pearson": 1e-8}
# name of the store, column of batches
STORES = {"pbmc": "celltype", "gut": "batch", "simulated": "donor_id"}
SCANPYS_SCORE = {"seurat": "dispersions_norm", "seurat_v3": "variances_norm", "pearson": "residual_variances"}
FLAVORS = tuple(SCANPYS_SCORE)


@pytest.fixture(scope="module")
def stores(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, cm.Store]:
    folder = tmp_path_factory.mktemp("hvg")
    files = cm.simulate.write_atlas(folder / "atlas", n_cells=1500, n_genes=3000, seed=8)
    return {
        "pbmc": cm.build(folder / "pbmc.mill", [shared_data / "pbmc_facs_zheng.h5ad"]),
        "gut": cm.build(folder / "gut.mill", [shared_data / "gut_scp1884.h5ad"]),
        "simulated": cm.build(folder / "simulated.mill", files, vocabulary="union"),
    }


class LoessOfR(skmisc_loess.loess):
    """Loess that takes for a warning what R takes for one, where scikit-misc stops."""

    def fit(self) -> None:
        try:
            super().fit()
        except ValueError as error:
            if "singularities" not in str(error) and "reciprocal condition number" not in str(error):
                raise


@pytest.fixture
def scanpy_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let scanpy's seurat_v3 go on at loess's warnings, as Seurat does."""
    monkeypatch.setattr(skmisc_loess, "loess", LoessOfR)


ARGSORT = np.argsort


def argsort_by_position(values: np.ndarray, axis: int = -1) -> np.ndarray:
    """Return the order of values, those that are equal to ten digits by their position."""
    if values.dtype.kind != "f":
        return ARGSORT(values, axis=axis, kind="stable")
    with np.errstate(divide="ignore"):
        digits = 10.0 ** np.floor(np.log10(np.abs(values)))
    digits[(digits == 0) | ~np.isfinite(digits)] = 1.0
    return ARGSORT(np.round(values / digits, 10) * digits, axis=axis, kind="stable")


def scanpys(store: cm.Store, flavor: str, n: int, *, batch: str | None, rows: Any = None) -> Any:
    """Return scanpy's `.var` of the same cells, genes by position."""
    adata = store.to_anndata(rows)
    adata.X = adata.X.astype(np.float64)
    if batch is not None:
        adata.obs[batch] = adata.obs[batch].astype(str).astype("category")
    adata.var_names = [f"{i:06d}" for i in range(adata.n_vars)]  # scanpy sorts by name where scores are equal
    how = {"n_top_genes": n, "batch_key": batch}
    if flavor == "seurat":
        scanpy.pp.normalize_total(adata, target_sum=1e4)
        scanpy.pp.log1p(adata)
        scanpy.pp.highly_variable_genes(adata, flavor=flavor, **how)
        return adata.var
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(np, "argsort", argsort_by_position)
        if flavor == "pearson":
            scanpy.experimental.pp.highly_variable_genes(adata, flavor="pearson_residuals", **how)
        else:
            scanpy.pp.highly_variable_genes(adata, flavor=flavor, **how)
    return adata.var


def scores_of(result: HvgResult) -> np.ndarray:
    return np.array(result.table.column("score").to_pylist(), dtype=float)


def positions(store: cm.Store, result: HvgResult) -> np.ndarray:
    return store.gene_positions(result.gene_ids)


def assert_same_values(result: HvgResult, var: Any, flavor: str) -> None:
    ours, theirs = scores_of(result), var[SCANPYS_SCORE[flavor]].to_numpy()
    scored = ~np.isnan(ours)
    np.testing.assert_allclose(ours[scored], theirs[scored], rtol=RTOL[flavor], atol=ATOL[flavor])
    # genes without a score here are those that scanpy gives none, or the 0 of a gene that does not vary
    np.testing.assert_allclose(np.nan_to_num(theirs[~scored]), 0.0, atol=1e-9)
    table = result.table.to_pydict()
    np.testing.assert_allclose(table["mean"], var["means"], rtol=1e-8)
    if flavor == "seurat":
        dispersion = np.array(table["dispersion"], dtype=float)
        np.testing.assert_allclose(dispersion, var["dispersions"], rtol=1e-8, atol=1e-9)
    else:
        np.testing.assert_allclose(table["variance"], var["variances"], rtol=1e-8)


def assert_same_choice(store: cm.Store, result: HvgResult, var: Any) -> None:
    found, wanted = positions(store, result), np.flatnonzero(var["highly_variable"])
    assert sorted(found.tolist()) == wanted.tolist()


@pytest.mark.parametrize("flavor", FLAVORS)
@pytest.mark.parametrize("name", STORES)
def test_one_group_is_scanpys(
    stores: dict[str, cm.Store], name: str, flavor: Any, request: pytest.FixtureRequest
) -> None:
    if name == "simulated":  # of the real files none makes loess complain
        request.getfixturevalue("scanpy_goes_on")
    store, n = stores[name], 700
    result = cm.hvg(store, n, flavor=flavor)
    var = scanpys(store, flavor, n, batch=None)
    assert_same_values(result, var, flavor)
    assert_same_choice(store, result, var)
    theirs = var[SCANPYS_SCORE[flavor]].to_numpy()[positions(store, result)]
    assert (np.diff(theirs) <= 1e-7 * np.abs(theirs[1:])).all()  # best first by scanpy's own scores
    if flavor != "seurat":
        np.testing.assert_array_equal(var["highly_variable_rank"].to_numpy()[positions(store, result)], np.arange(n))


@pytest.mark.parametrize("flavor", FLAVORS)
@pytest.mark.parametrize("name", STORES)
@pytest.mark.usefixtures("scanpy_goes_on")
def test_across_batches_is_scanpys(stores: dict[str, cm.Store], name: str, flavor: Any) -> None:
    assert_same_across_batches(stores[name], flavor, STORES[name], where="true")


@pytest.mark.parametrize("flavor", FLAVORS)
def test_batches_of_some_cells_are_scanpys_as_it_is(stores: dict[str, cm.Store], flavor: Any) -> None:
    assert_same_across_batches(stores["pbmc"], flavor, "subpop", where="subpop IN ('T cell', 'CD34+', 'NK cell')")


def assert_same_across_batches(store: cm.Store, flavor: Any, batch: str, *, where: str) -> None:
    n = 300
    result = cm.hvg(store, n, flavor=flavor, batch=batch, where=where)
    var = scanpys(store, flavor, n, batch=batch, rows=store.select(where))
    assert len(result.batches) > 2
    ours, theirs = scores_of(result), var[SCANPYS_SCORE[flavor]].to_numpy()
    scored = ~np.isnan(ours)
    np.testing.assert_allclose(ours[scored], theirs[scored], rtol=RTOL[flavor], atol=ATOL[flavor])
    table = result.table.to_pydict()
    np.testing.assert_array_equal(table["n_batches"], var["highly_variable_nbatches"])
    if flavor != "seurat":
        np.testing.assert_array_equal(np.array(table["median_rank"], dtype=float), var["highly_variable_rank"])
    assert_same_choice(store, result, var)


def test_seurat_v3_goes_on_where_scanpy_stops(stores: dict[str, cm.Store]) -> None:
    rows = stores["gut"].select("batch = 'CO_EPI.scp'")
    with pytest.raises(ValueError, match="near singularities"):
        scanpys(stores["gut"], "seurat_v3", 300, batch=None, rows=rows)
    assert len(cm.hvg(stores["gut"], 300, flavor="seurat_v3", rows=rows).gene_ids) == 300


@pytest.mark.parametrize("flavor", FLAVORS)
def test_some_cells_are_scanpys_on_those_cells(stores: dict[str, cm.Store], flavor: Any) -> None:
    store = stores["gut"]
    where = "n_genes_detected > 800"
    rows = store.select(where)
    assert 100 < len(rows) < store.n_cells
    result = cm.hvg(store, 400, flavor=flavor, where=where)
    var = scanpys(store, flavor, 400, batch=None, rows=rows)
    assert_same_values(result, var, flavor)
    assert_same_choice(store, result, var)
    again = cm.hvg(store, 400, flavor=flavor, rows=rows)
    assert again.gene_ids == result.gene_ids
    assert again.n_cells == len(rows)


@pytest.mark.parametrize("flavor", ["dispersion", *FLAVORS])
@pytest.mark.parametrize("batch", [None, "batch"])
def test_blocks_and_threads_do_not_change_the_choice(stores: dict[str, cm.Store], flavor: Any, batch: Any) -> None:
    one = cm.hvg(stores["gut"], 300, flavor=flavor, batch=batch, block_cells=1 << 20, threads=1)
    many = cm.hvg(stores["gut"], 300, flavor=flavor, batch=batch, block_cells=1024, threads=3)
    small = cm.hvg(stores["gut"], 300, flavor=flavor, batch=batch, block_cells=97, threads=2)
    assert one.table.equals(many.table)  # slices of 1,024 cells either way: equal to the last bit
    assert one.gene_ids == many.gene_ids == small.gene_ids
    np.testing.assert_allclose(scores_of(small), scores_of(one), rtol=1e-9)
