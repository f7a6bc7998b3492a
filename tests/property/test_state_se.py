"""STATE SE: both kernels agree; a row depends on its cell alone; masks and tasks are of the promised kinds, sizes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from cellmill.errors import ConfigError, InputError, NotRawCountsError
from cellmill.kernel import StateOut, StatePlan, reference
from cellmill.tokens import StateSE
from kernels import native, needs_native
from token_cells import some_cells, some_counts, some_keys


def made_by(kernel, cells, plan, threads=1) -> StateOut:
    n, n_tasks = len(cells), plan.n_expressed + plan.n_unexpressed + plan.n_shared
    out = StateOut(
        genes=np.full(n * plan.width, -9),
        values=np.zeros(n * plan.width, np.float32),
        mask=np.zeros(n * plan.width, np.uint8),
        lengths=np.zeros(n, np.int64),
        task_genes=np.zeros(n * n_tasks, np.int64),
        task_values=np.zeros(n * n_tasks, np.float32),
        totals=np.zeros(n, np.float32),
        faults=np.zeros(n, np.uint8),
    )
    kernel.tokenise_state(cells, plan, out, threads)
    return out


def some_plan(rng, cells) -> StatePlan:
    n, n_columns = len(cells), len(cells.token_of)
    ids, n_shared, width = rng.permutation(2 * n_columns)[:n_columns], int(rng.integers(4)), int(rng.integers(2, 130))
    ids[rng.random(n_columns) < 0.1] = -1
    faithful = bool(rng.integers(2))
    kept = np.full(n_columns, True) if faithful else ids >= 0
    shared = rng.integers(0, 2 * n_columns, (n, n_shared))
    columns = np.full(2 * n_columns, -1, np.int32)
    columns[ids[ids >= 0]] = np.flatnonzero(ids >= 0)
    return StatePlan(
        ids=ids,
        kept=kept.astype(np.uint8),
        logged=rng.integers(0, 2, n).astype(np.uint8) if faithful else np.ones(n, np.uint8),
        fraction=rng.choice([1.0, 0.4, 0.9], n),
        shared=shared,
        shared_columns=columns[shared],
        n_ids=2 * n_columns,
        width=width,
        n_expressed=int(rng.integers(20)),
        n_unexpressed=int(rng.integers(60)),
        n_shared=n_shared,
        mask_ratio=float(rng.random()),
        first=3,
        padding=0,
        first_column=3 if faithful else -1,
        faithful=faithful,
        binary=bool(rng.integers(2)),
        order=rng.integers(0, 2**63, (n, n_columns)).astype(np.uint64) if rng.integers(2) else None,
        mask=rng.integers(0, 2**63, (n, width)).astype(np.uint64) if rng.integers(2) else None,
    )


@needs_native
@settings(max_examples=80, deadline=None)
@given(st.integers(0, 2**32))
def test_both_kernels_make_the_same_rows(seed):
    rng = np.random.default_rng(seed)
    cells = some_cells(rng, n_columns=int(rng.choice([20, 100])))
    cells.counts[:] = np.minimum(cells.counts, 3000)  # drawing takes a number for each count
    plan = some_plan(rng, cells)
    left, right = made_by(native, cells, plan, int(rng.integers(1, 4))), made_by(reference, cells, plan)
    for name in StateOut.__dataclass_fields__:
        assert np.array_equal(getattr(left, name), getattr(right, name)), name


def some_recipe(**more) -> StateSE:
    table = np.random.default_rng(9).permutation(200)[:90]
    table[::7] = -1
    sizes = {"max_length": 30, "n_expressed": 5, "n_unexpressed": 5, "n_shared": 4}
    return StateSE(table, **(sizes | more))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from(["batch", "cell"]))
def test_order_of_axis_and_of_cells_changes_no_row(seed, per):
    rng = np.random.default_rng(seed)
    counts, tokens, keys = some_counts(rng), rng.permutation(90)[:50], some_keys(rng, 6)
    recipe = some_recipe(shared_per=per)
    columns, rows = rng.permutation(50), rng.permutation(6)
    batch = recipe.encode(counts, tokens, keys)
    turned = recipe.encode(sparse.csr_array(counts[rows][:, columns]), tokens[columns], keys[rows])
    for name in ("genes", "values", "mask", "lengths"):
        assert torch.equal(getattr(turned, name), getattr(batch, name)[rows]), name
    for name in ("task_genes", "task_values", "task_total"):
        assert torch.equal(turned.extra[name], batch.extra[name][rows]), name


def test_masks_have_their_size_and_never_fall_on_the_first_slot():
    rng = np.random.default_rng(3)
    n = 400
    counts = sparse.csr_array(rng.poisson(1, (n, 90)).astype(np.uint32))
    batch = some_recipe().encode(counts, np.arange(90), some_keys(rng, n))
    assert (batch.mask.sum(1) == int(0.2 * 30)).all()
    assert not batch.mask[:, 0].any()
    of_task = (batch.genes[:, :, None] == batch.extra["task_genes"][:, None]).any(2)
    of_task[:, 0] = False
    few = of_task.sum(1) <= 6
    assert few.any() and not few.all()
    assert (batch.mask[few] >= of_task[few]).all()  # all task genes where they fit
    assert (batch.mask[~few] <= of_task[~few]).all()  # nothing but task genes where they do not


def test_tasks_are_of_their_kind_and_uniform():
    n, p = 2000, 40
    x = np.zeros(p, np.uint32)
    x[:16] = np.arange(1, 17)
    counts = sparse.csr_array(np.repeat(x[None], n, axis=0))
    recipe = StateSE(np.arange(p), max_length=20, n_expressed=4, n_unexpressed=6, n_shared=3, shared_per="cell")
    batch = recipe.encode(counts, np.arange(p), some_keys(np.random.default_rng(4), n))
    tasks = batch.extra["task_genes"].numpy()
    for part, pool, most in ((tasks[:, :4], 16, 60), (tasks[:, 4:10] - 16, 24, 80), (tasks[:, 10:], 40, 110)):
        often = np.bincount(part.ravel(), minlength=pool)
        assert len(often) == pool  # none outside its kind
        expected = part.size / pool
        assert ((often - expected) ** 2 / expected).sum() < most
    assert np.array_equal(batch.extra["task_values"].numpy(), np.log1p(x.astype(float)).astype(np.float32)[tasks])
    together = StateSE(np.arange(p), n_shared=3, n_expressed=1, n_unexpressed=1, max_length=20)
    shared = together.encode(counts[:5], np.arange(p), np.arange(5, dtype=np.uint64)).extra["task_genes"][:, 2:]
    assert (shared == shared[0]).all()


def test_cells_with_all_genes_or_none_have_valid_rows():
    counts = sparse.csr_array(np.array([[1, 2, 3, 4, 5, 6], [0] * 6], dtype=np.uint32))
    recipe = StateSE(np.arange(6), max_length=10, n_expressed=2, n_unexpressed=2, n_shared=0, mask=0.5, pad_token=99)
    batch = recipe.encode(counts, np.arange(6), np.arange(2, dtype=np.uint64))
    assert batch.lengths.tolist() == [7, 10]
    assert batch.genes[0].tolist() == [3, 5, 4, 3, 2, 1, 0, 99, 99, 99]
    assert not batch.mask[0, 7:].any() and batch.mask.sum(1).tolist() == [3, 5]
    assert torch.allclose(batch.values[1, 1:], torch.tensor(100 / 6)) and batch.values[:, 0].tolist() == [0, 0]
    assert (batch.extra["task_values"][1] == 0).all()
    flat = StateSE(np.arange(6), max_length=10, n_expressed=2, n_unexpressed=2, n_shared=0, mask=0.5, pad="none")
    made = flat.encode(counts, np.arange(6), np.arange(2, dtype=np.uint64))
    assert made.cu_seqlens.tolist() == [0, 7, 17]
    assert torch.equal(made.genes, batch.genes[~batch.padding_mask()])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"max_length": 1}, "max_length"),
        ({"embedding": [-1]}, "embedding gives no gene"),
        ({"embedding": [-2, 0]}, "embedding must hold"),
        ({"n_embeddings": 1}, "n_embeddings"),
        ({"mask": 1.2}, "mask"),
        ({"downsample": (0.5, 0.2)}, "downsample"),
        ({"shared_per": "epoch"}, "shared_per"),
    ],
)
def test_arguments_are_refused_by_name(arguments, said):
    with pytest.raises(ConfigError, match=said):
        StateSE(**({"embedding": [0, 1]} | arguments))


def test_bad_counts_and_a_foreign_axis_are_refused():
    keys = np.zeros(1, np.uint64)
    with pytest.raises(NotRawCountsError, match="cell 0, column 1"):
        StateSE([0, 1]).encode(sparse.csr_array([[1.0, 0.5]]), np.arange(2), keys)
    with pytest.raises(InputError, match="no gene of the axis"):
        StateSE([0, 1]).encode(sparse.csr_array([[1, 2]]), np.array([7, 8]), keys)


@needs_native
@pytest.mark.parametrize("name", ["ids", "kept", "shared_columns", "fraction", "width", "first_column"])
def test_arrays_that_contradict_each_other_are_refused(name):
    rng = np.random.default_rng(1)
    cells = some_cells(rng)
    plan = some_plan(rng, cells)
    while not plan.n_shared:
        plan = some_plan(rng, cells)
    out = made_by(native, cells, plan)
    wrong = {"ids": plan.ids + 60, "kept": np.zeros(3, np.uint8), "width": 1, "first_column": 50}
    wrong |= {"shared_columns": plan.shared_columns + 50, "fraction": plan.fraction + 1}
    object.__setattr__(plan, name, wrong[name])
    with pytest.raises(ValueError, match=name):
        native.tokenise_state(cells, plan, out, 1)
