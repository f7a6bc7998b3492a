"""Files of one Matrix Market input are found by the words of their names, however they are called."""

from __future__ import annotations

import gzip

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
