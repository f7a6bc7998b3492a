"""Cells without genes that have no token: what a mask of the entries leaves, in each kernel; bad arrays are refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellmill.kernel import TokenCells, known_cells
from kernels import IMPLEMENTATIONS, PRESENT, native, needs_native


def some_cells(rng: np.random.Generator, n: int, n_columns: int) -> TokenCells:
    present = rng.random((n, n_columns)) < rng.random((n, 1))
    rows, columns = np.nonzero(present)
    indptr = np.concatenate([[0], np.cumsum(present.sum(axis=1))])
    assert len(rows) == indptr[-1]
    counts = rng.choice([0, 1, 2, 2**32 - 1], len(columns))
    tokens = np.where(rng.random(n_columns) < rng.random(), -1, rng.permutation(n_columns))
    return TokenCells(indptr, columns, counts, token_of=tokens, keys=rng.integers(0, 2**63, n))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.booleans(), st.sampled_from([1, 3]))
def test_what_is_left_is_what_a_mask_leaves(seed, zeros, threads):
    rng = np.random.default_rng(seed)
    cells = some_cells(rng, int(rng.integers(0, 6)), int(rng.choice([1, 7, 300])))
    kept = (cells.token_of[cells.columns] >= 0) & (zeros | (cells.counts > 0))
    expected = np.concatenate([[0], np.cumsum(kept)])[cells.indptr]
    for kernel in PRESENT:
        sizes = np.full(len(cells), -7)
        kernel.count_known(cells, zeros, sizes, threads)
        assert sizes.tolist() == np.diff(expected).tolist()
        columns, counts = np.full(kept.sum(), -7, np.int32), np.full(kept.sum(), 7, np.uint32)
        kernel.write_known(cells, zeros, expected, columns, counts, threads)
        assert np.array_equal(columns, cells.columns[kept]) and np.array_equal(counts, cells.counts[kept])
    made = known_cells(cells, zeros=zeros)
    assert np.array_equal(made.indptr, expected) and np.array_equal(made.columns, cells.columns[kept])
    assert np.array_equal(made.counts, cells.counts[kept])


@pytest.mark.parametrize("kernel", IMPLEMENTATIONS[:2])
def test_threads_change_nothing(kernel):
    cells = some_cells(np.random.default_rng(1), 4000, 400)
    sizes = np.zeros((2, 4000), dtype=np.int64)
    for i, threads in enumerate((1, 4)):
        kernel.count_known(cells, False, sizes[i], threads)
    assert np.array_equal(*sizes)
    indptr = np.concatenate([[0], np.cumsum(sizes[0])])
    columns, counts = np.zeros((2, indptr[-1]), np.int32), np.zeros((2, indptr[-1]), np.uint32)
    for i, threads in enumerate((1, 4)):
        kernel.write_known(cells, False, indptr, columns[i], counts[i], threads)
    assert np.array_equal(*columns) and np.array_equal(*counts)


@needs_native
def test_arrays_that_do_not_fit_are_refused():
    cells = some_cells(np.random.default_rng(2), 5, 50)
    sizes = np.zeros(5, np.int64)
    native.count_known(cells, True, sizes, 1)
    upto = np.concatenate([[0], np.cumsum(sizes)])
    columns, counts = np.zeros(upto[-1], np.int32), np.zeros(upto[-1], np.uint32)
    with pytest.raises(ValueError, match="sizes"):
        native.count_known(cells, True, sizes[:4], 1)
    with pytest.raises(ValueError, match="counts"):
        native.write_known(cells, True, upto, columns, counts[:-1], 1)
    with pytest.raises(ValueError, match="indptr"):
        native.write_known(cells, True, upto[:-1], columns, counts, 1)
    moved = upto.copy()
    moved[1] -= 1
    with pytest.raises(ValueError, match="cell 0 has another number"):
        native.write_known(cells, True, moved, columns, counts, 1)
