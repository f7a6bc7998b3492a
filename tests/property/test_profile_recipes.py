"""scFoundation, AIDO.Cell, TranscriptFormer, CellFM: what a cell becomes depends on its counts and its key alone."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse, stats

from cellmill.errors import ConfigError, InputError, NotRawCountsError, VocabularyError
from cellmill.genes import Vocabulary
from cellmill.tokens import AidoCell, CellFM, ScFoundation, TokenBatch, TranscriptFormer

WIDTH = 60
GENES = np.arange(10, 10 + WIDTH)  # none is 0 or 5, which are padding
N_LIST = 100
SEQUENCES = [
    ScFoundation(n_genes=N_LIST),
    ScFoundation(n_genes=N_LIST, depth="cell", resolution="f3", faithful=True),
    TranscriptFormer(max_length=20),
    TranscriptFormer(max_length=20, order="count", normalize_to=100.0),
    TranscriptFormer(max_length=40, order="random", zeros="keep"),
    TranscriptFormer(max_length=20, faithful=True),
    CellFM(max_length=20),
    CellFM(max_length=30, cap=50.0, faithful=True),
]
RECIPES = [*SEQUENCES, AidoCell(n_genes=N_LIST), AidoCell(n_genes=N_LIST, dtype="bfloat16", depth="cell")]


def name_of(recipe: object) -> str:
    return type(recipe).__name__


def some_counts(seed: int, n: int = 7) -> tuple[sparse.csr_array, np.ndarray]:
    rng = np.random.default_rng(seed)
    dense = rng.negative_binomial(1, 0.2, (n, WIDTH)) * (rng.random((n, WIDTH)) < rng.random((n, 1)))
    dense[0] = 0
    return sparse.csr_array(dense.astype(np.uint32)), rng.integers(0, 2**63, n).astype(np.uint64)


def rows_of(batch: TokenBatch) -> list[dict[str, np.ndarray]]:
    """What is there of each cell, without padding."""
    made = []
    for cell, n in enumerate(batch.lengths.tolist()):
        row = {}
        for name in ("genes", "values", "target", "mask", "hidden"):
            tensor = batch.extra.get("hidden") if name == "hidden" else getattr(batch, name)
            if tensor is None:
                continue
            start = int(batch.cu_seqlens[cell]) if batch.cu_seqlens is not None else 0
            row[name] = (tensor if batch.cu_seqlens is not None else tensor[cell])[start : start + n].numpy()
        made.append(row)
    return made


def same(left: list[dict[str, np.ndarray]], right: list[dict[str, np.ndarray]]) -> None:
    assert len(left) == len(right)
    for a, b in zip(left, right, strict=True):
        assert a.keys() == b.keys()
        for name in a:
            assert np.array_equal(a[name], b[name], equal_nan=a[name].dtype.kind == "f"), name


@pytest.mark.parametrize("recipe", SEQUENCES, ids=name_of)
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_cells_can_come_in_any_order_and_company(recipe, seed):
    counts, keys = some_counts(seed)
    order = np.random.default_rng(seed).permutation(len(keys))
    whole = rows_of(recipe.encode(counts, GENES, keys))
    same(rows_of(recipe.encode(counts[order], GENES, keys[order])), [whole[cell] for cell in order])
    same(rows_of(recipe.encode(counts[[3]], GENES, keys[[3]])), [whole[3]])


@pytest.mark.parametrize("recipe", SEQUENCES, ids=name_of)
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32), multiple=st.integers(1, 9))
def test_padding_never_changes_real_tokens(recipe, seed, multiple):
    counts, keys = some_counts(seed)
    shaped = []
    for more in ({"pad": "none"}, {"pad": "max"}, {"pad": "longest", "multiple": multiple}):
        batch = type(recipe)(**{**arguments(recipe), **more}).encode(counts, GENES, keys)
        shaped.append(rows_of(batch))
        if more["pad"] == "none":
            assert len(batch.genes) == int(batch.cu_seqlens[-1]) == int(batch.lengths.sum())
        else:
            padding = batch.padding_mask()
            pad = N_LIST if isinstance(recipe, ScFoundation) else 5 if isinstance(recipe, TranscriptFormer) else 0
            assert (batch.genes[padding] == pad).all()
            assert batch.mask is None or not batch.mask[padding].any()
            assert more["pad"] == "max" or batch.genes.shape[1] % multiple == 0
    same(shaped[0], shaped[1])
    same(shaped[0], shaped[2])


def arguments(recipe: object) -> dict[str, object]:
    """The arguments that a recipe was made with, apart from the table that it makes of them."""
    return {name: getattr(recipe, name) for name in recipe.__dataclass_fields__ if name != "table"}


@pytest.mark.parametrize("recipe", SEQUENCES, ids=name_of)
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_the_axis_may_have_its_genes_in_any_order(recipe, seed):
    counts, keys = some_counts(seed)
    order = np.random.default_rng(seed).permutation(WIDTH)
    if isinstance(recipe, TranscriptFormer) and recipe.faithful:
        return  # it cuts rows in the order of the axis: its defect
    found = rows_of(recipe.encode(sparse.csr_array(counts[:, order]), GENES[order], keys))
    for a, b in zip(rows_of(recipe.encode(counts, GENES, keys)), found, strict=True):
        for name in a:
            expected, values = (row[name][np.argsort(row["genes"], kind="stable")].astype(np.float64) for row in (a, b))
            assert np.array_equal(expected, values, equal_nan=True), name
    if isinstance(recipe, ScFoundation):
        same(rows_of(recipe.encode(counts, GENES, keys)), found)  # it sorts


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_a_panel_is_the_same_for_any_order_of_the_axis(seed):
    counts, keys = some_counts(seed)
    order = np.random.default_rng(seed).permutation(WIDTH)
    recipe = AidoCell(n_genes=N_LIST)
    batch = recipe.encode(sparse.csr_array(counts[:, order]), GENES[order], keys)
    assert torch.equal(batch.values, recipe.encode(counts, GENES, keys).values)
    assert batch.extra["measured"].nonzero().ravel().tolist() == [*GENES, N_LIST, N_LIST + 1]
    dense = counts.toarray().astype(float)
    total = np.maximum(dense.sum(axis=1, keepdims=True), 1)
    np.testing.assert_allclose(batch.values[:, GENES].numpy(), np.log1p(dense / total * 1e4), rtol=1e-6)


@pytest.mark.parametrize("recipe", RECIPES, ids=name_of)
def test_inputs_stay_as_they_are_and_unknown_genes_and_zeros_are_nothing(recipe):
    counts, keys = some_counts(3)
    spoilt = sparse.csr_array(sparse.hstack([counts, sparse.csr_array(np.zeros((7, 2), np.uint32))]))
    spoilt.indices, spoilt.data = spoilt.indices.copy(), spoilt.data.copy()
    genes = np.append(GENES, [-1, 99])
    before = [array.copy() for array in (spoilt.indptr, spoilt.indices, spoilt.data, genes, keys)]
    batch = recipe.encode(spoilt, genes, keys)
    for was, now in zip(before, (spoilt.indptr, spoilt.indices, spoilt.data, genes, keys), strict=True):
        assert np.array_equal(was, now)
    if getattr(recipe, "zeros", "drop") == "drop":
        expected = recipe.encode(counts, GENES, keys)
        assert torch.equal(batch.values, expected.values)
    else:
        assert (batch.genes == 99).any()  # a gene that was measured and is 0


@pytest.mark.parametrize("recipe", [one for one in RECIPES if not one.faithful], ids=name_of)
def test_empty_cells_give_a_row_without_anything_that_is_no_number(recipe):
    batch = recipe.encode(sparse.csr_array((2, WIDTH), dtype=np.uint32), GENES, np.zeros(2, np.uint64))
    assert torch.isfinite(batch.values.float()).all()
    if isinstance(recipe, ScFoundation):
        assert batch.genes.tolist() == [[N_LIST, N_LIST + 1]] * 2


@pytest.mark.parametrize(
    "recipe", [TranscriptFormer(max_length=20), TranscriptFormer(max_length=20, order="random")], ids=["axis", "random"]
)
def test_long_cells_are_sampled_uniformly(recipe):
    n = 4000
    counts = sparse.csr_array(np.ones((n, WIDTH), dtype=np.uint32))
    kept = recipe.encode(counts, GENES, np.arange(n, dtype=np.uint64)).genes.numpy()
    hits = np.bincount(kept.ravel(), minlength=GENES[-1] + 1)[GENES]
    # a sample without replacement varies less than a multinomial one, by 1 - 20/60
    assert 1e-6 < stats.chi2.sf(((hits - n / 3) ** 2 / (n / 3)).sum() / (1 - 1 / 3), WIDTH - 1) < 1 - 1e-6
    if recipe.order == "random":
        first = np.bincount(kept[:, 0], minlength=GENES[-1] + 1)[GENES]
        assert stats.chisquare(first).pvalue > 1e-6


def test_masks_are_of_the_stated_size_and_fall_evenly():
    n, share = 4000, 0.3
    counts = sparse.csr_array(np.ones((n, WIDTH), dtype=np.uint32))
    batch = CellFM(mask=share, hidden=0.5, pad="max", max_length=80).encode(
        counts, GENES, np.arange(n, dtype=np.uint64)
    )
    assert (batch.mask.sum(dim=1) == int(share * WIDTH)).all()
    assert (batch.extra["hidden"].sum(dim=1) == int(share * WIDTH) // 2).all()
    assert not (batch.extra["hidden"] & ~batch.mask).any()
    assert torch.equal(batch.values == 0, batch.extra["hidden"] | batch.padding_mask())
    hits = batch.mask.sum(dim=0).numpy()[:WIDTH]
    assert stats.chi2.sf(((hits - n * share) ** 2 / (n * share)).sum() / (1 - share), WIDTH - 1) > 1e-6


def test_another_key_is_another_sample():
    counts, keys = some_counts(5)
    recipe = CellFM(max_length=5)
    a, b = recipe.encode(counts, GENES, keys), recipe.encode(counts, GENES, keys + np.uint64(1))
    assert not torch.equal(a.genes, b.genes)
    assert torch.equal(a.genes, recipe.encode(counts, GENES, keys).genes)


@pytest.mark.parametrize("recipe", RECIPES, ids=name_of)
def test_recipes_are_written_down_and_travel(recipe):
    said = json.loads(json.dumps(recipe.to_dict()))
    assert said["recipe"] == {"AidoCell": "aido_cell"}.get(name_of(recipe), name_of(recipe).lower())
    again = pickle.loads(pickle.dumps(recipe))
    assert again == recipe
    assert again.to_dict() == recipe.to_dict()


@pytest.mark.parametrize("made", [ScFoundation, AidoCell, TranscriptFormer, CellFM])
def test_a_table_says_the_models_tokens(made):
    vocabulary = Vocabulary(["A", "B", "C"], tokens=[3, 4, 5])
    counts = sparse.csr_array(np.array([[7, 2, 1, 9]], dtype=np.uint32))
    key = np.zeros(1, np.uint64)
    by_id = made(token_of={"C": 11, "A": 12, "not there": 13}, vocabulary=vocabulary)
    by_token = made(token_of=[-1, -1, -1, 12, -1, 11])
    plain = made().encode(counts, np.array([12, -1, 11, -1]), key)
    for recipe in (by_id, by_token):
        assert torch.equal(recipe.encode(counts, np.array([3, 4, 5, -1]), key).values, plain.values)
        assert recipe.to_dict()["token_of"] == by_id.to_dict()["token_of"]
    assert made().to_dict()["token_of"] is None
    assert by_id != made()


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("resolution", lambda: ScFoundation(resolution="x4")),
        ("resolution", lambda: ScFoundation(resolution="f0")),
        ("target_sum", lambda: ScFoundation(input="bulk")),
        ("target_sum", lambda: ScFoundation(target_sum=1e4)),
        ("depth", lambda: ScFoundation(depth="lists")),
        ("dtype", lambda: AidoCell(dtype="float16")),
        ("n_genes", lambda: AidoCell(n_genes=0)),
        ("max_length", lambda: TranscriptFormer(max_length=0)),
        ("truncate", lambda: TranscriptFormer(truncate="sample", faithful=True)),
        ("clip", lambda: TranscriptFormer(clip=0)),
        ("normalize_to", lambda: TranscriptFormer(normalize_to=float("nan"))),
        ("assays", lambda: TranscriptFormer(assays={"10x": 1})),
        ("max_length", lambda: CellFM(max_length=0)),
        ("mask", lambda: CellFM(mask=1.5)),
        ("hidden", lambda: CellFM(hidden=-0.1)),
        ("cap", lambda: CellFM(cap=0.0)),
        ("max_genes", lambda: CellFM(max_genes=3)),
        ("multiple", lambda: CellFM(pad="none", multiple=8)),
        ("pad", lambda: CellFM(pad="shortest")),
        ("genes", lambda: CellFM(genes="TP53")),
        ("token_of", lambda: CellFM(token_of=[0.5])),
        ("token_of", lambda: CellFM(token_of={"A": 1})),
        ("token_of", lambda: CellFM(token_of={"A": 1}, vocabulary=Vocabulary(["B"]))),
    ],
)
def test_arguments_that_cannot_be_meant_are_named(name, make):
    with pytest.raises(ConfigError, match=name):
        make()


@pytest.mark.parametrize("recipe", [ScFoundation(), AidoCell(), TranscriptFormer(), CellFM()], ids=name_of)
def test_bad_input_is_named(recipe):
    counts, keys = some_counts(1)
    with pytest.raises(NotRawCountsError, match="raw counts"):
        recipe.encode(counts.astype(np.float64) * 0.5, GENES, keys)
    with pytest.raises(NotRawCountsError, match="raw counts"):
        recipe.encode(counts.astype(np.int64) * -1, GENES, keys)
    with pytest.raises(InputError, match="genes"):
        recipe.encode(counts, GENES[:-1], keys)
    with pytest.raises(InputError, match="genes"):
        recipe.encode(counts, GENES.astype(float), keys)
    with pytest.raises(InputError, match="keys"):
        recipe.encode(counts, GENES, keys[:-1])
    with pytest.raises(InputError, match="csr_array"):
        recipe.encode(counts.toarray(), GENES, keys)


def test_what_only_one_recipe_can_be_given_wrongly_is_named():
    counts, keys = some_counts(1)
    with pytest.raises(InputError, match=r"n_genes.*column 41 has 51"):
        AidoCell(n_genes=51).encode(counts, GENES, keys)
    with pytest.raises(InputError, match=r"totals.*cell 1 "):
        ScFoundation(depth="cell").encode(counts, GENES, keys, totals=np.zeros(7, np.int64))
    with pytest.raises(InputError, match="totals"):
        CellFM().encode(counts, GENES, keys, totals=np.zeros(3, np.int64))
    with pytest.raises(InputError, match="totals"):
        ScFoundation(input="log1p").encode(counts, GENES, keys)
    with pytest.raises(InputError, match="log1p"):
        ScFoundation(input="bulk_log1p").encode(counts.astype(float) * -1, GENES, keys)
    with pytest.raises(VocabularyError, match="two columns"):
        ScFoundation(input="bulk_log1p").encode(counts, GENES * 0, keys)
    with pytest.raises(VocabularyError, match="column 3"):
        CellFM().encode(counts, GENES - 13, keys)
    with pytest.raises(VocabularyError, match=r"token 11 for columns \[1, 4\]"):
        CellFM(faithful=True).encode(counts, np.where(GENES == 14, 11, GENES), keys)
    recipe = TranscriptFormer(assays={"unknown": 0, "10x": 1})
    assert recipe.obs_columns == ("assay",)
    with pytest.raises(InputError, match="assay"):
        recipe.encode(counts, GENES, keys)
    with pytest.raises(InputError, match="one label for each of 7 cells, found 2"):
        recipe.encode(counts, GENES, keys, obs={"assay": ["10x", "10x"]})
    codes = (np.array([0, -1, 1, 0, 0, 0, 0]), ("10x", "other"))
    found = recipe.encode(counts, GENES, keys, obs={"assay": codes}).extra["assay"]
    assert found.tolist() == [[1], [0], [0], [1], [1], [1], [1]]


def test_log_values_that_are_stored_as_zero_are_no_genes():
    values = sparse.csr_array(
        (np.array([0.5, 0.0, 1e-60, 2.0]), np.array([3, 5, 6, 9]), np.array([0, 4])), shape=(1, 10)
    )
    batch = ScFoundation(input="log1p", n_genes=10).encode(values, np.arange(10), np.zeros(1, np.uint64), totals=[100])
    assert batch.genes.tolist() == [[3, 9, 10, 11]]
    assert batch.values.tolist() == [[0.5, 2.0, 4.0, 2.0]]


def test_which_cells_the_originals_keep_is_said_and_none_is_dropped():
    dense = np.triu(np.ones((5, 5), dtype=np.uint32))[::-1].copy()  # cells of 1, 2, 3, 4, 5 genes; total 3 +- 1.41
    counts, genes = sparse.csr_array(dense), np.arange(10, 15)
    for limits, kept in (
        ({"min_genes": 2}, [1, 2, 3, 4]),
        ({"outliers": 1.0}, [1, 2, 3]),
        ({"outliers": 0.7}, [2]),
        ({}, [0, 1, 2, 3, 4]),
    ):
        recipe = TranscriptFormer(**limits)
        assert np.flatnonzero(recipe.keeps(counts, genes)).tolist() == kept
        assert len(recipe.encode(counts, genes, np.zeros(5, np.uint64)).lengths) == 5
    assert CellFM(min_genes=2, max_genes=4).keeps(counts, genes).tolist() == [False, True, True, True, False]


def test_columns_of_one_gene_are_added_up():
    counts = sparse.csr_array(np.array([[3, 0, 4, 1], [0, 0, 0, 9]], dtype=np.uint32))
    batch = TranscriptFormer(pad="longest", zeros="keep").encode(counts, np.array([8, 9, 8, 7]), np.zeros(2, np.uint64))
    assert batch.genes.tolist() == [[8, 7, 9], [7, 8, 9]] or batch.genes.tolist() == [[8, 7, 9], [7, 9, 8]]
    assert batch.values.tolist() == [[7.0, 1.0, 0.0], [9.0, 0.0, 0.0]]
    twice = np.array([8, 9, 8, 7])
    panel = AidoCell(n_genes=10).encode(counts, twice, np.zeros(2, np.uint64)).values[0]
    assert panel[8] == pytest.approx(np.log1p(7 / 8 * 1e4))
