from __future__ import annotations

import gzip
from pathlib import Path

import h5py
import numpy as np
import pytest
from pyarrow import csv
from scipy import io, sparse

from cellmill.simulate import Study, simulate_atlas, write_10x_h5, write_atlas, write_h5ad, write_mex


@pytest.fixture(scope="module")
def study() -> Study:
    return simulate_atlas(n_cells=90, n_genes=400, n_studies=1, seed=2)[0]


def test_anndata_reads_the_h5ad(study: Study, tmp_path: Path) -> None:
    anndata = pytest.importorskip("anndata")
    adata = anndata.read_h5ad(write_h5ad(study, tmp_path / "a.h5ad"))
    assert adata.X.dtype == np.float32
    assert (sparse.csr_array(adata.X) != study.counts).nnz == 0
    assert list(adata.var_names) == list(study.gene_ids)
    assert list(adata.var["symbol"]) == list(study.symbols)
    assert list(adata.obs_names) == study.obs["cell"].to_pylist()
    for name in study.obs.column_names[1:]:
        assert adata.obs[name].dtype == "category"
        assert list(adata.obs[name]) == study.obs[name].to_pylist()


def test_the_10x_file_has_the_layout_of_cell_ranger(study: Study, tmp_path: Path) -> None:
    path = write_10x_h5(study, tmp_path / "b.h5")
    with h5py.File(path) as file:
        matrix = file["matrix"]
        genes_by_cells = sparse.csc_array(
            (matrix["data"][:], matrix["indices"][:], matrix["indptr"][:]), shape=tuple(matrix["shape"][:])
        )
        assert (genes_by_cells.T.tocsr() != study.counts).nnz == 0
        assert [b.decode() for b in matrix["barcodes"][:]] == study.obs["cell"].to_pylist()
        assert [b.decode() for b in matrix["features/id"][:]] == list(study.gene_ids)
        assert [b.decode() for b in matrix["features/name"][:]] == list(study.symbols)
        assert set(matrix["features/feature_type"][:]) == {b"Gene Expression"}
    check_labels(study, tmp_path / "b.obs.csv")


def test_scanpy_reads_the_10x_file(study: Study, tmp_path: Path) -> None:
    scanpy = pytest.importorskip("scanpy")
    adata = scanpy.read_10x_h5(write_10x_h5(study, tmp_path / "b.h5"))
    assert (sparse.csr_array(adata.X) != study.counts).nnz == 0
    assert list(adata.var["gene_ids"]) == list(study.gene_ids)


def test_the_matrix_market_folder_reads_back(study: Study, tmp_path: Path) -> None:
    folder = write_mex(study, tmp_path / "c")
    with gzip.open(folder / "matrix.mtx.gz") as stream:
        genes_by_cells = io.mmread(stream)
    assert (sparse.csr_array(genes_by_cells.T) != study.counts).nnz == 0
    with gzip.open(folder / "features.tsv.gz", "rt") as lines:
        rows = [line.rstrip("\n").split("\t") for line in lines]
    assert rows == [[symbol, symbol, "Gene Expression"] for symbol in study.symbols]
    with gzip.open(folder / "barcodes.tsv.gz", "rt") as lines:
        assert [line.strip() for line in lines] == study.obs["cell"].to_pylist()
    check_labels(study, folder / "obs.csv")


def test_an_atlas_is_written_in_three_forms_and_again_the_same(tmp_path: Path) -> None:
    for name in ("first", "second"):
        paths = write_atlas(tmp_path / name, n_cells=30, n_genes=200, seed=1)
        assert [path.relative_to(tmp_path / name).as_posix() for path in paths] == [
            "blood-a.h5ad",
            "blood-b.h5",
            "gut-c",
        ]
    first, second = (
        sorted(path for path in (tmp_path / name).rglob("*") if path.is_file()) for name in ("first", "second")
    )
    assert len(first) == 7
    for a, b in zip(first, second, strict=True):
        assert a.read_bytes() == b.read_bytes(), a.name
        if a.suffix == ".gz":
            assert a.read_bytes()[4:8] == bytes(4), "a gzip header that carries the time of writing"


def check_labels(study: Study, path: Path) -> None:
    table = csv.read_csv(path)
    assert table.column_names == study.obs.column_names
    for name in table.column_names:
        assert table[name].to_pylist() == study.obs[name].to_pylist()
