"""An exported h5ad is what anndata reads as the store's own cells."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pytest

from cellmill import export
from cellmill.errors import InputError
from cellmill.events import listening
from cellmill.export import anndata as writer
from cellmill.ingest import build
from cellmill.simulate import write_atlas
from cellmill.store import Store

anndata = pytest.importorskip("anndata")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = tmp_path_factory.mktemp("export")
    return build(folder / "atlas.mill", write_atlas(folder / "inputs", n_cells=150, n_genes=200, seed=1))


@pytest.mark.parametrize("block", [2, 4096])
def test_anndata_reads_the_cells_of_the_store(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    monkeypatch.setattr(writer, "_BLOCK_CELLS", block)
    monkeypatch.setattr(writer, "_CHUNK", 64)
    rows = np.array([149, 3, 3, 77, 0])
    path = export.h5ad(store, tmp_path / "out" / "cells.h5ad", rows)
    found, expected = anndata.read_h5ad(path), store.to_anndata(rows)
    assert found.X.dtype == np.float32
    np.testing.assert_array_equal(found.X.toarray(), expected.X.toarray())
    assert found.obs_names.tolist() == expected.obs_names.tolist()
    assert found.var_names.tolist() == list(store.gene_ids)
    assert found.obs.columns.tolist() == expected.obs.columns.tolist()
    for name in expected.obs.columns:
        assert found.obs[name].astype(str).tolist() == expected.obs[name].astype(str).tolist(), name
    np.testing.assert_array_equal(found.var["detection_rate"], store.genes.column("detection_rate").to_numpy())
    assert list(tmp_path.rglob("*.tmp")) == []


def test_an_exported_store_builds_the_same_counts_again(store: Store, tmp_path: Path) -> None:
    again = build(tmp_path / "again.mill", [export.h5ad(store, tmp_path / "all.h5ad")])
    genes = sorted(set(again.gene_ids) & set(store.gene_ids))
    rows = np.arange(store.n_cells)
    np.testing.assert_array_equal(again.read_dense(rows, genes=genes), store.read_dense(rows, genes=genes))
    assert again.nnz == store.nnz


def test_every_kind_of_column_with_and_without_nulls_comes_back(tmp_path: Path) -> None:
    columns: dict[str, Any] = {
        "text": pa.array(["a", "b", "c"]),
        "text with null": pa.array(["a", None, "c"]),
        "kind": pa.array(["y", None, "x"]).dictionary_encode(),
        "unused": pa.DictionaryArray.from_arrays(pa.array([2, 2, 0], pa.int32()), pa.array(["p", "q", "r"])),
        "whole": pa.array([1, 2, 3], pa.int64()),
        "whole with null": pa.array([1, None, 3], pa.int64()),
        "truth": pa.array([True, False, True]),
        "truth with null": pa.array([True, None, False]),
        "real with null": pa.array([0.5, None, 1.5]),
        "nothing": pa.nulls(3),
    }
    with h5py.File(tmp_path / "f.h5ad", "w") as file:
        writer._mark(file, "anndata", "0.1.0")
        for name in ("obs", "var"):
            group = writer._frame(file, name, list(columns) if name == "obs" else [])
            writer._write_text(group, "_index", ["1", "2", "3"])
            for column, values in columns.items() if name == "obs" else ():
                writer._write_column(group, column, values)
    obs = anndata.read_h5ad(tmp_path / "f.h5ad").obs
    assert obs["text"].tolist() == ["a", "b", "c"]
    assert obs["unused"].tolist() == ["r", "r", "p"]
    assert obs["unused"].cat.categories.tolist() == ["p", "r"]
    assert obs["whole with null"].tolist()[::2] == [1, 3]
    assert obs["truth with null"].tolist()[::2] == [True, False]
    for name in ("text with null", "kind", "whole with null", "truth with null", "real with null"):
        assert obs[name].isna().tolist() == [False, True, False], name
    assert obs["nothing"].isna().all()


def test_a_file_that_lies_there_is_kept_unless_asked(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "cells.h5ad"
    path.write_text("mine")
    with pytest.raises(InputError, match="overwrite"):
        export.h5ad(store, path)
    assert path.read_text() == "mine"
    export.h5ad(store, path, np.arange(3), overwrite=True)
    assert anndata.read_h5ad(path).n_obs == 3


def test_rows_outside_the_store_leave_no_file(store: Store, tmp_path: Path) -> None:
    with pytest.raises(IndexError, match=r"0\.\.149"):
        export.h5ad(store, tmp_path / "cells.h5ad", np.array([150]))
    for rows in ([0.5, 1.5], np.ones(3, dtype=bool), [[1, 2]]):
        with pytest.raises(InputError, match="rows"):
            export.h5ad(store, tmp_path / "cells.h5ad", rows)
    assert list(tmp_path.iterdir()) == []


def test_a_mask_exports_the_cells_that_it_marks(store: Store, tmp_path: Path) -> None:
    mask = np.arange(150) % 50 == 7
    found = anndata.read_h5ad(export.h5ad(store, tmp_path / "cells.h5ad", mask))
    np.testing.assert_array_equal(found.X.toarray(), store.read([7, 57, 107]).toarray())


def build_with_columns(tmp_path: Path, columns: dict[str, list[str]]) -> Store:
    cells = next(iter(columns.values()))
    frame = anndata.AnnData(np.eye(len(cells), dtype=np.float32))
    frame.var_names = [f"ENSG{i:011d}" for i in range(len(cells))]
    frame.write_h5ad(tmp_path / "in.h5ad")
    with h5py.File(tmp_path / "in.h5ad", "r+", libver="latest") as file:
        text = h5py.string_dtype()
        file["obs"].attrs.create("column-order", np.array(list(columns), dtype=object), dtype=text)
        for name, values in columns.items():
            data = file["obs"].create_dataset(name, data=values, dtype=text)
            data.attrs.update({"encoding-type": "string-array", "encoding-version": "0.2.0"})
    return build(tmp_path / "s.mill", [tmp_path / "in.h5ad"], vocabulary="union")


def test_names_that_h5_cannot_hold_are_told_apart_and_told(tmp_path: Path) -> None:
    store = build_with_columns(tmp_path, {"a|b": ["1", "2"], "a/b": ["3", "4"], "a|b_2": ["5", "6"], "c/d": ["7", "8"]})
    messages: list[str] = []
    with listening(lambda event: messages.append(event.message)):
        obs = anndata.read_h5ad(export.h5ad(store, tmp_path / "out.h5ad")).obs
    assert {name: obs[name].tolist() for name in ("a|b", "a|b_3", "a|b_2", "c|d")} == {
        "a|b": ["1", "2"],
        "a|b_3": ["3", "4"],
        "a|b_2": ["5", "6"],
        "c|d": ["7", "8"],
    }
    told = [message for message in messages if message]
    assert told == [
        "obs column 'a/b' is called 'a|b_3' in the file",
        "obs column 'c/d' is called 'c|d' in the file",
    ]


def test_reserved_names_become_others() -> None:
    assert writer._h5_names(["", ".", "_index", "x\0y", "ok"]) == {
        "": "_2",
        ".": "._2",
        "_index": "_index_2",
        "x\0y": "x_y",
        "ok": "ok",
    }


@pytest.mark.slow
def test_a_store_of_many_columns_is_exported(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"column {i}" for i in range(6000)]
    monkeypatch.setattr(type(store.obs), "columns", property(lambda _: ["cell", *names]))
    read = Store.column
    known = store.obs.schema
    monkeypatch.setattr(Store, "column", lambda self, name, rows: read(self, name if name in known else "cell", rows))
    obs = anndata.read_h5ad(export.h5ad(store, tmp_path / "wide.h5ad", [1, 2])).obs
    assert obs.columns.tolist() == names


def test_no_cells_are_a_file_too(store: Store, tmp_path: Path) -> None:
    path = export.h5ad(store, tmp_path / "none.h5ad", np.empty(0, dtype=np.int64))
    assert anndata.read_h5ad(path).shape == (0, store.n_genes)


def test_a_write_that_fails_leaves_the_old_file(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = export.h5ad(store, tmp_path / "cells.h5ad", np.arange(4))
    before = path.read_bytes()
    monkeypatch.setattr(writer, "_write_genes", lambda *a: (_ for _ in ()).throw(OSError("no room")))
    with pytest.raises(OSError, match="no room"):
        export.h5ad(store, path, overwrite=True)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["cells.h5ad"]
