"""The dense panel against values of its definition, and what the original's fallback should have given."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from cellmill.tokens import HVGPanel
from parity_vectors import FOLDER, load
from parity_where import where


def matrix_of(arrays) -> sparse.csr_array:
    return sparse.csr_array((arrays["data"], arrays["indices"], arrays["indptr"]), shape=tuple(arrays["shape"]))


def matrix_for(case) -> sparse.csr_array:
    """Return the input of a case of hvg: the matrix with the longest beginning that the ids share."""
    matrices = [one for one in load("hvg") if one.kind == "input"]
    fitting = [one for one in matrices if case.id.startswith(one.id.removesuffix("matrix"))]
    return matrix_of(max(fitting, key=lambda one: len(one.id)).arrays)


def encode(recipe: HVGPanel, counts: sparse.csr_array):
    n, n_columns = counts.shape
    return recipe.encode(counts, np.arange(n_columns), np.zeros(n, np.uint64))


@where("hvg", lambda case: "panel_total" in case)
def test_panel_is_log1p_of_counts_per_ten_thousand_of_the_whole_cell(case):
    with np.load(FOLDER / "cells.npz") as stored:
        counts = matrix_of(stored)
    # A gene that the data lacks is one that no column holds.
    lacking = counts.shape[1] + np.arange(len(case["panel"]))
    panel = np.where(case["panel"] >= 0, case["panel"], lacking)
    made = encode(HVGPanel(panel.tolist()), counts).values.numpy()
    assert np.allclose(made, case["values"], rtol=2e-6, atol=0)
    assert not made[:, case["panel"] < 0].any()
    alone = encode(HVGPanel(case["panel"][case["panel"] >= 0].tolist(), total="panel"), counts).values.numpy()
    assert np.allclose(alone, case["panel_total"], rtol=2e-6, atol=0)


@where("hvg", lambda case: case.id.endswith("log1p_cp10k"))
def test_all_genes_as_a_panel_are_the_normalised_matrix(case):
    counts = matrix_for(case)
    made = encode(HVGPanel(range(counts.shape[1])), counts).values.numpy()
    assert np.allclose(made, case["values"], rtol=2e-6, atol=0)


@where("hvg", lambda case: "seed.fallback" in case.id)
def test_other_genes_never_land_in_a_column_of_the_panel(case):
    counts, selected = matrix_for(case), case.params["selected"]
    cells = counts[case.params["cells"]]
    batch = encode(HVGPanel(selected, transform="raw"), cells)
    assert np.array_equal(batch.values.numpy(), case["correct"])
    # What the original put into columns that mean other genes is here under its own name.
    for i, cell in enumerate(cells.toarray()):
        outside = np.setdiff1d(np.flatnonzero(cell), selected)
        wanted = len(selected) - int((cell[selected] > 0).sum())
        largest = outside[np.argsort(-cell[outside].astype(int), kind="stable")][:wanted]
        n = int(batch.extra["other_lengths"][i])
        assert batch.extra["other_genes"][i, :n].tolist() == largest.tolist()
        assert batch.extra["other_values"][i, :n].tolist() == cell[largest].tolist()


@pytest.mark.skipif(not load("hvg"), reason="no vectors of hvg")
def test_every_kind_of_panel_case_is_looked_at():
    known = ("matrix", "seed.", "log1p_cp10k", "scanpy.", "dense_panel")
    assert all(any(part in case.id for part in known) for case in load("hvg"))
