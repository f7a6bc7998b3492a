"""Cells and genes that are left out on the way in: counted, the same after a kill, the same for append."""

from __future__ import annotations

import json

import numpy as np
import pytest

from cellmill.errors import ConfigError, InputError, NotRawCountsError, QueryError
from cellmill.genes import Vocabulary
from cellmill.ingest import append_inputs, build, plan_build, shards
from cellmill.ingest.options import BuildOptions
from cellmill.store.staging import Staging

SMALL = {"shard_cells": 40, "block_cells": 10}


def report_of(store, number=0):
    return json.loads((store.path / f"reports/{number:05d}.json").read_text())


def contents(folder):
    files = (p for p in folder.rglob("*") if p.is_file() and p.name != "build.json")
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}


@pytest.fixture
def file(tiny_h5ad):
    return tiny_h5ad("a", n_cells=200, seed=7)


@pytest.mark.parametrize("stop_after", range(1, 20, 3))
def test_an_interrupted_build_with_filters_goes_on_to_the_same_bytes(tmp_path, file, monkeypatch, stop_after):
    asked = {"vocabulary": "union", "min_counts": 18, "where": "tissue = 'blood'", **SMALL}
    whole = build(tmp_path / "whole.mill", [file.path], **asked)
    assert 0 < whole.n_cells < 150 and len(whole.manifest.shards) > 1
    admit, seen = shards.Admission.admit, []

    def until(self, block):
        seen.append(block.start)
        if len(seen) > stop_after:
            raise KeyboardInterrupt
        return admit(self, block)

    monkeypatch.setattr(shards.Admission, "admit", until)
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path / "s.mill", [file.path], **asked)
    monkeypatch.setattr(shards.Admission, "admit", admit)
    build(tmp_path / "s.mill", [file.path], **asked)
    assert contents(tmp_path / "s.mill") == contents(whole.path)
    assert not Staging.folder_of(tmp_path / "s.mill").exists()


def test_other_filters_are_another_plan(file):
    keys = {
        plan_build([file.path], vocabulary="union", options=BuildOptions(**filters, allow_rounding=rounding)).key
        for filters in (
            {}, {"min_counts": 1}, {"min_genes": 1}, {"max_mito": 0.0}, {"max_mito": 0.1},
            {"where": "total_counts > 1"}, {"where": "total_counts > 2"},
        )
        for rounding in (0.0, 1e-3)
    }  # fmt: skip
    assert len(keys) == 14


def test_cells_removed_at_the_end_of_a_file_are_counted(tmp_path, tiny_h5ad):
    counts = np.random.default_rng(0).poisson(2, (100, 40))
    counts[40:] = 0
    store = build(tmp_path / "s.mill", [tiny_h5ad("a", counts=counts).path], vocabulary="union", min_counts=1, **SMALL)
    report = report_of(store)
    assert (store.n_cells, report["cells_read"]) == (40, 100)
    assert report["filters"] == [{"filter": "min_counts", "value": 1, "cells_removed": 60}]


def test_statistics_are_those_of_the_cells_that_are_taken(tmp_path, file):
    store = build(tmp_path / "s.mill", [file.path], vocabulary="union", min_counts=20, **SMALL)
    taken = np.asarray(file.counts[np.asarray(file.counts.sum(1)).ravel() >= 20].todense())
    order = np.argsort(store.gene_ids)
    np.testing.assert_array_equal(store.read(np.arange(store.n_cells)).toarray()[:, order], taken)
    rate = store.genes.column("detection_rate").to_numpy()[order]
    np.testing.assert_allclose(rate, (taken > 0).mean(0))
    report = report_of(store)
    assert report["proof"]["umis"] == taken.sum()
    assert report["proof"]["largest_count"] == taken.max()
    assert report["counts_stored"] == (taken > 0).sum()


def test_values_of_cells_that_are_removed_are_proven_too(tmp_path, tiny_h5ad):
    counts = np.full((5000, 40), 2.0)
    counts[4200] = 0
    counts[4200, 7] = 0.5
    path = tiny_h5ad("a", counts=counts).path
    with pytest.raises(NotRawCountsError, match="row 4200"):
        build(tmp_path / "s.mill", [path], vocabulary="union", min_counts=10, block_cells=512)


def test_an_input_of_which_no_cell_is_taken_is_in_the_store_with_its_report(tmp_path, file, tiny_h5ad):
    empty = tiny_h5ad("empty", counts=np.ones((30, 40), int), obs={"tissue": ["skin"] * 30})
    paths = [file.path, empty.path]
    store = build(tmp_path / "s.mill", paths, vocabulary="union", where="tissue = 'blood'", **SMALL)
    assert [(one.name, one.n_cells) for one in store.manifest.sources] == [("a", store.n_cells), ("empty", 0)]
    assert report_of(store, 1)["filters"] == [{"filter": "where", "value": "tissue = 'blood'", "cells_removed": 30}]
    assert store.verify().ok
    with pytest.raises(InputError, match=r"(?s)no cell is left.*empty: 30 cells read, where removed 30"):
        build(tmp_path / "t.mill", [empty.path], vocabulary="union", where="tissue = 'blood'")
    assert not (tmp_path / "t.mill").exists()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_append_takes_the_same_filters(tmp_path, file, tiny_h5ad):
    more = tiny_h5ad("b", n_cells=100, seed=9)
    asked = {"min_counts": 15, "min_genes": 5, "where": "donor_id <> 'donor2'"}
    both = build(tmp_path / "both.mill", [file.path, more.path], vocabulary="union", **asked, **SMALL)
    build(tmp_path / "s.mill", [file.path], vocabulary="union", **asked, **SMALL)
    grown = append_inputs(tmp_path / "s.mill", [more.path], **asked, **SMALL)
    assert grown.uids().tolist() == both.uids().tolist()
    assert report_of(grown, 1)["filters"] == report_of(both, 1)["filters"]


