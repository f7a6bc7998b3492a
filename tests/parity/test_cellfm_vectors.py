"""CellFM's input against outputs of the original code."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from cellmill.kernel import ProfileNumbers
from cellmill.tokens import CellFM, TokenBatch
from parity_vectors import Case, each, within_five_sigma

FIRST, LAST = 0, 2**63


def encoded(counts: np.ndarray, recipe: CellFM, n_keys: int = 1, numbers: ProfileNumbers | None = None) -> TokenBatch:
    """One cell, under so many keys."""
    row = sparse.csr_array(np.tile(counts, (n_keys, 1)).astype(np.uint32))
    keys = np.arange(n_keys, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    return recipe.encode(row, np.arange(1, len(counts) + 1), keys, numbers=numbers)


def as_drawn(case: Case, *, faithful: bool) -> TokenBatch:
    """The row under numbers that choose what the original chose."""
    nonz, expressed = case["nonz"], np.flatnonzero(case["data"])
    kept = np.isin(expressed, nonz)
    mask = np.full(len(expressed), LAST, dtype=np.uint64)
    loss, hidden = case["loss_mask"] > 0, case["masked"][:, 0] == 0
    mask[kept] = np.where(hidden, FIRST, np.where(loss, 1, LAST)).astype(np.uint64)
    # the genes of the smallest waits -log(u) / weight stay
    sample = np.where(kept, np.uint64(2**64 - 1), np.uint64(0))
    recipe = CellFM(max_length=case.params["pad_len"], cap=None, faithful=faithful)
    return encoded(case["data"], recipe, numbers=ProfileNumbers(sample=sample, mask=mask))


@each("cellfm", prefix="prepare")
def test_counts_are_capped_and_rounded_as_the_originals(case):
    names = {name: i for i, name in enumerate(case["names"].tolist())}
    counts = sparse.csr_array((case["data"], case["indices"], case["indptr"]), shape=tuple(case["shape"]))
    genes = np.full(len(names), -1)
    genes[[names[name] for name in case["vocab"].tolist()]] = case["gene_id"]
    batch = CellFM(max_length=len(names), mask=None).encode(counts, genes, np.zeros(counts.shape[0], np.uint64))
    assert np.array_equal(batch.extra["T"], case["T"])
    for cell in range(counts.shape[0]):
        there = slice(case["out_indptr"][cell], case["out_indptr"][cell + 1])
        expected = dict(zip(case["gene_id"][case["out_indices"][there]].tolist(), case["out_data"][there], strict=True))
        n = int(batch.lengths[cell])
        assert set(batch.genes[cell, :n].tolist()) == set(expected)
        total = float(case["T"][cell])
        values = [np.float32(np.log1p(expected[gene] / total * 1e4)) for gene in batch.genes[cell, :n].tolist()]
        assert np.array_equal(batch.values[cell, :n], values)


@each("cellfm", prefix="cell_")
def test_rows_are_the_originals_for_what_it_drew(case):
    batch, n = as_drawn(case, faithful=True), case.params["seq_len"]
    assert batch.lengths.tolist() == [n]
    assert np.array_equal(batch.genes[0], case["nonz"] + 1)
    assert np.array_equal(batch.target[0], case["value"])
    assert np.array_equal(batch.values[0], case["masked"][:, 1])
    assert np.array_equal(batch.extra["hidden"][0], case["masked"][:, 0] == 0)
    assert np.array_equal(batch.mask[0], case["loss_mask"] > 0)
    assert int(case["attention"].sum()) == n + 1  # a token of the whole cell comes in front


@each("cellfm", prefix="cell_")
def test_corrected_rows_differ_only_where_the_share_is_no_gene(case):
    corrected, faithful = as_drawn(case, faithful=False), as_drawn(case, faithful=True)
    assert np.array_equal(corrected.values, faithful.values)
    assert np.array_equal(corrected.genes, faithful.genes)
    tiny = int(0.2 * case.params["seq_len"]) == 0
    assert not corrected.mask.any() if tiny else np.array_equal(corrected.mask, faithful.mask)


@each("cellfm", prefix="mask_tiny")
def test_short_cells_carry_loss_everywhere_in_the_original_alone(case):
    counts = np.ones(case.params["n"])
    faithful = encoded(counts, CellFM(faithful=True))
    assert np.array_equal(faithful.mask[0], case["loss_mask"] > 0)
    assert np.array_equal(faithful.extra["hidden"][0], case["masked"][:, 0] == 0)
    corrected = encoded(counts, CellFM())
    assert not corrected.mask.any()
    assert not corrected.extra["hidden"].any()


@each("cellfm", prefix="mask_freq")
def test_genes_are_masked_as_often_as_in_the_original(case):
    n, draws = case.params["n"], case.params["draws"]
    batch = encoded(np.ones(n), CellFM(), draws)
    assert (batch.mask.sum(dim=1) == case.params["l"]).all()
    assert (batch.extra["hidden"].sum(dim=1) == case.params["zeroed"]).all()
    loss, hidden = batch.mask.sum(dim=0).numpy(), batch.extra["hidden"].sum(dim=0).numpy()
    for ours, theirs, k in ((loss, case["loss_hits"], "l"), (hidden, case["zero_hits"], "zeroed")):
        assert within_five_sigma(ours, draws, case.params[k] / n)
        assert within_five_sigma(theirs, draws, case.params[k] / n)


@each("cellfm", prefix="sample_freq")
def test_long_cells_are_sampled_as_by_the_original(case):
    draws, room = case.params["draws"], case.params["pad_len"]
    batch = encoded(case["data"], CellFM(max_length=room, mask=None, cap=None), draws)
    assert (batch.lengths == room).all()
    kept = np.bincount(batch.genes.numpy().ravel(), minlength=len(case["data"]) + 1)[1:]
    # two samples of the same size from one unknown rate: their difference has twice the variance of each
    rate = (kept + case["kept"]) / (2 * draws)
    allowed = 5 * np.sqrt(2 * draws * rate * (1 - rate)) + 1e-9
    assert (np.abs(kept - case["kept"]) <= allowed).all()
