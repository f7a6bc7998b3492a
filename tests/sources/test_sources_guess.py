"""Formats are told by content, inputs are found once, and what is foreign is named."""

from __future__ import annotations

import gzip
import sys
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cellmill.errors import FormatError, InputError, MissingDependencyError, NotFoundError
from cellmill.events import listening
from cellmill.sources import expand_inputs, find_inputs, guess, guess_format, open_source
from cellmill.sources.base import dataset_name


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("h5ad-csr", "h5ad"),
        ("h5ad-2017", "h5ad"),
        ("10x-v3", "10x-h5"),
        ("10x-v2-two-genomes", "10x-h5"),
        ("mex-v2", "mex"),
        ("mex-parse", "mex"),
    ],
)
def test_the_name_does_not_matter(kind, expected, truth, write, tmp_path):
    path = write(kind, truth, tmp_path)
    odd = path.rename(tmp_path / "some.thing")
    assert guess_format(odd)[0] == expected
    assert guess_format(odd)[1]
    with open_source(odd) as source:
        assert source.kind == expected
    with open_source(odd, format=expected) as source:
        assert source.kind == expected


def test_a_format_that_is_not_there_is_refused(truth, write, tmp_path):
    path = write("10x-v3", truth, tmp_path)
    with pytest.raises(FormatError, match="no h5ad: it holds matrix"):
        open_source(path, format="h5ad")
    with pytest.raises(FormatError, match=r"not one of 10x: it holds X, .*obs"):
        open_source(write("h5ad-csr", truth, tmp_path), format="10x-h5")
    with pytest.raises(InputError, match="Did you mean 'h5ad'"):
        open_source(path, format="h5da")


def _zip(path):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a", "b")


@pytest.mark.parametrize(
    ("make", "found"),
    [
        (lambda path: path.write_text("cell,gene\n1,2\n"), "text, beginning with 'cell,gene'"),
        (lambda path: path.write_text("To whom it may concern,\nhello\n"), "text, beginning with 'To whom it may"),
        (lambda path: path.write_bytes(gzip.compress(b"cell,gene\n")), "gzipped: text"),
        (lambda path: path.write_bytes(gzip.compress(b"\x89HDF\r\n\x1a\n")), "gunzip"),
        (lambda path: path.write_bytes(gzip.compress(b"RDX3\nX\n")), "R data file"),
        (lambda path: path.write_bytes(b""), "empty"),
        (lambda path: pq.write_table(pa.table({"drug": ["x"]}), path), "Parquet file of another kind"),
        (lambda path: path.write_text("<!DOCTYPE html>"), "web page"),
        (lambda path: path.write_bytes(b"\x00\x01\x02\xff"), "binary of an unknown kind"),
        (_zip, "zip archive"),
        (lambda path: path.mkdir(), "it holds nothing"),
    ],
)
def test_what_was_found_is_said(make, found, tmp_path):
    path = tmp_path / "cells.h5ad"
    make(path)
    with pytest.raises(FormatError, match=found) as caught:
        open_source(path)
    assert str(path) in str(caught.value) and "10x HDF5" in str(caught.value)


def test_foreign_hdf5_is_named(tmp_path):
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["weights"] = np.zeros(3)
    with pytest.raises(FormatError, match="another kind: it holds weights"):
        guess_format(tmp_path / "b.h5")


def test_a_missing_path_names_its_neighbour(tmp_path):
    (tmp_path / "kidney.h5ad").touch()
    for ask in (open_source, guess_format, lambda path: expand_inputs([path])):
        with pytest.raises(NotFoundError, match=r"Did you mean 'kidney\.h5ad'"):
            ask(tmp_path / "kidny.h5ad")


def test_inputs_are_found_each_once_in_order(truth, write, tmp_path):
    folders = {name: tmp_path / name for name in ("c", "a", "b")}
    for folder in folders.values():
        folder.mkdir()
    first = write("h5ad-csr", truth, folders["a"])
    second = write("10x-v3", truth, folders["b"])
    third = write("mex-v3", truth, folders["c"])
    (folders["a"] / "notes.csv").write_text("x")
    (folders["b"] / ".hidden.h5ad").write_text("x")
    with h5py.File(folders["b"] / "weights.h5", "w") as file:
        file["w"] = 1
    assert expand_inputs(tmp_path) == [first, second, third]
    assert expand_inputs([third, tmp_path, str(first)]) == [third, first, second]
    assert expand_inputs([str(tmp_path / "*" / "*.h5*")]) == [first, second, folders["b"] / "weights.h5"]
    assert expand_inputs([f"{tmp_path}/**/*.h5ad"]) == [first]
    link = tmp_path / "link.h5ad"
    link.symlink_to(first)
    assert expand_inputs([first, link]) == [first]


