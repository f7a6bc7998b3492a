"""Blocks of a source to frames: the native kernel makes the bytes, numbers and refusals of the reference."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from cellmill import kernel
from cellmill.kernel import reference

try:
    from cellmill.kernel import _native as native
except ImportError:
    native = None

needs_native = pytest.mark.skipif(native is None, reason="the native kernel is not built here")
IMPLEMENTATIONS = [
    pytest.param(reference, id="reference"),
    pytest.param(native, id="native", marks=needs_native),
]
MAX_COUNT = 2**32 - 1
VALUE, INDEX, SUM = 1, 2, 3
INDEX_DTYPES = ["int32", "uint32", "int64"]
VALUE_DTYPES = ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64"]
NAMES = [
    "frames",
    "offsets",
    "totals",
    "detected",
    "fingerprints",
    "umis",
    "cells_per_gene",
    "largest",
    "nnz",
    "merged",
    "whole",
]
WHOLE = ["totals", "most", "detected", "of_class"]


class Block(NamedTuple):
    indptr: npt.NDArray[np.int64]
    indices: npt.NDArray[Any]
    values: npt.NDArray[Any]
    position_of: npt.NDArray[np.int32]
    hashes: npt.NDArray[np.uint64]


def make_block(
    seed: int, n_cells: int, n_source: int, index: str, dtype: str, order: str, places: str, wrong: str
) -> Block:
    """Cells as a file may store them. `wrong` puts values that are no counts, or sums above all counts, into some."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(0, n_source + 1, n_cells) * rng.choice([0, 1], n_cells, p=[0.2, 0.8])
    cells = []
    for size in sizes:
        if order == "repeated":
            cells.append(rng.integers(0, n_source, size))
        else:
            genes = rng.permutation(n_source)[:size]
            cells.append(np.sort(genes) if order == "ascending" else genes)
    indices = np.concatenate([np.zeros(0, np.int64), *cells]).astype(index)
    kind = np.dtype(dtype)
    largest = min(
        MAX_COUNT, 2**24 if kind == np.float32 else int(np.iinfo(kind).max) if kind.kind in "iu" else MAX_COUNT
    )
    values = np.minimum(rng.geometric(0.3, len(indices)) - 1, largest)
    large = rng.random(len(indices)) < rng.choice([0.0, 0.02, 0.5])
    values[large] = rng.integers(0, largest + 1, int(large.sum()))
    values = values.astype(kind)
    some = rng.random(len(values)) < 0.01
    if wrong == "values":
        odd = [v for v in (-1, 0.5, np.nan, np.inf, 2.0**32, -(2.0**40), 2.0**63) if _fits(v, kind)]
        values[some] = rng.choice(np.array(odd, kind), int(some.sum())) if odd else 0
    elif wrong == "largest":
        values[rng.random(len(values)) < 0.2] = np.array(largest).astype(kind)
    if wrong == "indices" and len(indices):
        indices[some] = np.array(-1).astype(index) if rng.random() < 0.5 else n_source
    return Block(
        np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64), indices, values, *make_places(rng, n_source, places)
    )


def _fits(value: float, kind: np.dtype[Any]) -> bool:
    if kind.kind == "f":
        return True
    return np.isfinite(value) and value == int(value) and np.iinfo(kind).min <= value <= np.iinfo(kind).max


def make_places(rng, n_source, places):
    n_genes = n_source + int(rng.integers(0, 70))
    position_of = rng.permutation(n_genes)[:n_source]
    if places != "all":
        position_of[rng.random(n_source) < 0.4] = -1
    if places == "shared":
        position_of[rng.random(n_source) < 0.5] = rng.integers(0, n_genes)
    return position_of.astype(np.int32), rng.integers(0, 2**64, n_genes, dtype=np.uint64)


blocks = st.builds(
    make_block,
    seed=st.integers(0, 2**32),
    n_cells=st.integers(0, 8),
    n_source=st.sampled_from([1, 5, 64, 130, 700]),
    index=st.sampled_from(INDEX_DTYPES),
    dtype=st.sampled_from(VALUE_DTYPES),
    order=st.sampled_from(["ascending", "any", "repeated"]),
    places=st.sampled_from(["all", "some", "shared"]),
    wrong=st.sampled_from(["nothing", "nothing", "values", "largest", "indices"]),
)


