"""Cells stored twice are found, said, and marked, whether a store was built, grown or merged."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import cellmill as cm
from cellmill.errors import CorruptStoreError, InputError, QueryError
from cellmill.events import listening
from cellmill.genes import Vocabulary
from cellmill.ingest import append_inputs, build, cell_table
from cellmill.store import duplicates as duplicates_module
from cellmill.store import find_duplicates, merge_stores, open_store

GENES = [f"ENSG{i:011d}" for i in range(30)]
SMALL = {"shard_cells": 7, "block_cells": 5}


@pytest.fixture
def shared_golden():
    return Path(__file__).parents[2] / "golden" / "store_v2" / "panel.store"


@pytest.fixture
def vocabulary():
    return Vocabulary(GENES, symbols=GENES, name="thirty")


@pytest.fixture
def files(tiny_h5ad):
    """Files a, b, c of 20, 15 and 10 cells, all of 50 counts or more but a few; which cells are alike is drawn."""
    rng = np.random.default_rng(4)
    kinds = rng.integers(1, 30, (25, 30))
    kinds[3], kinds[4] = 0, 0  # empty, and
    kinds[4, :3] = 5  # of few counts
    made = {}
    for name, n in (("a", 20), ("b", 15), ("c", 10)):
        order = rng.permutation(30)  # genes stand in another order in each file
        counts = kinds[rng.integers(0, 25, n)]
        counts[:2] = kinds[[3, 4]]
        made[name] = tiny_h5ad(name, counts=counts[:, order], genes=[GENES[i] for i in order]).path
    return made


def expected_marks(store):
    """Row -> (first row, copies), from the counts themselves."""
    groups = {}
    for row, counts in enumerate(store.read(np.arange(store.n_cells)).toarray()):
        if counts.sum() >= 50:
            groups.setdefault(counts.tobytes(), []).append(row)
    return {row: (rows[0], len(rows)) for rows in groups.values() if len(rows) > 1 for row in rows}


def assert_marked(store):
    store = open_store(store.path)
    expected = expected_marks(store)
    assert expected
    found = store.query("SELECT row, duplicate_of, n_copies FROM obs ORDER BY row").to_pylist()
    for mark in found:
        first, n = expected.get(mark["row"], (None, 1))
        assert mark["n_copies"] == n
        assert mark["duplicate_of"] == (None if first == mark["row"] else first)
    by_arrow = store.obs.to_arrow(["n_copies", "cell", "duplicate_of"])
    assert by_arrow.column_names == ["n_copies", "cell", "duplicate_of"]
    assert by_arrow.column("n_copies").to_pylist() == [mark["n_copies"] for mark in found]
    assert by_arrow.column("duplicate_of").to_pylist() == [mark["duplicate_of"] for mark in found]
    rows = [5, 0, 5, store.n_cells - 1]
    assert store.column("duplicate_of", rows).to_pylist() == [found[row]["duplicate_of"] for row in rows]
    duplicates = store.duplicates
    assert duplicates.n_duplicates == sum(row != first for row, (first, _) in expected.items())
    assert duplicates.digest == store.digest and duplicates.n_cells == store.n_cells
    return duplicates


def test_a_build_marks_equal_cells_of_all_its_inputs(tmp_path, files, vocabulary):
    seen = []
    with listening(lambda event: seen.append(event.message)):
        store = build(tmp_path / "s.mill", list(files.values()), vocabulary=vocabulary, **SMALL)
    found = assert_marked(store)
    assert any(
        f"cells that equal an earlier one in all their counts: {found.n_duplicates};" in message for message in seen
    )
    totals = store.totals()
    n_few = int(((totals > 0) & (totals < 50)).sum())
    assert found.few == {"empty": int((totals == 0).sum()), "cells": n_few, "repeats": n_few - 1, "groups": 1}
    assert n_few >= 3 and found.few["empty"] >= 3 and found.min_counts == 50
    dataset = store.column("dataset").to_pylist()
    expected = expected_marks(store)
    rows_of = {}
    for row, (first, _) in expected.items():
        rows_of.setdefault(first, []).append(row)
    table = {(one.source, one.other): one.n_cells for one in found.table}
    for a in "abc":
        for b in "abc":
            n = sum(
                dataset[row] == a and any(dataset[other] == b for other in rows if other != row)
                for rows in rows_of.values()
                for row in rows
            )
            assert table.get((a, b), 0) == n
    assert json.loads((store.path / "reports" / "build.json").read_text())["duplicates"] == found.to_dict()


def test_appends_and_merges_keep_the_marks_right(tmp_path, files, vocabulary):
    options = {"vocabulary": vocabulary, **SMALL}
    whole = assert_marked(build(tmp_path / "whole.mill", list(files.values()), **options))
    old = build(tmp_path / "grown.mill", [files["a"]], **options)
    append_inputs(old.path, files["b"], **SMALL)
    grown = assert_marked(append_inputs(old.path, files["c"], **SMALL))
    parts = [build(tmp_path / f"{name}.mill", [path], **options) for name, path in files.items()]
    merged = assert_marked(merge_stores(tmp_path / "merged.mill", parts))
    without_digest = [{**one.to_dict(), "digest": ""} for one in (whole, grown, merged)]
    assert without_digest[0] == without_digest[1] == without_digest[2]
    assert old.duplicates.n_cells == 20  # who opened it before goes on with its own


def test_the_stores_together_are_as_the_store_of_all(tmp_path, files, vocabulary):
    options = {"vocabulary": vocabulary, **SMALL}
    whole = find_duplicates(build(tmp_path / "whole.mill", list(files.values()), **options))
    parts = [build(tmp_path / f"{name}.mill", [path], **options, duplicates=False) for name, path in files.items()]
    together = find_duplicates(parts, memory_bytes=1000)
    assert together.n_duplicates == whole.n_duplicates and together.few == whole.few
    assert {(t.source[0], t.other[0], t.n_cells) for t in together.table} == {
        (t.source, t.other, t.n_cells) for t in whole.table
    }
    assert together.table[0].source in ("a:a", "b:b", "c:c") and together.digest == ""


def test_without_marks_a_query_says_how_to_make_them(tmp_path, files, vocabulary):
    store = build(tmp_path / "s.mill", [files["a"]], vocabulary=vocabulary, duplicates=False)
    assert store.duplicates is None
    for read in (lambda: store.select("n_copies > 1"), lambda: store.obs.to_arrow(["duplicate_of"])):
        with pytest.raises(QueryError, match="cellmill duplicates STORE --mark"):
            read()
    found = find_duplicates(store, mark=True, min_counts=200)
    assert open_store(store.path).duplicates == found and found.min_counts == 200
    assert store.select("n_copies > 1").tolist()


def test_marks_are_columns_only_for_who_names_them(tmp_path, files, vocabulary):
    store = build(tmp_path / "s.mill", list(files.values()), vocabulary=vocabulary)
    assert "n_copies" not in store.obs.columns
    assert "n_copies" not in store.query("SELECT * FROM obs").column_names
    assert store.query("SELECT max(N_Copies) AS n FROM obs").column("n").to_pylist()[0] > 1


def test_a_column_of_the_authors_with_such_a_name_comes_first(tmp_path, tiny_h5ad):
    obs = {"n_copies": ["x"] * 60}
    store = build(tmp_path / "s.mill", tiny_h5ad("a", obs=obs).path, vocabulary="union")
    assert set(store.column("n_copies").to_pylist()) == {"x"}
    assert store.select("n_copies = 'x'").tolist() == list(range(60))
    assert store.query("SELECT duplicate_of, n_copies FROM obs").num_rows == 60


def test_marks_of_another_content_do_not_count(tmp_path, files, vocabulary):
    store = build(tmp_path / "s.mill", [files["a"]], vocabulary=vocabulary)
    other = build(tmp_path / "t.mill", [files["b"]], vocabulary=vocabulary)
    for kind in ("json", "parquet"):
        (store.path / f"reports/duplicates-0.{kind}").write_bytes(
            (other.path / f"reports/duplicates-0.{kind}").read_bytes()
        )
    assert open_store(store.path).duplicates is None


@pytest.mark.parametrize("kind", ["json", "parquet"])
def test_damaged_marks_are_an_error_and_the_cells_are_not(tmp_path, files, vocabulary, kind):
    store = build(tmp_path / "s.mill", list(files.values()), vocabulary=vocabulary)
    path = store.path / f"reports/duplicates-0.{kind}"
    good = path.read_bytes()
    for at in range(0, len(good), max(1, len(good) // 40)):
        damaged = bytearray(good)
        damaged[at] ^= 0x01
        path.write_bytes(bytes(damaged))
        with pytest.raises(CorruptStoreError, match=rf"duplicates-0\.{kind}.*--mark"):
            open_store(store.path).select("n_copies > 1")
    assert len(open_store(store.path).select("total_counts > 0")) and store.verify().ok
    find_duplicates(store, mark=True)
    assert path.read_bytes() == good


def test_uids_that_two_cells_have_are_said(tmp_path, files, vocabulary, monkeypatch):
    def few_uids(dataset, names, n):
        return np.array([int(name.removeprefix("cell")) % 19 for name in names], dtype=np.uint64)

    monkeypatch.setattr(cell_table, "cell_uids", few_uids)
    seen = []
    with listening(lambda event: seen.append(event.message)):
        store = build(tmp_path / "s.mill", [files["a"]], vocabulary=vocabulary, **SMALL)
    assert store.duplicates.uid_repeats == 1
    assert store.duplicates.uids == ({"uid": 0, "rows": [0, 19]},)
    assert any("cells with the uid of an earlier one: 1;" in message for message in seen)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda store: find_duplicates([]), "at least one store"),
        (lambda store: find_duplicates(store, min_counts=-1), "0 or more"),
        (lambda store: find_duplicates([store, store], mark=True), "one store at a time"),
    ],
)
def test_calls_that_cannot_be_meant_are_refused(tmp_path, files, vocabulary, call, said):
    store = build(tmp_path / "s.mill", [files["a"]], vocabulary=vocabulary)
    with pytest.raises(InputError, match=said):
        call(store)


def test_a_mixture_removes_the_marked_cells(tmp_path, files, vocabulary):
    store = build(tmp_path / "s.mill", list(files.values()), vocabulary=vocabulary, **SMALL)
    kept = cm.Mixture([cm.Component("all", store, where="stored_counts >= 50")], dedupe=True).plan()
    marked = store.select("stored_counts >= 50 AND duplicate_of IS NULL")
    assert kept.rows().tolist() == marked.tolist()
    few = cm.Mixture([cm.Component("all", store)], dedupe=True).plan()
    assert any("fewer than 50 counts" in warning for warning in few.warnings)


def test_the_files_of_a_store_are_read_in_batches(tmp_path, files, vocabulary, monkeypatch):
    store = build(tmp_path / "s.mill", list(files.values()), vocabulary=vocabulary)
    before = store.duplicates
    monkeypatch.setattr(duplicates_module, "_CELLS_AT_ONCE", 3)
    assert find_duplicates(store) == before


def test_cells_are_compared_by_what_is_stored_of_them(tmp_path, tiny_h5ad):
    counts = np.full((3, 30), 4)
    counts[1, 29] = 9  # a gene that the vocabulary does not have
    counts[2, 0] = 9
    path = tiny_h5ad("a", counts=counts, genes=GENES).path
    vocabulary = Vocabulary(GENES[:29], symbols=GENES[:29], name="most")
    store = build(tmp_path / "s.mill", path, vocabulary=vocabulary)
    assert store.column("total_counts").to_pylist() == [120, 125, 125]
    assert store.column("duplicate_of").to_pylist() == [None, 0, None]
    assert cm.Mixture([cm.Component("all", store)], dedupe=True).plan().rows().tolist() == [0, 2]


def test_stores_from_before_whole_cells_were_measured_are_looked_at(shared_golden):
    found = find_duplicates(open_store(shared_golden), min_counts=0)
    assert found.n_cells == open_store(shared_golden).n_cells