def test_genes_detected_in_few_cells_are_left_out(tmp_path, file, tiny_h5ad):
    more = tiny_h5ad("b", n_cells=100, seed=9)
    taken = [f.counts.toarray()[np.asarray(f.counts.sum(1)).ravel() >= 15] for f in (file, more)]
    detected = sum((counts > 0).sum(0) for counts in taken)
    least = int(np.median(detected))
    asked = {"vocabulary": "union", "min_counts": 15, "min_cells_per_gene": least, **SMALL}
    store = build(tmp_path / "s.mill", [file.path, more.path], **asked)
    assert set(store.gene_ids) == {gene for gene, n in zip(file.genes, detected, strict=True) if n >= least}
    assert 0 < store.n_genes < 40
    kept = [file.genes.index(gene) for gene in store.gene_ids]
    np.testing.assert_array_equal(store.read(np.arange(store.n_cells)).toarray(), np.concatenate(taken)[:, kept])
    assert store.column("total_counts").to_pylist() == np.concatenate(taken).sum(1).tolist()  # of whole cells
    assert set(store.column("kept_share").to_pylist()) == {1.0}  # the vocabulary has all of them
    lines = report_of(store)["filters"]
    assert lines[1] == {"filter": "min_cells_per_gene", "value": least, "genes_removed": 40 - store.n_genes}
    assert store.verify().ok


def test_genes_that_a_store_has_are_not_left_out_of_what_is_added(tmp_path, tiny_h5ad):
    genes = [f"ENSG{i:011d}" for i in range(30)]
    vocabulary = Vocabulary(genes)
    rng = np.random.default_rng(0)
    first = tiny_h5ad("a", counts=rng.poisson(1, (50, 20)), genes=genes[:20])
    counts = rng.poisson(1, (50, 30))
    counts[:, [3, 25]] = 0  # one that the store has, and one that is new to it
    second = tiny_h5ad("b", counts=counts, genes=genes)
    build(tmp_path / "s.mill", [first.path], vocabulary=vocabulary)
    grown = append_inputs(tmp_path / "s.mill", [second.path], min_cells_per_gene=1)
    assert set(grown.gene_ids) == set(genes) - {genes[25]}


def test_no_gene_left_is_an_error(tmp_path, file):
    with pytest.raises(InputError, match=r"no gene .*in 1000 cells or more.*--min-cells-per-gene"):
        build(tmp_path / "s.mill", [file.path], vocabulary="union", min_cells_per_gene=1000)


@pytest.mark.parametrize(
    ("asked", "error", "said"),
    [
        ({"min_counts": -1}, ConfigError, "--min-counts"),
        ({"min_cells_per_gene": -3}, ConfigError, "--min-cells-per-gene"),
        ({"max_mito": 20}, ConfigError, r"for 20 % give 0\.2"),
        ({"where": ""}, QueryError, r"where \(--where\): the condition is empty; .*leave it out"),
        ({"where": " \n"}, QueryError, "the condition is empty"),
        ({"where": "total_counts >"}, QueryError, r"where \(--where\): the condition 'total_counts >' cannot be run"),
        ({"where": "total_counts > (SELECT avg(total_counts) FROM obs)"}, QueryError, "has a SELECT in it"),
        ({"where": "random() < 0.5"}, QueryError, "calls random"),
        ({"where": "1=1) OR (1=1"}, QueryError, "cannot be run"),
        ({"where": "now() > '2020-01-01'"}, QueryError, "another answer"),
    ],
    ids=str,
)
def test_filters_that_cannot_be_meant_are_refused_before_a_file_is_opened(tmp_path, asked, error, said):
    with pytest.raises(error, match=said) as caught:
        build(tmp_path / "s.mill", [tmp_path / "never.h5ad"], **asked)
    assert "SELECT 1" not in str(caught.value) and not str(caught.value).endswith("Columns: ")


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("tisue = 'blood'", "Did you mean 'tissue'"),
        ("row < 5", "no column 'row'"),
        ("stored_counts > 5", "no column 'stored_counts'"),
        ("avg(total_counts) > 5", "aggregate"),
    ],
)
def test_a_condition_is_checked_against_the_columns_before_the_build(tmp_path, file, where, said):
    with pytest.raises(QueryError, match=said) as caught:
        plan_build([file.path], vocabulary="union", options=BuildOptions(where=where))
    assert f"where (--where): the condition {where!r}" in str(caught.value) and "SELECT" not in str(caught.value)
