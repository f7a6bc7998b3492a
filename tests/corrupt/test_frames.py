"""Damaged frames: every prefix and every flipped bit is refused, or gives a valid cell; both kernels say the same."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cellmill import kernel
from cellmill.errors import FrameError, StoreError
from cellmill.kernel import faults
from kernels import PRESENT

N_GENES = 700


def sample_frames() -> list[bytes]:
    """Frames that use every mode, in full and in short blocks, in both streams."""
    rng = np.random.default_rng(1)
    cells = []
    for size, spread, mean in [(0, 1, 1), (1, 1, 1), (5, 3, 2), (128, 1, 1), (130, 5, 3), (300, 2, 40), (128, 5, 900)]:
        genes = np.sort(rng.choice(min(N_GENES, size * spread), size, replace=False)) if size else np.zeros(0, int)
        counts = rng.geometric(1 / mean, size)
        if size > 4:
            counts[rng.integers(0, size, 2)] = [70_000, 2**32 - 1]
        cells.append((genes, counts))
    cells.append((np.arange(N_GENES), np.ones(N_GENES, int)))
    cells.append((np.arange(128) * 5, rng.integers(2**31, 2**32, 128)))
    cells.append((np.arange(128) * 5, np.where(np.arange(128) == 77, 5000, rng.integers(1, 9, 128))))
    indptr = np.cumsum([0] + [len(genes) for genes, _ in cells])
    genes, counts = (np.concatenate([cell[i] for cell in cells]) for i in (0, 1))
    frames, offsets = kernel.encode(indptr, genes, counts, n_genes=N_GENES)
    return [frames[a:b].tobytes() for a, b in pairwise(offsets.tolist())]


FRAMES = sample_frames()


def outcome(module, frame: bytes, n_genes: int = N_GENES):
    """What a kernel makes of a frame: a fault code, or the genes and counts, which must be a valid cell."""
    shard = np.frombuffer(frame, np.uint8)
    one = np.zeros(1, np.int64)
    fault, indptr, genes, counts, _ = module.gather(
        [shard], one, one, one + len(frame), n_genes, None, None, 0, False, 1
    )
    everything = module.Panel(np.arange(n_genes, dtype=np.int32), n_genes) if n_genes <= N_GENES else None
    again = module.gather([shard], one, one, one + len(frame), n_genes, None, everything, 0, False, 1)
    assert again[0] == fault
    if fault is not None:
        assert fault[0] == 0
        return fault[1]
    assert np.array_equal(again[2], genes) and np.array_equal(again[3], counts)
    assert indptr.tolist() == [0, len(genes)] and len(genes) == len(counts)
    assert (np.diff(genes.astype(np.int64)) > 0).all() and (counts >= 1).all()
    assert len(genes) == 0 or (genes[0] >= 0 and genes[-1] < n_genes)
    return genes.tolist(), counts.tolist()


def shared_outcome(frame: bytes, n_genes: int = N_GENES):
    outcomes = [outcome(module, frame, n_genes) for module in PRESENT]
    assert all(each == outcomes[0] for each in outcomes)
    return outcomes[0]


def test_the_samples_use_every_mode():
    modes = set()
    for frame in FRAMES:
        nnz, at = (frame[0], 1) if frame[0] < 128 else (frame[0] & 127 | frame[1] << 7, 2)
        for block in range(-(-nnz // 128)):
            for stream in range(2):
                modes.add((frame[at] >> 6, nnz - block * 128 >= 128, stream))
                at += (1, 3, 2)[frame[at] >> 6]
    wanted = {(mode, full, stream) for mode in (0, 1, 2) for full in (False, True) for stream in (0, 1)}
    assert modes >= wanted - {(0, False, 0), (1, False, 0), (1, True, 0)}


@pytest.mark.parametrize("number", range(len(FRAMES)))
def test_every_prefix_is_refused(number):
    for length in range(len(FRAMES[number])):
        assert isinstance(shared_outcome(FRAMES[number][:length]), int)


@pytest.mark.parametrize("number", range(len(FRAMES)))
def test_every_flipped_bit_has_one_outcome(number):
    for byte in range(len(FRAMES[number])):
        for bit in range(8):
            damaged = bytearray(FRAMES[number])
            damaged[byte] ^= 1 << bit
            shared_outcome(bytes(damaged))


@pytest.mark.parametrize("number", range(len(FRAMES)))
@pytest.mark.parametrize("extra", [b"\0", b"\xff", bytes(9)])
def test_trailing_bytes_are_refused(number, extra):
    assert isinstance(shared_outcome(FRAMES[number] + extra), int)


@settings(max_examples=400, deadline=None)
@given(st.binary(max_size=80), st.sampled_from([0, 1, 5, N_GENES, 2**31 - 1]))
@example(b"\x80\x80\x80\x80\x10", 2**31 - 1)
@example(b"\xff\xff\xff\xff\x7f", 2**31 - 1)
@example(b"\xff\xff\xff\xff\xff\x01", 2**31 - 1)
@example(b"", 0)
def test_any_bytes_have_one_outcome(frame, n_genes):
    shared_outcome(frame, n_genes)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(FRAMES), st.lists(st.tuples(st.integers(0, 2**16), st.integers(0, 255)), min_size=1, max_size=4))
def test_overwritten_bytes_have_one_outcome(frame, changes):
    damaged = bytearray(frame)
    for at, byte in changes:
        damaged[at % len(damaged)] = byte
    shared_outcome(bytes(damaged))


# One frame per rule. Header byte: mode << 6 | width; a cell of one gene has one header per stream.
PLAIN, PATCHED, UNARY = 0 << 6, 1 << 6, 2 << 6


@pytest.mark.parametrize(
    ("frame", "wanted"),
    [
        ([0], ([], [])),
        ([1, PLAIN, PLAIN], ([0], [1])),
        ([0x81, 0, PLAIN, PLAIN], ([0], [1])),  # A longer varint than needed.
        ([1, PLAIN | 8, PLAIN | 3, 9, 0xFF], ([9], [8])),  # Padding bits are not looked at.
        ([2, UNARY, 1, PLAIN, 0b101], ([0, 2], [1, 1])),
        ([], faults.TRUNCATED),
        ([0x80], faults.TRUNCATED),
        ([11, PLAIN, PLAIN], faults.NONZEROS),
        ([0x80, 0x80, 0x80, 0x80, 0x80, 0], faults.NONZEROS),
        ([1, PLAIN], faults.TRUNCATED),
        ([1, PATCHED, PLAIN], faults.TRUNCATED),
        ([1, 3 << 6, PLAIN], faults.HEADER),
        ([1, PLAIN | 33, PLAIN, 0, 0, 0, 0, 0], faults.HEADER),
        ([1, UNARY | 17, 1, PLAIN, 0, 0, 0, 1], faults.HEADER),
        ([1, UNARY, 0, PLAIN], faults.HEADER),
        ([1, PATCHED, 0, 1, PLAIN, 0], faults.HEADER),
        ([1, PATCHED, 2, 1, PLAIN, 0, 0], faults.HEADER),
        ([1, PATCHED | 30, 1, 3, PLAIN, 0, 0, 0, 0, 0, 0], faults.HEADER),
        ([1, PLAIN | 8, PLAIN], faults.TRUNCATED),
        ([1, PLAIN, PLAIN, 0], faults.TRAILING),
        ([0, 0], faults.TRAILING),
        ([1, PATCHED, 1, 0, PLAIN, 1], faults.EXCEPTION),  # Position 1 of one value.
        ([2, PATCHED, 2, 1, PLAIN, 0, 0], faults.EXCEPTION),  # Position 0 twice.
        ([1, UNARY, 1, PLAIN, 0], faults.UNARY),
        ([1, UNARY, 1, PLAIN, 3], faults.UNARY),
        ([1, UNARY, 2, PLAIN, 1, 0], faults.UNARY),  # An idle last byte.
        ([1, PLAIN | 8, PLAIN, 10], faults.GENE_RANGE),
        ([1, PLAIN | 32, PLAIN, 0xFF, 0xFF, 0xFF, 0xFF], faults.GENE_RANGE),
        ([1, PLAIN, PLAIN | 32, 0xFF, 0xFF, 0xFF, 0xFF], faults.COUNT_OVERFLOW),
        ([1, PLAIN, PATCHED | 32, 1, 0, 0, 0, 0, 0, 0], faults.COUNT_OVERFLOW),
    ],
)
def test_each_rule_has_its_word(frame, wanted):
    assert shared_outcome(bytes(frame), 10) == wanted


def test_a_short_frame_cannot_ask_for_much_memory():
    claim = bytes([0xFF, 0xFF, 0xFF, 0xFF, 0x07, 0, 0])  # 2^31-1 nonzeros in seven bytes.
    assert shared_outcome(claim, 2**31 - 1) == faults.TRUNCATED


def test_the_error_names_the_row_and_what_to_do():
    shard = np.frombuffer(FRAMES[4] + FRAMES[5][:-1], np.uint8)
    borders = np.array([0, len(FRAMES[4]), len(shard)])
    with pytest.raises(FrameError, match=r"row 1 of this batch .*`cellmill verify`") as caught:
        kernel.gather([shard], np.zeros(2, np.int64), borders[:-1], borders[1:], n_genes=N_GENES)
    assert caught.value.position == 1
    assert isinstance(caught.value, StoreError) and isinstance(caught.value, ValueError)
