"""Files of one Matrix Market input are found by the words of their names, however they are called."""

from __future__ import annotations

import gzip
import tarfile

import numpy as np
import pytest

from cellmill.errors import FormatError
from cellmill.events import listening
from cellmill.sources import expand_inputs, explain_guess, open_source
from cellmill.sources.mex_names import group_mex


@pytest.mark.parametrize(
    "names",
    [
        ("matrix.mtx.gz", "barcodes.tsv.gz", "features.tsv.gz"),
        ("matrix.mtx", "barcodes.tsv", "genes.tsv"),
        ("GSM1_liver_matrix.mtx.gz", "GSM1_liver_barcodes.tsv.gz", "GSM1_liver_genes.tsv.gz"),
        ("GSM1_liver.matrix.mtx", "GSM1_liver.barcodes.tsv", "GSM1_liver.features.tsv"),
        ("GSM1-liver-matrix.mtx", "GSM1-liver_barcodes.tsv", "GSM1_liver-features.tsv"),
        ("GSM1_matrix_liver.mtx.gz", "GSM1_barcodes_liver.tsv.gz", "GSM1_genes_liver.tsv.gz"),
        ("GSM1_liver.mtx.gz", "GSM1_liver_barcodes.tsv.gz", "GSM1_liver_features.tsv.gz"),
        ("GSM1_raw_counts.mtx", "GSM1_barcodes.txt", "GSM1_gene_names.txt"),
        ("GSM1_liver_matrix.mtx.gz", "GSM1_liver_barcodes.tv.gz", "GSM1_liver_features.csv.gz"),
        ("cells_x_genes.mtx", "cells_x_genes.barcodes.txt", "cells_x_genes.genes.txt"),
        ("quants_mat.mtx.gz", "quants_mat_cols.txt", "quants_mat_rows.txt"),
    ],
)
def test_a_matrix_finds_its_companions(names, truth, write, tmp_path, whole):
    made = write("mex-v2", truth, tmp_path)
    folder = tmp_path / "study"
    folder.mkdir()
    for old, new in zip(("matrix.mtx", "barcodes.tsv", "genes.tsv"), names, strict=True):
        text = (made / old).read_bytes()
        if ".csv" in new:
            text = text.replace(b"\t", b",")
        (folder / new).write_bytes(gzip.compress(text) if new.endswith(".gz") else text)
    assert expand_inputs(folder) == [folder]
    assert explain_guess(folder).startswith(f"{folder}: read as mex, since ")
    for path in (folder, folder / names[0]):
        with open_source(path) as source:
            assert source.kind == "mex" and source.genes.index == truth.genes
            assert source.obs()["cell"].to_pylist() == truth.cells
            np.testing.assert_array_equal(whole(source).toarray(), truth.X)


@pytest.mark.parametrize("prefix", ["", "GSM1_a_"])
@pytest.mark.parametrize("matrix", ["count_matrix.mtx", "DGE.mtx"])
def test_folders_of_parse_biosciences_are_read_with_their_labels(prefix, matrix, truth, write, tmp_path, whole):
    made = write("mex-parse", truth, tmp_path)
    (made / "count_matrix.mtx").rename(made / f"{prefix}{matrix}")
    for name in ("cell_metadata.csv", "all_genes.csv"):
        (made / name).rename(made / f"{prefix}{name}")
    with tarfile.open(tmp_path / "all.tar", "w") as archive:
        archive.add(made, "sample/DGE_filtered")
    for path in (made, made / f"{prefix}{matrix}", tmp_path / "all.tar"):
        (found,) = expand_inputs(path)
        with open_source(found) as source:
            np.testing.assert_array_equal(whole(source).toarray(), truth.X)
            obs = source.obs()
            assert obs.column_names == ["cell", "sample", "gene_count"] and obs["cell"].to_pylist() == truth.cells
            assert obs["gene_count"].to_pylist() == list(range(len(truth.cells)))
            assert source.genes.ids == truth.genes and source.genes.symbols == [f"S{gene}" for gene in truth.genes]
            assert source.genes.columns["genome"][0] == "hg38" and source.cautions == []


