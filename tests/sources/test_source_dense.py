"""Dense matrices in chunks of any shape: the same cells, each chunk unpacked few times, bounded memory."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellmill.errors import DiskSpaceError
from cellmill.sources import Limits, LoomSource, open_source
from cellmill.sources.arrays import Array
from cellmill.sources.base import Source
from cellmill.sources.dense import DenseReader, band_cells, is_sorted_on_disk

MIB = 1 << 20


class ArrayInMemory(Array):
    """An array in chunks that counts how often each is unpacked."""

    def __init__(self, values, chunks):
        self.values, self.shape, self.dtype, self.chunks, self.is_text = (
            values,
            values.shape,
            values.dtype,
            chunks,
            False,
        )
        self.unpacked = np.zeros([-(-n // c) for n, c in zip(values.shape, chunks, strict=True)], int)

    def attribute(self, name):
        return None

    def read(self, *selection):
        touched = tuple(slice(s.start // c, -(-s.stop // c)) for s, c in zip(selection, self.chunks, strict=True))
        self.unpacked[touched] += 1
        return self.values[selection]

    def field(self, name):
        raise NotImplementedError

    vector = referred = field


@settings(max_examples=150, deadline=None)
@given(
    shape=st.tuples(st.integers(0, 40), st.integers(1, 12)),
    chunks=st.tuples(st.integers(1, 45), st.integers(1, 13)),
    most=st.integers(1, 400),
    block_cells=st.integers(1, 50),
    by_cell=st.booleans(),
    data=st.data(),
)
def test_any_chunks_give_the_same_cells_and_few_unpackings(shape, chunks, most, block_cells, by_cell, data):
    n_cells, n_genes = shape
    start = data.draw(st.integers(0, n_cells))
    stop = data.draw(st.integers(start, n_cells))
    X = np.random.default_rng(1).poisson(0.7, shape)
    array = ArrayInMemory(X if by_cell else X.T.copy(), chunks if by_cell else chunks[::-1])
    reader = DenseReader(
        array,
        path=Path("x"),
        place="X",
        n_cells=n_cells,
        n_genes=n_genes,
        limits=Limits(max_dense_values=most),
        axes="cells x genes" if by_cell else "genes x cells",
    )
    got = np.zeros((stop - start, n_genes), int)
    at = start
    for rows in reader.rows(start, stop, block_cells=block_cells):
        assert rows.first == at and 0 < rows.indptr.size - 1 <= block_cells
        for i, (a, b) in enumerate(zip(rows.indptr[:-1], rows.indptr[1:], strict=True)):
            got[at - start + i, rows.indices[a:b]] = rows.values[a:b]
        at += rows.indptr.size - 1
    assert at == stop
    np.testing.assert_array_equal(got, X[start:stop])
    fits = min(chunks[0], max(1, n_cells)) <= max(1, most // n_genes)
    assert array.unpacked.max(initial=0) <= (1 if fits else 3)
    reader.close()


def test_how_many_cells_are_read_at_once():
    assert band_cells(20_000, chunk_cells=64, max_values=1 << 24) == 832
    assert band_cells(20_000, chunk_cells=1000, max_values=1 << 24) == 500
    assert band_cells(0, chunk_cells=10, max_values=100) == 100
    assert not is_sorted_on_disk(20_000, chunk_cells=2500, max_values=1 << 24)
    assert is_sorted_on_disk(20_000, chunk_cells=2600, max_values=1 << 24)


def write_tall(path, *, loom=False, n_cells=12_000, n_genes=400):
    """Chunks of all cells and few genes: nothing can be read by cell. Value = cell % 7 + 1 in every eighth gene."""
    values = (np.arange(n_cells) % 7 + 1).astype(np.float32)
    with h5py.File(path, "w") as file:
        shape, chunks = ((n_cells, n_genes), (n_cells, 5))
        X = file.create_dataset(
            "matrix" if loom else "X", shape[::-1] if loom else shape, "f4", chunks=chunks[::-1] if loom else chunks,
            compression="lzf",
        )  # fmt: skip
        for gene in range(0, n_genes, 8):
            if loom:
                X[gene] = values
            else:
                X[:, gene] = values
        cells, genes = (np.array([f"n{i}" for i in range(n)], "S") for n in shape)
        axes = ("col_attrs/CellID", "row_attrs/Gene") if loom else ("obs/_index", "var/_index")
        for axis, names in zip(axes, (cells, genes), strict=True):
            file[axis] = names
    return n_cells * n_genes // 8


@pytest.mark.parametrize("loom", [False, True])
def test_tall_chunks_are_sorted_on_disk_within_the_budget(loom, tmp_path):
    path = tmp_path / ("a.loom" if loom else "a.h5ad")
    stored = write_tall(path, loom=loom)
    (tmp_path / "spill").mkdir()
    with open_source(path) as source:
        make = type(source)
    budget = 2 * MIB
    limits = Limits(memory_budget=budget, spill_dir=tmp_path / "spill", max_dense_values=1 << 18)
    with make(path, limits=limits) as source:
        assert source.spill_bytes() == 12_000 * 400 * 12
        n = 0
        tracemalloc.start()
        for block in source.blocks(block_cells=64):
            assert np.array_equal(
                block.data, np.repeat(np.arange(block.start, block.stop) % 7 + 1, np.diff(block.indptr))
            )
            n += block.data.size
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert n == stored == 600_000
        assert source.spill_bytes() == stored * 12
        assert sum(f.stat().st_size for f in (tmp_path / "spill").rglob("*.bin")) == stored * 12
    assert list((tmp_path / "spill").iterdir()) == []
    assert peak < 1.5 * budget + 4 * MIB < 12_000 * 400 * 4


def test_no_room_for_sorting_a_dense_matrix_is_said(tmp_path, monkeypatch):
    write_tall(tmp_path / "a.loom", loom=True)
    usage = type("usage", (), {"free": 1000})
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    limits = Limits(memory_budget=MIB, max_dense_values=1 << 18)
    source = LoomSource(tmp_path / "a.loom", limits=limits)
    with source, pytest.raises(DiskSpaceError, match=r"a\.loom matrix by cell needs 6\.9 MiB"):
        list(source.blocks())


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("h5ad-csr", 0),
        ("h5ad-csc", 1),
        ("h5ad-dense", 0),
        ("loom-v3-dense", 0),
        ("mex-unsorted", 1),
        ("zarr-v3-csc", 1),
    ],
)
def test_the_disk_that_a_matrix_needs_is_known_before_reading(kind, expected, truth, write, tmp_path):
    path = write(kind, truth, tmp_path)
    with open_source(path, memory_budget=512) as source:
        assert isinstance(source, Source)
        item = 8 + np.dtype(source.matrices()[0].dtype).itemsize
        assert source.spill_bytes() == expected * np.count_nonzero(truth.X) * item
    with open_source(path) as source:
        assert source.spill_bytes() == 0
