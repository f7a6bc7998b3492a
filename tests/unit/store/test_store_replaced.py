"""A reader gives cells of the store that it opened, or says that this is no longer there."""

from __future__ import annotations

import pickle
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cellmill.errors import CorruptStoreError, StoreError
from cellmill.ingest import build
from cellmill.store import open_store

READS = {
    "counts": lambda store: store.read([0]),
    "dense": lambda store: store.read_dense([0]),
    "uids": lambda store: store.uids(),
    "genes": lambda store: store.genes,
    "vocabulary": lambda store: store.vocabulary,
    "obs": lambda store: store.obs.to_arrow(),
    "totals": lambda store: store.totals([1]),
    "select": lambda store: store.select("total_counts > 0"),
    "query": lambda store: store.query("SELECT count(*) FROM obs"),
}


def build_reversed(folder, tiny_h5ad, file):
    """The same cells in reverse order, and so files of the same sizes, in place of the store."""
    back = tiny_h5ad("tiny", counts=file.counts.toarray()[::-1], cells=file.cells[::-1], genes=file.genes)
    return build(folder, [back.path], vocabulary="union", overwrite=True)


@pytest.mark.parametrize("what", READS)
@pytest.mark.parametrize("read_before", [False, True])
def test_a_read_after_the_store_was_replaced_says_so(tmp_path, tiny_h5ad, what, read_before):
    file = tiny_h5ad("tiny")
    store = build(tmp_path / "s.mill", [file.path], vocabulary="union")
    if read_before:
        store.column("uid")  # so that the watch has seen the first manifest
    again = pickle.loads(pickle.dumps(store))
    build_reversed(tmp_path / "s.mill", tiny_h5ad, file)
    for reader in (store, again):
        with pytest.raises(StoreError, match="replaced"):
            READS[what](reader)
    READS[what](open_store(tmp_path / "s.mill"))


def test_shards_that_are_mapped_still_give_the_old_cells(tmp_path, tiny_h5ad):
    file = tiny_h5ad("tiny")
    store = build(tmp_path / "s.mill", [file.path], vocabulary="union")
    before = store.read(np.arange(60)).toarray()
    build_reversed(tmp_path / "s.mill", tiny_h5ad, file)
    np.testing.assert_array_equal(store.read(np.arange(60)).toarray(), before)


def test_a_store_that_is_gone_says_so(tmp_path, tiny_h5ad):
    store = build(tmp_path / "s.mill", [tiny_h5ad().path], vocabulary="union")
    shutil.rmtree(store.path)
    for read in READS.values():
        with pytest.raises(StoreError, match="moved or removed"):
            read(store)


def test_an_equal_store_in_its_place_is_the_same_store(tmp_path, tiny_h5ad):
    file = tiny_h5ad()
    store = build(tmp_path / "s.mill", [file.path], vocabulary="union")
    assert build(tmp_path / "s.mill", [file.path], vocabulary="union", overwrite=True).digest == store.digest
    assert store.read([3]).sum() == file.counts[3].sum()


@pytest.mark.parametrize("damage", ["reordered", "flipped", "cut", "missing"])
def test_genes_are_read_only_from_the_bytes_that_the_manifest_names(tmp_path, tiny_h5ad, damage):
    folder = build(tmp_path / "s.mill", [tiny_h5ad().path], vocabulary="union").path
    path = folder / "genes.parquet"
    raw = path.read_bytes()
    if damage == "reordered":
        table = pq.read_table(path)
        pq.write_table(table.take(pa.array(range(len(table) - 1, -1, -1))), path, compression="zstd")
    elif damage == "flipped":
        path.write_bytes(raw[:-10] + bytes([raw[-10] ^ 255]) + raw[-9:])
    elif damage == "cut":
        path.write_bytes(raw[:-1])
    else:
        path.unlink()
    for read in (lambda store: store.gene_ids, lambda store: store.read([0])):
        with pytest.raises(CorruptStoreError, match=r"genes\.parquet"):
            read(open_store(folder))
    problems = open_store(folder).verify().problems
    assert len(problems) == 1
    assert "genes.parquet" in problems[0]


def test_a_store_opened_by_a_relative_path_outlives_a_change_of_folder(tmp_path, tiny_h5ad, monkeypatch):
    file = tiny_h5ad()
    build(tmp_path / "s.mill", [file.path], vocabulary="union")
    monkeypatch.chdir(tmp_path)
    store = open_store("s.mill")
    assert repr(store).startswith("Store('s.mill', ")
    monkeypatch.chdir("/")
    assert store.read([3]).sum() == file.counts[3].sum()
    assert len(store.select("true")) == len(pickle.loads(pickle.dumps(store)).totals()) == 60
