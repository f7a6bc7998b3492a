"""Reconstruction scores against their definition, in batches, over the right genes, once only."""

from __future__ import annotations

import importlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

import cellmill as cm
from cellmill.errors import ConfigError, InputError, NotFoundError
from cellmill.evaluate import EvalSet, choose_genes, evaluate_run
from cellmill.evaluate.cells import PanelReader, training_cells
from cellmill.evaluate.results import SetScores, summarise
from cellmill.models import load
from cellmill.statistics import hvg_of_cells
from cellmill.store import Store


@pytest.fixture
def run(experiment: Any) -> Path:
    return experiment.arms["base"][0]


def scores_by_hand(run: Path, store: Store, rows: Any, genes: list[str]) -> np.ndarray:
    """The published definition, cell by cell, without any of the package's measures."""
    model = load(run / "model")
    counts = store.read_dense(rows, genes=list(model.genes))
    columns = [model.genes.index(gene) for gene in genes]
    predicted = np.log1p(1e4 * model.reconstruct(counts).astype(float))[:, columns]
    observed = np.log1p(1e4 * counts / counts.sum(axis=1, keepdims=True).clip(1))[:, columns]
    return np.array([np.corrcoef(p, o)[0, 1] for p, o in zip(predicted, observed, strict=True)])


def test_scores_equal_the_definition_cell_by_cell(experiment: Any, run: Path) -> None:
    genes = choose_genes(run, n=60)
    evaluate_run(run, experiment.sets, hvg_genes=genes, batch_size=7)
    table = pq.read_table(run / "evaluation" / "cells.parquet").to_pandas()
    one = experiment.sets[0]
    mine = table[(table["set"] == one.name) & (table["method"] == "model")]
    np.testing.assert_array_equal(mine["row"], one.rows)
    expected = scores_by_hand(run, experiment.store, one.rows, genes)
    np.testing.assert_allclose(mine["pearson"], expected, atol=2e-6)
    np.testing.assert_allclose(mine["r2"], expected**2, atol=2e-6)
    np.testing.assert_array_equal(mine["uid"], experiment.store.uids(one.rows))


def test_the_summary_is_the_mean_over_cells_by_set_and_cell_type(experiment: Any, run: Path) -> None:
    result = evaluate_run(run, experiment.sets, hvg_genes=choose_genes(run, n=50))
    table = pq.read_table(run / "evaluation" / "cells.parquet").to_pandas()
    for row in result.summary:
        chosen = table[(table["set"] == row["set"]) & (table["method"] == row["method"])]
        if row["cell_type"] != "(all)":
            chosen = chosen[chosen["cell_type"] == row["cell_type"]]
        assert row["n_cells"] == len(chosen)
        assert row["r2_mean"] == pytest.approx(chosen["r2"].mean())
        assert row["pearson_median"] == pytest.approx(chosen["pearson"].median())
    assert {row["method"] for row in result.summary} == {"model", "mean profile", "PCA 4", "PCA 50"}
    types = [row["cell_type"] for row in result.summary if row["set"] == "gut" and row["method"] == "model"]
    assert types[0] == "(all)"
    assert len(types) == len(set(types)) > 3


def test_the_measured_genes_come_from_training_cells_unless_asked_otherwise(experiment: Any, run: Path) -> None:
    model = load(run / "model")
    chosen = choose_genes(run, n=40)
    assert chosen == list(hvg_of_cells(training_cells(run), model.genes, 40).gene_ids)
    fixed = evaluate_run(run, experiment.sets, hvg_genes=chosen)
    genes = pq.read_table(run / "evaluation" / "genes.parquet").to_pandas()
    assert {tuple(part["gene_id"]) for _, part in genes.groupby(["set", "method"])} == {tuple(chosen)}

    monkeypatched = importlib.import_module("cellmill.evaluate.reconstruction")
    before, monkeypatched._HVG = monkeypatched._HVG, 40
    try:
        published = evaluate_run(run, experiment.sets, hvg_genes="evaluation")
    finally:
        monkeypatched._HVG = before
    genes = pq.read_table(run / "evaluation" / "genes.parquet").to_pandas()
    by_set = {name: set(part["gene_id"]) for name, part in genes.groupby("set")}
    own = hvg_of_cells([(experiment.store, experiment.sets[1].rows)], model.genes, 40).gene_ids
    assert by_set["gut"] == set(own) != set(chosen)
    assert by_set["gut"] != by_set["blood <test>"]
    assert fixed.identity != published.identity


