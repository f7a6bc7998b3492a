"""zarr stores of all ages: equal to AnnData's reading; what is not stored is never taken for counts in silence."""

from __future__ import annotations

import shutil

import anndata as ad
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import scipy.sparse as sp
import zarr

from cellmill.errors import FormatError
from cellmill.sources import Limits, ZarrSource, open_source


def obs_of_all_kinds(n):
    return pd.DataFrame(
        {
            "type": pd.Categorical(["B", None, *["T"] * (n - 2)], categories=["T", "B", "unused"]),
            "batch": pd.Categorical(np.arange(n) % 3),
            "ok": np.arange(n) % 2 == 0,
            "n": np.arange(1, n + 1, dtype=np.int32),
            "share": [np.nan, *np.linspace(0.5, 1, n - 1)],
            "maybe": pd.array([1, None, *range(3, n + 1)], "Int64"),
            "flag": pd.array([True, None, *[False] * (n - 2)], "boolean"),
            "text": ["ä", *[f"b{i}" for i in range(n - 1)]],
        },
        index=[f"cell{i}" for i in range(n)],
    )


@pytest.mark.parametrize("version", [2, 3])
def test_obs_raw_and_layers_equal_those_of_the_h5ad(version, truth, tmp_path, whole):
    full = ad.AnnData(sp.csr_matrix(truth.X.astype(np.float32)), var=pd.DataFrame(index=truth.genes))
    full.obs = obs_of_all_kinds(len(truth.cells))
    small = full[:, :10].copy()
    small.raw, small.X = full, np.log1p(small.X.toarray())
    small.layers["counts"] = sp.csc_matrix(full.X[:, :10])
    small.write_h5ad(tmp_path / "a.h5ad")
    with ad.settings.override(zarr_write_format=version):
        small.write_zarr(tmp_path / "a.zarr")
    with open_source(tmp_path / "a.h5ad") as h5ad, open_source(tmp_path / "a.zarr") as stored:
        assert stored.matrices() == h5ad.matrices() and len(stored.matrices()) == 3
        assert stored.obs().schema == h5ad.obs().schema and stored.obs().num_columns == 9
        assert str(stored.obs().to_pydict()) == str(h5ad.obs().to_pydict())  # NaN is not equal to itself
        assert stored.obs().schema.field("type").type == pa.dictionary(pa.int32(), pa.string())
        for name in ("X", "raw", "layers/counts"):
            assert stored.genes_of(name) == h5ad.genes_of(name)
            assert (whole(stored, name) != whole(h5ad, name)).nnz == 0
        assert stored.notes == h5ad.notes == []


def test_categories_of_2020_lie_under_the_path_that_an_attribute_names(tmp_path):
    ad.AnnData(np.ones((3, 2), np.float32), obs=pd.DataFrame({"n": [1, 2, 3]}, index=list("abc"))).write_zarr(
        tmp_path / "a.zarr"
    )
    obs = zarr.open_group(tmp_path / "a.zarr", mode="r+")["obs"]
    codes = obs.create_array("type", data=np.array([1, -1, 0], np.int8))
    codes.attrs["categories"] = "__categories/type"
    labels = obs.create_group("__categories").create_array("type", shape=(2,), dtype=str)
    labels[:] = np.array(["T", "B"], object)
    obs.attrs.update({"column-order": ["type", "n"], "encoding-version": "0.1.0"})
    with open_source(tmp_path / "a.zarr") as source:
        assert source.obs().to_pydict() == {"cell": list("abc"), "type": ["B", None, "T"], "n": [1, 2, 3]}
        assert source.notes == []


def test_records_of_2018_take_their_labels_from_uns(tmp_path):
    group = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=2)
    group.create_array("X", data=np.ones((3, 2), np.float32))
    rows = [(b"c1", 1, 0.5), (b"c2", 0, 1.5), (b"c3", -1, 2.5)]
    group.create_array("obs", data=np.array(rows, [("index", "S4"), ("type", "i1"), ("share", "f8")]))
    group.create_array("var", data=np.array([(b"A",), (b"B",)], [("index", "S4")]))
    group.create_group("uns").create_array("type_categories", data=np.array([b"T", b"B"]))
    with open_source(tmp_path / "a.zarr") as source:
        assert source.obs().to_pydict() == {
            "cell": ["c1", "c2", "c3"], "type": ["B", "T", None], "share": [0.5, 1.5, 2.5],
        }  # fmt: skip


@pytest.mark.parametrize("kind", ["zarr-v3-csr", "zarr-v3-csr-sharded", "zarr-v2-csc"])
@pytest.mark.parametrize("part", ["data", "indices", "indptr"])
def test_a_lost_chunk_of_a_sparse_matrix_is_never_read_as_zeros(kind, part, truth, write, tmp_path):
    path = write(kind, truth, tmp_path)
    (lost, *_) = sorted(f for f in (path / "X" / part).rglob("*") if f.is_file() and f.name[0].isdigit())
    lost.unlink()
    with pytest.raises(FormatError, match=rf"cells\.zarr, matrix X: 1 chunks of {part} are not stored"):
        open_source(path)