def test_a_folder_with_a_matrix_hides_nothing_else_in_it(truth, write, tmp_path):
    folder = write("mex-v2", truth, tmp_path)
    beside = write("h5ad-csr", truth, folder)
    (folder / "below").mkdir()
    below = write("10x-v3", truth, folder / "below")
    for asked in (folder, tmp_path):
        assert expand_inputs(asked) == [folder, below, beside]


def test_what_looks_like_counts_but_is_not_read_is_told(truth, write, tmp_path):
    folder = write("mex-v2", truth, tmp_path)
    for name in ("a.h5mu", "b.h5ad.gz", "spliced.mtx", "unspliced.mtx.gz", "b.count.csv.gz", "a.tsv", ".hidden.loom"):
        (folder / name).write_text("x")
    (folder / "obs.csv").write_text("belongs to the matrix")
    for name in ("c.zarr", "d.mill", "deeper"):
        (folder / name).mkdir()
    (folder / "c.zarr" / "zarr.json").write_text("{}")  # a store, but of no cells
    (folder / "deeper" / "e.rds").write_text("x")
    with h5py.File(folder / "weights.h5", "w") as file:
        file["w"] = 1
    told = []
    with listening(told.append):
        assert expand_inputs(tmp_path) == [folder]
    (message,) = [event.message for event in told if event.message]
    assert f"{tmp_path}: passed over 9 that are no input: " in message
    passed = {one.path.name: one.why for one in find_inputs(tmp_path)[1]}
    assert len(passed) == 10 and passed["d.mill"].startswith("a store")
    assert passed["b.h5ad.gz"] == "packed; unpack it first" and "barcodes" in passed["spliced.mtx"]
    for name in ("a.h5mu", "a.tsv", "b.count.csv.gz", "b.h5ad.gz", "c.zarr", "deeper/e.rds", "spliced.mtx"):
        assert name in message
    assert "obs.csv" not in message and "genes.tsv" not in message
    with pytest.raises(NotFoundError, match=r"no input in this folder. It holds e\.rds, which cellmill does not read"):
        expand_inputs(folder / "deeper")


def test_links_that_lead_in_circles_are_followed_once(truth, write, tmp_path, monkeypatch):
    path = write("h5ad-csr", truth, tmp_path)
    (tmp_path / "back").symlink_to(tmp_path)
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "up").symlink_to(tmp_path)
    (tmp_path / "self.h5ad").symlink_to(tmp_path / "self.h5ad")
    looked = []
    find = guess.find_matrices

    def look(folder):
        looked.append(folder)
        assert len(looked) < 20
        return find(folder)

    monkeypatch.setattr(guess, "find_matrices", look)
    assert expand_inputs(tmp_path) == [path, tmp_path / "self.h5ad"]
    assert looked == [tmp_path, tmp_path / "sub"]


def test_nothing_found_is_said(tmp_path):
    (tmp_path / "empty").mkdir()
    for wanted, said in ((tmp_path / "empty", "no input in this folder"), (f"{tmp_path}/*.h5ad", "nothing matches")):
        with pytest.raises(NotFoundError, match=said):
            expand_inputs([wanted])
    with pytest.raises(NotFoundError, match="No input was named"):
        expand_inputs([])


def test_a_truncated_file_in_a_folder_is_an_input(truth, write, tmp_path):
    """Left out silently, its cells would be missing; as an input it is refused by name."""
    path = write("10x-v3", truth, tmp_path)
    good = path.read_bytes()
    for size, said in ((len(good) - 500, "truncated"), (0, "is empty")):
        path.write_bytes(good[:size])
        assert expand_inputs(tmp_path) == [path]
        with pytest.raises(FormatError, match=said):
            open_source(path)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("x/kidney.h5ad", "kidney"),
        ("x/kidney.v2.h5ad", "kidney.v2"),
        ("run7/outs/filtered_feature_bc_matrix.h5", "run7_filtered_feature_bc_matrix"),
        ("run7/matrix.mtx.gz", "run7_matrix"),
        ("geo/GSM1_liver_matrix.mtx.gz", "GSM1_liver"),
        ("run7/outs/filtered_gene_bc_matrices/GRCh38", "run7_GRCh38"),
        ("sample_1", "sample_1"),
    ],
)
def test_data_sets_have_telling_names(path, name, tmp_path):
    assert dataset_name(tmp_path / path) == name


def test_several_matrices_in_a_folder_are_inputs_of_their_own(truth, write, tmp_path):
    folder = write("mex-v2", truth, tmp_path)
    for file in list(folder.iterdir()):
        for prefix in ("GSM1_", "GSM2."):
            (folder / f"{prefix}{file.name}").write_bytes(file.read_bytes())
        file.unlink()
    with pytest.raises(FormatError, match="holds 2 Matrix Market files"):
        open_source(folder)
    found = expand_inputs(folder)
    assert [path.name for path in found] == ["GSM1_matrix.mtx", "GSM2.matrix.mtx"]
    for path in found:
        with open_source(path) as source:
            assert source.n_cells == len(truth.cells) and source.name in ("GSM1", "GSM2")


