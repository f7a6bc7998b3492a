"""What a source measured is kept: through build, append and merge, whatever the order of the genes."""

from __future__ import annotations

import base64
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cellmill.errors import CorruptStoreError, NotFoundError, StoreError
from cellmill.genes import Vocabulary
from cellmill.ingest import append_inputs, build
from cellmill.storage import hash_bytes
from cellmill.store import Sources, merge_stores, open_store
from cellmill.store.entries import FileEntry
from cellmill.store.measured import MEASURED, measured_record, read_record

GENES = [f"ENSG{i:011d}" for i in range(61)]
GOLDEN = Path(__file__).parents[2] / "golden" / "store_v2"
SMALL = {"shard_cells": 8, "block_cells": 4}


@pytest.fixture
def vocabulary():
    return Vocabulary(GENES, name="sixty-one")


@pytest.fixture
def write(tiny_h5ad):
    def write_file(name, genes, *, n_cells=20, seed=0):
        return tiny_h5ad(name, n_cells=n_cells, genes=genes, n_genes=len(genes), seed=seed).path

    return write_file


@pytest.fixture
def make(tmp_path, write, vocabulary):
    def make_store(name, genes, **kw):
        return build(tmp_path / f"{name}.mill", [write(name, genes, **kw)], vocabulary=vocabulary, **SMALL)

    return make_store


def measured_ids(store, source):
    measured = store.measured(source)
    assert measured.dtype == bool and measured.shape == (store.n_genes,)
    return {gene_id for gene_id, held in zip(store.gene_ids, measured, strict=True) if held}


def test_genes_without_a_count_are_measured_and_genes_of_other_sources_are_not(tmp_path, write, vocabulary):
    files = [write("a", GENES[:40], seed=1), write("b", [*GENES[20:61], "NOVEL"], seed=2)]
    store = build(tmp_path / "s.mill", files, vocabulary=vocabulary, **SMALL)
    assert GENES[2] in measured_ids(store, "a")  # a gene that no cell of the files expresses
    assert store.read(store.select("dataset = 'a'"), genes=[GENES[2]]).nnz == 0
    assert measured_ids(store, "a") == set(GENES[:40])
    assert measured_ids(store, "b") == set(GENES[20:])


def test_each_cell_knows_what_was_measured_in_it(tmp_path, write, vocabulary):
    files = [write("a", GENES[:40], seed=1), write("b", GENES[20:], seed=2)]
    store = build(tmp_path / "s.mill", files, vocabulary=vocabulary, **SMALL)
    rows = np.array([store.n_cells - 1, 0, 8, store.n_cells - 1])
    datasets = store.column("dataset", rows).to_pylist()
    assert [store.manifest.sources[i].name for i in store.source_of(rows).tolist()] == datasets
    assert set(datasets) == {"a", "b"}
    per_cell = store.measured()[store.source_of(rows)]
    np.testing.assert_array_equal(per_cell, [store.measured(name) for name in datasets])
    everywhere = store.measured()[store.source_of()]
    counts = store.read(np.arange(store.n_cells)).toarray()
    assert everywhere.shape == counts.shape and not counts[~everywhere].any()
    with pytest.raises(IndexError):
        store.source_of([store.n_cells])


def test_it_stays_through_append_and_merges_of_other_gene_orders(tmp_path, make, write):
    first, second = make("a", GENES[:40], seed=1), make("b", GENES[:19:-1], seed=2)
    held = {"a": set(GENES[:40]), "b": set(GENES[20:]), "c": set(GENES[::3])}
    grown = append_inputs(first.path, write("c", GENES[::3], seed=3), **SMALL)
    assert grown.n_genes > first.n_genes
    assert {name: measured_ids(grown, name) for name in "ac"} == {name: held[name] for name in "ac"}
    assert first.measured("a").shape == (40,)  # who opened it before goes on with what there was
    merged = merge_stores(tmp_path / "m.mill", [second, grown], block_cells=5)
    assert merged.gene_ids[:40] != grown.gene_ids[:40]
    assert {name: measured_ids(merged, name) for name in "abc"} == held
    names = [merged.manifest.sources[i].name for i in merged.source_of().tolist()]
    assert names == merged.column("dataset").to_pylist()


def test_an_input_without_cells_measured_its_genes(tmp_path, make, write):
    store = append_inputs(make("a", GENES[:40]).path, write("empty", GENES[30:50], n_cells=0))
    assert measured_ids(store, "empty") == set(GENES[30:50])


def test_an_unknown_source_is_told_with_the_nearest(make):
    with pytest.raises(NotFoundError, match=r"'blod'.*Did you mean 'blood'"):
        make("blood", GENES[:40]).measured("blod")


@pytest.mark.parametrize("name", ["blocks", "panel"])
def test_a_store_written_before_this_was_kept_says_so(name):
    store = open_store(GOLDEN / f"{name}.store")
    with pytest.raises(StoreError, match=r"does not say which genes .*Build the store again") as caught:
        store.measured()
    assert not isinstance(caught.value, CorruptStoreError)
    assert store.source_of().tolist()[0] == 0


def test_a_changed_report_is_found_out(make):
    store = make("a", GENES[:40])
    path = store.path / store.manifest.sources[0].report.path
    path.write_text(path.read_text().replace('"bits": "', '"bits": "/'))
    with pytest.raises(CorruptStoreError, match="not the bytes that the manifest names"):
        store.measured("a")
    path.unlink()
    with pytest.raises(CorruptStoreError, match="missing"):
        store.measured("a")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bits": base64.b64encode(bytes(7)).decode()}, "7 bytes; 61 genes take 8"),
        ({"bits": base64.b64encode(b"\xff" * 8).decode()}, "marks 64 genes, and says 40"),
        ({"bits": base64.b64encode(bytes(7) + b"\x20").decode(), "n_genes": 1}, "marks 1 genes"),  # past the last one
        ({"bits": "not base64"}, "cannot be read"),
        ({"bits": None}, "cannot be read"),
        ({"vocabulary_hash": "0" * 32}, "is of the vocabulary 0000"),
    ],
)
def test_a_record_that_does_not_hold_together_is_refused(make, change, message):
    store = make("a", GENES[:40])
    entry = store.manifest.sources[0]
    report = json.loads((store.path / entry.report.path).read_text())
    report[MEASURED] |= change
    raw = json.dumps(report).encode()
    (store.path / entry.report.path).write_bytes(raw)
    forged = replace(entry, report=FileEntry(entry.report.path, len(raw), hash_bytes(raw)))
    manifest = replace(store.manifest, sources=Sources([forged])).sealed()
    (store.path / "manifest.json").write_bytes(manifest.to_json())
    with pytest.raises(CorruptStoreError, match=message):
        open_store(store.path).measured("a")


def test_the_record_is_what_was_marked():
    rng = np.random.default_rng(0)
    for n in (1, 7, 8, 9, 1000):
        target = rng.integers(-1, n, 50)
        record = json.loads(json.dumps(measured_record(target, vocabulary_hash="h", n_vocabulary=n)))
        back = read_record({MEASURED: record}, vocabulary_hash="h", n_vocabulary=n, where="here")
        assert back is not None
        assert set(np.flatnonzero(back)) == set(target[target >= 0].tolist())
    assert read_record({}, vocabulary_hash="h", n_vocabulary=3, where="here") is None


def test_a_copied_store_gives_the_same(tmp_path, make):
    store = make("a", GENES[:40])
    shutil.copytree(store.path, tmp_path / "copy.mill")
    np.testing.assert_array_equal(open_store(tmp_path / "copy.mill").measured("a"), store.measured("a"))
