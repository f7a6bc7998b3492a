"""Genes by value: both kernels give the same rows, whatever the rules; bad arrays are refused."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from cellmill.kernel import RankOut, RankPlan, RankRules, TokenCells, rank_keys, reference
from kernels import IMPLEMENTATIONS, native, needs_native


def some_cells(rng: np.random.Generator, n: int, n_columns: int) -> TokenCells:
    """Return cells from empty to full, with runs of equal counts both short and long."""
    dense = rng.negative_binomial(1, 0.3, (n, n_columns)) * (rng.random((n, n_columns)) < rng.random((n, 1)))
    dense[0, :3] += 70_000
    dense[n // 2] = 0
    counts = sparse.csr_array(dense)
    return TokenCells(
        counts.indptr,
        counts.indices,
        counts.data,
        token_of=rng.permutation(2 * n_columns)[:n_columns] - n_columns // 2,
        keys=rng.integers(0, 2**63, n),
    )


def some_plan(rng: np.random.Generator, cells: TokenCells, length: int) -> RankPlan:
    n, nnz, n_head, n_tail = len(cells), len(cells.counts), int(rng.integers(3)), int(rng.integers(2))
    # few divisors, so that values are often equal, or equal but for rounding
    divisors = rng.choice([1.0, 1.0, 3.0, 0.7, 1e-300, 2.1], len(cells.token_of))
    return RankPlan(
        room=np.minimum(cells.sizes, length - n_head - n_tail),
        divisors=divisors if rng.integers(2) else rng.random(len(divisors)) + 0.1,
        head=np.full((n, n_head), 600),
        tail=np.full(n_tail, 700),
        totals=np.maximum(np.asarray([cells.counts[a:b].sum() for a, b in spans(cells)], dtype=np.float64), 1.0),
        values=rng.choice([0.5, -2.0, 0.0, -0.0, np.inf, 7.25], nnz) if rng.integers(4) == 0 else None,
        ties=rng.integers(0, 3, nnz).astype(np.uint64) if rng.integers(3) == 0 else None,
    )


def spans(cells: TokenCells) -> list[tuple[int, int]]:
    return list(zip(cells.indptr[:-1].tolist(), cells.indptr[1:].tolist(), strict=True))


def rows_of(kernel, cells, rules, plan, length, threads=1) -> RankOut:
    n = len(cells)
    flat = {"genes": np.int64, "values": np.float32, "ranked": np.float64, "per_10k": np.float64}
    made = {name: np.full(n * length, 99, dtype) for name, dtype in flat.items()}
    out = RankOut(starts=np.arange(n + 1) * length, lengths=np.zeros(n, np.int64), **made)
    kernel.rank_genes(cells, rules, plan, out, threads)
    return out


def same(left: RankOut, right: RankOut) -> None:
    for each in fields(RankOut):
        assert np.array_equal(getattr(left, each.name), getattr(right, each.name)), each.name


@needs_native
@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32))
def test_both_kernels_give_the_same_rows(seed):
    rng = np.random.default_rng(seed)
    cells = some_cells(rng, 4, int(rng.choice([5, 60, 400])))
    rules = RankRules(
        values=int(rng.integers(4)),
        single=bool(rng.integers(2)),
        keyed_ties=bool(rng.integers(2)),
        token_offset=int(rng.integers(2) * 30),
        pad_token=500,
    )
    length = int(rng.integers(3, 450))
    plan = some_plan(rng, cells, length)
    with np.errstate(over="ignore"):
        same(rows_of(native, cells, rules, plan, length), rows_of(reference, cells, rules, plan, length))


@needs_native
@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32))
def test_what_is_known_of_ranks_beforehand_changes_no_row(seed):
    rng = np.random.default_rng(seed)
    n_columns = int(rng.choice([5, 60, 400, 3000]))
    cells, example = some_cells(rng, 4, n_columns), some_cells(rng, 2, n_columns)
    if rng.integers(2):  # tokens that several columns have
        object.__setattr__(cells, "token_of", cells.token_of // 7)
    length = int(rng.integers(3, n_columns + 10))
    plan = replace(some_plan(rng, cells, length), values=None, ties=None)
    example = replace_tokens(example, cells.token_of)
    if rng.integers(4) == 0:  # an example of nothing
        example = TokenCells([0], [], [], token_of=cells.token_of, keys=[])
    known = replace(plan, keyed=rank_keys(example, plan.divisors))
    rules = RankRules(token_offset=int(rng.integers(2) * 30), pad_token=500)
    expected = rows_of(reference, cells, rules, plan, length)
    for most in (0, 2):  # without vectors, and with those of this processor
        native.limit_vectors(most)
        try:
            same(rows_of(native, cells, rules, known, length), expected)
        finally:
            native.limit_vectors(2)


def replace_tokens(cells: TokenCells, token_of: np.ndarray) -> TokenCells:
    return TokenCells(cells.indptr, cells.columns, cells.counts, token_of=token_of, keys=cells.keys)


@needs_native
def test_most_cells_are_ranked_by_what_is_known():
    """The keys of a sound table tell nearly all values apart; those of another table would give another order."""
    rng = np.random.default_rng(3)
    cells = some_cells(rng, 4, 400)
    divisors = rng.random(400) + 0.1
    plan = replace(some_plan(rng, cells, 500), divisors=divisors, values=None, ties=None)
    wrong = rank_keys(cells, 1 / divisors).reshape(400, 64)
    wrong[:, :16] = rank_keys(cells, divisors)[:, :16]  # its divisors and tokens, with the keys of others
    expected = rows_of(reference, cells, RankRules(), plan, 500)
    made = rows_of(native, cells, RankRules(), replace(plan, keyed=wrong), 500)
    assert not np.array_equal(made.genes, expected.genes)


@pytest.mark.parametrize("kernel", IMPLEMENTATIONS[:2])
def test_values_descend_and_equal_ones_go_by_token(kernel):
    rng = np.random.default_rng(0)
    cells = some_cells(rng, 6, 300)
    plan = RankPlan(
        room=cells.sizes, divisors=rng.choice([1.0, 2.0], 300), head=np.empty((6, 0), int), tail=np.empty(0, int)
    )
    plan = RankPlan(**{**vars(plan), "totals": np.ones(6)})
    out = rows_of(kernel, cells, RankRules(), plan, 300)
    for row, length in enumerate(out.lengths.tolist()):
        here = slice(row * 300, row * 300 + length)
        pairs = list(zip((-out.ranked[here]).tolist(), out.genes[here].tolist(), strict=True))
        assert pairs == sorted(pairs)
    assert out.lengths.tolist() == cells.sizes.tolist()


@needs_native
def test_threads_change_nothing():
    rng = np.random.default_rng(0)
    cells, rules = some_cells(rng, 3000, 50), RankRules(keyed_ties=True)
    plan = some_plan(rng, cells, 40)
    same(rows_of(native, cells, rules, plan, 40, threads=4), rows_of(native, cells, rules, plan, 40, threads=1))


@pytest.mark.parametrize(
    "name", ["room", "divisors", "head", "totals", "values", "ties", "keyed", "starts", "lengths", "row"]
)
@needs_native
def test_arrays_that_contradict_each_other_are_refused(name):
    rng = np.random.default_rng(1)
    cells, rules = some_cells(rng, 4, 50), RankRules(values=1)
    plan = some_plan(rng, cells, 60)
    out = rows_of(native, cells, rules, plan, 60)
    if name == "starts":
        out.starts[2] = 10_000
    elif name == "row":
        out.starts[1:] = out.starts[-1]
        out.starts[1] = 1
    elif name == "lengths":
        object.__setattr__(out, name, np.zeros(3, np.int64))
    else:
        shape, dtype = ((4, 1), np.int64) if name == "head" else (3, np.float64)
        dtype = {"room": np.int64, "ties": np.uint64, "keyed": np.uint8}.get(name, dtype)
        object.__setattr__(plan, name, np.ones(shape, dtype))
        if name == "head":
            object.__setattr__(plan, name, plan.head[:3])
    with pytest.raises(ValueError, match="row 0 is too short" if name == "row" else name):
        native.rank_genes(cells, rules, plan, out, 1)
