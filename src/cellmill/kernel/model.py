"""Fits the model by which head genes are coded, and decides how many genes these are (floor 1, kernel).

Knows how often each gene had each count; the layout of a model and the coding by it are in `reference.model`.
Knows nothing of files: whoever reads a model from one adds its path with `add_note`.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

from cellmill.errors import CorruptStoreError
from cellmill.kernel.implementation import chosen
from cellmill.kernel.reference.model import (
    HEADER,
    MAGIC,
    MAX_GENES,
    MODEL_FAULTS,
    PROBABILITY_BITS,
    SYMBOLS,
    VERSION,
    model_fault,
    raw_bits,
    symbols_of,
)

__all__ = ["choose_head", "count_histograms", "fit_model", "open_model"]

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
Integers = npt.NDArray[np.integer[Any]]

TOTAL = 1 << PROBABILITY_BITS
SPARE_SYMBOLS = 2  # Beyond the largest of the sample: a literal costs a byte once, an escape four bytes a count.
SPARSE_NONZEROS = 256
MOST_GENES = 8_192
MOST_HEAD_GENES = 1_024  # each costs some 3 to 5 ns a cell, whether it has a count or not
BLOCK_OVERHEAD_BITS = 2.0  # A nonzero in block frames above its gene's entropy; benchmarks/frames.py says 1 to 2.5.
TAIL_BITS = 24.0  # A cell that has nonzeros outside the head: how many, and the headers of their blocks.


def count_histograms(indptr: Integers, indices: Integers, values: Integers, n_genes: int) -> I64:
    """Return how many cells have each symbol of each gene; sums over batches are those of all cells.

    Parameters
    ----------
    indptr, indices, values
        Cells as in `kernel.encode`.
    n_genes : int
        Number of genes to count, from the first; nonzeros of others are left out.

    Returns
    -------
    i64, (n_genes, 124)
    """
    genes = np.asarray(indices).astype(np.int64)
    head = genes < n_genes
    genes, counts = genes[head], np.asarray(values)[head].astype(np.int64)
    flat = np.bincount(genes * SYMBOLS + symbols_of(counts), minlength=n_genes * SYMBOLS)
    histograms: I64 = flat.astype(np.int64).reshape(n_genes, SYMBOLS)
    histograms[:, 0] += len(indptr) - 1 - histograms.sum(axis=1)
    return histograms


def _normalise(histogram: I64) -> I64:
    """Return the frequencies of one gene's literal symbols and its escape: each 1 or more, 2^14 together.

    Each is rounded to the nearest, halves up; what is missing goes to the largest, what is too much is taken from the
    largest one by one (of equals the first).
    """
    literals = min(SYMBOLS, int(np.flatnonzero(histogram)[-1:].sum()) + 1 + SPARE_SYMBOLS)
    cells = np.append(histogram[:literals], 0)
    cells[0] += cells.sum() == 0
    total = int(cells.sum())
    frequency: I64 = np.maximum(1, (cells * (2 * TOTAL) + total) // (2 * total))
    frequency[frequency.argmax()] += max(0, TOTAL - int(frequency.sum()))
    for _ in range(int(frequency.sum()) - TOTAL):
        frequency[frequency.argmax()] -= 1
    return frequency


def fit_model(histograms: I64, *, n_head: int) -> bytes:
    """Return the model of the first `n_head` genes, as bytes: the same for the same histograms.

    Parameters
    ----------
    histograms : i64, (n_genes, 124)
        From `count_histograms`; at most 2^44 cells.
    n_head : int
        1 to 65,535 and at most n_genes.

    Raises
    ------
    ValueError
        When there are fewer histograms than head genes, or none of these.
    """
    if not 1 <= n_head <= min(len(histograms), MAX_GENES):
        raise ValueError(f"n_head must lie in 1..{min(len(histograms), MAX_GENES)}, found {n_head}")
    parts = [HEADER.pack(MAGIC, VERSION, 0, n_head)]
    for histogram in histograms[:n_head]:
        rest = _normalise(histogram)[1:].tolist()
        varints = (bytes([f]) if f < 128 else bytes([f & 127 | 128, f >> 7]) for f in rest)
        parts.append(bytes([len(rest)]) + b"".join(varints))
    data = b"".join(parts)
    return data + struct.pack("<Q", xxhash.xxh3_64_intdigest(data))


def open_model(data: bytes) -> Any:
    """Return the model as the kernel in use codes by it: `n_genes`, `encode`, `decode`.

    Raises
    ------
    CorruptStoreError
        When the bytes are not a model, or not those that were written.
    """
    code = model_fault(data)
    if code == 0 and xxhash.xxh3_64_intdigest(data[:-8]) != struct.unpack("<Q", data[-8:])[0]:
        code = 7
    if code:
        raise CorruptStoreError(
            f"the model of the head genes cannot be read: {MODEL_FAULTS[code]} ({len(data):,} bytes). "
            "Restore it from a copy or build the store again."
        )
    return chosen.HeadModel(data)


def _model_bits(histograms: I64, n_cells: I64) -> tuple[F64, F64]:
    """Return what each gene costs by the model, and its entropy: bits a cell."""
    share = histograms / n_cells[:, None]
    raw = share @ raw_bits(np.arange(SYMBOLS)).astype(np.float64)
    entropy = -(share * np.log2(np.where(share > 0, share, 1))).sum(axis=1) + raw
    # A symbol that is rarer than 2^-14 costs as if it were not; so does the escape that none may need.
    coded = -(share * np.log2(np.maximum(share, 1 / TOTAL))).sum(axis=1) + raw
    return coded + 1.45 / TOTAL, entropy


def choose_head(histograms: I64, *, n_genes: int, n_cells: int) -> int:
    """Return how many genes, from the first, are cheaper by the model: 0 unless the store is a sparse panel.

    Parameters
    ----------
    histograms : i64, (at least min(n_genes, 1024), 124)
        From `count_histograms`, of a sample of cells.
    n_genes : int
        Number of genes of the store.
    n_cells : int
        How many cells the store will have, about; the tables are paid for once.

    Returns
    -------
    int
        0 where a sampled cell has 256 nonzeros or more on average, or the store more than 8,192 genes; at most 1,024.

    Notes
    -----
    Bits a cell are compared: by the model as its frequencies say, and the gene's table shared by all cells; by blocks
    the gene's entropy and two bits a nonzero. Genes outside the head cost three bytes more in each cell that has any.
    """
    if len(histograms) == 0 or n_genes > MOST_GENES:
        return 0
    sampled = histograms.sum(axis=1)
    detected = (sampled - histograms[:, 0]) / np.maximum(sampled, 1)
    if not detected.sum() or detected.sum() >= SPARSE_NONZEROS:
        return 0
    most = min(n_genes, len(histograms), MOST_HEAD_GENES)
    coded, entropy = _model_bits(histograms, np.maximum(sampled, 1))
    literals = SYMBOLS - np.argmax(histograms[:, ::-1] > 0, axis=1) + SPARE_SYMBOLS
    head = coded + 8.0 * (literals + 2) / max(n_cells, 1)
    block = entropy + BLOCK_OVERHEAD_BITS * detected
    after = detected[::-1].cumsum()[::-1]
    tail = np.append(TAIL_BITS * -np.expm1(-after) + 8.0, 0.0 if len(histograms) == n_genes else TAIL_BITS)
    bits = np.concatenate([[0.0], np.cumsum(head - block)]) + tail
    return int(np.argmin(bits[: most + 1]))
