"""Format version 1 stays: golden frames decode, are written again, and are read by the written format alone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cellmill import kernel
from golden.plain_reader import Refused, read_frame
from kernels import IMPLEMENTATIONS, PRESENT

HERE = Path(__file__).parent
CELLS = json.loads((HERE / "frames_v1.json").read_text())
each_cell = pytest.mark.parametrize("cell", CELLS, ids=[cell["name"] for cell in CELLS])


@each_cell
def test_a_reader_written_from_the_format_reads_golden_frames(cell):
    assert read_frame(bytes.fromhex(cell["frame"]), cell["n_genes"]) == (cell["genes"], cell["counts"])


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


def outcome_in_kernel(module, frame: bytes, n_genes: int):
    one = np.zeros(1, np.int64)
    data = np.frombuffer(frame, np.uint8)
    fault, _, genes, counts, _ = module.gather([data], one, one, one + len(frame), n_genes, None, None, 0, False, 1)
    return None if fault else (genes.tolist(), counts.tolist())


def outcome_by_the_page(frame: bytes, n_genes: int):
    try:
        return read_frame(frame, n_genes)
    except Refused:
        return None


@each_cell
def test_the_page_says_which_damaged_frames_are_refused(cell):
    frame, n_genes = bytes.fromhex(cell["frame"]), cell["n_genes"]
    damaged = [frame[:length] for length in range(len(frame))] + [frame + b"\0", frame + b"\1"]
    for bit in range(0, 8 * len(frame), 1 + len(frame) // 60):
        flipped = bytearray(frame)
        flipped[bit // 8] ^= 1 << bit % 8
        damaged.append(bytes(flipped))
    module = PRESENT[min(1, len(PRESENT) - 1)]  # The native kernel where there is one.
    for each in damaged:
        assert outcome_by_the_page(each, n_genes) == outcome_in_kernel(module, each, n_genes)


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
