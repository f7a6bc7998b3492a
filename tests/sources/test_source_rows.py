"""Rows put in order: equal to what SciPy makes of them, and nothing that is no count is hidden by a sum."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from cellmill.sources.rows import (
    BrokenRows,
    Rows,
    canonical,
    check_indices,
    check_pointers,
    group_by_cell,
    keep_columns,
    split_rows,
)


@st.composite
def messy_rows(draw):
    n_genes = draw(st.integers(1, 6))
    cells = draw(
        st.lists(st.lists(st.tuples(st.integers(0, n_genes - 1), st.integers(0, 200)), max_size=8), max_size=8)
    )
    dtype = draw(st.sampled_from(["u1", "u2", "i4", "u8", "i8", "f4", "f8"]))
    indptr = np.concatenate(([0], np.cumsum([len(c) for c in cells]))).astype(np.int64)
    flat = [entry for cell in cells for entry in cell]
    indices = np.array([g for g, _ in flat], np.int32)
    return Rows(0, indptr, indices, np.array([v for _, v in flat], dtype)), n_genes


@given(messy_rows())
@settings(max_examples=200, deadline=None)
def test_canonical_rows_equal_scipy(case):
    rows, n_genes = case
    out, merged = canonical(rows, n_genes)
    shape = (rows.indptr.size - 1, n_genes)
    wide = sp.csr_array((rows.values.astype(np.float64), rows.indices, rows.indptr), shape=shape)
    read = sp.csr_array((out.values.astype(np.float64), out.indices, out.indptr), shape=shape)
    assert read.has_canonical_format
    np.testing.assert_array_equal(read.toarray(), wide.toarray())
    assert merged == rows.indices.size - out.indices.size
    assert canonical(out, n_genes) == (out, 0)  # what is in order is not copied


def test_sums_that_do_not_fit_are_widened():
    rows = Rows(0, np.array([0, 2]), np.array([1, 1]), np.array([200, 100], np.uint8))
    out, merged = canonical(rows, 2)
    assert out.values.tolist() == [300] and merged == 1
    halves = Rows(0, np.array([0, 2]), np.array([0, 0]), np.array([2**24, 1], np.float32))
    assert canonical(halves, 1)[0].values.tolist() == [2**24 + 1]


@pytest.mark.parametrize("values", [[0.5, 0.5], [-1.0, 2.0], [np.nan, 1.0], [np.inf, 1.0]])
def test_entries_that_are_no_counts_are_never_summed_away(values):
    rows = Rows(0, np.array([0, 4]), np.array([1, 0, 1, 0]), np.array([values[0], 3, values[1], 4]))
    out, merged = canonical(rows, 2)
    assert out.indices.tolist() == [0, 1, 1] and out.values[0] == 7 and merged == 1
    np.testing.assert_array_equal(np.sort(out.values[1:]), np.sort(values))


def test_pointers_and_indices_are_proven():
    with pytest.raises(BrokenRows, match="falls from 9 to 4 at cell 12"):
        check_pointers(np.array([0, 2, 9, 4]), first=10, stored=9, axis="cell")
    with pytest.raises(BrokenRows, match="but 8 entries are stored"):
        check_pointers(np.array([0, 9]), first=0, stored=8, axis="cell")
    for bad in (-1, 5):
        with pytest.raises(BrokenRows, match=f"entry 101 has gene index {bad}, but there are 5"):
            check_indices(np.array([4, bad, 0]), limit=5, first=100, axis="gene")
    check_indices(np.array([], int), limit=0, first=0, axis="gene")


@given(st.lists(st.integers(0, 9), max_size=30), st.integers(1, 7), st.integers(1, 20))
def test_rows_are_split_within_both_limits(sizes, block_cells, max_entries):
    indptr = np.concatenate(([5], 5 + np.cumsum(sizes))).astype(np.int64)
    cuts = list(split_rows(indptr, block_cells=block_cells, max_entries=max_entries))
    assert [a for a, _ in cuts] == [0, *[b for _, b in cuts]][: len(cuts)]
    assert (cuts[-1][1] if cuts else 0) == len(sizes)
    for a, b in cuts:
        assert 0 < b - a <= block_cells
        assert b - a == 1 or indptr[b] - indptr[a] <= max_entries


def test_grouping_and_column_choice():
    rows = group_by_cell(np.array([6, 5, 6]), np.array([2, 1, 0]), np.array([7, 8, 9]), first=5, n_cells=3)
    assert rows.indptr.tolist() == [0, 1, 3, 3] and rows.values.tolist() == [8, 7, 9]
    kept = keep_columns(rows, np.array([1, -1, 0], np.int32))
    assert kept.indptr.tolist() == [0, 0, 2, 2] and kept.indices.tolist() == [0, 1]