def test_a_file_system_that_refuses_locks_is_no_obstacle(truth, write, whole, tmp_path, monkeypatch):
    path, opened = write("h5ad-csr", truth, tmp_path), h5py.File

    def refuse(*args, **options):
        if "locking" not in options:
            raise OSError("Unable to synchronously open file (unable to lock file, errno = 11)")
        return opened(*args, **options)

    monkeypatch.setattr(h5py, "File", refuse)
    with open_source(path) as source:
        np.testing.assert_array_equal(whole(source).toarray(), truth.X)


def test_tables_of_counts_are_found_in_folders_and_other_tables_are_told(truth, write, tmp_path):
    folder = tmp_path / "study"
    folder.mkdir()
    counts = write("csv-genes-x-cells", truth, folder)
    tsv = write("csv-genes-x-cells-two-names", truth, folder).rename(folder / "other.txt")
    (folder / "study.metadata.csv").write_text("cell,kind\n" + "".join(f"{cell},x\n" for cell in truth.cells))
    (folder / "tests.csv").write_text("gene,logFC,p\nTP53,-1.2,0.05\nCD3E,0.2,1e-9\n")
    (folder / "qc.csv").write_text("cell,umis,genes\nc1,100,20\nc2,7,3\n")
    (folder / "readme.txt").write_text("Counts of a study,\nby hand\n")
    told = []
    with listening(told.append):
        assert expand_inputs(tmp_path) == [tsv, counts]
    (message,) = [event.message for event in told if event.message]
    assert "passed over 2 that are no input: study/qc.csv, study/tests.csv" in message


def test_zarr_and_loom_are_found_in_folders_and_told_by_content(truth, write, tmp_path):
    kinds = ("zarr-v3-csr", "zarr-zip", "loom-v3-dense")
    paths = []
    for kind in kinds:
        (tmp_path / kind).mkdir()
        paths.append(write(kind, truth, tmp_path / kind))
    assert sorted(expand_inputs(tmp_path)) == sorted(paths)
    assert expand_inputs(paths[0]) == [paths[0]]
    assert [guess_format(path) for path in paths] == [
        ("zarr", "zarr with obs, var, X, raw, layers"),
        ("zarr", "zarr with obs, var, X, raw, layers"),
        ("loom", "HDF5 with col_attrs, matrix, row_attrs"),
    ]
    renamed = paths[0].rename(tmp_path / "zarr-v3-csr" / "cells.h5ad")
    assert guess_format(renamed)[0] == "zarr"
    for path, name in zip([renamed, *paths[1:]], ["cells"] * 3, strict=True):
        with open_source(path) as source:
            assert source.name == name


def test_a_zarr_store_without_cells_is_named(tmp_path):
    (tmp_path / "image.zarr" / "0").mkdir(parents=True)
    (tmp_path / "image.zarr" / "zarr.json").write_text("{}")
    with pytest.raises(FormatError, match=r"image\.zarr is a zarr store of another kind: it holds 0\. cellmill reads"):
        open_source(tmp_path / "image.zarr")
    with zipfile.ZipFile(tmp_path / "image.zarr.zip", "w") as archive:
        archive.writestr("a/.zgroup", "{}")
        archive.writestr("a/0/.zarray", "{}")
    with pytest.raises(FormatError, match=r"image\.zarr\.zip is a zarr store of another kind: it holds 0\."):
        open_source(tmp_path / "image.zarr.zip")
    for broken in ("{", ""):
        (tmp_path / "image.zarr" / "zarr.json").write_text(broken)
        with pytest.raises(FormatError, match=r"image\.zarr is a zarr store that cannot be opened"):
            open_source(tmp_path / "image.zarr", format="zarr")


def test_without_the_package_zarr_the_extra_is_named(truth, write, tmp_path, monkeypatch):
    path = write("zarr-v2-csr", truth, tmp_path)
    monkeypatch.setitem(sys.modules, "zarr", None)
    with pytest.raises(MissingDependencyError, match=r"cells\.zarr: reading a zarr store needs .*'\.\[zarr\]'"):
        open_source(path)


def test_unusable_folders_are_kept_on_request(truth, write, tmp_path):
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "readme.txt").write_text("x")
    path = write("h5ad-csr", truth, tmp_path)
    assert expand_inputs([tmp_path / "tables", path], keep_unusable=True) == [tmp_path / "tables", path]
    with pytest.raises(NotFoundError):
        expand_inputs([tmp_path / "tabels"], keep_unusable=True)


def test_a_file_is_told_without_listing_its_folder(tmp_path, monkeypatch):
    """Else thousands of inputs in one folder would take millions of looks."""
    path = tmp_path / "a.h5ad"
    with h5py.File(path, "w") as file:
        file.create_group("obs")
        file.create_group("var")
    monkeypatch.setattr(Path, "iterdir", lambda self: pytest.fail(f"{self} was listed"))
    assert guess_format(path)[0] == "h5ad"
