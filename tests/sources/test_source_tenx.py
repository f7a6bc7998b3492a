"""10x HDF5, both generations, and labels beside the file."""

from __future__ import annotations

import h5py
import numpy as np
import pyarrow as pa
import pytest

from cellmill.errors import FormatError
from cellmill.sources import open_source


def test_features_keep_id_name_type_and_genome(truth, write, tmp_path):
    with open_source(write("10x-v3", truth, tmp_path)) as source:
        assert source.name == "run_a" and source.genes.symbols == [f"n{g}" for g in truth.genes]
        assert source.genes.feature_type == ["Gene Expression"] * len(truth.genes)
        assert set(source.genes.columns) == {"gene_name", "feature_type", "genome"}
        assert [info.name for info in source.matrices()] == ["matrix"]
    with open_source(write("10x-v2", truth, tmp_path)) as source:
        assert source.genes.columns["genome"] == ["GRCh38"] * len(truth.genes) and source.genes.feature_type is None


def test_two_genomes_with_the_same_cells_and_repeated_barcodes(truth, write, tmp_path, whole):
    path = write("10x-v2-two-genomes", truth, tmp_path)
    with h5py.File(path, "r+") as file:
        del file["mm10"]
        file.copy("hg19", "mm10")
        same = ["X"] * len(truth.cells)
        for name in ("hg19", "mm10"):
            del file[name]["barcodes"]
            file[name]["barcodes"] = np.array(same, "S")
    with open_source(path) as source:
        assert source.obs()["cell"].to_pylist() == same
        half = truth.X[:, : len(truth.genes) // 2]
        np.testing.assert_array_equal(whole(source, block_cells=7).toarray(), np.hstack([half, half]))


def test_two_genomes_with_cells_in_another_order(tmp_path, whole):
    """The union keeps the order of first mention; rows of the second group are read in runs, forth and back."""
    first, second = ["a", "b", "c", "d"], ["d", "x", "a", "b", "y"]
    X, Y = np.arange(1, 9).reshape(4, 2), np.arange(11, 26).reshape(5, 3)
    with h5py.File(tmp_path / "both.h5", "w") as file:
        for name, cells, counts in (("hg19", first, X), ("mm10", second, Y)):
            group, (n, g) = file.create_group(name), counts.shape
            group["barcodes"], group["data"] = np.array(cells, "S"), counts.reshape(-1)
            group["indices"], group["indptr"] = np.tile(np.arange(g), n), np.arange(n + 1) * g
            group["genes"] = group["gene_names"] = np.array([f"{name}_{i}" for i in range(g)], "S")
    with open_source(tmp_path / "both.h5") as source:
        assert source.obs()["cell"].to_pylist() == ["a", "b", "c", "d", "x", "y"]
        expected = np.zeros((6, 5), int)
        expected[:4, :2], expected[[3, 4, 0, 1, 5], 2:] = X, Y
        for block_cells in (1, 2, 6):
            np.testing.assert_array_equal(whole(source, block_cells=block_cells).toarray(), expected)


def test_two_genomes_whose_cells_cannot_be_joined_are_refused(truth, write, tmp_path):
    path = write("10x-v2-two-genomes", truth, tmp_path)
    with h5py.File(path, "r+") as file:
        barcodes = file["mm10/barcodes"][()]
        barcodes[1] = barcodes[0]
        file["mm10/barcodes"][...] = barcodes
    with pytest.raises(FormatError, match="group mm10: barcodes repeat"):
        open_source(path)


def test_a_file_without_genes_is_refused(truth, write, tmp_path):
    path = write("10x-v3", truth, tmp_path)
    with h5py.File(path, "r+") as file:
        types = file["matrix/features/feature_type"]
        del file["matrix/features/feature_type"]
        file["matrix/features/feature_type"] = np.array([b"Antibody Capture"] * len(types))
    with pytest.raises(FormatError, match="none of its 26 features is a gene; feature types are Antibody Capture"):
        open_source(path)


@pytest.mark.parametrize(
    ("name", "values", "said"),
    [
        ("shape", np.array([25, 37]), r"its shape is \(25, 37\), but it lists 26 features and 37 barcodes"),
        ("features/name", np.array([b"a"]), "1 entries of gene_name for 26 features"),
        ("indptr", np.zeros(3, np.int64), "indptr has 3 entries, expected 38 for 37 cells"),
    ],
)
def test_contradictions_are_refused(name, values, said, truth, write, tmp_path):
    path = write("10x-v3", truth, tmp_path)
    with h5py.File(path, "r+") as file:
        del file[f"matrix/{name}"]
        file[f"matrix/{name}"] = values
    with pytest.raises(FormatError, match=said):
        open_source(path)


def test_labels_beside_the_file_are_joined_by_barcode(truth, write, tmp_path):
    path = write("10x-v3", truth, tmp_path)
    rows = [f'{cell},"T, {i % 2}",{i:03d},{i},{i / 2},{i % 2 == 0},NA' for i, cell in enumerate(truth.cells) if i != 4]
    text = "\n".join(["barcode,type,donor,n,share,ok,none", *reversed(rows), "STRANGER,x,1,1,1,True,"])
    (tmp_path / "run_a.obs.csv").write_text(text)
    with open_source(path) as source:
        table, notes = source.obs(), source.notes
    assert table.column_names == ["cell", "type", "donor", "n", "share", "ok", "none"]
    kinds = [pa.string(), pa.string(), pa.string(), pa.int64(), pa.float64(), pa.bool_(), pa.string()]
    assert table.schema.types == kinds
    assert table.column("cell").to_pylist() == truth.cells
    assert table["n"].to_pylist() == [None if i == 4 else i for i in range(37)]
    assert table["donor"].to_pylist()[:2] == ["000", "001"] and table["type"][3].as_py() == "T, 1"
    assert table["share"][5].as_py() == 2.5 and table["ok"][6].as_py() is True and table["none"].null_count == 37
    assert notes == [
        "run_a.obs.csv: 1 of 37 cells have no row; their labels are null",
        "run_a.obs.csv: 1 rows belong to no cell of run_a.h5; skipped",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("barcode,type\nCELL000-1,a\nCELL000-1,b\n", "barcode 'CELL000-1' stands in more than one row"),
        ("barcode,type\nAAA,a\nBBB,b\n", r"none of its barcodes \(AAA, BBB\) is in run_a\.h5 \(CELL000-1"),
        ("barcode,type\nCELL000-1,a,b,c\n", "not a CSV of labels"),  # one more would be row names, as R writes them
        ("barcode,a,a\nCELL000-1,a,b\n", "its header names a column twice"),
        ("", "not a CSV of labels"),
    ],
)
def test_labels_that_cannot_be_joined_are_refused(text, said, truth, write, tmp_path):
    path = write("10x-v3", truth, tmp_path)
    (tmp_path / "run_a.obs.csv").write_text(text)
    with open_source(path) as source, pytest.raises(FormatError, match=said) as caught:
        source.obs()
    assert "run_a.obs.csv" in str(caught.value)


def test_antibodies_are_left_out_however_the_types_of_genes_are_written(truth, write, tmp_path):
    path = write("10x-v3", truth, tmp_path)
    with h5py.File(path, "r+") as file:
        types = [kind.replace(b"Gene Expression", b"gene expression") for kind in file["matrix/features/feature_type"]]
        del file["matrix/features/feature_type"]
        file["matrix/features/feature_type"] = np.array(types)
    with open_source(path) as source:
        assert source.genes.ids == truth.genes and source.dropped == {"features not Gene Expression": 3}
