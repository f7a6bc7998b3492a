"""Geneformer V1 and V2: values, order, special tokens, lengths and duplicates, against outputs of the original code."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from cellmill.errors import InputError
from cellmill.kernel import RANK_VALUES, RankOut, RankPlan, RankRules, rank_genes
from cellmill.tokens import Geneformer, TokenBatch
from cellmill.tokens.cells import as_cells
from cellmill.tokens.ranks import summed
from parity_vectors import Case, each, load, rows
from ranked_rows import rows_of, same_but_for_ties, values_by_token


def cases(*, having: str = "input_ids") -> pytest.MarkDecorator:
    """Return a parametrisation by the cases of both versions that have an array."""
    found = [
        pytest.param(case, id=f"{case.params['version']}-{case.id}")
        for name in ("geneformer_v1", "geneformer_v2")
        for case in load(name)
        if having in case
    ]
    absent = pytest.param(None, id="absent", marks=pytest.mark.skip(reason="no vectors of Geneformer"))
    return pytest.mark.parametrize("case", found or [absent])


CLS, EOS = 2, 3


def matrix_of(case: Case) -> sparse.csr_array:
    return sparse.csr_array((case["data"], case["indices"], case["indptr"]), shape=tuple(case["shape"]))


def tokens_of(case: Case) -> np.ndarray:
    """Return the token of each column: by its own id, or by that of the gene that it is another name of."""
    tokens = np.full(int(case["shape"][1]), -1)
    tokens[case["vocab_index"]] = case["vocab_token"]
    if "matrix_ids" in case:
        ids = [name.decode().upper() for name in case["matrix_ids"]]
        by_id = {ids[i]: token for i, token in zip(case["vocab_index"], case["vocab_token"].tolist(), strict=True)}
        alias = case.params.get("alias", {})
        tokens = np.array([by_id.get(alias.get(name, name), -1) for name in ids])
    return tokens


def medians_of(case: Case) -> dict[int, float]:
    return dict(zip(case["vocab_token"].tolist(), case["vocab_median"].tolist(), strict=True))


def how_stored(case: Case) -> str:
    return case.params["input"].split()[0]


def encoded(case: Case, faithful: str | None, **more: object) -> TokenBatch:
    recipe = Geneformer(
        version=case.params["version"],
        medians=medians_of(case),
        max_length=case.params["model_input_size"],
        faithful=faithful,
        duplicates="sum" if "alias" in case.params else None,
        **more,
    )
    counts = matrix_of(case)
    return recipe.encode(counts, tokens_of(case), np.arange(counts.shape[0]), totals=case["n_counts"])


def genes_of(row: np.ndarray, version: str) -> np.ndarray:
    if version == "V1":
        return row
    assert (row[0], row[-1]) == (CLS, EOS)
    return row[1:-1]


@cases()
def test_faithful_rows_are_those_of_the_original(case):
    version = case.params["version"]
    batch = encoded(case, how_stored(case), keep_counts="counts" in case)
    theirs = dict(zip(case["cell_of_row"].tolist(), rows(case["input_ids"], case["ids_ptr"]), strict=True))
    room = case.params["model_input_size"] - 2 * (version == "V2")
    for cell, row in enumerate(rows_of(batch)):
        found = genes_of(row, version)
        if cell not in theirs:  # the original drops cells without any gene of the vocabulary
            assert version == "V2"
            assert len(found) == 0
            continue
        assert len(row) == len(theirs[cell])
        if "counts" in case:
            counts = rows(case["counts"], case["ids_ptr"])[case["cell_of_row"].tolist().index(cell)]
            assert np.array_equal(row, theirs[cell])
            assert np.array_equal(rows_of(batch, batch.extra["per_10k"])[cell], counts)
            continue
        tokens, values = (rows(case[role], case["norm_ptr"])[cell] for role in ("norm_token", "norm_value"))
        expected = genes_of(theirs[cell], version)
        ranked = rows_of(batch, batch.values)[cell]
        if version == "V2":
            assert (ranked[0], ranked[-1]) == (0, 0)
            ranked = ranked[1:-1]
        assert np.array_equal(ranked, np.sort(values)[::-1][:room].astype(np.float32))
        same_but_for_ties(found, expected, values_by_token(tokens, values), cut=len(tokens) > room)
        if len(np.unique(values)) == len(values):
            assert np.array_equal(found, expected)


@cases(having="norm_value")
def test_ranked_values_are_those_of_the_original_to_the_bit(case):
    cells = as_cells(matrix_of(case), tokens_of(case), np.arange(int(case["shape"][0])))
    cells = summed(cells) if "alias" in case.params else cells
    medians = medians_of(case)
    size = len(cells.counts)
    out = RankOut(
        starts=cells.indptr,
        genes=np.empty(size, np.int64),
        values=np.empty(size, np.float32),
        lengths=np.empty(len(cells), np.int64),
        ranked=np.empty(size),
    )
    plan = RankPlan(
        room=cells.sizes,
        divisors=np.array([medians.get(token, 1.0) for token in cells.token_of.tolist()]),
        head=np.empty((len(cells), 0), np.int64),
        tail=np.empty(0, np.int64),
        totals=case["n_counts"].astype(np.float64),
    )
    how = RANK_VALUES["reciprocal" if how_stored(case) == "sparse" else "divided"]
    rank_genes(cells, RankRules(values=how, single=case["n_counts"].dtype == np.float32), plan, out)
    for found, expected in zip(rows(out.ranked, out.starts), rows(case["norm_value"], case["norm_ptr"]), strict=True):
        assert np.array_equal(found, np.sort(expected)[::-1])


@cases()
def test_corrected_rows_are_those_of_the_original_where_its_values_are_distinct(case):
    version = case.params["version"]
    batch = encoded(case, None)
    theirs = dict(zip(case["cell_of_row"].tolist(), rows(case["input_ids"], case["ids_ptr"]), strict=True))
    room = case.params["model_input_size"] - 2 * (version == "V2")
    cells, medians = summed(as_cells(matrix_of(case), tokens_of(case), np.arange(len(batch.lengths)))), medians_of(case)
    for cell, row in enumerate(rows_of(batch)):
        found = genes_of(row, version)
        here = slice(int(cells.indptr[cell]), int(cells.indptr[cell + 1]))
        tokens = cells.token_of[cells.columns[here]]
        ratios = cells.counts[here] / np.array([medians[token] for token in tokens.tolist()])
        assert np.array_equal(found, tokens[np.lexsort((tokens, -ratios))][:room])
        expected = genes_of(theirs[cell], version) if cell in theirs else np.empty(0)
        if "duplicated" in case.params:  # the original has the token twice; the sum of both ranks elsewhere
            assert set(found.tolist()) == set(expected.tolist())
        elif case.params.get("tied_values", 0) == 0:
            assert np.array_equal(found, expected)


@each("geneformer_v2", prefix="empty")
def test_a_total_of_nothing_is_refused_where_the_original_makes_every_gene_a_token(case):
    recipe = Geneformer(medians=medians_of(case), faithful="dense")
    with pytest.raises(InputError, match="cell 0 has 0"):
        recipe.encode(matrix_of(case), tokens_of(case), np.arange(int(case["shape"][0])))
