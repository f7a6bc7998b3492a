"""TranscriptFormer's input against outputs of the original code."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from cellmill.errors import VocabularyError
from cellmill.kernel import ProfileNumbers
from cellmill.tokens import TokenBatch, TranscriptFormer
from parity_vectors import Case, each

PAD = 5


def recipe_of(case: Case, **more) -> TranscriptFormer:
    p = case.params
    order = "count" if p["sort_genes"] else "random" if p["randomize_order"] else "axis"
    return TranscriptFormer(
        max_length=p["max_len"],
        order=order,
        zeros="drop" if p["pad_zeros"] else "keep",
        normalize_to=p["normalize_to_scale"] or None,
        clip=more.pop("clip", p["clip_counts"]),
        min_genes=p["min_expressed_genes"],
        outliers=p["filter_outliers"],
        assays=p.get("assay_vocab"),
        faithful=more.pop("faithful", True),
        **more,
    )


def cells_of(case: Case) -> tuple[sparse.csr_array, np.ndarray]:
    matrix = sparse.csr_array((case["data"], case["indices"], case["indptr"]), shape=tuple(case["shape"]))
    return matrix, case["token"].astype(np.int64)


def encoded(case: Case, recipe: TranscriptFormer) -> tuple[TokenBatch, sparse.csr_array]:
    """The cells that the original kept."""
    counts, genes = cells_of(case)
    kept = np.flatnonzero(recipe.keeps(counts, genes))
    labels = [case.params["assay_of_cell"][cell] for cell in kept] if recipe.assays else []
    keys = kept.astype(np.uint64) + np.uint64(7)
    batch = recipe.encode(counts[kept], genes, keys, obs={"assay": labels})
    return batch, counts[kept]


def same_values(case: Case, found: np.ndarray, counts: sparse.csr_array) -> None:
    """To the bit; but torch's sums above 2^24 depend on the vectors of the processor."""
    small = np.asarray(counts.sum(axis=1)) < 2**24
    assert np.array_equal(found[small], case["gene_counts"][small], equal_nan=True)
    np.testing.assert_allclose(found, case["gene_counts"], rtol=3e-7)


def is_random(case: Case) -> bool:
    return bool(case.params["sort_genes"] or case.params["randomize_order"])


@each("transcriptformer", unless="duplicate")
def test_faithful_rows_are_the_originals(case):
    batch, counts = encoded(case, recipe_of(case))
    assert np.array_equal(batch.extra["assay"], case["aux_token_indices"])
    assert batch.genes.shape == case["gene_token_indices"].shape
    if not is_random(case):
        assert np.array_equal(batch.genes, case["gene_token_indices"])
    if not is_random(case) or case.params["sort_genes"]:
        same_values(case, batch.values.numpy(), counts)


@each("transcriptformer", prefix=("sorted", "random"))
def test_rows_in_random_or_sorted_order_hold_what_the_original_may_choose(case):
    batch, counts = encoded(case, recipe_of(case))
    p, genes = case.params, case["token"]
    for cell in range(len(batch.genes)):
        dense = counts[[cell]].toarray()[0]
        open_ = {int(token): float(count) for token, count in zip(genes, dense, strict=True) if token >= 0}
        for tokens, values in (
            (batch.genes[cell].numpy(), batch.values[cell].numpy()),
            (case["gene_token_indices"][cell], case["gene_counts"][cell]),
        ):
            real = tokens != PAD
            assert len(set(tokens[real])) == real.sum() <= p["max_len"]
            shown = np.array([open_[int(token)] for token in tokens[real]])
            if not p["normalize_to_scale"]:
                assert np.array_equal(np.minimum(shown, p["clip_counts"]), values[real])
            n_expressed = sum(count > 0 for count in open_.values())
            assert (shown > 0).sum() == min(n_expressed, p["max_len"])
            assert (shown[: min(n_expressed, p["max_len"])] > 0).all()  # zeros come behind
            if p["sort_genes"]:
                assert (np.diff(shown) <= 0).all()
                assert np.array_equal(shown, np.sort(list(open_.values()))[::-1][: len(shown)])


@each("transcriptformer", prefix="random")
def test_given_its_order_the_kernel_makes_the_row_of_the_original(case):
    """Numbers that put the genes in the order that the original drew."""
    recipe = recipe_of(case)
    counts, genes = cells_of(case)
    kept = counts[np.flatnonzero(recipe.keeps(counts, genes))]
    known = sparse.csr_array(kept[:, np.flatnonzero(genes >= 0)])
    tokens = genes[genes >= 0]
    order = np.full(known.nnz, 2**40, dtype=np.uint64)
    for cell, drawn in enumerate(case["gene_token_indices"]):
        place = {int(token): i for i, token in enumerate(drawn) if token != PAD}
        for at in range(known.indptr[cell], known.indptr[cell + 1]):
            order[at] = place.get(int(tokens[known.indices[at]]), 2**40)
    labels = ["unknown"] * known.shape[0]
    batch = recipe.encode(
        known, tokens, np.zeros(known.shape[0], np.uint64), obs={"assay": labels}, numbers=ProfileNumbers(order=order)
    )
    for cell, n in enumerate(np.minimum(np.diff(known.indptr), case.params["max_len"])):
        assert np.array_equal(batch.genes[cell, :n], case["gene_token_indices"][cell, :n])
    same_values(case, batch.values.numpy(), known)


@each("transcriptformer", unless="duplicate")
def test_corrected_rows_differ_only_where_they_are_cut(case):
    if is_random(case):
        return
    corrected, counts = encoded(case, recipe_of(case, faithful=False))
    p = case.params
    n_expressed = np.diff(counts[:, np.flatnonzero(case["token"] >= 0)].indptr)
    for cell, n in enumerate(n_expressed):
        long = n > p["max_len"] or not p["pad_zeros"]
        if not long:
            assert np.array_equal(corrected.genes[cell], case["gene_token_indices"][cell])
            expected = np.nan_to_num(case["gene_counts"][cell])  # the original divides an empty cell by 0
            np.testing.assert_allclose(corrected.values[cell], expected, rtol=3e-7 if p["normalize_to_scale"] else 0)
        else:
            tokens = corrected.genes[cell, : int(corrected.lengths[cell])].numpy()
            assert len(set(tokens)) == len(tokens)
            assert set(tokens) <= set(case["token"][case["token"] >= 0].tolist())
            assert int((corrected.values[cell] > 0).sum()) == min(n, p["max_len"])


@each("transcriptformer", prefix="duplicate")
def test_columns_of_one_gene_are_added_up_where_the_original_raises(case):
    counts, genes = cells_of(case)
    known = genes[genes >= 0]
    if len(np.unique(known)) == len(known):  # the case does not say which two columns have one identifier
        genes = np.where(genes == known[1], known[0], genes)
    keys = np.zeros(counts.shape[0], np.uint64)
    with pytest.raises(VocabularyError, match="token"):
        recipe_of(case).encode(counts, genes, keys)
    batch = recipe_of(case, faithful=False, clip=None).encode(counts, genes, keys)
    for cell in range(counts.shape[0]):
        dense = counts[[cell]].toarray()[0]
        expected: dict[int, float] = {}
        for token, count in zip(genes.tolist(), dense.tolist(), strict=True):
            if token >= 0 and count > 0:
                expected[token] = expected.get(token, 0) + count
        n = int(batch.lengths[cell])
        found = dict(zip(batch.genes[cell, :n].tolist(), batch.values[cell, :n].tolist(), strict=True))
        assert found == expected