def test_a_lost_chunk_of_names_is_refused_or_told(truth, write, tmp_path):
    path = write("zarr-v3-csr", truth, tmp_path)
    shutil.rmtree(path / "obs" / "_index" / "c")
    with pytest.raises(FormatError, match=r"cells\.zarr, obs\['_index'\]: .*1 chunks are not stored"):
        open_source(path).obs()


def test_chunks_of_obs_that_are_not_stored_are_told_once(truth, write, tmp_path):
    path = write("zarr-v3-csr", truth, tmp_path)
    obs = zarr.open_group(path, mode="r+")["obs"]
    for name in ("zeros", "no"):
        obs.create_array(name, shape=(37,), dtype="i4")
    obs.attrs.update({"column-order": ["zeros", "no"]})
    with open_source(path) as source:
        assert source.obs()["zeros"].to_pylist() == [0] * 37
        assert source.obs()["no"].to_pylist() == [0] * 37
        (note,) = source.notes
    assert "obs: no, zeros hold chunks that are not stored" in note


def test_a_chunk_beyond_the_bound_is_refused_with_its_size(truth, write, tmp_path):
    for kind, place, size in (
        ("zarr-v3-csr", "X, data", r"\(16,\), 128 B each"),
        ("zarr-v2-dense", "X", r"\(7, 9\), 252 B each"),
        ("h5ad-dense-chunked", "X", r"\(8, 5\), 80 B each"),
        ("loom-v3-dense", "matrix", r"\(8, 5\), 160 B each"),
    ):
        (tmp_path / kind).mkdir()
        path = write(kind, truth, tmp_path / kind)
        with open_source(path) as source:
            make = type(source)
        with pytest.raises(FormatError, match=rf"matrix {place}: it is stored in chunks of {size}.*at most 40 B"):
            make(path, limits=Limits(max_chunk_bytes=40))


@pytest.mark.parametrize("shards", [None, (4096,)])
def test_each_chunk_is_unpacked_once_when_cells_are_read_in_order(shards, tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    X = sp.random_array(
        (600, 50), density=0.4, format="csr", rng=rng, data_sampler=lambda size: rng.integers(1, 9, size)
    )
    with ad.settings.override(zarr_write_format=3):
        ad.AnnData(X.astype(np.float32)).write_zarr(tmp_path / "a.zarr")
    group = zarr.open_group(tmp_path / "a.zarr", mode="r+")["X"]
    for name in ("data", "indices", "indptr"):
        values = group[name][...]
        del group[name]
        group.create_array(name, data=values, chunks=(512,), shards=shards)
    unpacked = []
    with ZarrSource(tmp_path / "a.zarr") as source:
        read = type(source._root.get("X/data")).read

        def counted(array, *selection):
            if selection and array.shape[0] == X.nnz:
                unpacked.extend(range(selection[0].start // 512, -(-selection[0].stop // 512)))
            return read(array, *selection)

        monkeypatch.setattr(type(source._root.get("X/data")), "read", counted)
        total = sum(int(block.data.sum()) for block in source.blocks(block_cells=7))
    assert total == X.sum()
    chunks = -(-X.nnz // 512)
    assert sorted(unpacked) == sorted([*range(chunks), *range(chunks)])  # data and indices


def test_metadata_put_together_that_is_older_than_the_store_is_not_believed(truth, tmp_path, whole):
    path = tmp_path / "a.zarr"
    with ad.settings.override(zarr_write_format=2):
        ad.AnnData(sp.csr_matrix(truth.X[:20].astype(np.float32))).write_zarr(path)
        old = (path / ".zmetadata").read_bytes()
        shutil.rmtree(path)
        ad.AnnData(sp.csr_matrix(truth.X.astype(np.float32))).write_zarr(path)
    (path / ".zmetadata").write_bytes(old)
    with open_source(path) as source:
        assert (whole(source).toarray() == truth.X).all()


def test_columns_of_a_zip_file_of_which_one_begins_with_the_name_of_another(tmp_path):
    obs = pd.DataFrame({"umi": [1, 2, 3], "umi_total": [4, 5, 6]}, index=list("abc"))
    with zarr.storage.ZipStore(tmp_path / "a.zarr.zip", mode="w") as store:
        ad.AnnData(np.ones((3, 2), np.float32), obs=obs).write_zarr(store)
    with open_source(tmp_path / "a.zarr.zip") as source:
        assert source.obs().to_pydict() == {"cell": list("abc"), "umi": [1, 2, 3], "umi_total": [4, 5, 6]}
        assert source.notes == []
