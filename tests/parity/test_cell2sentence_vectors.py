"""Cell2Sentence: order of words, ties, collisions of names, and the way back, against outputs of the original code."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from cellmill.errors import InputError
from cellmill.tokens import Cell2Sentence, TokenBatch, clean_sentence, expression_of_sentence, word_counts
from parity_vectors import Case, each, load, rows, within_five_sigma
from ranked_rows import rows_of, same_but_for_ties

RANKED = [case for case in load("cell2sentence") if "order" in case]
ranked = pytest.mark.parametrize(
    "case",
    RANKED or [pytest.param(None, marks=pytest.mark.skip(reason="no vectors of Cell2Sentence"))],
    ids=[case.id for case in RANKED] or ["absent"],
)


def names_of(case: Case) -> list[str]:
    return [name.decode() for name in case["names"]]


def cells_of(case: Case) -> sparse.csr_array:
    shape = (len(case["indptr"]) - 1, len(case["names"]))
    data = case["data"].astype(case.params.get("dtype", case["data"].dtype))
    return sparse.csr_array((data, case["indices"], case["indptr"]), shape=shape)


def encoded(case: Case, recipe: Cell2Sentence) -> TokenBatch:
    counts = cells_of(case)
    return recipe.encode(counts, np.arange(counts.shape[1]), np.arange(counts.shape[0]))


@ranked
def test_faithful_words_are_those_of_the_original_with_its_ties(case):
    recipe = Cell2Sentence(faithful=True, seed=case.params["seed"])
    batch = encoded(case, recipe)
    words = np.array([name.upper() for name in names_of(case)])
    said = recipe.sentences(batch, names_of(case))
    theirs = rows(case["order"], case["order_ptr"])
    matrix = cells_of(case).toarray().astype(np.float32)
    for row, own, expected, sentence, stored in zip(
        rows_of(batch), rows_of(batch, batch.values), theirs, said, matrix, strict=True
    ):
        assert np.array_equal(row, expected)
        assert sentence == " ".join(words[expected])
        assert np.array_equal(own, stored[expected])
    for sentence, head in zip(said, case.params.get("sentences_head", []), strict=False):
        assert sentence.startswith(head)


@ranked
def test_corrected_words_are_those_of_the_original_but_for_ties_and_zeros(case):
    counts = cells_of(case)
    for cell, (row, theirs) in enumerate(
        zip(rows_of(encoded(case, Cell2Sentence())), rows(case["order"], case["order_ptr"]), strict=True)
    ):
        here = slice(counts.indptr[cell], counts.indptr[cell + 1])
        value_of = dict(zip(counts.indices[here].tolist(), counts.data[here].tolist(), strict=True))
        expected = [column for column in theirs.tolist() if value_of[column]]
        same_but_for_ties(row, expected, {column: [value] for column, value in value_of.items()}, cut=False)


@ranked
def test_words_are_counted_as_in_the_original(case):
    expected = dict(zip((word.decode() for word in case["vocab_words"]), case["vocab_cells"].tolist(), strict=True))
    assert list(word_counts(cells_of(case), names_of(case)).items()) == list(expected.items())


@each("cell2sentence", prefix="upper_case_collision")
def test_names_that_are_one_word_are_refused_where_the_original_shifts_columns(case):
    names = names_of(case)
    none = sparse.csr_array((1, len(names)), dtype=np.uint32)
    batch = Cell2Sentence().encode(none, np.arange(len(names)), np.zeros(1, np.uint64))
    with pytest.raises(InputError) as refused:
        Cell2Sentence().sentences(batch, names)
    words = [name.upper() for name in names]
    twice = next(word for at, word in enumerate(words) if word in words[:at])
    for name in (name for name in names if name.upper() == twice):
        assert repr(name) in str(refused.value)
    with pytest.raises(InputError, match="one word"):
        word_counts(none, names)


@each("cell2sentence", prefix="post_process")
def test_generated_sentences_are_cleaned_as_by_the_original(case):
    p = case.params
    assert clean_sentence(p["sentence"], p["vocab"]) == (p["out"], p["n_replaced"])


@each("cell2sentence", prefix="reconstruct")
def test_expression_is_that_of_the_original(case):
    p = case.params
    found = expression_of_sentence(p["sentence"], p["vocab"], slope=p["slope"], intercept=p["intercept"])
    assert found.dtype == case["out"].dtype
    assert np.array_equal(found, case["out"])


@each("cell2sentence", prefix="freq")
def test_equal_values_take_each_place_equally_often(case):
    x, draws = case["x"], case.params["draws"]
    counts = sparse.csr_array(np.tile(x, (draws, 1)))
    genes = Cell2Sentence().encode(counts, np.arange(len(x)), np.arange(draws)).genes.numpy()
    for column, value in enumerate(x.tolist()):
        hits = (genes == column).sum(axis=0)
        block = np.sort(x[x > 0])[::-1] == value
        expected = block / max(block.sum(), 1)
        assert within_five_sigma(hits, draws, expected)
        assert within_five_sigma(case["position_hits"][column], draws, expected)
