"""Frames: what is encoded comes back, and the native kernel writes the very bytes of the reference."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellmill import kernel
from cellmill.kernel import reference
from kernels import IMPLEMENTATIONS, native, needs_native

MAX_COUNT = 2**32 - 1


class Cells(NamedTuple):
    indptr: npt.NDArray[np.int64]
    indices: npt.NDArray[np.int64]
    values: npt.NDArray[np.uint32]
    n_genes: int


def make_cells(seed: int, n_cells: int, n_genes: int, density: float, tail: float) -> Cells:
    """Cells whose genes thin out along the axis; a share `tail` of the counts is of any size up to the largest."""
    rng = np.random.default_rng(seed)
    chance = np.minimum(1.0, density * 4 / (1 + np.arange(n_genes) / max(1, n_genes / 8)))
    present = rng.random((n_cells, n_genes)) < chance * rng.choice([0.0, 0.3, 1.0], (n_cells, 1))
    indices = np.ascontiguousarray(np.nonzero(present)[1])
    values = rng.geometric(rng.choice([0.02, 0.3, 0.7]), len(indices)).astype(np.uint32)
    large = rng.random(len(indices)) < tail
    bits = rng.integers(1, 33, int(large.sum()))
    values[large] = np.maximum(1, rng.integers(0, 2 ** bits.astype(np.uint64), dtype=np.uint64)).astype(np.uint32)
    indptr = np.concatenate([[0], np.cumsum(present.sum(axis=1))]).astype(np.int64)
    return Cells(indptr, indices, values, n_genes)


cells = st.builds(
    make_cells,
    seed=st.integers(0, 2**32),
    n_cells=st.integers(0, 6),
    n_genes=st.sampled_from([1, 2, 127, 128, 129, 300, 1500]),
    density=st.sampled_from([0.01, 0.2, 1.0]),
    tail=st.sampled_from([0.0, 0.01, 0.3, 1.0]),
)


def decode(module, frames, offsets, n_genes):
    begin, end = offsets[:-1].astype(np.int64), offsets[1:].astype(np.int64)
    fault, *arrays = module.gather(
        [frames], np.zeros(len(begin), np.int64), begin, end, n_genes, None, None, 0, False, 1
    )
    assert fault is None
    return arrays[:3]


@needs_native
@settings(max_examples=150, deadline=None)
@given(cells)
def test_native_writes_the_bytes_of_the_reference(batch):
    frames, offsets = reference.encode(*batch, None, 1)
    for indices in (batch.indices, batch.indices.astype(np.int32)):
        native_frames, native_offsets = native.encode(batch.indptr, indices, batch.values, batch.n_genes, None, 1)
        assert native_frames.tobytes() == frames.tobytes()
        assert np.array_equal(native_offsets, offsets)


@pytest.mark.parametrize("module", IMPLEMENTATIONS)
@settings(max_examples=60, deadline=None)
@given(batch=cells)
def test_every_cell_comes_back(module, batch):
    frames, offsets = module.encode(*batch, None, 1)
    indptr, indices, values = decode(module, frames, offsets, batch.n_genes)
    assert np.array_equal(indptr, batch.indptr)
    assert np.array_equal(indices, batch.indices) and indices.dtype == np.int32
    assert np.array_equal(values, batch.values) and values.dtype == np.uint32


@pytest.mark.parametrize("module", IMPLEMENTATIONS)
@pytest.mark.parametrize("size", [0, 1, 2, 127, 128, 129, 255, 256, 257])
@pytest.mark.parametrize("bits", range(1, 33))
def test_every_width_comes_back_at_every_block_size(module, size, bits):
    rng = np.random.default_rng(bits)
    values = rng.integers(2 ** (bits - 1), 2**bits, size, dtype=np.uint64).astype(np.uint32)
    gap = max(1, (2**31 - 2) // 257 >> (32 - bits))
    indices = (np.arange(size, dtype=np.int64) + 1) * gap - rng.integers(0, gap, size)
    indptr = np.array([0, size], np.int64)
    frames, offsets = module.encode(indptr, indices, values, 2**31 - 1, None, 1)
    back = decode(module, frames, offsets, 2**31 - 1)
    assert np.array_equal(back[1], indices) and np.array_equal(back[2], values)


@pytest.mark.parametrize("module", IMPLEMENTATIONS)
def test_extremes_come_back(module):
    n_genes = 2**20
    everything = np.arange(n_genes, dtype=np.int64)
    indices = np.concatenate([everything, [n_genes - 1], [0, n_genes - 1]])
    indptr = np.array([0, n_genes, n_genes, n_genes + 1, n_genes + 3], np.int64)
    values = np.ones(len(indices), np.uint32)
    values[-1] = values[7] = values[n_genes] = MAX_COUNT
    frames, offsets = module.encode(indptr, indices, values, n_genes, None, 1)
    back = decode(module, frames, offsets, n_genes)
    for found, wanted in zip(back, (indptr, indices, values), strict=True):
        assert np.array_equal(found, wanted)
    assert offsets[1] < n_genes / 20  # A cell with all genes, all ones, is little more than its headers.
    assert offsets[2] - offsets[1] == 1  # An empty cell is one byte.


@pytest.mark.parametrize("module", IMPLEMENTATIONS)
@pytest.mark.parametrize(
    ("indices", "values"),
    [([3, 3], [1, 1]), ([4, 3], [1, 1]), ([3, 10], [1, 1]), ([-1, 3], [1, 1]), ([3, 4], [1, 0])],
    ids=["twice", "falling", "beyond", "negative", "zero"],
)
def test_malformed_cells_are_refused_by_name(module, indices, values):
    with pytest.raises(ValueError, match="cell 1"):
        module.encode(np.array([0, 1, 3]), np.array([9, *indices]), np.array([1, *values], np.uint32), 10, None, 1)


@pytest.mark.parametrize("module", IMPLEMENTATIONS)
@pytest.mark.parametrize("indptr", [[1, 2], [0, 3], [0, 2, 1, 2], [0, 1]])
def test_a_malformed_indptr_is_refused(module, indptr):
    with pytest.raises(ValueError, match="indptr"):
        module.encode(np.array(indptr), np.array([1, 2]), np.array([1, 1], np.uint32), 10, None, 1)


@needs_native
def test_threads_change_no_byte():
    batch = make_cells(5, 400, 1500, 1.0, 0.05)
    alone = native.encode(*batch, None, 1)
    for threads in (2, 3, 7, 64):
        together = native.encode(*batch, None, threads)
        assert alone[0].tobytes() == together[0].tobytes() and np.array_equal(alone[1], together[1])


@needs_native
def test_the_first_malformed_cell_is_named_whatever_the_threads():
    batch = make_cells(6, 400, 1500, 1.0, 0.0)
    batch.values[batch.indptr[120]] = batch.values[batch.indptr[390]] = 0
    first = int(np.searchsorted(batch.indptr, batch.indptr[120], side="right")) - 1
    for threads in (1, 4):
        with pytest.raises(ValueError, match=f"cell {first}:"):
            native.encode(*batch, None, threads)


def test_realistic_cells_take_less_than_nine_tenths_of_a_byte():
    rng = np.random.default_rng(0)
    rate = np.sort(rng.lognormal(-1.2, 2.3, 20_000))[::-1]
    rate *= 6000 / rate.sum()
    present = [np.nonzero(row) + (row[row > 0],) for row in rng.poisson(rate * rng.gamma(2, 0.5, (40, 20_000)))]
    indices = np.concatenate([genes for genes, _ in present])
    values = np.concatenate([counts for _, counts in present])
    indptr = np.cumsum([0] + [len(genes) for genes, _ in present])
    frames, _ = kernel.encode(indptr, indices, values, n_genes=20_000)
    assert len(frames) < 0.9 * len(indices)


def test_the_public_function_takes_other_integers_and_refuses_floats():
    frames, offsets = kernel.encode(
        np.array([0, 2], np.uint64), np.array([1, 2], np.uint32), np.array([1, 5], np.int64), n_genes=3
    )
    assert kernel.gather([frames], np.zeros(1, np.int8), offsets[:1], offsets[1:], n_genes=3)[2].tolist() == [1, 5]
    with pytest.raises(ValueError, match="float64"):
        kernel.encode(np.array([0, 1]), np.array([1]), np.array([1.0]), n_genes=3)
    with pytest.raises(ValueError, match="values must lie"):
        kernel.encode(np.array([0, 1]), np.array([1]), np.array([2**32]), n_genes=3)
