"""Format version 1 stays: golden frames decode, are written again, and are read by the written format alone."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from cellmill import kernel
from kernels import IMPLEMENTATIONS

HERE = Path(__file__).parent
CELLS = json.loads((HERE / "frames_v1.json").read_text())
each_cell = pytest.mark.parametrize("cell", CELLS, ids=[cell["name"] for cell in CELLS])


def read_frame(frame: bytes) -> tuple[list[int], list[int]]:
    """Return (genes, counts) of a sound frame. Written from docs/reference/format.md alone, one bit at a time."""
    nnz = shift = at = 0
    while True:
        nnz |= (frame[at] & 127) << shift
        at, shift = at + 1, shift + 7
        if frame[at - 1] < 128:
            break
    sizes = [min(128, nnz - begin) for begin in range(0, nnz, 128) for _ in ("gaps", "counts")]
    headers = []
    for size in sizes:
        mode, width = frame[at] >> 6, frame[at] & 63
        length = (1, 3, 2)[mode]
        headers.append((size, mode, width, frame[at + 1 : at + length]))
        at += length
    streams: tuple[list[int], list[int]] = ([], [])
    for number, (size, mode, width, more) in enumerate(headers):
        values, at = read_section(frame, at, size, mode, width, more)
        streams[number % 2].extend(values)
    assert at == len(frame)
    genes, last = [], -1
    for gap in streams[0]:
        last += gap + 1
        genes.append(last)
    return genes, [count + 1 for count in streams[1]]


def read_section(frame: bytes, at: int, size: int, mode: int, width: int, more: bytes) -> tuple[list[int], int]:
    lanes = 4 if size == 128 else 1
    values = []
    for j in range(size):
        value = 0
        for bit in range(width):
            word, place = divmod(j // lanes * width + bit, 32)
            where = at * 8 + (word * lanes + j % lanes) * 32 + place
            value |= (frame[where // 8] >> where % 8 & 1) << bit
        values.append(value)
    at += (size * width + 7) // 8
    if mode == 1:
        exceptions, high_bits = more
        entry_bits = 7 + high_bits
        section = int.from_bytes(frame[at : at + (exceptions * entry_bits + 7) // 8], "little")
        for i in range(exceptions):
            entry = section >> i * entry_bits & (1 << entry_bits) - 1
            values[entry & 127] += ((entry >> 7) + 1) << width
        at += (exceptions * entry_bits + 7) // 8
    if mode == 2:
        highs = count_zeros(frame[at : at + more[0]])
        values = [value + (next(highs) << width) for value in values]
        at += more[0]
    return values, at


def count_zeros(section: bytes) -> Iterator[int]:
    zeros = 0
    for byte in section:
        for bit in range(8):
            if byte >> bit & 1:
                yield zeros
                zeros = 0
            else:
                zeros += 1


@each_cell
def test_a_reader_written_from_the_format_reads_golden_frames(cell):
    assert read_frame(bytes.fromhex(cell["frame"])) == (cell["genes"], cell["counts"])


@pytest.mark.parametrize("module", IMPLEMENTATIONS)
@each_cell
def test_golden_frames_decode(module, cell):
    frame = np.frombuffer(bytes.fromhex(cell["frame"]), np.uint8)
    one = np.zeros(1, np.int64)
    fault, _, genes, counts, totals = module.gather(
        [frame], one, one, one + len(frame), cell["n_genes"], None, None, 0, True, 1
    )
    assert totals.tolist() == [sum(cell["counts"])]
    assert fault is None
    assert genes.tolist() == cell["genes"] and counts.tolist() == cell["counts"]


@pytest.mark.parametrize("module", IMPLEMENTATIONS)
@each_cell
def test_golden_cells_encode_to_the_same_bytes(module, cell):
    genes, counts = np.array(cell["genes"], np.int64), np.array(cell["counts"], np.uint32)
    frames, _ = module.encode(np.array([0, len(genes)], np.int64), genes, counts, cell["n_genes"], None, 1)
    assert frames.tobytes().hex() == cell["frame"]


def test_the_golden_file_is_never_overwritten():
    before = (HERE / "frames_v1.json").read_bytes()
    source = str(Path(kernel.__file__).parents[2])
    said = subprocess.run(
        [sys.executable, str(HERE / "write_frames_v1.py")], capture_output=True, text=True, env={"PYTHONPATH": source}
    )
    assert said.returncode != 0 and "never overwritten" in said.stderr
    assert (HERE / "frames_v1.json").read_bytes() == before
