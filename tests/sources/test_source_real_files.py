"""Real files: reading by blocks equals what anndata and SciPy read whole."""

from __future__ import annotations

import os
from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import scipy.sparse as sp
import zarr

from cellmill.sources import expand_inputs, open_source

DATA = Path(os.environ.get("CELLMILL_SHARED", Path(__file__).resolve().parents[2].parent / "shared")) / "data"
H5AD = [
    "gut_scp1884", "mouse_dentategyrus_100", "notraw_sciplex3_lognorm", "pbmc_facs_zheng", "pbmc_zheng68k_165",
    "perturb_papalexi_eccite",
]  # fmt: skip


def real(name: str) -> Path:
    path = DATA / name
    if not path.exists():
        pytest.skip(f"{name} is not in {DATA}; set CELLMILL_SHARED to the folder that holds data/")
    return path


def same_matrix(source, matrix, expected):
    expected = sp.csr_array(expected)
    expected.sum_duplicates()
    for block in source.blocks(matrix, block_cells=777):
        part = expected[block.start : block.stop]
        np.testing.assert_array_equal(block.indptr, part.indptr)
        np.testing.assert_array_equal(block.indices, part.indices)
        np.testing.assert_array_equal(block.data, part.data)
        assert block.data.dtype == part.data.dtype
    assert block.stop == source.n_cells == expected.shape[0]


def same_column(ours: pa.ChunkedArray, theirs: pd.Series) -> None:
    if isinstance(theirs.dtype, pd.CategoricalDtype):
        assert ours.chunk(0).dictionary.to_pylist() == list(theirs.cat.categories)
        theirs = theirs.astype(object).where(theirs.notna(), None)
        assert ours.to_pylist() == theirs.tolist()
    else:
        np.testing.assert_array_equal(ours.to_numpy(), theirs.to_numpy())


@pytest.mark.parametrize("stem", H5AD)
def test_h5ad_equals_anndata(stem):
    path = real(f"{stem}.h5ad")
    adata = ad.read_h5ad(path)
    with open_source(path) as source:
        assert source.name == stem and source.notes == []
        assert [info.name for info in source.matrices()] == ["X", *(f"layers/{name}" for name in sorted(adata.layers))]
        same_matrix(source, "X", adata.X)
        for name in adata.layers:
            same_matrix(source, f"layers/{name}", adata.layers[name])
        obs = source.obs()
        assert obs["cell"].to_pylist() == list(adata.obs_names)
        assert obs.column_names[1:] == list(adata.obs.columns)
        for name in adata.obs.columns:
            same_column(obs[name], adata.obs[name])
        assert source.genes.index == list(adata.var_names)


def test_ids_and_symbols_of_an_ensembl_file():
    with open_source(real("pbmc_facs_zheng.h5ad")) as source:
        assert source.genes.ids is source.genes.index and source.genes.ids[0].startswith("ENSG")
        assert source.genes.symbols == source.genes.columns["symbol"]
    with open_source(real("gut_scp1884.h5ad")) as source:
        assert source.genes.ids is source.genes.symbols


def test_10x_equals_scipy():
    path = real("pbmc_1k_v2_10x.h5")
    with h5py.File(path) as file:
        parts = [file["matrix"][name][()] for name in ("data", "indices", "indptr")]
        barcodes = [name.decode() for name in file["matrix/barcodes"][()]]
    with open_source(path) as source:
        same_matrix(source, "matrix", sp.csr_array(tuple(parts), shape=(996, 33538)))
        assert source.obs()["cell"].to_pylist() == barcodes and source.dropped == {}
        assert source.genes.ids[0] == "ENSG00000243485" and source.genes.symbols[0] == "MIR1302-2HG"


def test_the_folder_is_read_file_by_file_and_foreign_files_are_named():
    found = [path.name for path in expand_inputs(real("pbmc_1k_v2_10x.h5").parent)]
    assert found[0] == "celllines3_celseq2.count.csv.gz" and found[1:] == sorted(found[1:])
    assert "mouse_neurons_10k_1000genes.zarr" in found
    assert {*(f"{stem}.h5ad" for stem in H5AD), "pbmc_1k_v2_10x.h5", "pbmc_ifnb_kang.loom"} <= set(found)
    assert not [name for name in found if name.endswith("metadata.csv.gz")]


@pytest.mark.parametrize("budget", [1 << 20, 1 << 28])
def test_a_table_of_r_with_its_labels_equals_pandas(budget, tmp_path):
    """Genes in rows, headers one field short; a budget below its 30 MiB of entries goes through bucket files."""
    path = real("celllines3_celseq2.count.csv.gz")
    counts = pd.read_csv(path)  # pandas takes the first column for the index where the header is short
    labels = pd.read_csv(real("celllines3_celseq2.metadata.csv.gz")).loc[counts.columns]
    with open_source(path, memory_budget=budget, spill_dir=tmp_path) as source:
        assert (source.name, source.n_cells, source.n_genes) == ("celllines3_celseq2", 274, 28_204)
        assert source.genes.index == list(counts.index)
        same_matrix(source, "table", counts.to_numpy(np.float64).T)
        assert bool(list(tmp_path.iterdir())) == (budget == 1 << 20)
        obs = source.obs()
        assert obs["cell"].to_pylist() == list(counts.columns)
        for name in labels.columns:
            np.testing.assert_array_equal(obs[name].to_numpy(), labels[name].to_numpy())
    assert list(tmp_path.iterdir()) == []


def test_loom_equals_h5py():
    path = real("pbmc_ifnb_kang.loom")
    with h5py.File(path) as file:
        X = file["matrix"][()]
        genes, cells = (
            [name.decode() for name in file[f"{axis}_attrs"][name][()]]
            for axis, name in (("row", "Gene"), ("col", "CellID"))
        )
        condition = [name.decode() for name in file["col_attrs/condition"][()]]
    with open_source(path) as source:
        same_matrix(source, "matrix", X.T)
        assert source.genes.index == genes and source.genes.symbols == genes and source.notes == []
        assert source.obs().to_pydict() == {"cell": cells, "condition": condition}


def test_zarr_of_2018_equals_zarr():
    path = real("mouse_neurons_10k_1000genes.zarr")
    group = zarr.open_group(path, mode="r")
    var = group["var"][...]
    with open_source(path) as source:
        same_matrix(source, "X", group["X"][...])
        assert source.genes.index == [name.decode() for name in var["index"]]
        assert source.genes.ids == [name.decode() for name in var["gene_ids"]]
        assert source.obs()["cell"].to_pylist() == [name.decode() for name in group["obs"][...]["index"]]
        assert source.notes == []