def assert_same(got: tuple[Any, ...], expected: tuple[Any, ...]) -> None:
    assert got[0] == expected[0]
    assert len(got) == len(expected)
    for name, ours, theirs in zip(NAMES, got[1:], expected[1:], strict=False):
        if name == "whole" and ours is not None:
            for part, one, other in zip(WHOLE, ours, theirs, strict=True):
                np.testing.assert_array_equal(one, other, err_msg=f"whole.{part}", strict=True)
            continue
        np.testing.assert_array_equal(ours, theirs, err_msg=name, strict=isinstance(ours, np.ndarray))


@needs_native
@settings(max_examples=400, deadline=None)
@given(blocks, st.integers(1, 4), st.booleans())
def test_native_makes_what_the_reference_makes(block, threads, measured):
    classes = classes_of(block) if measured else None
    assert_same(native.ingest(*block, None, threads, classes), reference.ingest(*block, None, 1, classes))


def classes_of(block: Block) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(len(block.values)).integers(0, 8, len(block.position_of)).astype(np.uint8)


@pytest.mark.parametrize("module", IMPLEMENTATIONS)
@settings(max_examples=60, deadline=None)
@given(blocks)
def test_cells_are_what_scipy_makes_of_them(module, block):
    classes = classes_of(block)
    refused, *results = module.ingest(*block, None, 1, classes)
    if refused is not None:
        return
    found = dict(zip(NAMES, results, strict=True))
    n_cells, n_genes = len(block.indptr) - 1, len(block.hashes)
    wide = block.values.astype(np.uint64)
    row = np.repeat(np.arange(n_cells), np.diff(block.indptr))
    dense = np.zeros((n_cells, len(block.position_of)), np.uint64)
    np.add.at(dense, (row, block.indices.astype(np.int64)), wide)
    stored = np.zeros((n_cells, n_genes), np.uint64)
    for gene, position in enumerate(block.position_of.tolist()):
        if position >= 0:
            stored[:, position] += dense[:, gene]
    expected = sparse.csr_array(stored)
    begin, end = (found["offsets"][part].astype(np.int64) for part in (slice(None, -1), slice(1, None)))
    indptr, indices, values = kernel.gather([found["frames"]], np.zeros(n_cells, np.int64), begin, end, n_genes=n_genes)
    np.testing.assert_array_equal(indptr, expected.indptr)
    np.testing.assert_array_equal(indices, expected.indices)
    np.testing.assert_array_equal(values, expected.data)
    np.testing.assert_array_equal(found["umis"], dense.sum(axis=0, dtype=np.uint64))
    np.testing.assert_array_equal(found["totals"], stored.sum(axis=1, dtype=np.uint64))
    np.testing.assert_array_equal(found["detected"], (stored > 0).sum(axis=1))
    np.testing.assert_array_equal(found["cells_per_gene"], (stored > 0).sum(axis=0))
    totals, most, detected, of_class = found["whole"]
    np.testing.assert_array_equal(totals, dense.sum(axis=1, dtype=np.uint64))
    np.testing.assert_array_equal(most, dense.max(axis=1, initial=0))
    np.testing.assert_array_equal(detected, (dense > 0).sum(axis=1))
    marked = np.array([(classes & bit) != 0 for bit in (1, 2, 4)]).T.astype(np.uint64)
    np.testing.assert_array_equal(of_class.reshape(-1, 3), dense @ marked)
    assert found["nnz"] == expected.nnz
    assert found["largest"] == stored.max(initial=0)
    assert found["merged"] == len(row) - len(set(zip(row.tolist(), block.indices.tolist(), strict=True)))
    np.testing.assert_array_equal(found["fingerprints"], kernel.fingerprint(indptr, indices, values, block.hashes))


