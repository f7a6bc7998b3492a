"""loom files of versions 1 to 3: matrix and layers, names, attributes of all kinds."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from cellmill.errors import FormatError, InputError
from cellmill.sources import open_source


@pytest.fixture
def change(truth, write, tmp_path):
    """Write a loom file, change it, and return its path."""

    def make(alter, kind="loom-v3-dense"):
        path = write(kind, truth, tmp_path)
        with h5py.File(path, "r+") as file:
            alter(file)
        return path

    return make


def test_layers_are_matrices_and_a_broken_one_stops_nothing(change, truth, whole):
    def alter(file):
        file["layers/spliced"] = (2 * truth.X.T).astype(np.uint16)
        file["layers/short"] = truth.X.T[:-1]
        file.create_group("layers/sparse")

    with open_source(change(alter)) as source:
        assert [info.name for info in source.matrices()] == ["matrix", "layers/spliced"]
        np.testing.assert_array_equal(whole(source, "layers/spliced", block_cells=5).toarray(), 2 * truth.X)
        assert len(source.notes) == 2 and "matrix layers/short cannot be read" in source.notes[0]
        with pytest.raises(FormatError, match=r"layers/short: its shape is \(22, 37\), expected \(23, 37\)"):
            source.blocks("layers/short")
        with pytest.raises(InputError, match="Did you mean 'layers/spliced'"):
            source.blocks("layers/splice")


def test_attributes_keep_kind_and_what_is_no_vector_is_told(change, truth):
    n = len(truth.cells)

    def alter(file):
        columns = file["col_attrs"]
        columns["age"], columns["share"] = np.arange(n), np.linspace(0, 1, n)
        columns["who"] = np.array(["Ä & B"] * n, h5py.string_dtype())
        columns["pca"] = np.zeros((n, 2))
        columns["cell"] = np.array(["x"] * n, "S")
        file["row_attrs/vst"] = np.zeros((23, 4))
        file["row_attrs/Selected"] = np.ones(23, int)

    with open_source(change(alter)) as source:
        obs = source.obs()
        assert obs.column_names == ["cell", "age", "source_cell", "share", "who"]
        assert obs["age"].to_pylist() == list(range(n)) and obs["who"].to_pylist() == ["Ä & B"] * n
        assert obs["cell"].to_pylist() == truth.cells
        assert source.notes == [
            "cells.loom: col_attrs 'pca' was skipped (its shape is (37, 2))",
            "cells.loom: obs column 'cell' is kept as 'source_cell'",
        ]
        assert list(source.genes.columns) == ["Name"]


def test_entities_of_version_2_are_resolved(change, truth):
    def alter(file):
        file["col_attrs/who"] = np.array(["M&#252;ller &amp; Co", *["x"] * (len(truth.cells) - 1)], "S")

    with open_source(change(alter, "loom-v2-dense")) as source:
        assert source.obs()["who"].to_pylist()[:2] == ["Müller & Co", "x"]


@pytest.mark.parametrize(
    ("names", "index", "ids"),
    [
        ({"Gene": "sym", "Accession": "ens"}, "sym", "ens"),
        ({"Accession": "ens"}, "ens", "ens"),
        ({"var_names": "sym", "gene_ids": "ens"}, "sym", "ens"),
        ({"gene": "sym"}, "sym", "sym"),
    ],
)
def test_genes_are_named_by_whichever_attribute_names_them(names, index, ids, change, truth):
    texts = {"sym": [f"G{i}" for i in range(23)], "ens": truth.genes}

    def alter(file):
        del file["row_attrs"]
        for name, which in names.items():
            file[f"row_attrs/{name}"] = np.array(texts[which], "S")

    with open_source(change(alter)) as source:
        assert source.genes.index == texts[index] and source.genes.ids == texts[ids]


def test_antibodies_are_no_genes(change, truth, whole):
    types = np.array(["Antibody Capture", *["Gene Expression"] * 22], "S")
    with open_source(change(lambda file: file.__setitem__("row_attrs/feature_types", types))) as source:
        assert source.dropped == {"features not Gene Expression": 1} and source.genes.index == truth.genes[1:]
        np.testing.assert_array_equal(whole(source).toarray(), truth.X[:, 1:])


def test_cells_without_names_are_named_by_position(change):
    with open_source(change(lambda file: file.__delitem__("col_attrs/CellID"))) as source:
        assert source.obs()["cell"].to_pylist()[:2] == ["0", "1"]
        assert "no column attribute names the cells" in source.notes[0]


@pytest.mark.parametrize(
    ("alter", "said"),
    [
        (
            lambda file: file.__delitem__("row_attrs/Gene") or file.__delitem__("row_attrs/Name"),
            "no row attribute names",
        ),
        (
            lambda file: file.__setitem__("col_attrs/n", np.ones(36)),
            r"col_attrs\['n'\] has 36 entries, but .* 37 cells",
        ),
        (
            lambda file: file.__setitem__("row_attrs/n", np.ones(24)),
            r"row_attrs\['n'\] has 24 entries, but .* 23 genes",
        ),
    ],
)
def test_contradictions_name_the_attribute(alter, said, change):
    path = change(alter)
    with pytest.raises(FormatError, match=said) as caught:
        open_source(path).obs()
    assert str(path) in str(caught.value)


def test_a_matrix_that_is_none_is_refused(change):
    def alter(file):
        del file["matrix"]
        file["matrix"] = np.ones(4)

    with pytest.raises(FormatError, match=r"holds .*expected what a loom file has"):
        open_source(change(alter))