def test_cells_are_never_read_all_at_once(experiment: Any, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    genes = choose_genes(run, n=15)
    largest = 0
    for name in ("read", "read_dense"):
        original = getattr(Store, name)

        def counting(self: Store, rows: Any, *args: Any, _original: Any = original, **given: Any) -> Any:
            nonlocal largest
            largest = max(largest, len(rows))
            return _original(self, rows, *args, **given)

        monkeypatch.setattr(Store, name, counting)
    evaluate_run(run, experiment.sets, hvg_genes=genes, batch_size=9)
    assert largest == 9


def test_scores_do_not_depend_on_the_batch_size(experiment: Any, run: Path) -> None:
    genes = choose_genes(run, n=30)
    tables = []
    for size in (5, 512):
        (run / "evaluation" / "evaluation.json").unlink(missing_ok=True)
        evaluate_run(run, experiment.sets, hvg_genes=genes, batch_size=size)
        tables.append(pq.read_table(run / "evaluation" / "cells.parquet").to_pandas())
    np.testing.assert_allclose(tables[0]["pearson"], tables[1]["pearson"], rtol=1e-5, atol=1e-6)


def test_the_same_evaluation_again_is_read_back(experiment: Any, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    genes = choose_genes(run, n=25)
    first = evaluate_run(run, experiment.sets, hvg_genes=genes)
    module = importlib.import_module("cellmill.evaluate.reconstruction")
    monkeypatch.setattr(module, "fit_baselines", lambda *a, **k: pytest.fail("evaluated a second time"))
    assert evaluate_run(run, experiment.sets, hvg_genes=genes).summary == first.summary
    with pytest.raises(pytest.fail.Exception):
        evaluate_run(run, experiment.sets[:1], hvg_genes=genes)


def test_the_module_is_the_verb_and_validation_cells_are_the_default(run: Path) -> None:
    result = cm.evaluate(run, components=(2,))
    held = sum(len(rows) for _, rows in training_cells(run, part="validation"))
    assert result.score("validation")["n_cells"] == held
    assert result.score("validation", method="PCA 2")["r2_mean"] > 0
    text = (run / "evaluation" / "evaluation.json").read_text()
    assert json.loads(text)["summary"] == result.summary
    assert "NaN" not in text


def test_baselines_of_the_training_cells_stand_beside_the_model(experiment: Any, run: Path) -> None:
    genes = choose_genes(run, n=60)
    result = evaluate_run(run, experiment.sets, hvg_genes=genes)
    model = load(run / "model")
    ((store, rows),) = training_cells(run)
    train = store.read_dense(rows, genes=list(model.genes)).astype(float)
    profile = np.log1p((1e4 * train / train.sum(axis=1, keepdims=True).clip(1)).mean(axis=0))
    columns = [model.genes.index(gene) for gene in genes]
    held = store.read_dense(experiment.sets[0].rows, genes=list(model.genes)).astype(float)
    observed = np.log1p(1e4 * held / held.sum(axis=1, keepdims=True).clip(1))[:, columns]
    expected = np.mean([np.corrcoef(profile[columns], cell)[0, 1] ** 2 for cell in observed])
    assert result.score("blood <test>", method="mean profile")["r2_mean"] == pytest.approx(expected)
    assert (
        result.score("blood <test>", method="PCA 50")["r2_mean"]
        > result.score("blood <test>", method="PCA 4")["r2_mean"]
    )


def test_genes_that_the_cells_do_not_have_count_as_zero(experiment: Any) -> None:
    store = experiment.store
    genes = [store.gene_ids[3], "ENSG99999999999", store.gene_ids[0]]
    reader = PanelReader(store, genes)
    rows = np.array([5, 0, 17])
    expected = store.read_dense(rows, genes=[genes[0], genes[2]])
    dense = reader.dense(rows)
    np.testing.assert_array_equal(dense[:, [0, 2]], expected)
    assert not dense[:, 1].any()
    assert reader.share_present == pytest.approx(2 / 3)
    np.testing.assert_array_equal(np.vstack([b.toarray() for b in reader.batches(rows, batch_size=2)]), dense)
    with pytest.raises(InputError, match="none of the 1 genes"):
        PanelReader(store, ["ENSG99999999999"])


def test_a_cell_without_variance_is_counted_but_not_scored() -> None:
    scores = SetScores(
        "s", {"model": np.array([math.nan, 0.5])}, {"model": np.array([math.nan, 0.25])}, ["a", "a"], np.arange(2),
        np.arange(2, dtype=np.uint64), ["T", "T"], ["(none)", "(none)"], [], np.empty(0), {}, 1.0,
    )  # fmt: skip
    row = summarise([scores], generator=np.random.default_rng(0))[0]
    assert (row["n_cells"], row["n_scored"], row["r2_mean"], row["r2_low"]) == (2, 1, 0.25, None)


def test_what_cannot_be_evaluated_is_told(experiment: Any, run: Path, tmp_path: Path) -> None:
    store = experiment.store
    with pytest.raises(ConfigError, match="Did you mean 'cell_type'"):
        evaluate_run(run, [EvalSet("x", store, cell_type="cel_type")])
    with pytest.raises(InputError, match="has no cells"):
        evaluate_run(run, [EvalSet("x", store, where="tissue = 'moon'")])
    with pytest.raises(InputError, match="1 of 2 measured genes are not among"):
        evaluate_run(run, experiment.sets, hvg_genes=[store.gene_ids[0], "nowhere"])
    with pytest.raises(ConfigError, match="'evaluation'"):
        evaluate_run(run, experiment.sets, hvg_genes="all")  # type: ignore[arg-type]
    with pytest.raises(NotFoundError):
        evaluate_run(tmp_path, experiment.sets)
    with pytest.raises(ConfigError, match="no evaluation set"):
        evaluate_run(run, [])