def test_several_samples_of_parse_in_one_folder_are_inputs_of_their_own(truth, write, tmp_path):
    made, folder = write("mex-parse", truth, tmp_path), tmp_path / "GSE1"
    folder.mkdir()
    for sample in ("GSM1_a", "GSM2_b"):
        for name in ("count_matrix.mtx", "cell_metadata.csv", "all_genes.csv"):
            (folder / f"{sample}_{name}").write_bytes((made / name).read_bytes())
    assert [path.name for path in expand_inputs(folder)] == ["GSM1_a_count_matrix.mtx", "GSM2_b_count_matrix.mtx"]
    with open_source(made) as source:
        assert source.name == "sample_DGE_filtered"


def test_a_square_matrix_of_parse_has_cells_in_rows_and_is_warned_of(truth, write, tmp_path, whole):
    n = len(truth.genes)
    square = type(truth)(truth.X[:n], truth.cells[:n], truth.genes)
    with open_source(write("mex-parse", square, tmp_path)) as source:
        np.testing.assert_array_equal(whole(source).toarray(), square.X)
        assert "rows were taken for cells" in source.cautions[0] and "--format mex-genes-x-cells" in source.cautions[0]


def test_samples_of_one_folder_are_inputs_of_their_own_and_may_share_their_features(truth, write, tmp_path, whole):
    made = write("mex-v2", truth, tmp_path)
    folder = tmp_path / "GSE1"
    folder.mkdir()
    for sample in ("GSE1_a", "GSE1_b"):
        (folder / f"{sample}_counts.mtx").write_bytes((made / "matrix.mtx").read_bytes())
        (folder / f"{sample}_barcodes.tsv").write_bytes((made / "barcodes.tsv").read_bytes())
    (folder / "GSE1_features.tsv").write_bytes((made / "genes.tsv").read_bytes())
    (folder / "GSE1_a_metadata.csv").write_text("barcode,kind\n" + "".join(f"{cell},T\n" for cell in truth.cells))
    (folder / "GSE1_b_metadata.csv").write_text("sample,age\nb,30\n")
    told = []
    with listening(told.append):
        found = expand_inputs(folder)
    assert [path.name for path in found] == ["GSE1_a_counts.mtx", "GSE1_b_counts.mtx"] and told == []
    first, second = (open_source(path) for path in found)
    assert (first.name, second.name) == ("GSE1_a", "GSE1_b")
    np.testing.assert_array_equal(whole(second).toarray(), truth.X)
    assert set(first.obs()["kind"].to_pylist()) == {"T"}
    # A table that is not about these cells is no reason to refuse them, but is told.
    assert second.obs().column_names == ["cell"] and "GSE1_b_metadata.csv: none of its barcodes" in second.notes[0]


def test_spliced_and_unspliced_counts_share_no_barcodes_by_chance():
    names = ["spliced.mtx", "unspliced.mtx", "ambiguous.mtx", "barcodes.tsv", "features.tsv"]
    assert [group.is_sure for group in group_mex(names)] == [False, False, False]


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        ("barcodes", r"matrix\.mtx: GSM1_barcodes\.tsv, plain or \.gz"),
        ("genes", r"GSM1_features\.tsv \(or genes\.tsv\)"),
    ],
)
def test_a_missing_companion_is_an_error_not_fewer_inputs(missing, said, truth, write, tmp_path):
    folder = write("mex-v2", truth, tmp_path)
    for file in list(folder.iterdir()):
        file.rename(folder / f"GSM1_{file.name}")
    (folder / f"GSM1_{missing}.tsv").unlink()
    assert expand_inputs(folder) == [folder]
    with pytest.raises(FormatError, match=said):
        open_source(folder)


def test_names_that_are_no_utf8_are_refused_with_their_line(truth, write, tmp_path):
    folder = write("mex-v2", truth, tmp_path)
    lines = (folder / "barcodes.tsv").read_bytes().split(b"\n")
    lines[4] = b"caf\xe9"
    (folder / "barcodes.tsv").write_bytes(b"\n".join(lines))
    with pytest.raises(FormatError, match=r"barcodes\.tsv, line 5: b'caf\\xe9' is no UTF-8"):
        open_source(folder)


def test_barcodes_that_stand_twice_are_told(truth, write, tmp_path):
    folder = write("mex-v2", truth, tmp_path)
    (folder / "barcodes.tsv").write_text("\n".join([truth.cells[1], *truth.cells[1:]]) + "\n")
    with open_source(folder) as source:
        assert source.notes == [
            f"barcodes.tsv: 1 names stand more than once, for example {truth.cells[1]!r} in lines 1 and 2"
        ]
