"""Vectors that are read past HDF5 hold what HDF5 reads; those that are not plain are left to it."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellmill.errors import FormatError
from cellmill.sources import open_source
from cellmill.sources.hdf5_plain import plain_vector

LENGTH = 10_000


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("plain") / "f.h5"
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as out:
        values = rng.integers(0, 1 << 15, LENGTH)
        for name, dtype in (("u2", "u2"), ("i4", "i4"), ("f4", "f4"), ("f8", "f8")):
            out.create_dataset(f"contiguous {name}", data=values.astype(dtype))
            out.create_dataset(f"chunked {name}", data=values.astype(dtype), chunks=(3001,))
        out.create_dataset("compressed", data=values, chunks=(3000,), compression="gzip")
        out.create_dataset("checksummed", data=values, chunks=(3000,), fletcher32=True)
        out.create_dataset("foreign order", data=values.astype(">i4"))
        out.create_dataset("boolean", data=values > 5)
        out.create_dataset("tiny chunks", data=values, chunks=(10,))
        out.create_dataset("never written", shape=(LENGTH,), dtype="i4", fillvalue=7)
        partly = out.create_dataset("partly written", shape=(LENGTH,), dtype="i4", chunks=(3000,), fillvalue=7)
        partly[:3000] = 1
        out.create_dataset("empty", data=values[:0])
        # chunks that lie in the file in another order than in the vector
        shuffled = out.create_dataset("shuffled", shape=(LENGTH,), dtype="i8", chunks=(1024,))
        for first in rng.permutation(np.arange(0, LENGTH, 1024)).tolist():
            shuffled[first : first + 1024] = values[first : first + 1024]
    with h5py.File(path, "r") as opened:
        yield opened


PLAIN = ["shuffled", *(f"{kind} {name}" for kind in ("contiguous", "chunked") for name in ("u2", "i4", "f4", "f8"))]


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_plain_vectors_hold_what_hdf5_reads(file, data):
    dataset = file[data.draw(st.sampled_from(PLAIN))]
    vector = plain_vector(dataset)
    assert vector is not None
    kept = []
    for _ in range(6):  # several at once, so that memory in use is not used again
        start, stop = sorted(data.draw(st.tuples(st.integers(0, LENGTH), st.integers(0, LENGTH))))
        kept.append((start, stop, vector.read(start, stop)))
    for start, stop, read in kept:
        np.testing.assert_array_equal(read, dataset[start:stop], strict=True)


@pytest.mark.parametrize(
    "name",
    [
        "compressed",
        "checksummed",
        "foreign order",
        "boolean",
        "tiny chunks",
        "never written",
        "partly written",
        "empty",
    ],
)
def test_what_is_not_plain_is_left_to_hdf5(file, name):
    assert plain_vector(file[name]) is None


def test_files_behind_other_drivers_or_user_blocks_are_left_to_hdf5(tmp_path):
    for name, options in (("core.h5", {"driver": "core"}), ("block.h5", {"userblock_size": 512})):
        with h5py.File(tmp_path / name, "w", **options) as out:
            out["x"] = np.arange(5)
            assert plain_vector(out["x"]) is None


def test_memory_is_used_again_once_nobody_looks_at_it(file):
    vector = plain_vector(file["chunked f4"])
    first = vector.read(0, 5000)
    address, part = first.ctypes.data, first[100:200]
    del first
    assert vector.read(0, 5000).ctypes.data != address
    np.testing.assert_array_equal(part, file["chunked f4"][100:200])
    del part
    assert vector.read(0, 5000).ctypes.data == address


def test_a_vector_of_a_closed_file_is_not_read(tmp_path):
    with h5py.File(tmp_path / "f.h5", "w") as out:
        out["x"] = np.arange(5)
    with h5py.File(tmp_path / "f.h5", "r") as file:
        vector = plain_vector(file["x"])
    with pytest.raises(ValueError, match="closed"):
        vector.read(0, 5)


def test_a_file_cut_short_while_it_is_read_is_told(tmp_path, tiny_h5ad):
    written = tiny_h5ad("f", counts=np.random.default_rng(0).poisson(2.0, (3000, 60)))
    with h5py.File(written.path, "r") as file:
        assert plain_vector(file["X/data"]) is not None
    with open_source(written.path) as source:
        blocks = source.stored_blocks(block_cells=100)
        next(blocks)
        with written.path.open("r+b") as file:
            file.truncate(written.path.stat().st_size // 8)
        with pytest.raises(FormatError, match=r"matrix X, .* cannot be read .*the file ends at byte"):
            list(blocks)
