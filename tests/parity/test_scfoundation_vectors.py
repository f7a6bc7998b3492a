"""scFoundation's and AIDO.Cell's input against outputs of the original code."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from cellmill.errors import InputError
from cellmill.tokens import AidoCell, ScFoundation, TokenBatch
from parity_vectors import Case, each, rows

N_GENES = 19264


def counts_of(case: Case) -> tuple[sparse.csr_array, np.ndarray]:
    """Cells of a case, and the place in the list of each column."""
    places = case["column_gene"] if "column_gene" in case else np.arange(N_GENES)
    shape = (len(case["indptr"]) - 1, len(places))
    return sparse.csr_array((case["data"], case["indices"], case["indptr"]), shape=shape), places


def recipe_of(case: Case, *, faithful: bool = True) -> ScFoundation:
    p = case.params
    normalised = p.get("pre_normalized", "F") != "F"
    bulk = p.get("input_type", "singlecell") == "bulk"
    kind = ("bulk" if bulk else "counts") if not normalised else ("bulk_log1p" if bulk else "log1p")
    counts, _ = counts_of(case)
    return ScFoundation(
        resolution=p["tgthighres"],
        input=kind,
        target_sum=float(np.median(np.asarray(counts.sum(axis=1)))) if kind == "bulk" else None,
        pad_value=p.get("pad_token_id", 103),
        faithful=faithful,
    )


def encoded(case: Case, recipe: ScFoundation) -> TokenBatch:
    counts, places = counts_of(case)
    totals = case.arrays.get("total")
    return recipe.encode(counts, places, np.zeros(counts.shape[0], np.uint64), totals=totals)


def same_values(case: Case, found: np.ndarray, expected: np.ndarray) -> None:
    if case.params["input_kind"] == "npz_float32":
        np.testing.assert_allclose(found, expected, rtol=1e-6)
    else:
        assert np.array_equal(found, expected)


@each("scfoundation", unless="batch")
def test_faithful_rows_are_the_originals(case):
    batch = encoded(case, recipe_of(case))
    for cell, (x, pos) in enumerate(zip(rows(case["x"], case["x_ptr"]), rows(case["pos"], case["x_ptr"]), strict=True)):
        n = int(batch.lengths[cell])
        assert np.array_equal(batch.genes[cell, :n], pos)
        same_values(case, batch.values[cell, :n].numpy(), x)


@each("scfoundation", unless="batch")
def test_corrected_rows_are_the_same_and_end_with_both_depths(case):
    if case.params.get("pre_normalized") == "T" and case.params["input_type"] == "singlecell":
        with pytest.raises(InputError, match="totals"):  # the original takes the sum of logarithms for a depth
            encoded(case, recipe_of(case, faithful=False))
        return
    batch = encoded(case, recipe_of(case, faithful=False))
    for cell, (x, pos) in enumerate(zip(rows(case["x"], case["x_ptr"]), rows(case["pos"], case["x_ptr"]), strict=True)):
        n = int(batch.lengths[cell])
        places, values = batch.genes[cell, :n].numpy(), batch.values[cell, :n].numpy()
        assert places[-2:].tolist() == [N_GENES, N_GENES + 1]
        assert np.isfinite(values).all()
        kept = np.isin(places, pos)
        assert np.array_equal(places[kept], pos)
        same_values(case, values[kept], x)
        assert (values[~kept] <= 0).all()  # the original dropped it for being no more than 0


@each("scfoundation", prefix="batch")
def test_rows_of_a_batch_are_padded_as_the_originals(case):
    batch = encoded(case, recipe_of(case))
    assert np.array_equal(batch.genes, case["encoder_position"])
    assert np.array_equal(batch.values, case["encoder_data"])
    assert np.array_equal(batch.padding_mask(), case["encoder_padding"].astype(bool))


@each("aido_cell")
@pytest.mark.parametrize("faithful", [True, False])
def test_aido_cells_values_are_the_originals(case, faithful):
    n, width = case["shape"]
    counts = sparse.csr_array((case["data"], case["indices"], case["indptr"]), shape=(n, width))
    recipe = AidoCell(n_genes=int(width), faithful=faithful)
    found = recipe.encode(counts, np.arange(width), np.zeros(n, np.uint64)).values.numpy()
    expected = case["values"] if faithful else np.nan_to_num(case["values"])
    np.testing.assert_allclose(found, expected, rtol=3e-7)  # the original rounds to float32 after each step
