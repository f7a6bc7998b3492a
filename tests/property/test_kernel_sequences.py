"""Sequences of genes: both kernels give the same rows, whatever the rules; what a cell becomes depends on it alone."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from cellmill.kernel import SequenceNumbers, SequenceOut, SequencePlan, SequenceRules, TokenCells, reference
from kernels import native, needs_native

N_COLUMNS = 50


def some_cells(rng: np.random.Generator, n: int) -> TokenCells:
    dense = rng.negative_binomial(1, 0.3, (n, N_COLUMNS)) * (rng.random((n, N_COLUMNS)) < rng.random((n, 1)))
    dense[0, :3] += 70_000  # beyond the table of small counts
    dense[n // 2] = 0
    counts = sparse.csr_array(dense)
    return TokenCells(
        counts.indptr,
        counts.indices,
        counts.data,
        token_of=rng.permutation(2 * N_COLUMNS)[:N_COLUMNS],
        keys=rng.integers(0, 2**63, n),
    )


def some_rules(rng: np.random.Generator) -> SequenceRules:
    way = rng.integers(3)
    return SequenceRules(
        values=int(rng.integers(4)),
        n_bins=int(rng.integers(3, 60)),
        ties=int(rng.integers(3)),
        choose=int(rng.integers(4)),
        shuffled=bool(rng.integers(2)),
        split=bool(way == 1),
        split_first=bool(way == 2),
        keep=int(rng.choice([0, 0, 3])),
        mask_heads=bool(rng.integers(2)),
        skip=int(rng.integers(2)),
        spared=float(rng.choice([np.nan, 3.0, 0.5])),
        pad_value=-2.0,
        pad_token=500,
    )


def some_plan(rng: np.random.Generator, cells: TokenCells, rules: SequenceRules, length: int) -> SequencePlan:
    n, n_head = len(cells), int(rng.integers(3))
    kept = np.minimum(cells.sizes, rules.keep)
    room = np.maximum(np.minimum(cells.sizes - kept, length - n_head - kept), 0)
    n_fill = np.minimum(length - n_head - kept - room, N_COLUMNS - cells.sizes)
    return SequencePlan(
        room=room,
        head_tokens=np.full((n, n_head), 600),
        head_values=np.full((n, n_head), 0.5, dtype=np.float32),
        n_mask=[np.floor(room * 0.4).astype(np.int64), np.full(n, -1), np.full(n, -2)][rng.integers(3)],
        maskable=cells.sizes + 5,
        ratio=np.full(n, 0.4),
        part_room=np.full(n, length // 3),
        n_fill=None if rng.integers(2) else n_fill,
        fillers=(rng.random((2, N_COLUMNS)) < 0.8).astype(np.uint8),
        source=np.arange(n) % 2,
    )


def rows_of(kernel, cells, rules, plan, length, threads=1, numbers=None) -> SequenceOut:
    n, starts = len(cells), np.arange(len(cells) + 1) * length
    flat = {"genes": np.int64, "values": np.float32, "target": np.float32, "raw": np.float32, "mask": np.uint8}
    parts = {"part_genes": np.int64, "part_target": np.float32, "part_raw": np.float32}
    out = SequenceOut(
        starts=starts,
        part_starts=starts,
        lengths=np.zeros(n, np.int64),
        part_lengths=np.zeros(n, np.int64),
        **{name: np.zeros(n * length, dtype) for name, dtype in (flat | parts).items()},
    )
    kernel.tokenise_sequences(cells, rules, plan, numbers or SequenceNumbers(), out, threads)
    return out


def same(left: SequenceOut, right: SequenceOut) -> None:
    for each in fields(SequenceOut):
        assert np.array_equal(getattr(left, each.name), getattr(right, each.name)), each.name


@needs_native
@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32))
def test_both_kernels_give_the_same_rows(seed):
    rng = np.random.default_rng(seed)
    cells, rules, length = some_cells(rng, 6), some_rules(rng), int(rng.integers(8, 70))
    plan = some_plan(rng, cells, rules, length)
    drawn = SequenceNumbers(
        bin=rng.random(len(cells.counts)),
        sample=rng.integers(0, 2**63, len(cells.counts)).astype(np.uint64),
        mask=rng.integers(0, 2**63, len(cells.counts)).astype(np.uint64),
    )
    for numbers in (None, drawn):
        expected = rows_of(reference, cells, rules, plan, length, numbers=numbers)
        same(rows_of(native, cells, rules, plan, length, numbers=numbers), expected)


@needs_native
@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32))
def test_both_kernels_give_the_same_plain_rows(seed):
    """Rows of which nothing is split off or filled in have a way of their own; long cells, tokens that are equal."""
    rng = np.random.default_rng(seed)
    n_columns, n = int(rng.choice([5, 60, 900])), 4
    dense = rng.negative_binomial(1, 0.3, (n, n_columns)) * (rng.random((n, n_columns)) < rng.random((n, 1)))
    dense[0, :2] += rng.choice([0, 600, 2000, 70_000])  # beyond the tables of small counts
    counts = sparse.csr_array(dense)
    if rng.integers(2):  # zeros that are stored
        counts.data[rng.random(len(counts.data)) < 0.1] = 0
    # where tokens are equal so are their numbers, and those that come first are taken
    tokens = rng.permutation(2 * n_columns)[:n_columns] // int(rng.choice([1, 1, 2, 50, 5000]))
    keys = rng.integers(0, 2**63, n)
    cells = TokenCells(counts.indptr, counts.indices, counts.data, token_of=tokens, keys=keys)
    rules = SequenceRules(
        values=int(rng.integers(4)),
        ties=int(rng.integers(3)),
        choose=int(rng.integers(2)),
        keep=int(rng.choice([0, 0, 3])),
        skip=int(rng.integers(2)),
        zero_value=7.0,
    )
    length = int(rng.integers(8, 10 + n_columns))
    plan = replace(
        some_plan(rng, cells, rules, length),
        n_fill=None,
        n_mask=None if rng.integers(5) == 0 else rng.choice([0, 2, -1, -2], n),
        maskable=rng.integers(0, n_columns, n),
        ratio=rng.choice([0.0, 0.4, 1.0], n),
    )
    expected = rows_of(reference, cells, rules, plan, length)
    for most in (0, 1, 2):  # without vectors, and with those of this processor, the widest last
        native.limit_vectors(most)
        try:
            same(rows_of(native, cells, rules, plan, length), expected)
        finally:
            native.limit_vectors(2)


@needs_native
def test_threads_change_nothing():
    rng = np.random.default_rng(0)
    cells = some_cells(rng, 3000)
    rules = SequenceRules(values=1)
    plan = some_plan(rng, cells, rules, 40)
    same(rows_of(native, cells, rules, plan, 40, threads=4), rows_of(native, cells, rules, plan, 40, threads=1))


@pytest.mark.parametrize("break_it", ["starts", "column", "values", "room"])
@needs_native
def test_arrays_that_contradict_each_other_are_refused(break_it):
    rng = np.random.default_rng(1)
    cells, rules = some_cells(rng, 4), SequenceRules()
    plan = some_plan(rng, cells, rules, 60)
    out = rows_of(native, cells, rules, plan, 60)
    if break_it == "starts":
        out.starts[2] = 10_000
    if break_it == "column":
        cells.columns[0] = N_COLUMNS
    if break_it == "values":
        object.__setattr__(out, "values", np.zeros(3, np.float32))
    if break_it == "room":
        object.__setattr__(plan, "room", np.zeros(2, np.int64))
    with pytest.raises(ValueError, match=r"starts|column|values|room"):
        native.tokenise_sequences(cells, rules, plan, SequenceNumbers(), out, 1)


@pytest.mark.parametrize("kernel", [reference, pytest.param(native, marks=needs_native)], ids=["reference", "native"])
def test_the_draw_next_to_one_comes_first_by_expression(kernel):
    cells = TokenCells([0, 2], [0, 1], [1, 1], token_of=[7, 8], keys=[0])
    plan = SequencePlan(
        room=np.array([1]), head_tokens=np.empty((1, 0), np.int64), head_values=np.empty((1, 0), np.float32)
    )
    drawn = SequenceNumbers(sample=np.array([2**64 - 1, 0], dtype=np.uint64))
    assert rows_of(kernel, cells, SequenceRules(choose=2), plan, 1, numbers=drawn).genes.tolist() == [7]
