"""Recipes that rank genes: what a cell becomes depends on it alone; padding changes nothing; bad input is named."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from cellmill.errors import ConfigError, InputError, NotRawCountsError, VocabularyError
from cellmill.genes import Vocabulary
from cellmill.tokens import Cell2Sentence, Context, Depth, Geneformer, Nicheformer
from cellmill.tokens.per_gene import PerGene
from ranked_rows import rows_of

N_COLUMNS = 120
TABLE = {token: 0.5 + (token * 7 % 5) for token in range(4, 300)}
RECIPES = {
    "Geneformer V1": lambda **more: Geneformer(version="V1", medians=TABLE, **more),
    "Geneformer V2": lambda **more: Geneformer(medians=TABLE, **more),
    "Geneformer faithful": lambda **more: Geneformer(medians=TABLE, faithful=True, **more),
    "Cell2Sentence": Cell2Sentence,
    "Nicheformer": lambda **more: Nicheformer(means=TABLE, **more),
    "Nicheformer faithful": lambda **more: Nicheformer(means=TABLE, faithful=True, **more),
}
each_recipe = pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)


def some(seed: int, n: int = 7) -> tuple[sparse.csr_array, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    dense = rng.poisson(2, (n, N_COLUMNS)) * (rng.random((n, N_COLUMNS)) < rng.random((n, 1)))
    dense[n // 2] = 0
    tokens = rng.permutation(np.arange(4, 300))[:N_COLUMNS]
    tokens[:5] = -1  # genes that the model does not know
    return sparse.csr_array(dense.astype(np.uint32)), tokens, rng.integers(0, 2**63, n).astype(np.uint64)


@each_recipe
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32), length=st.integers(3, 150))
def test_a_cell_becomes_the_same_wherever_it_stands(recipe, seed, length):
    counts, tokens, keys = some(seed)
    rng = np.random.default_rng(seed)
    rows = rows_of(recipe(max_length=length).encode(counts, tokens, keys))
    cells, columns = rng.permutation(len(keys)), rng.permutation(N_COLUMNS)
    moved = sparse.csr_array(counts.toarray()[cells][:, columns])
    before = moved.data.copy()
    again = rows_of(recipe(max_length=length).encode(moved, tokens[columns], keys[cells]))
    assert all(np.array_equal(row, rows[cell]) for row, cell in zip(again, cells, strict=True))
    assert np.array_equal(moved.data, before)
    assert max(map(len, rows)) <= length


@each_recipe
def test_padding_changes_no_token(recipe):
    counts, tokens, keys = some(3)
    plain = recipe().encode(counts, tokens, keys)
    for pad, multiple in (("longest", 64), ("max", 1), ("max", 100)):
        padded = recipe(pad=pad, multiple=multiple, max_length=130).encode(counts, tokens, keys)
        assert padded.genes.shape[1] % multiple == 0
        assert all(map(np.array_equal, rows_of(padded), rows_of(plain)))
        assert torch.equal(padded.values[padded.padding_mask()], torch.zeros(int(padded.padding_mask().sum())))
    flat = recipe(pad="none").encode(counts, tokens, keys)
    assert flat.genes.tolist() == np.concatenate(rows_of(plain)).tolist()
    assert flat.cu_seqlens.diff().tolist() == plain.lengths.tolist()


@each_recipe
def test_no_cells_and_empty_cells_give_valid_rows(recipe):
    counts, tokens, keys = some(5)
    shortest = recipe().encode(counts, tokens, keys).lengths.min()
    assert shortest == (2 if getattr(recipe(), "version", "") == "V2" else 0)
    none = recipe().encode(counts[:0], tokens, keys[:0])
    assert none.genes.shape == (0, 0)


def test_a_recipe_is_equal_to_its_like_and_says_what_it_is():
    one, other = Geneformer(medians=TABLE), Geneformer(medians=dict(reversed(TABLE.items())))
    assert one == other
    assert hash(one) == hash(other)
    assert one != Geneformer(medians={**TABLE, 4: 9.0})
    assert one.to_dict()["recipe"] == "geneformer"
    assert one.to_dict()["medians"] == PerGene("medians", TABLE).digest


def test_medians_by_gene_id_by_token_and_as_an_array_are_the_same():
    vocabulary = Vocabulary(["a", "b"], tokens=[5, 9], specials={"<pad>": 0, "<cls>": 2, "<eos>": 3})
    counts, keys = sparse.csr_array(np.array([[3, 4]], dtype=np.uint32)), np.zeros(1, np.uint64)
    array = np.full(10, np.nan)
    array[[5, 9]] = 2.0, 1.0
    for medians in ({"a": 2.0, "b": 1.0, "absent": 1.0}, {5: 2.0, 9: 1.0}, array):
        recipe = Geneformer(medians=medians, vocabulary=vocabulary)
        assert recipe.encode(counts, np.array([5, 9]), keys).genes.tolist() == [[2, 9, 5, 3]]
    fewer = Geneformer(medians={9: 1.0})  # a gene without a median is left out
    assert fewer.encode(counts, np.array([5, 9]), keys).genes.tolist() == [[2, 9, 3]]
    far = Geneformer(medians={5: 2.0, 1 << 40: 1.0})  # beyond a table over all tokens
    assert far.encode(counts, np.array([5, 1 << 40]), keys).genes.tolist() == [[2, 1 << 40, 5, 3]]


def test_columns_of_one_token_are_summed_or_kept():
    counts, keys = sparse.csr_array(np.array([[2, 3, 2]], dtype=np.uint32)), np.zeros(1, np.uint64)
    columns, medians = np.array([8, 7, 8]), {7: 1.0, 8: 1.0}
    assert Geneformer(medians=medians).encode(counts, columns, keys).genes.tolist() == [[2, 8, 7, 3]]
    kept = Geneformer(medians=medians, duplicates="keep").encode(counts, columns, keys)
    assert kept.genes.tolist() == [[2, 7, 8, 8, 3]]
    huge = sparse.csr_array(np.array([[2**31, 0, 2**31]], dtype=np.uint32))
    with pytest.raises(InputError, match="cell 0, token 8"):
        Geneformer(medians=medians).encode(huge, columns, keys)


def test_tokens_of_context_stand_in_front_and_count_towards_the_length():
    counts, tokens, keys = some(4, 3)
    context = (Context("assay", {"a": 5, "b": 6}), Depth((40,), first=8))
    recipe = Nicheformer(means=TABLE, context=context, max_length=12, pad="max")
    assert recipe.obs_columns == ("assay",)
    totals = np.array([50, 10, 30])
    batch = recipe.encode(counts, tokens, keys, totals=totals, obs={"assay": ["b", "a", "a"]})
    assert batch.genes[:, :2].tolist() == [[6, 9], [5, 8], [5, 8]]
    plain = rows_of(Nicheformer(means=TABLE, max_length=10).encode(counts, tokens, keys))
    assert all(np.array_equal(row[2:], own) for row, own in zip(rows_of(batch), plain, strict=True))
    with pytest.raises(InputError, match="assay"):
        recipe.encode(counts, tokens, keys)


def test_sentences_are_the_names_of_the_tokens_however_rows_are_laid():
    counts, tokens, keys = some(6)
    names = {int(token): f"gene{token}" for token in tokens}
    batch = Cell2Sentence(max_length=9).encode(counts, tokens, keys)
    said = Cell2Sentence().sentences(batch, names)
    assert said == [" ".join(f"GENE{token}" for token in row) for row in rows_of(batch)]
    assert said[len(said) // 2] == ""
    for pad in ("max", "none"):
        recipe = Cell2Sentence(max_length=9, pad=pad)
        assert recipe.sentences(recipe.encode(counts, tokens, keys), names) == said
    commas = Cell2Sentence(delimiter=", ").sentences(batch, [f"gene{token}" for token in range(300)])
    assert commas == [sentence.replace(" ", ", ") for sentence in said]
    with pytest.raises(InputError, match="token"):
        Cell2Sentence().sentences(batch, {5: "a"})
    with pytest.raises(InputError, match=r"'Aa'.*'aA'"):
        Cell2Sentence().sentences(batch, ["Aa", "aA"])


def test_genes_that_share_a_symbol_are_called_by_their_ids():
    vocabulary = Vocabulary(["id1", "id2", "id3"], symbols=["Aa", "aA", "b"])
    one = sparse.csr_array(np.array([[3, 2, 1]], dtype=np.uint32))
    batch = Cell2Sentence().encode(one, vocabulary.tokens, np.zeros(1, np.uint64))
    assert Cell2Sentence().sentences(batch, vocabulary) == ["ID1 ID2 B"]


def test_values_that_are_no_counts_are_ranked_too():
    values = sparse.csr_array(np.array([[0.5, 2.5, 0.25, 1.5, 0.25], [0, 0, 0, 0, 0]]))
    values.data[values.data == 0.25] = 0.0  # zeros that are stored
    columns, keys = np.array([4, -1, 6, 7, 4]), np.zeros(2, np.uint64)
    before = values.data.copy()
    batch = Cell2Sentence().encode(values, columns, keys)
    assert (batch.genes.tolist(), batch.values.tolist()) == ([[7, 4], [-1, -1]], [[1.5, 0.5], [0.0, 0.0]])
    assert np.array_equal(values.data, before)
    assert Cell2Sentence(faithful=True).encode(values, columns, keys).lengths.tolist() == [4, 0]
    values.data[values.data == 0] = 1.25
    assert Cell2Sentence().encode(values, columns, keys).values[0].tolist() == [1.75, 1.5, 1.25]  # 0.5 + 1.25
    for bad in (-0.5, np.nan):
        values.data[1] = bad
        with pytest.raises(InputError, match=r"cell 0, column 1"):
            Cell2Sentence().encode(values, columns, keys)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"max_length": 0}, "max_length"),
        ({"pad": "max"}, "max_length"),
        ({"delimiter": ""}, "delimiter"),
        ({"seed": -1}, "seed"),
    ],
)
def test_a_bad_argument_of_cell2sentence_is_named(arguments, named):
    with pytest.raises(ConfigError, match=named):
        Cell2Sentence(**arguments)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"max_length": 1, "context": (Depth((1,), first=1),)}, "max_length"),
        ({"offset": -1}, "offset"),
        ({"pad": "left"}, "pad"),
        ({"faithful": "sparse"}, "faithful"),
        ({"means": {"a": -1.0}}, "means.*'a'"),
    ],
)
def test_a_bad_argument_of_nicheformer_is_named(arguments, named):
    with pytest.raises(ConfigError, match=named):
        Nicheformer(**{"means": TABLE, **arguments})


def test_a_mean_of_nothing_counts_as_one_and_a_gene_without_one_is_left_out():
    counts, keys = sparse.csr_array(np.array([[3, 4, 9]], dtype=np.uint32)), np.zeros(1, np.uint64)
    recipe = Nicheformer(means={0: 0.0, 1: 2.0})
    batch = recipe.encode(counts, np.arange(3), keys)
    assert (batch.genes.tolist(), batch.values.tolist()) == ([[30, 31]], [[3.0, 2.0]])
    assert recipe.to_dict()["recipe"] == "nicheformer"
    twice = np.array([0, 1, 0])  # 12 / 1 and 4 / 2
    summed = Nicheformer(means={0: 0.0, 1: 2.0}, offset=5).encode(counts, twice, keys)
    assert (summed.genes.tolist(), summed.values.tolist()) == ([[5, 6]], [[12.0, 2.0]])


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"version": "V3"}, "version"),
        ({"max_length": 2}, "max_length"),
        ({"pad": "left"}, "pad"),
        ({"multiple": 0}, "multiple"),
        ({"faithful": "csr"}, "faithful"),
        ({"duplicates": "both"}, "duplicates"),
        ({"medians": {}}, "medians is empty"),
        ({"medians": {"a": 1.0, 5: 1.0}}, "medians"),
        ({"medians": {"a": 0.0}}, "medians.*'a'"),
        ({"medians": {5: float("inf")}}, "medians.*token 5"),
        ({"medians": 3.0}, "medians"),
        ({"medians": {5: "x"}}, "medians"),
        ({"genes": "ENSG1"}, "genes"),
    ],
)
def test_a_bad_argument_is_named(arguments, named):
    with pytest.raises(ConfigError, match=named):
        Geneformer(**{"medians": TABLE, **arguments})


def test_bad_input_is_named():
    counts, tokens, keys = some(1)
    recipe = Geneformer(medians=TABLE, keep_counts=True)
    with pytest.raises(NotRawCountsError, match="cell 0"):
        recipe.encode(counts * 0.5, tokens, keys)
    with pytest.raises(InputError, match="genes"):
        recipe.encode(counts, tokens[:3], keys)
    with pytest.raises(InputError, match="totals must be one number"):
        recipe.encode(counts, tokens, keys, totals=np.ones(2))
    with pytest.raises(InputError, match="cell 2 has -1"):
        recipe.encode(counts, tokens, keys, totals=np.array([1, 1, -1, 1, 1, 1, 1]))
    with pytest.raises(InputError, match="cell 0 has 0"):
        recipe.encode(counts, tokens, keys, totals=np.zeros(7))
    with pytest.raises(ConfigError, match="medians has a number for none"):
        Geneformer(medians={1000: 1.0}).encode(counts, tokens, keys)
    with pytest.raises(ConfigError, match="vocabulary"):
        Geneformer(medians={"a": 1.0}).encode(counts, tokens, keys)
    with pytest.raises(VocabularyError, match="<cls>"):
        Geneformer(medians=TABLE, vocabulary=Vocabulary(["a"], specials={"<pad>": 0}))
