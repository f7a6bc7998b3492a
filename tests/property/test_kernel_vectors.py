"""Cells of every length and kind of block: whatever vectors the processor has, the same batch."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pytest

from cellmill import kernel
from cellmill.kernel import reference
from kernels import lesser_kernels, native, needs_native

N_GENES = 40_000


class Cells(NamedTuple):
    frames: npt.NDArray[np.uint8]
    offsets: npt.NDArray[np.int64]
    indptr: npt.NDArray[np.int64]
    genes: npt.NDArray[np.int64]
    counts: npt.NDArray[np.uint32]

    @property
    def n(self) -> int:
        return len(self.indptr) - 1


def make_cells(seed: int, *, largest: int) -> Cells:
    """Cells from none to 3,000 nonzeros, dense and sparse by turns, with counts from ones to `largest`."""
    rng = np.random.default_rng(seed)
    genes, counts, sizes = [], [], []
    for number, size in enumerate([0, 1, 127, 128, 129, 1023, 1024, 1025, 1152, *rng.integers(1, 3000, 60)]):
        among = min(N_GENES, int(size * rng.choice([1, 1.3, 3, 12, 200])) + 1)
        genes.append(np.sort(rng.choice(among, size, replace=False)))
        rate = rng.choice([0.05, 0.5, 3.0, 40.0, 900.0])
        drawn = 1 + rng.poisson(rng.gamma(0.5, 2 * rate, size))
        if number % 3 == 0 and size > 0:  # exceptions
            drawn[rng.integers(0, size, 1 + size // 40)] = rng.integers(1, largest, 1 + size // 40)
        counts.append(np.minimum(drawn, largest))
        sizes.append(size)
    indptr = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    flat_genes, flat_counts = np.concatenate(genes), np.concatenate(counts).astype(np.uint32)
    frames, offsets = kernel.encode(indptr, flat_genes, flat_counts, n_genes=N_GENES)
    return Cells(frames, offsets.astype(np.int64), indptr, flat_genes, flat_counts)


def table_of(made_by: Any, cells: Cells) -> Any:
    table = made_by.RowTable(np.array([0, cells.n], np.int64))
    table.put(0, cells.frames, cells.offsets.astype(np.uint32), np.zeros(0, np.uint16))
    return table


@needs_native
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("dtype", ["uint32", "int32", "float32"])
@pytest.mark.parametrize("seed", range(4))
def test_vectors_change_nothing(seed: int, dtype: str, threads: int) -> None:
    cells = make_cells(seed, largest=1 << 24)
    rows = np.random.default_rng(seed).permutation(np.repeat(np.arange(cells.n), 1 + threads))
    column_of = np.full(N_GENES, -1, np.int32)
    chosen = np.random.default_rng(seed).choice(N_GENES, 2000, replace=False)
    column_of[chosen] = np.arange(2000)
    panel = kernel.Panel(column_of, n_genes=N_GENES, n_columns=2000)
    dense = np.zeros((cells.n, N_GENES), np.uint32)
    dense[np.repeat(np.arange(cells.n), np.diff(cells.indptr)), cells.genes] = cells.counts
    for most in range(native.vectors_in_use() + 1):
        native.limit_vectors(most)
        try:
            table = kernel.RowTable(np.array([0, cells.n], np.int64))
            table.put(0, cells.frames, cells.offsets.astype(np.uint32), np.zeros(0, np.uint16))
            got = kernel.gather_rows(table, rows, n_genes=N_GENES, dtype=dtype, totals=True, threads=threads)
            some = kernel.gather_rows(
                table, rows, n_genes=N_GENES, panel=panel, dtype=dtype, totals=True, threads=threads
            )
        finally:
            native.limit_vectors(2)
        np.testing.assert_array_equal(np.diff(got.indptr), np.diff(cells.indptr)[rows])
        for i, row in enumerate(rows):
            own = slice(cells.indptr[row], cells.indptr[row + 1])
            here = slice(got.indptr[i], got.indptr[i + 1])
            np.testing.assert_array_equal(got.indices[here], cells.genes[own])
            np.testing.assert_array_equal(got.values[here], cells.counts[own].astype(dtype))
        np.testing.assert_array_equal(got.totals, dense.sum(axis=1, dtype=np.uint64)[rows])
        np.testing.assert_array_equal(some.totals, got.totals)
        found = np.zeros((len(rows), 2000), dtype)
        found[np.repeat(np.arange(len(rows)), np.diff(some.indptr)), some.indices] = some.values
        np.testing.assert_array_equal(found, dense[rows][:, chosen].astype(dtype))


@needs_native
def test_a_count_that_floats_do_not_hold_is_named_whatever_the_vectors() -> None:
    cells = make_cells(7, largest=(1 << 32) - 1)
    beyond = [r for r in range(cells.n) if (cells.counts[cells.indptr[r] : cells.indptr[r + 1]] > 1 << 24).any()]
    assert len(beyond) > 3
    for made_by in (reference, native, *lesser_kernels()):
        table = table_of(made_by, cells)
        for row in (beyond[0], beyond[-1]):
            fault = made_by.gather_rows(table, np.array([0, row], np.int64), N_GENES, None, None, 2, False, 1)[0]
            assert fault[0] == 1 and fault[1] == 20