@needs_native
def test_native_bytes_do_not_depend_on_threads():
    rng = np.random.default_rng(3)
    counts = rng.poisson(0.4, (300, 2000))
    matrix = sparse.csr_array(counts.astype(np.float32))
    places, hashes = make_places(rng, 2000, "some")
    block = Block(matrix.indptr.astype(np.int64), matrix.indices, matrix.data, places, hashes)
    alone = native.ingest(*block, None, 1)
    assert matrix.nnz > 8 * 20_000  # or there would be one thread
    for threads in (2, 3, 8):
        assert_same(native.ingest(*block, None, threads), alone)


@needs_native
@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize("value", [-1.0, 0.5, np.nan, np.inf, 2.0**32])
def test_the_first_violation_is_found_whatever_the_threads(threads, value):
    rng = np.random.default_rng(5)
    matrix = sparse.csr_array(rng.poisson(0.5, (200, 2000)).astype(np.float32))
    places, hashes = make_places(rng, 2000, "shared")
    for cell in (190, 120, 31):
        matrix.data[matrix.indptr[cell] + 5] = value
        refused = native.ingest(
            matrix.indptr.astype(np.int64), matrix.indices, matrix.data, places, hashes, None, threads
        )
        assert refused == ((VALUE, cell, 0),)


@pytest.mark.parametrize("module", IMPLEMENTATIONS)
def test_a_value_that_is_no_count_comes_before_a_sum_that_is_too_large(module):
    indptr = np.array([0, 2, 3], np.int64)
    indices, places = np.array([0, 1, 1], np.int32), np.array([0, 0], np.int32)
    hashes = np.zeros(1, np.uint64)
    values = np.array([MAX_COUNT, 7, 1], np.int64)
    assert module.ingest(indptr, indices, values, places, hashes, None, 1) == ((SUM, 0, MAX_COUNT + 7),)
    values[2] = -1
    assert module.ingest(indptr, indices, values, places, hashes, None, 1) == ((VALUE, 1, 0),)


@pytest.mark.parametrize("module", IMPLEMENTATIONS)
@pytest.mark.parametrize("at", [0, 1])
def test_an_entry_repeated_beyond_the_largest_count_is_a_violation(module, at):
    indices = np.array([3, 1, 3], np.int64)
    values = np.array([MAX_COUNT, 1, at], np.uint32)
    results = module.ingest(
        np.array([0, 3]), indices, values, np.arange(4, dtype=np.int32), np.zeros(4, np.uint64), None, 1
    )
    assert results[0] == ((VALUE, 0, 0) if at else None)


@pytest.mark.parametrize(("dtype", "value"), [("bool", True), ("float16", 3), (">i2", 3), (">f8", 3), ("<u4", 3)])
def test_every_dtype_of_a_file_is_taken(dtype, value):
    values = np.array([value, 0], dtype)
    cells = kernel.ingest_cells(
        np.array([0, 2]), np.array([1, 0]), values, position_of=np.arange(2), gene_hashes=np.zeros(2, np.uint64)
    )
    assert isinstance(cells, kernel.IngestedCells)
    assert (cells.totals.tolist(), cells.umi_per_source_gene.tolist()) == ([int(value)], [0, int(value)])


def test_arguments_that_contradict_each_other_are_refused():
    def ingest(indptr=(0, 2), indices=(0, 1), values=(1, 1), position_of=(0, 1), n_genes=2):
        return kernel.ingest_cells(
            np.array(indptr), np.array(indices), np.array(values),
            position_of=np.array(position_of), gene_hashes=np.zeros(n_genes, np.uint64),
        )  # fmt: skip

    assert isinstance(ingest(), kernel.IngestedCells)
    for wrong, message in [
        ({"indptr": (0, 3)}, "end at the number of stored entries"),
        ({"indptr": (1, 2)}, "start at 0"),
        ({"indptr": (0, 2, 1, 2)}, "never fall"),
        ({"indptr": ()}, "one entry more"),
        ({"values": (1, 1, 1)}, "of one length"),
        ({"values": (1j, 1)}, "at most 64 bits"),
        ({"indices": (0, 2)}, r"entry 1, in cell 0, is 2"),
        ({"indices": (-1, 1)}, r"entry 0, in cell 0, is -1"),
        ({"position_of": (0, 2)}, r"-1..1"),
        ({"position_of": (0, -2)}, r"-1..1"),
    ]:
        with pytest.raises(ValueError, match=message):
            ingest(**wrong)
