"""Normalised profiles: both kernels give the same rows, whatever the rules; arrays that lie are refused."""

from __future__ import annotations

from dataclasses import fields, replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from cellmill.kernel import (
    PanelRows,
    ProfileNumbers,
    ProfileOut,
    ProfilePlan,
    ProfileRules,
    TokenCells,
    reference,
)
from kernels import native, needs_native

N_COLUMNS = 70


def some_cells(rng: np.random.Generator, n: int, known: float = 0.8) -> TokenCells:
    dense = rng.negative_binomial(1, 0.3, (n, N_COLUMNS)) * (rng.random((n, N_COLUMNS)) < rng.random((n, 1)))
    dense[0, :3] += 70_000  # beyond the table of small counts
    dense[n // 2] = 0
    token_of = rng.permutation(2 * N_COLUMNS)[:N_COLUMNS]
    if rng.integers(2):
        token_of.sort()
    token_of[rng.random(N_COLUMNS) > known] = -1
    counts = sparse.csr_array(np.where(token_of >= 0, dense, 0))
    return TokenCells(counts.indptr, counts.indices, counts.data, token_of=token_of, keys=rng.integers(0, 2**63, n))


def some_rules(rng: np.random.Generator) -> ProfileRules:
    return ProfileRules(
        values=int(rng.integers(4)),
        of_kept=bool(rng.integers(2)),
        clip=float(rng.choice([np.inf, 3.0])),
        order=int(rng.integers(4)),
        choose=int(rng.integers(3)),
        zeros=bool(rng.integers(2)),
        mask=float(rng.choice([0.0, 0.2, 1.0])),
        hidden=float(rng.random()),
        all_if_none=bool(rng.integers(2)),
        pad_value=-2.0,
        pad_token=500,
    )


def some_plan(rng: np.random.Generator, cells: TokenCells, most: int) -> ProfilePlan:
    n, n_tail = len(cells), int(rng.integers(3))
    return ProfilePlan(
        room=rng.integers(0, most + 1, n),
        totals=None if rng.integers(4) == 0 else rng.integers(1, 10**6, n).astype(np.float64),
        given=rng.normal(size=len(cells.counts)),
        tail_tokens=rng.integers(600, 700, (n, n_tail)),
        tail_values=rng.random((n, n_tail)).astype(np.float32),
        tail_shown=rng.integers(0, 2, (n, n_tail)).astype(np.uint8),
    )


def rows_of(kernel, cells, rules, plan, length, threads=1, numbers=None) -> ProfileOut:
    flat = {"genes": np.int64, "values": np.float32, "target": np.float32, "mask": np.uint8, "hidden": np.uint8}
    out = ProfileOut(
        starts=np.arange(len(cells) + 1) * length,
        lengths=np.zeros(len(cells), np.int64),
        **{name: np.zeros(len(cells) * length, dtype) for name, dtype in flat.items()},
    )
    kernel.tokenise_profiles(cells, rules, plan, numbers or ProfileNumbers(), out, threads)
    return out


def same(left: ProfileOut, right: ProfileOut) -> None:
    for each in fields(ProfileOut):
        assert np.array_equal(getattr(left, each.name), getattr(right, each.name)), each.name


@needs_native
@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32))
def test_both_kernels_give_the_same_rows(seed):
    rng = np.random.default_rng(seed)
    cells, rules, most = some_cells(rng, 6), some_rules(rng), int(rng.integers(1, 90))
    plan = some_plan(rng, cells, most)
    drawn = ProfileNumbers(
        **{name: rng.integers(0, 2**63, len(cells.counts)).astype(np.uint64) for name in ("sample", "order", "mask")}
    )
    for numbers in (None, drawn):
        expected = rows_of(reference, cells, rules, plan, most + 2, numbers=numbers)
        same(rows_of(native, cells, rules, plan, most + 2, numbers=numbers), expected)


@needs_native
@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32))
def test_both_kernels_give_the_same_panel(seed):
    rng = np.random.default_rng(seed)
    cells = some_cells(rng, 5)
    filled = []
    for kernel in (reference, native):
        rows = PanelRows(
            totals=np.full(5, 321.0),
            tail=np.arange(10, dtype=np.float32).reshape(5, 2),
            n_genes=2 * N_COLUMNS,
            out=np.full((5, 2 * N_COLUMNS + 2), 9, np.float32),
            clip=6.0,
        )
        kernel.tokenise_panel(cells, rows, 1)
        filled.append(rows.out)
    assert np.array_equal(*filled)


@needs_native
def test_threads_change_nothing():
    rng = np.random.default_rng(0)
    cells = some_cells(rng, 3000)
    rules = ProfileRules(values=1, order=2, choose=2, mask=0.2)
    plan = some_plan(rng, cells, 20)
    same(rows_of(native, cells, rules, plan, 22, threads=4), rows_of(native, cells, rules, plan, 22, threads=1))


@pytest.mark.parametrize("break_it", ["starts", "column", "given", "room", "tail", "n_tail", "short", "mask"])
@needs_native
def test_arrays_that_contradict_each_other_are_refused(break_it):
    rng = np.random.default_rng(3)
    cells, rules = some_cells(rng, 4), ProfileRules(values=3)
    plan = replace(some_plan(rng, cells, 60), room=np.full(4, 60))
    out = rows_of(native, cells, rules, plan, 62)
    if break_it == "starts":
        out.starts[2] = 10_000
    if break_it == "column":
        cells.columns[0] = N_COLUMNS
    if break_it == "given":
        plan = replace(plan, given=np.zeros(3))
    if break_it == "room":
        plan = replace(plan, room=np.zeros(2, np.int64))
    if break_it == "tail":
        plan = replace(plan, tail_shown=np.zeros((4, 7), np.uint8))
    if break_it == "n_tail":
        plan = SimpleNamespace(**vars(plan) | {"n_tail": 2**62})  # 4 times that is 0 again
    if break_it == "short":
        out.starts[1] = 1
    if break_it == "mask":
        rules = replace(rules, mask=1.5)
    with pytest.raises(ValueError, match=break_it):
        native.tokenise_profiles(cells, rules, plan, ProfileNumbers(), out, 1)


@pytest.mark.parametrize("kernel", [reference, pytest.param(native, marks=needs_native)])
def test_tokens_outside_a_panel_are_refused(kernel):
    cells = some_cells(np.random.default_rng(1), 4)
    rows = PanelRows(totals=np.ones(4), tail=np.zeros((4, 0), np.float32), n_genes=9, out=np.zeros((4, 9), np.float32))
    with pytest.raises(ValueError, match="no place of the panel"):
        kernel.tokenise_panel(cells, rows, 1)
