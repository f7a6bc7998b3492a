"""Head genes: what is coded comes back, and the native kernel writes the very bytes of the reference."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellmill.kernel import faults, reference
from cellmill.kernel.model import choose_head, count_histograms, fit_model, open_model
from cellmill.kernel.reference.model import SYMBOLS, parse_tables, raw_bits, symbols_of

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


def to_cells(counts):
    """(indptr, indices, values) of a dense matrix of counts."""
    cell, gene = np.nonzero(counts)
    indptr = np.searchsorted(cell, np.arange(len(counts) + 1)).astype(np.int64)
    return indptr, gene.astype(np.int64), counts[cell, gene].astype(np.uint32)


def make_counts(seed, n_cells, n_genes, density, tail):
    """Counts of which a share `tail` is of any size up to the largest; a third of the cells is empty, a third full."""
    rng = np.random.default_rng(seed)
    chance = rng.choice([0.0, density, 1.0], (n_cells, 1), p=[0.2, 0.6, 0.2])
    counts = rng.geometric(rng.choice([0.02, 0.3, 0.9]), (n_cells, n_genes)).astype(np.uint64)
    large = rng.random(counts.shape) < tail
    counts[large] = rng.integers(0, 2 ** rng.integers(1, 33, int(large.sum())).astype(np.uint64), dtype=np.uint64)
    counts[rng.random(counts.shape) >= chance] = 0
    if counts.size:
        counts.flat[rng.integers(counts.size)] = rng.choice([0, MAX_COUNT])
    return counts


counts_of_cells = st.builds(
    make_counts,
    seed=st.integers(0, 2**32),
    n_cells=st.integers(0, 6),
    n_genes=st.sampled_from([1, 2, 3, 17, 64, 65, 200]),
    density=st.sampled_from([0.0, 0.02, 0.4]),
    tail=st.sampled_from([0.0, 0.05, 1.0]),
)


def make_model(counts, *, fitted):
    """A model that was fitted to the counts, or to nothing: then every count above 2 is escaped."""
    n_genes = counts.shape[1]
    histograms = count_histograms(*to_cells(counts if fitted else counts[:0]), n_genes)
    return fit_model(histograms, n_head=n_genes)


@pytest.mark.parametrize("module", IMPLEMENTATIONS)
@settings(max_examples=50, deadline=None)
@given(counts=counts_of_cells, fitted=st.booleans())
def test_every_cell_comes_back(module, counts, fitted):
    cells = to_cells(counts)
    model = module.HeadModel(make_model(counts, fitted=fitted))
    sections, offsets = model.encode(*cells)
    fault, *back = model.decode(sections, offsets, model.n_genes)
    assert fault is None
    for found, wanted, dtype in zip(back, cells, (np.int64, np.int32, np.uint32), strict=True):
        assert np.array_equal(found, wanted) and found.dtype == dtype


@needs_native
@settings(max_examples=100, deadline=None)
@given(counts=counts_of_cells, fitted=st.booleans())
def test_native_writes_the_bytes_of_the_reference(counts, fitted):
    indptr, indices, values = to_cells(counts)
    data = make_model(counts, fitted=fitted)
    sections, offsets = reference.HeadModel(data).encode(indptr, indices, values)
    for genes in (indices, indices.astype(np.int32)):
        native_sections, native_offsets = native.HeadModel(data).encode(indptr, genes, values)
        assert native_sections.tobytes() == sections.tobytes()
        assert np.array_equal(native_offsets, offsets)


@pytest.mark.parametrize("module", IMPLEMENTATIONS)
def test_counts_of_every_length_come_back_by_symbol_and_by_escape(module):
    edges = {edge + step for bit in range(33) for edge in (2**bit, 3 << bit >> 1) for step in (-1, 0, 1)}
    counts = np.array(sorted(edge for edge in edges if 0 <= edge <= MAX_COUNT), np.uint64)
    cells = to_cells(np.stack([counts, counts[::-1]]))
    for fitted in (np.tile(counts[:, None], len(counts)), np.zeros((0, len(counts)), np.uint64)):
        model = module.HeadModel(make_model(fitted, fitted=True))
        fault, *back = model.decode(*model.encode(*cells), len(counts))
        assert fault is None
        assert all(np.array_equal(found, wanted) for found, wanted in zip(back, cells, strict=True))


def test_a_count_is_said_by_its_symbol_and_its_raw_bits():
    counts = np.concatenate([np.arange(5000), 2 ** np.arange(32), 2 ** np.arange(1, 33) - 1])
    symbols = symbols_of(counts)
    bits = raw_bits(symbols)
    assert symbols.max() == SYMBOLS - 1
    lowest = np.where(symbols < 8, symbols, (4 + (symbols - 8 & 3)) << bits)
    assert ((lowest <= counts) & (counts < lowest + (1 << bits))).all()
    assert (np.diff(symbols[:5000]) >= 0).all()


@pytest.mark.parametrize("module", IMPLEMENTATIONS)
def test_golden_bytes(module):
    """Two genes that nobody saw, frequencies 16381, 1, 1 and 1: worked by hand in docs/reference/format.md."""
    data = bytes.fromhex("43454c4c48454144 0100 0000 02000000 03010101 03010101 0000000000000000")
    model = module.HeadModel(data)
    cells = to_cells(np.array([[0, 0], [1, 0], [2, 70_000]], np.uint64))
    sections, offsets = model.encode(*cells)
    parts = [sections[a:b].tobytes().hex() for a, b in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)]
    assert parts == ["01", "fd7f", "fe3f0010ff7f7011"]


@pytest.mark.parametrize("module", IMPLEMENTATIONS)
def test_more_nonzeros_than_there_is_room_for_are_refused(module):
    counts = np.array([[1, 2, 0, 3], [1, 0, 0, 0]], np.uint64)
    model = module.HeadModel(make_model(counts, fitted=True))
    sections, offsets = model.encode(*to_cells(counts))
    assert model.decode(sections, offsets, 3)[0] is None
    assert model.decode(sections, offsets, 2)[0] == (0, faults.NONZEROS)
    fault, indptr, indices, values = model.decode(sections, offsets[1:], 0)
    assert fault == (0, faults.NONZEROS) and indptr.tolist() == [0] and not len(indices) and not len(values)


@pytest.mark.parametrize("module", IMPLEMENTATIONS)
@pytest.mark.parametrize(
    ("indices", "values"),
    [([3, 3], [1, 1]), ([4, 3], [1, 1]), ([3, 10], [1, 1]), ([-1, 3], [1, 1]), ([3, 4], [1, 0])],
    ids=["twice", "falling", "beyond", "negative", "zero"],
)
def test_malformed_cells_are_refused_by_name(module, indices, values):
    model = module.HeadModel(make_model(np.ones((1, 10), np.uint64), fitted=True))
    with pytest.raises(ValueError, match="cell 1"):
        model.encode(np.array([0, 1, 3]), np.array([9, *indices]), np.array([1, *values], np.uint32))


@settings(max_examples=60, deadline=None)
@given(counts=counts_of_cells)
def test_tables_fill_the_slots_and_hold_every_sampled_symbol(counts):
    histograms = count_histograms(*to_cells(counts), counts.shape[1])
    assert (histograms.sum(axis=1) == len(counts)).all()
    tables = parse_tables(fit_model(histograms, n_head=len(histograms)))
    for table, histogram in zip(tables, histograms, strict=True):
        assert table.sum() == 2**14 and table.min() >= 1
        assert not histogram[len(table) - 1 :].any()


def test_a_flat_histogram_is_normalised_too():
    flat = np.ones((1, SYMBOLS), np.int64)
    uneven = flat.copy()
    uneven[0, :60] = 10_000
    for histogram in (flat, uneven):
        (table,) = parse_tables(fit_model(histogram, n_head=1))
        assert len(table) == SYMBOLS + 1 and table.sum() == 2**14 and table.min() >= 1
        assert abs(table[:60] / 2**14 - histogram[0, :60] / histogram.sum()).max() < 2**-10


def test_normalised_tables_are_these():
    """What rounding has too much, the largest loses (gene 0: symbol 1); what it lacks, that gets (gene 1: symbol 5)."""
    histograms = np.zeros((2, SYMBOLS), np.int64)
    histograms[0, :3] = [3, 7, 1]
    histograms[1, :93] = 1000
    histograms[1, 5] = 1010
    tables = [table.tolist() for table in parse_tables(fit_model(histograms, n_head=2))]
    assert tables == [[4468, 10424, 1489, 1, 1, 1], [*[176] * 5, 189, *[176] * 87, 1, 1, 1]]


def test_histograms_of_batches_add_up_and_fit_the_same_bytes():
    counts = make_counts(3, 90, 40, 0.4, 0.05)
    whole = count_histograms(*to_cells(counts), 30)
    parts = sum(count_histograms(*to_cells(part), 30) for part in np.array_split(counts, 4))
    assert np.array_equal(whole, parts)
    assert fit_model(whole, n_head=30) == fit_model(parts, n_head=30)
    with pytest.raises(ValueError, match="n_head"):
        fit_model(whole, n_head=31)


def test_a_model_is_opened_by_the_kernel_in_use():
    assert open_model(make_model(np.ones((1, 10), np.uint64), fitted=True)).n_genes == 10


def poisson_histograms(n_genes, nonzeros):
    """Of a panel whose genes thin out, with that many nonzeros a cell."""
    rate = np.geomspace(1, 0.002, n_genes)
    rate *= nonzeros / (1 - np.exp(-rate)).sum()
    counts = np.random.default_rng(0).poisson(rate, (300, n_genes))
    return count_histograms(*to_cells(counts), n_genes)


def test_sparse_panels_have_a_head_and_ordinary_stores_have_none():
    panel = poisson_histograms(300, 40)
    assert choose_head(panel, n_genes=300, n_cells=20_000) == 300
    assert choose_head(panel, n_genes=8193, n_cells=20_000) == 0
    assert choose_head(panel[:0], n_genes=0, n_cells=0) == 0
    assert choose_head(poisson_histograms(2000, 400), n_genes=2000, n_cells=20_000) == 0
    assert choose_head(np.zeros((5, SYMBOLS), np.int64), n_genes=5, n_cells=9) == 0


def test_genes_that_are_almost_never_seen_stay_outside_the_head():
    histograms = np.zeros((8000, SYMBOLS), np.int64)
    histograms[:, 0] = 5000
    histograms[:200, :2] = [4000, 1000]
    histograms[200:, :2] = [4999, 1]
    assert 200 <= choose_head(histograms, n_genes=8000, n_cells=20_000) < 300
    histograms[200:, :2] = [4900, 100]
    assert choose_head(histograms, n_genes=8000, n_cells=20_000) == 1024
