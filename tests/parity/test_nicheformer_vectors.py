"""Nicheformer: values and order against outputs of the original code."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from cellmill.tokens import Nicheformer, TokenBatch
from parity_vectors import Case, each
from ranked_rows import rows_of, same_but_for_ties

ORIGINAL = each("nicheformer")


def cells_of(case: Case) -> sparse.csr_array:
    return sparse.csr_array((case["data"], case["indices"], case["indptr"]), shape=tuple(case["shape"]))


def encoded(case: Case, faithful: str | None) -> TokenBatch:
    counts = cells_of(case)
    recipe = Nicheformer(
        means=case["tech_mean"],
        max_length=case.params["max_seq_len"],
        offset=case.params["aux_tokens"],
        pad="max",
        faithful=faithful,
    )
    return recipe.encode(counts, np.arange(counts.shape[1]), np.arange(counts.shape[0]))


def values_of(case: Case) -> np.ndarray:
    """Return the matrix that the original ranked: as it is stored, or by its formula where it is not."""
    if "value" in case:
        return case["value"]
    real = np.dtype(case.params["dtype"]).type
    x = cells_of(case).toarray().astype(real)
    scale = real(1e4) / np.maximum(x.sum(axis=1), 1)
    return x * scale[:, None] / (case["tech_mean"] + (case["tech_mean"] == 0))


@ORIGINAL
def test_faithful_rows_are_those_of_the_original(case):
    batch = encoded(case, case.params["dtype"])
    assert batch.genes.shape == case["tokens"].shape
    for row, own, theirs, values in zip(
        rows_of(batch), rows_of(batch, batch.values), case["tokens"], values_of(case), strict=True
    ):
        expected = theirs[theirs > 0]
        offset, n = case.params["aux_tokens"], np.count_nonzero(values)
        room = case.params["max_seq_len"]
        assert np.array_equal(own, np.sort(values[values > 0])[::-1][:room].astype(np.float32))
        by_token = {column + offset: [value] for column, value in enumerate(values.tolist())}
        same_but_for_ties(row, expected, by_token, cut=n > room)
    assert not batch.genes[batch.padding_mask()].any()


@ORIGINAL
def test_corrected_rows_rank_by_count_over_mean_with_ties_by_token(case):
    counts = cells_of(case).toarray()
    ratios = counts / (case["tech_mean"] + (case["tech_mean"] == 0))
    for row, theirs, ratio in zip(rows_of(encoded(case, None)), case["tokens"], ratios, strict=True):
        there = np.flatnonzero(ratio)
        order = there[np.argsort(-ratio[there], kind="stable")][: case.params["max_seq_len"]]
        assert np.array_equal(row, order + case.params["aux_tokens"])
        close = np.diff(np.sort(ratio[there]))
        if len(close) == 0 or (close > 1e-6 * ratio.max()).all():  # nothing that float32 could order otherwise
            assert np.array_equal(row, theirs[theirs > 0])
