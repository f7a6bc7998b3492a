"""Batched reads of frames in NumPy: sparse, dense, and fingerprints (floor 1, kernel).

Knows frames, panels and the three transforms. Knows nothing of files.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from cellmill.kernel import faults
from cellmill.kernel.reference.codec import Decoded
from cellmill.kernel.reference.model import HeadModel
from cellmill.kernel.reference.random import mix64
from cellmill.kernel.reference.rows import Panel, RowTable
from cellmill.kernel.reference.split import decode

__all__ = [
    "CP10K",
    "LOG1P_CP10K",
    "RAW",
    "fingerprint",
    "frame_sizes",
    "gather",
    "gather_dense",
    "gather_rows",
    "gather_rows_dense",
]

I64 = npt.NDArray[np.int64]
I32 = npt.NDArray[np.int32]
U32 = npt.NDArray[np.uint32]
F32 = npt.NDArray[np.float32]
U64 = npt.NDArray[np.uint64]

RAW, CP10K, LOG1P_CP10K = 0, 1, 2
_KINDS = (np.uint32, np.int32, np.float32)
_LARGEST = ((1 << 32) - 1, (1 << 31) - 1, 1 << 24)


def _decode_rows(
    shards: Sequence[npt.NDArray[np.uint8]], shard_of: I64, start: I64, stop: I64, n_genes: int, head: HeadModel | None
) -> Decoded:
    frames: list[bytes] = []
    outside: tuple[int, int] | None = None
    for row, (number, begin, end) in enumerate(zip(shard_of.tolist(), start.tolist(), stop.tolist(), strict=True)):
        shard = shards[number]
        if not 0 <= begin <= end <= len(shard):
            outside = (row, faults.OUTSIDE)
            break
        frames.append(shard[begin:end].tobytes())
    decoded = decode(frames, n_genes, head)
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
    head: HeadModel | None,
    panel: Panel | None,
    kind: int,
    with_totals: bool,
    threads: int,
) -> tuple[tuple[int, int] | None, I64, I32, npt.NDArray[Any], U64 | None]:
    """Return (fault, indptr, indices, values, totals) of the rows."""
    del threads
    decoded = _decode_rows(shards, shard_of, start, stop, n_genes, head)
    totals = _segment_sums(decoded.counts.astype(np.uint64), decoded.indptr) if with_totals else None
    if panel is not None and decoded.fault is None:
        decoded = _to_columns(decoded, panel.column_of)
    fault = decoded.fault or _beyond_kind(decoded, kind)
    return fault, decoded.indptr, decoded.indices.astype(np.int32), decoded.counts.astype(_KINDS[kind]), totals


def frame_sizes(
    shards: Sequence[npt.NDArray[np.uint8]], shard_of: I64, start: I64, stop: I64, n_genes: int, head: HeadModel | None
) -> tuple[tuple[int, int] | None, I64]:
    """Return (fault, nonzeros of each row)."""
    decoded = _decode_rows(shards, shard_of, start, stop, n_genes, head)
    return decoded.fault, np.diff(decoded.indptr).astype(np.int64)


def _beyond_kind(decoded: Decoded, kind: int) -> tuple[int, int] | None:
    """Return the fault of the first row with a count that the kind does not hold exactly."""
    beyond = np.flatnonzero(decoded.counts > _LARGEST[kind])
    if not len(beyond):
        return None
    return int(np.searchsorted(decoded.indptr, beyond[0], side="right")) - 1, faults.COUNT_KIND


def gather_rows(
    table: RowTable,
    rows: I64,
    n_genes: int,
    head: HeadModel | None,
    panel: Panel | None,
    kind: int,
    with_totals: bool,
    threads: int,
) -> tuple[tuple[int, int] | None, I64, I32, npt.NDArray[Any], U64 | None]:
    """Return (fault, indptr, indices, values, totals) of rows by their ids."""
    return gather(*table.find(rows), n_genes, head, panel, kind, with_totals, threads)


def gather_dense(
    shards: Sequence[npt.NDArray[np.uint8]],
    shard_of: I64,
    start: I64,
    stop: I64,
    n_genes: int,
    head: HeadModel | None,
    panel: Panel | None,
    transform: int,
    divisors: U64 | None,
    out: F32,
    totals: U64 | None,
    threads: int,
) -> tuple[int, int] | None:
    """Fill `out` with the rows and return the fault, or None."""
    del threads
    decoded = _decode_rows(shards, shard_of, start, stop, n_genes, head)
    if decoded.fault is not None:
        return decoded.fault
    n_rows = len(decoded.indptr) - 1
    row = np.repeat(np.arange(n_rows), np.diff(decoded.indptr))
    sums = _segment_sums(decoded.counts.astype(np.uint64), decoded.indptr)
    if totals is not None:
        totals[...] = sums
    if panel is not None:
        decoded = _to_columns(decoded, panel.column_of)
        row = np.repeat(np.arange(n_rows), np.diff(decoded.indptr))
    out[...] = 0.0
    out[row, decoded.indices] = _transformed(decoded.counts, row, sums if divisors is None else divisors, transform)
    return None


def gather_rows_dense(
    table: RowTable,
    rows: I64,
    n_genes: int,
    head: HeadModel | None,
    panel: Panel | None,
    transform: int,
    divisors: U64 | None,
    out: F32,
    totals: U64 | None,
    threads: int,
) -> tuple[int, int] | None:
    """Fill `out` with rows by their ids and return the fault, or None."""
    return gather_dense(*table.find(rows), n_genes, head, panel, transform, divisors, out, totals, threads)


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
