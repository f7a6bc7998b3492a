"""Damaged models and sections of head genes: a typed fault or a valid cell, and both kernels say the same."""

from __future__ import annotations

import struct

import numpy as np
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from cellmill.errors import CorruptStoreError
from cellmill.kernel import faults, reference
from cellmill.kernel.model import count_histograms, fit_model, open_model
from cellmill.kernel.reference.model import HEADER, MAGIC
from cellmill.kernel.reference.model import model_fault as reference_fault

try:
    from cellmill.kernel import _native as native
except ImportError:
    native = None

MODULES = [module for module in (reference, native) if module is not None]
N_GENES = 24


def sample():
    """A model, and the sections of cells by it: an empty one, a full one, escapes, and words."""
    rng = np.random.default_rng(2)
    counts = rng.negative_binomial(1, 0.4, (40, N_GENES)) * (rng.random((40, N_GENES)) < 0.4)
    histograms = count_histograms(*_cells(counts), N_GENES)
    data = fit_model(histograms, n_head=N_GENES)
    counts = np.concatenate([counts[:4], np.zeros((1, N_GENES), int), np.ones((1, N_GENES), int), counts[:2]])
    counts[6, 7], counts[7, [3, 20]], counts[3, 2] = 2**32 - 1, 70_000, 900
    sections, offsets = reference.HeadModel(data).encode(*_cells(counts))
    return data, [sections[a:b].tobytes() for a, b in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)]


def _cells(counts):
    cell, gene = np.nonzero(counts)
    indptr = np.searchsorted(cell, np.arange(len(counts) + 1)).astype(np.int64)
    return indptr, gene.astype(np.int64), counts[cell, gene].astype(np.uint32)


MODEL, SECTIONS = sample()
OPENED = [module.HeadModel(MODEL) for module in MODULES]


def shared_outcomes(sections, *, opened=OPENED, capacity=N_GENES):
    """What the kernels make of each of some sections: a fault code, or the genes and counts of a valid cell."""
    outcomes = []
    for section in sections:
        data = np.frombuffer(section, np.uint8)
        results = [model.decode(data, np.array([0, len(data)], np.uint64), capacity) for model in opened]
        for fault, indptr, genes, counts in results:
            assert indptr.tolist() == ([0] if fault else [0, len(genes)])
            assert (np.diff(genes) > 0).all() and (counts >= 1).all() and len(genes) == len(counts) <= capacity
            assert len(genes) == 0 or (genes[0] >= 0 and genes[-1] < opened[0].n_genes)
        found = [fault[1] if fault else (genes.tolist(), counts.tolist()) for fault, _, genes, counts in results]
        assert all(each == found[0] for each in found)
        outcomes.append(found[0])
    return outcomes


def flipped(data):
    for bit in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[bit >> 3] ^= 1 << (bit & 7)
        yield bytes(damaged)


@pytest.mark.parametrize("number", range(len(SECTIONS)))
def test_a_truncated_or_flipped_section_is_refused_or_another_cell(number):
    section = SECTIONS[number]
    (whole,) = shared_outcomes([section])
    assert not isinstance(whole, int)
    damaged = [section[:length] for length in range(len(section))] + list(flipped(section))
    outcomes = shared_outcomes(damaged)
    assert whole not in outcomes
    assert sum(isinstance(outcome, int) for outcome in outcomes) > len(outcomes) // 4


@pytest.mark.parametrize("number", range(len(SECTIONS)))
def test_words_that_nobody_reads_are_refused(number):
    section = SECTIONS[number]
    padded = section if len(section) > 2 else section + bytes(4 - len(section) - 1) + b"\1"
    assert all(isinstance(each, int) for each in shared_outcomes([padded + b"\xff" * 2, padded + bytes(40)]))


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=60), st.sampled_from([0, 1, 7, N_GENES]))
def test_any_bytes_have_one_outcome(section, capacity):
    shared_outcomes([section], capacity=capacity)


def toy(*tables, tail=b"\0" * 8, n_genes=None):
    """A model of tables as they are written: literals, then frequencies but the first."""
    data = HEADER.pack(MAGIC, 1, 0, len(tables) if n_genes is None else n_genes)
    return data + b"".join(bytes(table) for table in tables) + tail


