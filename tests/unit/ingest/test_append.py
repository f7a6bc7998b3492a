"""What is appended is what a build of the same inputs would hold, and what was there before stays as it is."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest

import cellmill as cm
from cellmill.errors import ConfigError, GeneMatchError, InputError, NotFoundError, StoreError
from cellmill.genes import Vocabulary
from cellmill.ingest import append_inputs, build, plan_append
from cellmill.store import open_store
from cellmill.store.staging import Staging

GENES = [f"ENSG{i:011d}" for i in range(60)]
SMALL = {"shard_cells": 40, "block_cells": 20}


@pytest.fixture
def files(tiny_h5ad):
    """Three files whose genes overlap: 0-39, 20-59 backwards, and 10-49."""
    return [
        tiny_h5ad("a", n_cells=100, genes=GENES[:40], seed=1),
        tiny_h5ad("b", n_cells=70, genes=GENES[:19:-1], seed=2),
        tiny_h5ad("c", n_cells=50, genes=GENES[10:50], seed=3),
    ]


@pytest.fixture
def vocabulary():
    return Vocabulary(GENES, symbols=GENES, name="sixty")


def cells_by_gene(store):
    """Counts over the vocabulary, whatever the storage order."""
    counts = np.zeros((store.n_cells, len(GENES)), dtype=np.int64)
    counts[:, [GENES.index(gene) for gene in store.gene_ids]] = store.read(np.arange(store.n_cells)).toarray()
    return counts


def rates_of(store):
    return dict(zip(store.gene_ids, store.genes.column("detection_rate").to_pylist(), strict=True))


def bytes_of(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_appending_one_by_one_holds_the_cells_of_one_build(tmp_path, files, vocabulary):
    paths = [file.path for file in files]
    whole = build(tmp_path / "whole.mill", paths, vocabulary=vocabulary, **SMALL)
    grown = build(tmp_path / "grown.mill", paths[:1], vocabulary=vocabulary, **SMALL)
    for path in paths[1:]:
        grown = append_inputs(tmp_path / "grown.mill", path, **SMALL)
    np.testing.assert_array_equal(cells_by_gene(grown), cells_by_gene(whole))
    assert grown.obs.to_arrow().equals(whole.obs.to_arrow())
    assert grown.obs.schema == whole.obs.schema
    np.testing.assert_array_equal(grown.uids(), whole.uids())
    assert rates_of(grown) == rates_of(whole)
    assert [s.name for s in grown.manifest.sources] == ["a", "b", "c"]
    assert [s.n_cells for s in grown.manifest.shards] == [s.n_cells for s in whole.manifest.shards]
    assert grown.manifest.generation == 2
    assert grown.verify().ok
    assert not Staging.folder_of(grown.path).exists()


def test_what_was_there_stays_byte_for_byte(tmp_path, files, vocabulary):
    store = build(tmp_path / "s.mill", [files[0].path], vocabulary=vocabulary, **SMALL)
    before = bytes_of(store.path)
    append_inputs(store.path, [files[1].path], **SMALL)
    after = bytes_of(store.path)
    assert before.pop("manifest.json") != after.pop("manifest.json")
    assert {name: after[name] for name in before} == before
    new = set(after) - set(before)
    numbered = {
        f"{f}/0000{n}.{e}" for n in (3, 4) for f, e in (("shards", "cells"), ("obs", "parquet"), ("obs", "uids"))
    }
    reports = {f"reports/{name}.json" for name in ("00001", "append-1", "duplicates-1")}
    assert new == numbered | reports | {"genes-1.parquet"}


def test_new_genes_stand_at_the_end(tmp_path, files, vocabulary):
    old = build(tmp_path / "s.mill", [files[0].path], vocabulary=vocabulary)
    new = append_inputs(old.path, files[1].path)
    assert new.gene_ids[: old.n_genes] == old.gene_ids
    assert set(new.gene_ids[old.n_genes :]) == set(GENES[40:])
    rate = new.genes.column("detection_rate").to_numpy()[old.n_genes :]
    assert (np.diff(rate) <= 0).all() and rate[0] > 0
    assert new.genes.column("token").to_pylist() == [vocabulary.tokens[GENES.index(g)] for g in new.gene_ids]


def test_readers_opened_before_go_on_with_their_cells(tmp_path, files, vocabulary):
    folder = build(tmp_path / "s.mill", [files[0].path], vocabulary=vocabulary, **SMALL).path
    used, lazy = open_store(folder), open_store(folder)
    truth, obs = cells_by_gene(used), used.obs.to_arrow()
    sent = pickle.dumps(lazy)
    append_inputs(folder, files[1].path, **SMALL)
    append_inputs(folder, files[2].path, **SMALL)
    for reader in (used, lazy, pickle.loads(sent)):
        np.testing.assert_array_equal(cells_by_gene(reader), truth)
        assert (reader.n_cells, reader.n_genes) == (100, 40)
        assert reader.obs.to_arrow().equals(obs)
        assert reader.query("SELECT count(*) n FROM obs").to_pylist() == [{"n": 100}]
        assert len(reader.uids()) == 100
        assert reader.verify().ok
        assert reader.vocabulary.hash == vocabulary.hash
    assert open_store(folder).n_cells == 220
    build(folder, [files[0].path], vocabulary=vocabulary, overwrite=True)
    with pytest.raises(StoreError, match="replaced"):
        pickle.loads(sent).read([70])


def test_columns_are_unified_as_in_a_build(tmp_path, tiny_h5ad):
    first = tiny_h5ad("a", n_cells=4, obs={"Tissue": ["gut"] * 4, "stage": ["1", "2", "3", "4"]})
    second = tiny_h5ad("b", n_cells=4, obs={"tissue": ["skin"] * 4, "donor": ["x"] * 4})
    build(tmp_path / "s.mill", [first.path], vocabulary="union")
    store = append_inputs(tmp_path / "s.mill", second.path, rename={"donor": "donor_id"})
    assert store.obs.columns[12:] == ["Tissue", "stage", "donor_id"]
    assert store.column("Tissue").to_pylist() == ["gut"] * 4 + ["skin"] * 4
    assert store.column("stage").to_pylist() == ["1", "2", "3", "4", None, None, None, None]
    assert store.column("donor_id").to_pylist() == [None] * 4 + ["x"] * 4
    assert store.select("tissue = 'skin' AND donor_id = 'x'").tolist() == [4, 5, 6, 7]


def test_a_dataset_that_is_there_is_refused_and_with_skip_bad_left_out(tmp_path, files, vocabulary):
    store = build(tmp_path / "s.mill", [files[0].path], vocabulary=vocabulary)
    before = bytes_of(store.path)
    with pytest.raises(
        InputError, match=r"a\.h5ad: the store .* has a dataset 'a' already \(100 cells.*--dataset-name"
    ):
        append_inputs(store.path, [files[0].path, files[1].path])
    assert bytes_of(store.path) == before
    assert list((Staging.folder_of(store.path) / "journal").glob("*.npz"))  # the other one is done, and kept
    grown = append_inputs(store.path, [files[0].path, files[1].path], skip_bad=True)
    assert [s.name for s in grown.manifest.sources] == ["a", "b"]
    skipped = json.loads((grown.path / "reports/append-1.json").read_text())["skipped"]
    assert [one["path"] for one in skipped] == [str(files[0].path)]
    assert append_inputs(store.path, [files[0].path], skip_bad=True).digest == grown.digest  # nothing is new
    assert not Staging.folder_of(store.path).exists()
    (store.path.parent / "not.h5ad").write_text("nothing")
    with pytest.raises(InputError, match="no input is left"):  # of which the store has none
        append_inputs(store.path, [store.path.parent / "not.h5ad"], skip_bad=True)
    assert open_store(store.path).digest == grown.digest


def test_a_union_vocabulary_cannot_grow(tmp_path, files):
    store = build(tmp_path / "s.mill", [files[0].path], vocabulary="union")
    with pytest.raises(GeneMatchError, match=r"20 of 40 gene ids are new to the store.*--vocabulary union"):
        append_inputs(store.path, [files[1].path], min_match=0.1)
    assert open_store(store.path).digest == store.digest
    both = build(tmp_path / "t.mill", [file.path for file in files[:2]], vocabulary="union")
    assert append_inputs(both.path, [files[2].path]).verify().ok


def test_an_input_that_is_not_raw_changes_nothing(tmp_path, tiny_h5ad, files):
    store = build(tmp_path / "s.mill", [files[0].path], vocabulary="union", **SMALL)
    before = bytes_of(store.path)
    values = np.ones((5000, 40))
    values[2500, 3] = 0.5  # between the windows that the plan looks at
    bad = tiny_h5ad("bad", counts=values, genes=GENES[:40], dtype="float64")
    with pytest.raises(InputError, match="not whole"):
        append_inputs(store.path, [bad.path], block_cells=500, shard_cells=1000)
    assert bytes_of(store.path) == before
    more = tiny_h5ad("more", genes=GENES[:40], seed=9)
    grown = append_inputs(store.path, [bad.path, more.path], block_cells=500, shard_cells=1000, skip_bad=True)
    assert grown.n_cells == 160
    np.testing.assert_array_equal(grown.read(np.arange(100, 160), genes=more.genes).toarray(), more.counts.toarray())
    assert grown.verify().ok


def test_an_input_without_cells_is_a_source_without_shards(tmp_path, tiny_h5ad):
    store = build(tmp_path / "s.mill", [tiny_h5ad().path], vocabulary="union")
    grown = append_inputs(store.path, tiny_h5ad("none", counts=np.zeros((0, 40))).path)
    assert [s.n_cells for s in grown.manifest.sources] == [60, 0]
    assert len(grown.manifest.shards) == len(store.manifest.shards)
    assert grown.verify().ok


def test_the_plan_writes_nothing_and_says_what_would_come(tmp_path, files, vocabulary):
    store = build(tmp_path / "s.mill", [files[0].path], vocabulary=vocabulary)
    before = bytes_of(tmp_path)
    plan = plan_append(store.path, files[1].path)
    assert bytes_of(tmp_path) == before
    assert (plan.n_cells, len(plan.order)) == (70, 60)


@pytest.mark.parametrize("what", ["nothing", "a file", "a folder"])
def test_what_is_no_store_is_not_appended_to(tmp_path, files, what):
    place = tmp_path / "s.mill"
    if what == "a file":
        place.write_text("x")
    elif what == "a folder":
        place.mkdir()
    with pytest.raises(NotFoundError, match=r"s\.mill"):
        append_inputs(place, files[0].path)
    assert not Staging.folder_of(place).exists()


def test_wrong_options_are_told_before_anything_is_written(tmp_path, files, vocabulary):
    store = build(tmp_path / "s.mill", [files[0].path], vocabulary=vocabulary)
    with pytest.raises(ConfigError, match="layers/none"):
        append_inputs(store.path, files[1].path, counts="layers/none")
    with pytest.raises(ConfigError, match="rename"):
        append_inputs(store.path, files[1].path, rename={"nothing": "x"})
    assert not Staging.folder_of(store.path).exists()


def test_files_left_by_an_interrupted_append_are_cleaned_and_no_others(tmp_path, files, vocabulary):
    store = build(tmp_path / "s.mill", [files[0].path], vocabulary=vocabulary, **SMALL)
    append_inputs(store.path, files[1].path, **SMALL)
    left = ["shards/00007.cells", "obs/00009.uids", "obs/00007.parquet", "reports/00005.json", "genes-3.parquet"]
    kept = ["notes.txt", "shards/mine.cells", "genes.parquet"]
    for name in [*left, *kept[:2]]:
        (store.path / name).write_bytes(b"x")
    assert open_store(store.path).verify().ok
    grown = append_inputs(store.path, files[2].path, **SMALL)
    assert grown.verify().ok
    assert not any((grown.path / name).exists() for name in left)
    assert all((grown.path / name).exists() for name in kept)


def test_the_public_name_is_this_function():
    assert cm.append is append_inputs
