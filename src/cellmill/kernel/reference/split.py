"""Frames of stores with head genes, in NumPy (floor 1, kernel): blocks for the tail, a section for the head.

Knows how a frame is put together; blocks are `reference.codec`, sections `reference.model`. Every byte that is decoded
is taken as hostile.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cellmill.kernel import faults
from cellmill.kernel.reference import codec
from cellmill.kernel.reference.codec import Decoded, decode_frames
from cellmill.kernel.reference.layout import BLOCK, HEADER_BYTES, PATCHED, UNARY
from cellmill.kernel.reference.model import HeadModel

__all__ = ["decode", "encode"]

I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]
U32 = npt.NDArray[np.uint32]
U64 = npt.NDArray[np.uint64]


def encode(
    indptr: I64, indices: npt.NDArray[np.integer], values: U32, n_genes: int, head: HeadModel | None, threads: int
) -> tuple[U8, U64]:
    """Return (frames, offsets) of the cells; raises ValueError naming the first bad cell."""
    frames, offsets = codec.encode(indptr, indices, values, n_genes, threads)
    if head is None:
        return frames, offsets
    genes = indices.astype(np.int64)
    cell = np.repeat(np.arange(len(indptr) - 1), np.diff(indptr))
    in_head = genes < head.n_genes
    tail_ptr, head_ptr = (_pointers(cell[chosen], len(indptr) - 1) for chosen in (~in_head, in_head))
    sections, section_at = head.encode(head_ptr, genes[in_head], values[in_head])
    blocks, block_at = codec.encode(tail_ptr, genes[~in_head] - head.n_genes, values[~in_head], n_genes, threads)
    parts = []
    for i in range(len(indptr) - 1):
        nnz = int(indptr[i + 1] - indptr[i])
        has_tail = bool(tail_ptr[i + 1] > tail_ptr[i])
        tail = blocks[int(block_at[i]) : int(block_at[i + 1])].tobytes() if has_tail else b""
        section = sections[int(section_at[i]) : int(section_at[i + 1])].tobytes()
        frame = _varint(2 * nnz + has_tail) + (tail + section if nnz else b"")
        if nnz and len(section) >= int(head_ptr[i + 1] - head_ptr[i]):
            # a cell that is not like those the model was made from: blocks alone, where they are shorter
            whole = frames[int(offsets[i]) : int(offsets[i + 1])].tobytes()
            frame = min(frame, _varint(2 * nnz + 1) + b"\0" + whole[len(_varint(nnz)) :], key=len)
        parts.append(frame)
    lengths = np.array([0, *map(len, parts)], np.uint64)
    return np.frombuffer(b"".join(parts), np.uint8), np.cumsum(lengths, dtype=np.uint64)


def decode(frames: list[bytes], n_genes: int, head: HeadModel | None) -> Decoded:
    """Return the cells of frames, decoded up to the first that cannot be."""
    if head is None:
        return decode_frames(frames, n_genes)
    fronts = [_front(frame, n_genes, head.n_genes) for frame in frames]
    whole = _decode_together(frames, fronts, n_genes, head)
    if whole.fault is None:
        return whole
    cells: list[Decoded] = []
    for row, (frame, front) in enumerate(zip(frames, fronts, strict=True)):
        one = _decode_together([frame], [front], n_genes, head)
        if one.fault is not None:
            return _joined(cells)._replace(fault=(row, one.fault[1]))
        cells.append(one)
    raise AssertionError("frames that cannot be decoded together hold one that cannot be decoded alone")


class _Front(NamedTuple):
    fault: int
    nnz: int
    in_blocks: int
    begin: int  # Of the number of nonzeros in blocks, or of the section where there are none.
    end: int  # Of the blocks.
    alone: bytes = b""  # The cell as a frame without head genes, where it does without.


def _front(frame: bytes, n_genes: int, n_head: int) -> _Front:
    code, first, at = _read_varint(frame, 0, 2 * n_genes + 1)
    if code:
        return _Front(code, 0, 0, at, at)
    nnz, begin, in_blocks = first // 2, at, 0
    if first % 2:
        code, in_blocks, at = _read_varint(frame, at, min(nnz, n_genes - n_head))
        if code:
            return _Front(code, 0, 0, at, at)
    if nnz == 0:
        return _Front(faults.TRAILING if at < len(frame) else 0, 0, 0, at, at)
    alone = first % 2 == 1 and in_blocks == 0
    if alone:
        in_blocks = nnz
    if nnz - in_blocks > n_head:
        return _Front(faults.NONZEROS, 0, 0, at, at)
    if 2 * -(-in_blocks // BLOCK) > len(frame) - at:
        return _Front(faults.TRUNCATED, 0, 0, at, at)
    if alone:
        return _Front(0, nnz, in_blocks, at, len(frame), _varint(nnz) + frame[at:])
    return _Front(0, nnz, in_blocks, begin, _end_of_blocks(frame, at, in_blocks))


def _end_of_blocks(frame: bytes, at: int, in_blocks: int) -> int:
    """Return where blocks end by what their headers say; the frame's end where these make no sense, told later."""
    payload = 0
    for block in range(-(-in_blocks // BLOCK)):
        size = min(BLOCK, in_blocks - block * BLOCK)
        for _ in range(2):
            header = frame[at : at + 3]
            mode = header[0] >> 6 if header else 3
            if mode == 3 or len(header) < HEADER_BYTES[mode]:
                return len(frame)
            payload += -(-size * (header[0] & 63) // 8)
            if mode == PATCHED:
                payload += -(-header[1] * (7 + header[2]) // 8)
            elif mode == UNARY:
                payload += header[1]
            at += HEADER_BYTES[mode]
    return min(at + payload, len(frame))


def _decode_together(frames: list[bytes], fronts: list[_Front], n_genes: int, head: HeadModel) -> Decoded:
    """Return the cells, or the fault of one of the frames: not always the first."""
    empty = Decoded(np.zeros(1, np.int64), np.empty(0, np.int64), np.empty(0, np.int64), None)
    for row, front in enumerate(fronts):
        if front.fault:
            return empty._replace(fault=(row, front.fault))
    parts = [_decode_alone(fronts, n_genes), _decode_split(frames, fronts, n_genes, head)]
    faulty = [part.fault for _, part in parts if part.fault is not None]
    if faulty:
        return empty._replace(fault=min(faulty))
    cell = np.concatenate([rows for rows, _ in parts])
    order = np.argsort(cell, kind="stable")
    nnz = np.array([front.nnz for front in fronts], np.int64)
    indptr = np.concatenate([[0], np.cumsum(nnz)]).astype(np.int64)
    genes = np.concatenate([part.indices for _, part in parts])[order]
    return Decoded(indptr, genes, np.concatenate([part.counts for _, part in parts])[order], None)


def _decode_alone(fronts: list[_Front], n_genes: int) -> tuple[I64, Decoded]:
    """Return the row of each nonzero, and the cells that do without head genes."""
    rows = [row for row, front in enumerate(fronts) if front.alone]
    found = decode_frames([fronts[row].alone for row in rows], n_genes)
    if found.fault is not None:
        found = found._replace(fault=(rows[found.fault[0]], found.fault[1]))
        return np.empty(0, np.int64), found
    return np.repeat(np.array(rows, np.int64), np.diff(found.indptr)), found


def _decode_split(frames: list[bytes], fronts: list[_Front], n_genes: int, head: HeadModel) -> tuple[I64, Decoded]:
    """Return the row of each nonzero, and the cells that have a section."""
    none = np.empty(0, np.int64)
    empty = Decoded(np.zeros(1, np.int64), none, none, None)
    some = [row for row, front in enumerate(fronts) if front.nnz and not front.alone]
    tail = decode_frames([_blocks(frames[row], fronts[row]) for row in some], n_genes - head.n_genes)
    if tail.fault is not None:
        return none, empty._replace(fault=(some[tail.fault[0]], tail.fault[1]))
    sections = [frames[row][fronts[row].end :] for row in some]
    at = np.cumsum(np.array([0, *map(len, sections)], np.uint64), dtype=np.uint64)
    capacity = np.array([fronts[row].nnz - fronts[row].in_blocks for row in some], np.int64)
    fault, head_ptr, genes, counts = head.decode(np.frombuffer(b"".join(sections), np.uint8), at, capacity)
    if fault is not None:
        return none, empty._replace(fault=(some[fault[0]], fault[1]))
    if (fewer := np.flatnonzero(np.diff(head_ptr) != capacity)).size:
        return none, empty._replace(fault=(some[int(fewer[0])], faults.NONZEROS))
    rows = np.array(some, np.int64)
    cell = np.concatenate([np.repeat(rows, capacity), np.repeat(rows, np.diff(tail.indptr))])
    all_genes = np.concatenate([genes.astype(np.int64), tail.indices + head.n_genes])
    return cell, Decoded(tail.indptr, all_genes, np.concatenate([counts.astype(np.int64), tail.counts]), None)


def _blocks(frame: bytes, front: _Front) -> bytes:
    """Return the blocks of a frame as a frame of their own."""
    return frame[front.begin : front.end] if front.end > front.begin else b"\0"


def _joined(cells: list[Decoded]) -> Decoded:
    none = np.empty(0, np.int64)
    indptr = np.cumsum([0, *(len(cell.indices) for cell in cells)]).astype(np.int64)
    return Decoded(
        indptr,
        np.concatenate([none, *(cell.indices for cell in cells)]),
        np.concatenate([none, *(cell.counts for cell in cells)]),
        None,
    )


def _pointers(cell: I64, n_cells: int) -> I64:
    return np.concatenate([[0], np.cumsum(np.bincount(cell, minlength=n_cells))]).astype(np.int64)


def _varint(number: int) -> bytes:
    out = bytearray()
    while number >= 128:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def _read_varint(frame: bytes, at: int, most: int) -> tuple[int, int, int]:
    """Return (fault, number, where it ends)."""
    number = 0
    for place in range(5):
        if at + place == len(frame):
            return faults.TRUNCATED, 0, at
        byte = frame[at + place]
        number |= (byte & 127) << 7 * place
        if byte < 128:
            return (0, number, at + place + 1) if number <= most else (faults.NONZEROS, 0, at)
    return faults.NONZEROS, 0, at
