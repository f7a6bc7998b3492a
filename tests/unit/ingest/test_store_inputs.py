"""Stores as inputs of other stores: the same cells, by the same names, over another vocabulary."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest

from cellmill.errors import FormatError, InputError
from cellmill.events import listening
from cellmill.genes import Vocabulary
from cellmill.ingest import append_inputs, build, plan_build
from cellmill.sources import Limits, expand_inputs, guess_format, open_source
from cellmill.store import open_store

STANDARD = ("cell", "dataset", "uid", "fingerprint", "total_counts", "n_genes_detected")


@pytest.fixture
def inner(tmp_path, tiny_h5ad):
    """A store of two data sets and several shards."""
    first = tiny_h5ad("blood", n_cells=70, n_genes=40, seed=1).path
    second = tiny_h5ad("gut", n_cells=50, n_genes=40, seed=2).path
    return build(tmp_path / "inner.mill", [first, second], vocabulary="union", shard_cells=32, block_cells=16)


def told(call):
    seen = []
    with listening(seen.append):
        result = call()
    return result, [event.message for event in seen if event.message]


def test_a_store_gives_the_blocks_of_a_source(inner):
    X = inner.read(np.arange(inner.n_cells)).toarray()
    with open_source(inner.path) as source:
        assert (source.kind, source.name, source.n_cells) == ("store", "inner", 120)
        assert source.genes.ids == list(inner.gene_ids)
        for step in (1, 7, 50, 4096):
            for start, stop in ((0, 120), (3, 97), (120, 120)):
                blocks = list(source.blocks(block_cells=step, start=start, stop=stop))
                assert [b.start for b in blocks] == [start, *(b.stop for b in blocks[:-1])][: len(blocks)]
                dense = np.zeros((stop - start, source.n_genes))
                for b in blocks:
                    for i in range(b.n_cells):
                        at = slice(b.indptr[i], b.indptr[i + 1])
                        dense[b.start - start + i, b.indices[at]] = b.data[at]
                np.testing.assert_array_equal(dense, X[start:stop])
    assert guess_format(inner.path) == ("store", "the folder is a cellmill store")


def test_blocks_are_cut_where_cells_are_full_and_begin_at_the_same_cells(inner):
    source = type(open_source(inner.path))(inner.path, limits=Limits(max_block_entries=60))
    spans = [(b.start, b.stop) for b in source.blocks(block_cells=16)]
    assert len(spans) > 120 // 16 and max(len(b.data) for b in source.blocks(block_cells=16)) <= 60
    for start, _ in spans:
        assert [(b.start, b.stop) for b in source.blocks(block_cells=16, start=start)] == [
            span for span in spans if span[0] >= start
        ]


def test_cells_keep_data_set_uid_labels_and_fingerprint(inner, tmp_path, tiny_h5ad):
    more = tiny_h5ad("liver", n_cells=20, n_genes=60, seed=3).path
    outer = build(tmp_path / "outer.mill", [inner.path, more], vocabulary="union")
    rows = np.arange(inner.n_cells)
    ours, theirs = outer.obs.to_arrow(rows=rows), inner.obs.to_arrow()
    assert ours.column_names == theirs.column_names
    for name in theirs.column_names:
        assert ours[name].to_pylist() == theirs[name].to_pylist(), name
    assert (outer.read(rows, genes=inner.gene_ids) != inner.read(rows)).nnz == 0
    assert outer.n_genes == 60 and outer.verify().ok
    assert [source.name for source in outer.manifest.sources] == ["inner", "liver"]
    report = json.loads((outer.path / "reports" / "00000.json").read_text())
    assert report["kind"] == "store" and report["uri"] == str(inner.path)
    assert any(inner.digest in note and "keep their data sets, uids and facts" in note for note in report["notes"])


def test_over_a_smaller_vocabulary_fingerprints_are_made_anew_and_facts_of_whole_cells_kept(inner, tmp_path):
    kept = list(inner.gene_ids)[:25]
    outer = build(tmp_path / "outer.mill", [inner.path], vocabulary=Vocabulary(kept), min_match=0.5)
    X = inner.read(np.arange(inner.n_cells), genes=kept).toarray()
    obs, old = outer.obs.to_arrow(), inner.obs.to_arrow()
    assert (outer.read(np.arange(120), genes=kept).toarray() == X).all()
    assert obs["uid"].equals(old["uid"]) and not obs["fingerprint"].equals(old["fingerprint"])
    for name in ("total_counts", "n_genes_detected", "top_gene_share"):  # of the whole cells
        assert obs[name].to_pylist() == old[name].to_pylist()
    assert obs["stored_counts"].to_pylist() == X.sum(1).tolist()
    totals = old["total_counts"].to_numpy()
    shares = [None if not total else np.float32(kept / total) for kept, total in zip(X.sum(1), totals, strict=True)]
    assert obs["kept_share"].to_pylist() == shares and min(filter(None, shares)) < 0.9
    report = json.loads((outer.path / "reports" / "00000.json").read_text())
    assert len(report["genes_dropped"]) == 15


def test_filters_ask_the_facts_of_whole_cells(inner, tmp_path):
    kept = list(inner.gene_ids)[:25]
    totals = inner.totals()
    least = int(np.median(totals))
    how = {"vocabulary": Vocabulary(kept), "min_match": 0.5}
    outer = build(tmp_path / "a.mill", [inner.path], min_counts=least, **how)
    assert outer.column("uid").to_pylist() == inner.column("uid").filter(totals >= least).to_pylist()
    by_sql = build(tmp_path / "b.mill", [inner.path], where=f"total_counts >= {least}", **how)
    assert by_sql.column("uid").equals(outer.column("uid"))


def test_the_way_that_copies_bytes_is_told_where_there_is_one(inner, tmp_path, tiny_h5ad):
    _, lines = told(lambda: build(tmp_path / "a.mill", [inner.path], vocabulary=inner.vocabulary))
    assert any("cellmill merge OUT.mill" in line and "adds inputs" not in line for line in lines)
    more = tiny_h5ad("liver", n_cells=20, seed=3).path
    _, lines = told(lambda: build(tmp_path / "b.mill", [inner.path, more], vocabulary=inner.vocabulary))
    assert any(f"cellmill append {inner.path} INPUT... adds inputs to it" in line for line in lines)
    few = Vocabulary(list(inner.gene_ids)[:30])
    _, lines = told(lambda: build(tmp_path / "c.mill", [inner.path], vocabulary=few))
    assert not any("cellmill merge" in line for line in lines)


def test_a_data_set_is_stored_once(inner, tmp_path, tiny_h5ad):
    again = tiny_h5ad("gut", n_cells=50, seed=2).path
    said = r"the data set 'gut' is in .*inner\.mill and .*gut\.h5ad: its cells would be stored twice"
    with pytest.raises(InputError, match=said):
        build(tmp_path / "a.mill", [inner.path, again], vocabulary="union")
    copy = shutil.copytree(inner.path, tmp_path / "copy.mill")
    with pytest.raises(InputError, match="the data set 'blood' is in"):
        plan_build([inner.path, copy], vocabulary="union")
    outer = build(tmp_path / "outer.mill", [inner.path], vocabulary="union")
    with pytest.raises(InputError, match="has cells of a dataset 'gut' already, from a store that was an input"):
        append_inputs(outer.path, [again])
    with pytest.raises(InputError, match="the data set 'blood' is in the store that is added to and"):
        append_inputs(outer.path, [shutil.move(copy, tmp_path / "other.mill")])


def test_a_store_is_no_input_of_itself(inner):
    for call in (lambda: build(inner.path, [inner.path], overwrite=True, vocabulary="union"),):
        with pytest.raises(InputError, match="is to be written and is one of the inputs"):
            call()
    assert open_store(inner.path).digest == inner.digest


def test_a_store_can_be_added_to_another(inner, tmp_path, tiny_h5ad):
    path = tmp_path / "liver.mill"
    build(path, [tiny_h5ad("liver", n_cells=20, n_genes=40, seed=3).path], vocabulary="union")
    grown = append_inputs(path, [inner.path])
    assert grown.n_cells == 140 and grown.verify().ok
    assert grown.column("dataset").to_pylist() == ["liver"] * 20 + inner.column("dataset").to_pylist()


def test_a_store_counts_when_it_is_named_and_not_when_its_folder_is(inner, tmp_path):
    h5ads = sorted(tmp_path.glob("*.h5ad"))
    assert expand_inputs(tmp_path) == h5ads
    assert expand_inputs([f"{tmp_path}/*.mill"]) == [inner.path]
    renamed = inner.path.rename(tmp_path / "cells")
    assert expand_inputs([renamed]) == [renamed]


@pytest.mark.parametrize(
    "part", ["manifest.json", "shards/00001.cells", "obs/00002.parquet", "obs/00002.parquet end", "genes"]
)
def test_a_damaged_store_is_refused_and_nothing_is_published(inner, tmp_path, part):
    part, _, end = part.partition(" ")
    path = next(inner.path.glob("genes*")) if part == "genes" else inner.path / part
    good = path.read_bytes()
    at = len(good) // 2
    path.write_bytes(good[:-9] if end else good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
    with pytest.raises(FormatError, match=rf"inner\.mill, a store that is an input, is damaged: .*{path.name}"):
        build(tmp_path / "a.mill", [inner.path], vocabulary="union")
    assert not (tmp_path / "a.mill").exists()


def test_another_label_and_another_count_are_noticed_though_both_can_be_read(inner, tmp_path):
    labels = inner.path / "obs" / "00002.parquet"
    good = labels.read_bytes()
    table = pq.ParquetFile(labels).read()
    at = table.column_names.index("tissue")
    pq.write_table(table.set_column(at, "tissue", table.column("donor_id")), labels)
    with pytest.raises(FormatError, match=r"00002\.parquet: its checksum is not the manifest's"):
        plan_build([inner.path], vocabulary="union")
    labels.write_bytes(good)
    shard = inner.path / "shards" / "00001.cells"
    good = shard.read_bytes()
    for at in range(len(good) // 4, len(good) // 2, 7):
        shard.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
        with pytest.raises(FormatError, match=r"00001\.cells: the checksum of its"), open_source(inner.path) as source:
            list(source.blocks(start=32, stop=64))


def test_a_build_from_a_store_that_was_stopped_gives_the_same_bytes(inner, tmp_path, monkeypatch):
    whole = build(tmp_path / "whole.mill", [inner.path], vocabulary="union", shard_cells=30, block_cells=13)
    from cellmill.ingest import admission

    real, done = admission.convert_block, []

    def stop_later(*args, **how):
        done.append(1)
        if len(done) == 5:
            raise KeyboardInterrupt
        return real(*args, **how)

    monkeypatch.setattr(admission, "convert_block", stop_later)
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path / "again.mill", [inner.path], vocabulary="union", shard_cells=30, block_cells=13)
    monkeypatch.undo()
    again, lines = told(
        lambda: build(tmp_path / "again.mill", [inner.path], vocabulary="union", shard_cells=30, block_cells=13)
    )
    assert any("going on after" in line for line in lines)
    assert again.digest == whole.digest
