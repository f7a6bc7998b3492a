"""What is remembered of files: it is taken again while a file is the same, and never of a file that changed."""

from __future__ import annotations

import gc
import os
import weakref
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from scipy import sparse

from cellmill.errors import FormatError
from cellmill.sources import hdf5, open_source
from cellmill.sources.known_files import KnownFiles, Shared, file_stamp


def write_h5ad(path: Path, genes: list[str], *, symbols: list[str] | None = None) -> Path:
    counts = sparse.random(20, len(genes), density=0.3, format="csr", random_state=1, data_rvs=np.ones)
    with h5py.File(path, "w") as file:
        x = file.create_group("X")
        x.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0", "shape": counts.shape})
        for name in ("data", "indices", "indptr"):
            x[name] = getattr(counts, name)
        for place, names in (("obs", [f"c{i}" for i in range(20)]), ("var", genes)):
            group = file.create_group(place)
            group.attrs.update({"encoding-type": "dataframe", "encoding-version": "0.2.0", "_index": "_index"})
            group.attrs["column-order"] = np.array([], dtype=h5py.string_dtype())
            group["_index"] = np.array(names, dtype=object)
        if symbols is not None:
            labels = sorted(set(symbols) - {""})
            column = file["var"].create_group("feature_name")
            column.attrs.update({"encoding-type": "categorical", "encoding-version": "0.2.0", "ordered": False})
            column["codes"] = np.array([labels.index(s) if s else -1 for s in symbols], dtype=np.int16)
            column["categories"] = np.array(labels, dtype=object)
            file["var"].attrs["column-order"] = np.array(["feature_name"], dtype=object)
    return path


def ids(start: int, stop: int) -> list[str]:
    return [f"ENSG{i:011d}" for i in range(start, stop)]


def genes_of(path: Path) -> Any:
    with open_source(path) as source:
        return source.genes


def test_files_of_one_study_share_one_gene_axis(tmp_path: Path) -> None:
    one = genes_of(write_h5ad(tmp_path / "a.h5ad", ids(0, 50)))
    assert genes_of(write_h5ad(tmp_path / "b.h5ad", ids(0, 50))) is one
    assert genes_of(tmp_path / "a.h5ad") is one
    other = genes_of(write_h5ad(tmp_path / "c.h5ad", ids(0, 50)[::-1]))
    assert other.index == ids(0, 50)[::-1]


def test_a_gene_axis_is_read_once_while_the_file_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_h5ad(tmp_path / "a.h5ad", ids(0, 30))
    places: list[str] = []
    read = hdf5.Hdf5Array.read

    def told(self: hdf5.Hdf5Array, *how: Any, **named: Any) -> Any:
        places.append(self._dataset.name)
        return read(self, *how, **named)

    monkeypatch.setattr(hdf5.Hdf5Array, "read", told)
    genes_of(path)
    assert places.count("/var/_index") == 1
    genes_of(path)
    assert places.count("/var/_index") == 1


@pytest.mark.parametrize("how", ["replaced", "written over"])
def test_a_changed_file_is_read_again(tmp_path: Path, how: str) -> None:
    path = write_h5ad(tmp_path / "a.h5ad", ids(0, 40))
    before = path.stat()
    genes_of(path)
    if how == "replaced":
        write_h5ad(tmp_path / "new", ids(100, 140)).replace(path)
    else:
        with h5py.File(path, "r+") as file:
            del file["var/_index"]
            file["var/_index"] = np.array(ids(100, 140), dtype=object)
        with path.open("r+b") as raw:
            raw.truncate(max(before.st_size, path.stat().st_size))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # as rsync and tar set it
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    assert genes_of(path).index == ids(100, 140)


def test_a_file_that_came_to_lead_to_another_is_refused(tmp_path: Path) -> None:
    path = write_h5ad(tmp_path / "a.h5ad", ids(0, 40))
    genes_of(path)
    with h5py.File(path, "r+") as file:
        file["obs/stolen"] = h5py.ExternalLink("/etc/passwd", "/")
    with pytest.raises(FormatError, match="a link to"):
        genes_of(path)


def test_labels_of_genes_come_back_with_missing_ones_empty(tmp_path: Path) -> None:
    symbols = ["B", "", "A", "A", "C"]
    genes = genes_of(write_h5ad(tmp_path / "a.h5ad", ids(0, 5), symbols=symbols))
    assert genes.columns["feature_name"] == symbols


def test_a_source_is_freed_when_it_is_closed(tmp_path: Path) -> None:
    """Without waiting for the collector of cycles, which a build over thousands of files outruns."""
    path = write_h5ad(tmp_path / "a.h5ad", ids(0, 5))
    gc.collect()
    gc.disable()
    try:
        source = open_source(path)
        source.obs()
        list(source.blocks())
        watched = weakref.ref(source)
        source.close()
        del source
        assert watched() is None
    finally:
        gc.enable()


def test_only_the_latest_are_kept() -> None:
    known: KnownFiles[int, str] = KnownFiles(2)
    for number in (1, 2):
        known.put(number, str(number))
    assert known.get(1) == "1"
    known.put(3, "3")
    assert (known.get(1), known.get(2), known.get(3)) == ("1", None, "3")


def test_equal_values_are_one_and_a_failed_reading_leaves_nothing(tmp_path: Path) -> None:
    def fails() -> list[int]:
        raise OSError("once")

    shared: Shared[list[int]] = Shared(most_files=9, most_values=1, digest=str)
    for name in "ab":
        (tmp_path / name).write_text(name)
    a, b = file_stamp(tmp_path / "a"), file_stamp(tmp_path / "b")
    with pytest.raises(OSError, match="once"):
        shared.get(a, "var", fails)
    one = shared.get(a, "var", lambda: [1])
    assert shared.get(b, "var", lambda: [1]) is one
    assert shared.get(a, "var", lambda: [2]) is one
    assert shared.get(a, "raw/var", lambda: [3]) == [3]  # the first value makes room
    assert shared.get(a, "var", lambda: [4]) == [4]
    assert file_stamp(tmp_path) is None and file_stamp(tmp_path / "none") is None