HALF = [1, 0x80, 0x40]  # A count of 0 or an escape, half of the slots each.


@pytest.mark.parametrize(
    ("section", "wanted"),
    [
        (b"", faults.TRUNCATED),
        (b"\0", faults.HEAD_STATE),
        (b"\1\0", faults.HEAD_STATE),
        (b"\0\x20", faults.HEAD_ESCAPE),  # 2^13 is the first slot of the escape, and leaves a state of 0.
        (b"\2", faults.HEAD_STATE),
        (b"\1", ([], [])),
        (b"\1\0\1", faults.HEAD_STATE),
        (b"\1\0\1\0\0\0\0\0\0\0\0", faults.TRAILING),
    ],
)
def test_each_rule_of_a_section_has_its_word(section, wanted):
    opened = [module.HeadModel(toy(HALF, HALF)) for module in MODULES]
    assert shared_outcomes([section], opened=opened, capacity=2) == [wanted]


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (toy(HALF), 0),
        (toy([2, 1, 1], [124] + [1] * 124), 0),
        (toy([1, 0xFF, 0x7F]), 0),
        (toy([1, 0x81, 0]), 0),  # A longer varint than needed.
        (b"", 1),
        (toy(HALF)[:23], 1),
        (toy(HALF, n_genes=2), 1),
        (toy([2, 1]), 1),
        (toy([1, 0x80]), 1),
        (b"x" + toy(HALF)[1:], 2),
        (toy(HALF)[:8] + b"\2" + toy(HALF)[9:], 2),
        (toy(HALF)[:10] + b"\1" + toy(HALF)[11:], 2),
        (toy(n_genes=0), 3),
        (toy(HALF, n_genes=65_536), 3),
        (toy([0]), 4),
        (toy([125] + [1] * 125), 4),
        (toy([1, 0]), 5),
        (toy([1, 0x80, 0]), 5),
        (toy([1, 0x80, 0x80]), 5),
        (toy([1, 0x80, 0xFF]), 5),
        (toy([2, 0xFF, 0x7F, 1]), 5),
        (toy(HALF, [1, 1, 0]), 6),
        (toy(HALF) + b"\0", 6),
    ],
)
def test_each_rule_of_a_model_has_its_code(data, code):
    assert reference_fault(data) == code
    if native is not None:
        assert native.model_fault(data) == code
    for module in MODULES:
        if code:
            with pytest.raises(ValueError, match="model of the head genes"):
                module.HeadModel(data)
        else:
            assert module.HeadModel(data).n_genes


def test_a_truncated_or_flipped_model_is_refused_with_its_hash():
    assert open_model(MODEL).n_genes == N_GENES
    for damaged in [MODEL[:length] for length in range(len(MODEL))] + list(flipped(MODEL)):
        with pytest.raises(CorruptStoreError, match=r"model of the head genes.*build the store again"):
            open_model(damaged)


def test_a_flipped_model_without_its_hash_is_refused_or_gives_valid_cells():
    seen = set()
    for damaged in [MODEL[:length] for length in range(len(MODEL))] + list(flipped(MODEL[:-8])):
        data = damaged if len(damaged) < len(MODEL) - 8 else damaged[: len(MODEL) - 8] + bytes(8)
        codes = [reference_fault(data)] + ([] if native is None else [native.model_fault(data)])
        assert len(set(codes)) == 1
        seen.add(codes[0])
        if codes[0] == 0 and native is not None:
            # The reference is slow; the native one says whether any byte leaves its bounds.
            for section in SECTIONS:
                shared_outcomes([section], opened=[native.HeadModel(data)])
    assert seen >= {0, 1, 2, 3, 4, 6}


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=80), st.integers(0, 5), st.binary(max_size=24))
def test_any_tables_have_one_outcome(tables, n_genes, section):
    data = toy(tables, n_genes=n_genes)
    codes = [reference_fault(data)] + ([] if native is None else [native.model_fault(data)])
    assert len(set(codes)) == 1
    if codes[0] == 0:
        shared_outcomes([section], opened=[module.HeadModel(data) for module in MODULES], capacity=n_genes)


def test_the_hash_covers_the_whole_model():
    assert MODEL[-8:] == struct.pack("<Q", xxhash.xxh3_64_intdigest(MODEL[:-8]))
