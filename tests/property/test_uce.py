"""UCE: both kernels make the same sentences; a sentence depends on its cell alone; padding changes nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from cellmill.errors import ConfigError, NotRawCountsError
from cellmill.genes import Vocabulary
from cellmill.kernel import SentenceOut, SentencePlan, reference
from cellmill.tokens import UCE
from kernels import native, needs_native
from token_cells import some_cells, some_counts, some_keys


def made_by(kernel, cells, plan, threads=1) -> SentenceOut:
    n = len(cells)
    out = SentenceOut(
        genes=np.full(n * plan.width, -9),
        values=np.zeros(n * plan.width, np.float32),
        lengths=np.zeros(n, np.int64),
        drawn=np.zeros(n, np.int64),
    )
    kernel.tokenise_sentences(cells, plan, out, threads)
    return out


def some_plan(rng, n_columns, width=60) -> SentencePlan:
    return SentencePlan(
        rows=np.where(rng.random(n_columns) < 0.9, rng.integers(4, 900, n_columns), -1),
        chromosomes=rng.integers(0, 6, n_columns),
        places=rng.integers(0, 30, n_columns),
        n_draws=int(rng.integers(1, 80)),
        width=width,
        first=3,
        last=2,
        padding=0,
        offset=1000,
    )


@needs_native
@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32))
def test_both_kernels_make_the_same_sentences(seed):
    rng = np.random.default_rng(seed)
    cells = some_cells(rng)
    plan = some_plan(rng, 50, width=int(rng.integers(1, 90)))
    left, right = made_by(native, cells, plan, int(rng.integers(1, 4))), made_by(reference, cells, plan)
    for name in ("genes", "values", "lengths", "drawn"):
        assert np.array_equal(getattr(left, name), getattr(right, name)), name


def some_recipe(rng, **more) -> UCE:
    return UCE(rng.integers(4, 900, 90), rng.integers(0, 6, 90), rng.integers(0, 30, 90), sample_size=25, **more)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32))
def test_order_of_axis_and_of_cells_changes_no_sentence(seed):
    rng = np.random.default_rng(seed)
    counts, tokens, keys, recipe = some_counts(rng), rng.permutation(90)[:50], some_keys(rng, 6), some_recipe(rng)
    columns, rows = rng.permutation(50), rng.permutation(6)
    batch = recipe.encode(counts, tokens, keys)
    turned = recipe.encode(sparse.csr_array(counts[rows][:, columns]), tokens[columns], keys[rows])
    for name in ("genes", "values", "lengths"):
        assert torch.equal(getattr(turned, name), getattr(batch, name)[rows]), name


def test_padding_never_changes_sentences():
    rng = np.random.default_rng(0)
    counts, keys = some_counts(rng), some_keys(rng, 6)
    flat = some_recipe(np.random.default_rng(1), pad="none").encode(counts, np.arange(50), keys)
    assert flat.cu_seqlens.tolist() == [0, *np.cumsum(flat.lengths).tolist()]
    for pad, multiple in (("longest", 1), ("longest", 64), ("max", 1)):
        recipe = some_recipe(np.random.default_rng(1), pad=pad, multiple=multiple, max_length=50, pad_token=7)
        padded = recipe.encode(counts, np.arange(50), keys)
        real = ~padded.padding_mask()
        assert torch.equal(padded.genes[real], flat.genes)
        assert torch.equal(padded.values[real], flat.values)
        assert (padded.genes[~real] == 7).all()
        assert padded.genes.shape[1] % multiple == 0


def test_tables_go_by_gene_and_their_hashes_are_recorded():
    vocabulary = Vocabulary(["g1", "g2", "g3"], tokens=[7, 8, 9])
    by_gene = UCE({"g1": 5, "g3": 6}, {"g1": 0, "g3": 1}, {"g1": 3, "g3": 3}, vocabulary=vocabulary, sample_size=4)
    counts = sparse.csr_array(np.array([[1, 9, 1]], dtype=np.uint32))
    batch = by_gene.encode(counts, vocabulary.tokens, np.zeros(1, np.uint64))
    assert set(batch.genes[0].tolist()) <= {3, 143574, 143575, 5, 6, 2}  # g2 has no embedding
    other = UCE({"g1": 5, "g3": 7}, {"g1": 0, "g3": 1}, {"g1": 3, "g3": 3}, vocabulary=vocabulary, sample_size=4)
    assert by_gene.to_dict()["rows"] != other.to_dict()["rows"]
    assert by_gene != other


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"max_length": 3}, "max_length"),
        ({"sample_size": 0}, "sample_size"),
        ({"pad": "left"}, "pad"),
        ({"rows": {"g1": 1}}, "rows is a mapping"),
        ({"starts": [0.5]}, "starts must be"),
        ({"rows": [4, 5]}, "rows and chromosomes must be over the same vocabulary tokens, found 2 and 1"),
        ({"starts": [1, 2]}, "chromosomes and starts must be over the same vocabulary tokens, found 1 and 2"),
        ({"rows": [3]}, "row 3, which is the token of cls_token"),
        ({"rows": [0]}, "row 0, which is the token of pad_token"),
        ({"rows": [143_575]}, "row 143575, which is the token of a chromosome"),
        ({"chromosomes": [2**63 - 1]}, "chromosomes"),
        ({"rows": [[1], [2, 3]]}, "rows must be"),
        ({"rows": [2**63]}, "rows must"),
    ],
)
def test_arguments_are_refused_by_name(arguments, said):
    with pytest.raises(ConfigError, match=said):
        UCE(**({"rows": [4], "chromosomes": [1], "starts": [1]} | arguments))


def test_fractions_are_refused():
    with pytest.raises(NotRawCountsError, match="cell 0, column 1"):
        UCE([4, 5], [1, 1], [1, 2]).encode(sparse.csr_array([[1.0, 0.5]]), np.arange(2), np.zeros(1, np.uint64))


@needs_native
@pytest.mark.parametrize("name", ["rows", "uniforms", "order", "width"])
def test_arrays_that_contradict_each_other_are_refused(name):
    rng = np.random.default_rng(1)
    cells, plan = some_cells(rng), some_plan(rng, 50)
    out = made_by(native, cells, plan)
    wrong = {"rows": np.zeros(3, np.int64), "order": np.zeros(3, np.uint64), "width": 0}
    wrong["uniforms"] = np.full((6, plan.n_draws), 1.0)
    object.__setattr__(plan, name, wrong[name])
    with pytest.raises(ValueError, match=name):
        native.tokenise_sentences(cells, plan, out, 1)
