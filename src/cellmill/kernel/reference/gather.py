"""Batched reads of frames in NumPy: sparse, dense, and fingerprints (floor 1, kernel).

Knows frames, panels and the three transforms. Knows nothing of files.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from cellmill.kernel import faults
from cellmill.kernel.reference.codec import Decoded, decode_frames
from cellmill.kernel.reference.random import mix64

__all__ = ["CP10K", "LOG1P_CP10K", "RAW", "fingerprint", "gather", "gather_dense"]

I64 = npt.NDArray[np.int64]
I32 = npt.NDArray[np.int32]
U32 = npt.NDArray[np.uint32]
F32 = npt.NDArray[np.float32]
U64 = npt.NDArray[np.uint64]

RAW, CP10K, LOG1P_CP10K = 0, 1, 2


def _decode_rows(
    shards: Sequence[npt.NDArray[np.uint8]], shard_of: I64, start: I64, stop: I64, n_genes: int
) -> Decoded:
    frames: list[bytes] = []
    outside: tuple[int, int] | None = None
    for row, (number, begin, end) in enumerate(zip(shard_of.tolist(), start.tolist(), stop.tolist(), strict=True)):
        shard = shards[number]
        if not 0 <= begin <= end <= len(shard):
            outside = (row, faults.OUTSIDE)
            break
        frames.append(shard[begin:end].tobytes())
    decoded = decode_frames(frames, n_genes)
    return decoded._replace(fault=decoded.fault or outside)


def _to_columns(decoded: Decoded, panel: I32) -> Decoded:
    """Map genes to columns, drop those without one, and sort each row."""
    n_rows = len(decoded.indptr) - 1
    row = np.repeat(np.arange(n_rows), np.diff(decoded.indptr))
    column = panel[decoded.indices].astype(np.int64)
    kept = np.flatnonzero(column >= 0)
    kept = kept[np.lexsort((column[kept], row[kept]))]
    indptr = np.concatenate([[0], np.cumsum(np.bincount(row[kept], minlength=n_rows))]).astype(np.int64)
    return Decoded(indptr, column[kept], decoded.counts[kept], decoded.fault)


def gather(
    shards: Sequence[npt.NDArray[np.uint8]],
    shard_of: I64,
    start: I64,
    stop: I64,
    n_genes: int,
    panel: I32 | None,
    n_columns: int,
    threads: int,
) -> tuple[tuple[int, int] | None, I64, I32, U32]:
    """Return (fault, indptr, indices, values) of the rows."""
    del n_columns, threads
    decoded = _decode_rows(shards, shard_of, start, stop, n_genes)
    if panel is not None and decoded.fault is None:
        decoded = _to_columns(decoded, panel)
    return decoded.fault, decoded.indptr, decoded.indices.astype(np.int32), decoded.counts.astype(np.uint32)


def gather_dense(
    shards: Sequence[npt.NDArray[np.uint8]],
    shard_of: I64,
    start: I64,
    stop: I64,
    n_genes: int,
    panel: I32 | None,
    transform: int,
    totals: U64 | None,
    out: F32,
    threads: int,
) -> tuple[int, int] | None:
    """Fill `out` with the rows and return the fault, or None."""
    del threads
    decoded = _decode_rows(shards, shard_of, start, stop, n_genes)
    if decoded.fault is not None:
        return decoded.fault
    n_rows = len(decoded.indptr) - 1
    row = np.repeat(np.arange(n_rows), np.diff(decoded.indptr))
    if totals is None:
        totals = _segment_sums(decoded.counts.astype(np.uint64), decoded.indptr)
    if panel is not None:
        decoded = _to_columns(decoded, panel)
        row = np.repeat(np.arange(n_rows), np.diff(decoded.indptr))
    out[...] = 0.0
    out[row, decoded.indices] = _transformed(decoded.counts, row, totals, transform)
    return None


def _transformed(counts: I64, row: I64, totals: U64, transform: int) -> F32:
    """Return counts, or 10,000 x count / total, or its log1p; computed in f64, rounded once to f32."""
    if transform == RAW:
        return counts.astype(np.float32)
    scale = np.divide(1e4, totals.astype(np.float64), out=np.zeros(len(totals)), where=totals > 0)
    scaled = counts.astype(np.float64) * scale[row]
    return (np.log1p(scaled) if transform == LOG1P_CP10K else scaled).astype(np.float32)


def _segment_sums(numbers: U64, indptr: I64) -> U64:
    """Return the sum modulo 2^64 of each cell's numbers."""
    upto = np.concatenate([np.zeros(1, np.uint64), np.cumsum(numbers, dtype=np.uint64)])
    sums: U64 = upto[indptr[1:]] - upto[indptr[:-1]]
    return sums


def fingerprint(indptr: I64, indices: npt.NDArray[np.integer], values: U32, gene_hashes: U64, threads: int) -> U64:
    """Return the fingerprint of each cell; see `cellmill.kernel.fingerprint`."""
    del threads
    counts = values.astype(np.uint64)
    sums = _segment_sums(mix64(gene_hashes[indices] ^ mix64(counts)), indptr)
    totals = _segment_sums(counts, indptr)
    prints: U64 = mix64(sums ^ mix64(np.diff(indptr).astype(np.uint64) ^ mix64(totals)))
    return prints
