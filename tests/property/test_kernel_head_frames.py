"""Frames of stores with head genes: both kernels write the same bytes and refuse the same ones."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellmill import kernel
from kernels import IMPLEMENTATIONS, PRESENT, needs_native


def make_cells(seed, n_cells, n_genes, n_head, tail):
    """Sparse cells, some empty and some full, and a model fitted to a few of them."""
    rng = np.random.default_rng(seed)
    chance = np.minimum(1, 3 / (1 + np.arange(n_genes)))
    dense = rng.poisson(chance * rng.choice([0.0, 1.0, 5.0, 1e9], (n_cells, 1), p=[0.1, 0.5, 0.3, 0.1]))
    dense[rng.random(dense.shape) < tail] = 2**32 - 1
    row, column = np.nonzero(dense)
    indptr = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=n_cells))]).astype(np.int64)
    counts = dense[row, column].astype(np.uint32)
    upto = int(indptr[n_cells // 2])
    histograms = kernel.count_histograms(indptr[: n_cells // 2 + 1], column[:upto], counts[:upto], n_genes)
    return (
        indptr,
        np.ascontiguousarray(column),
        counts,
        n_genes,
        kernel.fit_model(histograms, n_head=min(n_head, n_genes)),
    )


cells = st.builds(
    make_cells,
    seed=st.integers(0, 2**32),
    n_cells=st.integers(0, 8),
    n_genes=st.sampled_from([1, 3, 40, 400]),
    n_head=st.sampled_from([1, 3, 39, 400]),
    tail=st.sampled_from([0.0, 0.01]),
)


def gather(module, frames, offsets, n_genes, head, panel=None):
    begin, end = offsets[:-1].astype(np.int64), offsets[1:].astype(np.int64)
    return module.gather([frames], np.zeros(len(begin), np.int64), begin, end, n_genes, head, panel, 0, True, 2)


@settings(max_examples=80, deadline=None)
@given(batch=cells)
def test_every_cell_comes_back_from_the_same_bytes(batch):
    *cell, n_genes, model = batch
    written = [module.encode(*cell, n_genes, module.HeadModel(model), 2) for module in PRESENT]
    for module, (frames, offsets) in zip(PRESENT, written, strict=True):
        assert frames.tobytes() == written[0][0].tobytes() and np.array_equal(offsets, written[0][1])
        fault, indptr, genes, counts, totals = gather(module, frames, offsets, n_genes, module.HeadModel(model))
        assert fault is None
        assert np.array_equal(indptr, cell[0]) and np.array_equal(genes, cell[1]) and np.array_equal(counts, cell[2])
        sums = np.concatenate([[0], np.cumsum(cell[2], dtype=np.uint64)])
        assert np.array_equal(totals, sums[cell[0][1:]] - sums[cell[0][:-1]])
        panel = module.Panel(np.arange(n_genes, dtype=np.int32)[::-1].copy(), n_genes)
        fault, indptr, columns, _, _ = gather(module, frames, offsets, n_genes, module.HeadModel(model), panel)
        assert fault is None and np.array_equal(indptr, cell[0])
        assert np.array_equal(np.sort(n_genes - 1 - columns), np.sort(cell[1]))


def test_a_cell_unlike_the_model_costs_what_blocks_cost():
    """A model of cells without counts, and cells with every gene: the section would be several times longer."""
    n_genes, n_cells = 300, 40
    histograms = kernel.count_histograms(np.zeros(101, np.int64), np.empty(0, int), np.empty(0, int), n_genes)
    model = kernel.fit_model(histograms, n_head=200)
    rng = np.random.default_rng(0)
    dense = rng.poisson(3.0, (n_cells, n_genes)) + 1
    indptr = np.arange(0, n_cells * n_genes + 1, n_genes)
    genes, counts = np.tile(np.arange(n_genes), n_cells), dense.ravel().astype(np.uint32)
    blocks, _ = kernel.encode(indptr, genes, counts, n_genes=n_genes)
    for module in PRESENT:
        frames, offsets = module.encode(indptr, genes, counts, n_genes, module.HeadModel(model), 2)
        assert len(frames) <= len(blocks) + 3 * n_cells
        fault, _, found_genes, found_counts, _ = gather(module, frames, offsets, n_genes, module.HeadModel(model))
        assert fault is None and np.array_equal(found_genes, genes) and np.array_equal(found_counts, counts)


def test_threads_change_no_byte_of_head_frames():
    rng = np.random.default_rng(0)
    dense = rng.poisson(np.minimum(1, 20 / (1 + np.arange(300))), (3000, 300))
    row, genes = np.nonzero(dense)
    assert len(row) > 40_000  # so that there are several threads
    indptr = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=3000))])
    counts = dense[row, genes]
    model = kernel.fit_model(kernel.count_histograms(indptr, genes, counts, 300), n_head=200)
    head = kernel.open_model(model)
    one = kernel.encode(indptr, genes, counts, n_genes=300, head=head, threads=1)
    many = kernel.encode(indptr, genes, counts, n_genes=300, head=head, threads=3)
    assert one[0].tobytes() == many[0].tobytes() and np.array_equal(one[1], many[1])
    times = 1 + 300_000 // len(row)  # Reading takes more cells before a thread is worth it.
    place = [one[0]], np.zeros(3000 * times, int), np.tile(one[1][:-1], times), np.tile(one[1][1:], times)
    for threads in (1, 3):
        found = kernel.gather_frames(*place, n_genes=300, head=head, threads=threads)
        assert np.array_equal(found.indices, np.tile(genes, times))
        assert np.array_equal(found.values, np.tile(counts, times))


@pytest.mark.parametrize("n_head", [3, 40])
def test_every_truncation_and_every_flipped_bit_has_one_outcome(n_head):
    """A fault that all kernels name alike, or one valid cell."""
    indptr, genes, counts, n_genes, model = make_cells(5, 9, 40, n_head, 0.01)
    frames, offsets = PRESENT[0].encode(indptr, genes, counts, n_genes, PRESENT[0].HeadModel(model), 1)
    heads = [module.HeadModel(model) for module in PRESENT]
    faults = set()
    for cell in range(len(indptr) - 1):
        frame = frames[int(offsets[cell]) : int(offsets[cell + 1])]
        broken = [frame[:end] for end in range(len(frame))] + [np.append(frame, np.uint8(0))]
        for bit in range(8 * len(frame)):
            broken.append(frame.copy())
            broken[-1][bit // 8] ^= 1 << bit % 8
        for bytes_ in broken:
            bounds = np.array([0, len(bytes_)], np.uint64)
            found = [gather(module, bytes_, bounds, n_genes, head) for module, head in zip(PRESENT, heads, strict=True)]
            for fault, *arrays in found:
                assert fault == found[0][0]
                if fault is None:
                    assert all(np.array_equal(a, b) for a, b in zip(arrays, found[0][1:], strict=True))
                    assert (np.diff(arrays[1]) > 0).all() and (arrays[2] > 0).all() and (arrays[1] < n_genes).all()
            faults.add(None if found[0][0] is None else found[0][0][1])
    assert {None, 2, 3} < faults


@needs_native
@settings(max_examples=300, deadline=None)
@given(data=st.binary(max_size=60), n_genes=st.sampled_from([40, 41, 300]))
def test_any_bytes_have_one_outcome(data, n_genes):
    *_, model = make_cells(5, 9, 40, 40, 0.0)
    bounds = np.array([0, len(data)], np.uint64)
    frame = np.frombuffer(data, np.uint8)
    found = [gather(module, frame, bounds, n_genes, module.HeadModel(model)) for module in PRESENT]
    for fault, *arrays in found:
        assert fault == found[0][0]
        assert fault or all(np.array_equal(a, b) for a, b in zip(arrays, found[0][1:], strict=True))


@pytest.mark.parametrize("module", IMPLEMENTATIONS)
def test_a_bad_row_is_named_whatever_lies_beside_it(module):
    indptr, genes, counts, n_genes, model = make_cells(5, 9, 40, 3, 0.0)
    head = module.HeadModel(model)
    frames, offsets = module.encode(indptr, genes, counts, n_genes, head, 1)
    row = int(np.argmax(np.diff(indptr)))
    broken = offsets.copy()
    broken[row + 1] -= 1  # this one is a byte short, the next one a byte long
    assert gather(module, frames, broken, n_genes, head)[0][0] == row
