"""Panels: both kernels agree, a column means one gene, other genes are the largest, whatever the order of the axis."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from cellmill.errors import ConfigError, InputError, NotRawCountsError
from cellmill.genes import Vocabulary
from cellmill.kernel import PanelOut, PanelPlan, reference
from cellmill.tokens import HVGPanel
from kernels import native, needs_native
from token_cells import some_cells, some_counts, some_keys


def made_by(kernel, cells, plan, threads=1) -> PanelOut:
    n, width = len(cells), plan.fill_to
    out = PanelOut(
        other_lengths=np.zeros(n, np.int64),
        values=np.full(n * plan.n_slots, 9.0, np.float32),
        other_starts=np.arange(n + 1) * width,
        other_genes=np.zeros(n * width, np.int64),
        other_values=np.zeros(n * width, np.float32),
    )
    kernel.count_other_genes(cells, plan, out, threads)
    kernel.tokenise_panels(cells, plan, out, threads)
    return out


@needs_native
@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32))
def test_both_kernels_give_the_same_panels(seed):
    rng = np.random.default_rng(seed)
    n_columns = int(rng.choice([50, 400]))
    cells = some_cells(rng, n_columns=n_columns)
    slot_of = np.full(n_columns, -1, np.int32)
    slot_of[rng.permutation(n_columns)[:20]] = rng.permutation(22)[:20]
    fill_to = int(rng.integers(n_columns))
    plan = PanelPlan(slot_of=slot_of, n_slots=22, scales=rng.random(6), values=int(rng.integers(3)), fill_to=fill_to)
    left, right = made_by(native, cells, plan, threads=int(rng.integers(1, 4))), made_by(reference, cells, plan)
    for name in ("other_lengths", "values", "other_genes", "other_values"):
        assert np.array_equal(getattr(left, name), getattr(right, name)), name


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32))
def test_order_of_axis_and_of_cells_changes_nothing(seed):
    rng = np.random.default_rng(seed)
    counts, tokens = some_counts(rng), rng.permutation(90)[:50]
    recipe = HVGPanel(rng.permutation(90)[:30].tolist(), fill_to=int(rng.integers(60)), pad="max")
    batch = recipe.encode(counts, tokens, some_keys(rng, 6))
    columns, rows = rng.permutation(50), rng.permutation(6)
    turned = recipe.encode(sparse.csr_array(counts[rows][:, columns]), tokens[columns], some_keys(rng, 6))
    assert torch.equal(turned.values, batch.values[rows])
    for name in ("other_genes", "other_values", "other_lengths"):
        assert torch.equal(turned.extra[name], batch.extra[name][rows]), name


def test_padding_of_other_genes_never_changes_them():
    rng = np.random.default_rng(0)
    counts, tokens, keys = some_counts(rng), np.arange(50), some_keys(rng, 6)
    flat = HVGPanel(range(10), fill_to=25, pad="none").encode(counts, tokens, keys).extra
    padded = HVGPanel(range(10), fill_to=25, multiple=8, pad_token=7).encode(counts, tokens, keys).extra
    assert padded["other_genes"].shape[1] % 8 == 0
    for i, n in enumerate(padded["other_lengths"].tolist()):
        start, end = flat["other_cu_seqlens"][i : i + 2].tolist()
        assert end - start == n
        assert torch.equal(padded["other_genes"][i, :n], flat["other_genes"][start:end])
        assert (padded["other_genes"][i, n:] == 7).all() and not padded["other_values"][i, n:].any()


def test_unknown_genes_count_in_the_total_but_are_not_handed_over():
    counts = sparse.csr_array(np.array([[1, 8, 1]], dtype=np.uint32))
    batch = HVGPanel([5], transform="cp10k", fill_to=3).encode(counts, np.array([5, -1, 6]), np.zeros(1, np.uint64))
    assert batch.values.tolist() == [[1000.0]]
    assert batch.extra["other_genes"].tolist() == [[6]]
    given_totals = HVGPanel([5], transform="cp10k").encode(
        counts, np.array([5, -1, 6]), np.zeros(1, np.uint64), totals=np.array([100])
    )
    assert given_totals.values.tolist() == [[100.0]]


def test_ids_go_by_a_vocabulary_and_the_record_names_it():
    vocabulary = Vocabulary(["g1", "g2", "g3"], tokens=[10, 11, 12])
    recipe = HVGPanel(["g3", "absent", "g1"], vocabulary=vocabulary)
    assert recipe.panel == (12, -1, 10)
    assert recipe.to_dict()["vocabulary"] == vocabulary.hash


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"panel": []}, "panel is empty"),
        ({"panel": "g1"}, "panel must be a list"),
        ({"panel": ["g1"]}, "pass vocabulary="),
        ({"panel": [4, 4]}, "panel names 4 twice"),
        ({"panel": [1], "fill_to": -1}, "fill_to must be"),
        ({"panel": [1], "transform": "log1p"}, "transform must be"),
        ({"panel": [1], "total": "all"}, "total must be"),
    ],
)
def test_arguments_are_refused_by_name(arguments, said):
    with pytest.raises(ConfigError, match=said):
        HVGPanel(**arguments)


def test_bad_counts_tokens_and_totals_are_refused_by_name():
    counts, keys = sparse.csr_array(np.array([[1.5, 2.0]])), np.zeros(1, np.uint64)
    with pytest.raises(NotRawCountsError, match="column 0"):
        HVGPanel([0]).encode(counts, np.arange(2), keys)
    whole = sparse.csr_array(np.array([[1, 2]]))
    with pytest.raises(InputError, match="token 0 twice"):
        HVGPanel([0]).encode(whole, np.zeros(2, np.int64), keys)
    with pytest.raises(InputError, match="totals"):
        HVGPanel([0]).encode(whole, np.arange(2), keys, totals=np.ones(3))


@needs_native
@pytest.mark.parametrize(("name", "value"), [("slot_of", 22), ("scales", None), ("other_starts", 10**6)])
def test_arrays_that_contradict_each_other_are_refused(name, value):
    cells = some_cells(np.random.default_rng(1))
    plan = PanelPlan(slot_of=np.arange(50, dtype=np.int32) % 22, n_slots=22, scales=np.ones(6), fill_to=9)
    out = made_by(native, cells, plan)
    if name == "slot_of":
        plan.slot_of[3] = value
    elif name == "scales":
        object.__setattr__(plan, "scales", np.ones(2))
    else:
        out.other_starts[3] = value
    with pytest.raises(ValueError, match=name.split("_")[0]):
        native.tokenise_panels(cells, plan, out, 1)
