"""The frame codec in NumPy, whole batches at a time (floor 1, kernel).

Knows the layout of docs/reference/format.md, "Frames". Every byte that is decoded is taken as hostile.
Knows nothing of shards, files or panels.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cellmill.kernel import faults
from cellmill.kernel.reference.layout import (
    BLOCK,
    HEADER_BYTES,
    LANES,
    MAX_UNARY_WIDTH,
    PATCHED,
    POSITION_BITS,
    UNARY,
    BlockChoice,
    choose_blocks,
)

__all__ = ["Decoded", "decode_frames", "encode"]

I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]

CHUNK_NONZEROS = 1 << 20
MAX_COUNT_LESS_ONE = (1 << 32) - 2


class Decoded(NamedTuple):
    """Cells that were decoded, up to the first that could not be.

    `fault` is None, or (row, code) of that cell; the arrays then hold the rows before it.
    """

    indptr: I64
    indices: I64
    counts: I64
    fault: tuple[int, int] | None


# --- encode ----------------------------------------------------------------------------------------------------------


def encode(
    indptr: I64, indices: npt.NDArray[np.integer], values: npt.NDArray[np.uint32], n_genes: int, threads: int
) -> tuple[U8, npt.NDArray[np.uint64]]:
    """Return (frames, offsets) of the cells; raises ValueError naming the first bad cell."""
    del threads
    n_cells = len(indptr) - 1
    genes = indices.astype(np.int64)
    _check_cells(indptr, genes, values, n_genes)
    parts: list[U8] = []
    lengths = [np.zeros(1, np.int64)]
    start = 0
    while start < n_cells:
        stop = int(np.searchsorted(indptr, indptr[start] + CHUNK_NONZEROS, side="right")) - 1
        stop = min(max(stop, start + 1), n_cells)
        lo, hi = int(indptr[start]), int(indptr[stop])
        frames, length = _encode_chunk(indptr[start : stop + 1] - lo, genes[lo:hi], values[lo:hi].astype(np.int64))
        parts.append(frames)
        lengths.append(length)
        start = stop
    frames = np.concatenate(parts) if parts else np.zeros(0, np.uint8)
    return frames, np.cumsum(np.concatenate(lengths)).astype(np.uint64)


def _check_cells(indptr: I64, genes: I64, values: npt.NDArray[np.uint32], n_genes: int) -> None:
    if len(indptr) < 1 or indptr[0] != 0 or indptr[-1] != len(genes) or (np.diff(indptr) < 0).any():
        raise ValueError("indptr must start at 0, never fall, and end at the number of nonzeros")
    if len(genes) != len(values):
        raise ValueError(f"indices and values must be of one length, found {len(genes)} and {len(values)}")
    falls = np.zeros(len(genes), bool)
    falls[1:] = genes[1:] <= genes[:-1]
    falls[indptr[:-1][indptr[:-1] < len(genes)]] = False
    bad = np.flatnonzero((genes < 0) | (genes >= n_genes) | (values == 0) | falls)
    if len(bad):
        cell = int(np.searchsorted(indptr, bad[0], side="right")) - 1
        raise ValueError(
            f"cell {cell}: genes must be ascending, each once, in 0..{n_genes - 1}, and counts must be 1 or more; "
            f"nonzero {int(bad[0]) - int(indptr[cell])} is not"
        )


def _encode_chunk(indptr: I64, genes: I64, counts: I64) -> tuple[U8, I64]:
    """Return the concatenated frames of one chunk and the bytes of each."""
    nnz = np.diff(indptr)
    cell = np.repeat(np.arange(len(nnz)), nnz)
    within = np.arange(len(genes)) - indptr[cell]
    gaps = genes - 1
    gaps[1:] -= genes[:-1]
    first = within == 0
    gaps[first] = genes[first]

    blocks_per_cell = -(-nnz // BLOCK)
    first_block = np.concatenate([[0], np.cumsum(blocks_per_cell)])
    n_blocks = int(first_block[-1])
    block = first_block[cell] + within // BLOCK
    streams = [(values, choose_blocks(values, block, n_blocks)) for values in (gaps, counts - 1)]

    # Bytes in the order of the frame: per cell the varint, the headers of its blocks, the payloads of its blocks.
    varint_bytes = np.ones(len(nnz), np.int64)
    for bits in (7, 14, 21, 28):
        varint_bytes += nnz >= (1 << bits)
    header = np.stack([np.array(HEADER_BYTES)[choice.mode] for _, choice in streams], axis=1)
    payload = np.stack([choice.payload_bytes() for _, choice in streams], axis=1)
    block_cell = np.repeat(np.arange(len(nnz)), blocks_per_cell)
    header_total = np.bincount(block_cell, header.sum(axis=1), len(nnz)).astype(np.int64)
    payload_total = np.bincount(block_cell, payload.sum(axis=1), len(nnz)).astype(np.int64)
    length = varint_bytes + header_total + payload_total
    frame_start = np.cumsum(length) - length
    header_at = _running(header, frame_start + varint_bytes, first_block, block_cell)
    payload_at = _running(payload, frame_start + varint_bytes + header_total, first_block, block_cell)

    bits_out = np.zeros(int(length.sum()) * 8, np.uint8)
    _put_varints(bits_out, frame_start * 8, nnz, varint_bytes)
    position = within % BLOCK
    for stream, (values, choice) in enumerate(streams):
        _put_headers(bits_out, header_at[:, stream] * 8, choice)
        _put_payload(bits_out, payload_at[:, stream] * 8, choice, values, block, position)
    return np.packbits(bits_out, bitorder="little"), length


def _running(sizes: I64, cell_start: I64, first_block: I64, block_cell: I64) -> I64:
    """Return where each (block, stream) section begins when a cell's sections follow each other from `cell_start`."""
    flat = sizes.reshape(-1)
    before = np.concatenate([[0], np.cumsum(flat)])
    begins = before[:-1].reshape(sizes.shape)
    base: I64 = begins - before[2 * first_block[block_cell]][:, None] + cell_start[block_cell][:, None]
    return base


def _put(bits_out: U8, at: I64, width: I64 | int, values: I64) -> None:
    """Write each value's low `width` bits, least significant first, at bit `at`."""
    widths = np.broadcast_to(np.asarray(width, np.int64), at.shape)
    which = np.repeat(np.arange(len(at)), widths)
    bit = np.arange(len(which)) - (np.cumsum(widths) - widths)[which]
    bits_out[at[which] + bit] = (values[which] >> bit) & 1


def _put_varints(bits_out: U8, at: I64, nnz: I64, varint_bytes: I64) -> None:
    for group in range(5):
        here = varint_bytes > group
        more = (varint_bytes[here] > group + 1).astype(np.int64) << 7
        _put(bits_out, at[here] + 8 * group, 8, ((nnz[here] >> (7 * group)) & 127) | more)


def _put_headers(bits_out: U8, at: I64, choice: BlockChoice) -> None:
    _put(bits_out, at, 8, choice.width | (choice.mode << 6))
    patched, unary = choice.mode == PATCHED, choice.mode == UNARY
    _put(bits_out, at[patched] + 8, 8, choice.exceptions[patched])
    _put(bits_out, at[patched] + 16, 8, choice.high_bits[patched])
    _put(bits_out, at[unary] + 8, 8, choice.unary_bytes[unary])


def _put_payload(bits_out: U8, at: I64, choice: BlockChoice, values: I64, block: I64, position: I64) -> None:
    width = choice.width[block]
    which = np.repeat(np.arange(len(values)), width)
    bit = np.arange(len(which)) - (np.cumsum(width) - width)[which]
    lanes = np.where(choice.size[block] == BLOCK, LANES, 1)
    place = _low_bit(position[which], width[which], lanes[which], bit)
    bits_out[at[block[which]] + place] = (values[which] >> bit) & 1

    tail = at + 8 * choice.low_bytes()
    high = values >> width
    exception = np.flatnonzero((choice.mode[block] == PATCHED) & (high > 0))
    owner = block[exception]
    rank = np.arange(len(exception)) - np.searchsorted(owner, owner)
    entry_bits = POSITION_BITS + choice.high_bits[owner]
    entry = position[exception] | ((high[exception] - 1) << POSITION_BITS)
    _put(bits_out, tail[owner] + rank * entry_bits, entry_bits, entry)

    unary = np.flatnonzero(choice.mode[block] == UNARY)
    owner = block[unary]
    steps = high[unary] + 1
    upto = np.cumsum(steps)
    begin = (upto - steps)[np.searchsorted(owner, owner)]
    bits_out[tail[owner] + upto - begin - 1] = 1


def _low_bit(position: I64, width: I64, lanes: I64, bit: I64) -> I64:
    """Return the bit of the packed section where bit `bit` of value `position` lies."""
    in_lane = position // lanes * width + bit
    place: I64 = ((in_lane >> 5) * lanes + position % lanes) * 32 + (in_lane & 31)
    return place


# --- decode ----------------------------------------------------------------------------------------------------------


def _parse_frame(frame: bytes, n_genes: int) -> tuple[int, int, list[tuple[int, ...]]]:
    """Return (code, nnz, blocks) of one frame; code 0 is sound so far.

    A block is (payload offset in the frame, size, mode, width, exceptions, high bits, unary bytes); gaps and counts
    alternate.
    """
    nnz = shift = at = 0
    while True:
        if at == len(frame):
            return faults.TRUNCATED, 0, []
        byte = frame[at]
        nnz |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            break
        if at == 5:
            return faults.NONZEROS, 0, []
    if nnz > n_genes:
        return faults.NONZEROS, 0, []
    n_blocks = -(-nnz // BLOCK)
    if 2 * n_blocks > len(frame) - at:
        return faults.TRUNCATED, 0, []
    headers: list[tuple[int, ...]] = []
    for stream in range(2 * n_blocks):
        size = min(BLOCK, nnz - (stream >> 1) * BLOCK)
        if at == len(frame):
            return faults.TRUNCATED, 0, []
        mode, width = frame[at] >> 6, frame[at] & 63
        if mode == 3 or width > (MAX_UNARY_WIDTH if mode == UNARY else 32):
            return faults.HEADER, 0, []
        if at + HEADER_BYTES[mode] > len(frame):
            return faults.TRUNCATED, 0, []
        exceptions = high_bits = unary_bytes = 0
        if mode == PATCHED:
            exceptions, high_bits = frame[at + 1], frame[at + 2]
            if not 1 <= exceptions <= size or width + high_bits > 32:
                return faults.HEADER, 0, []
        elif mode == UNARY:
            unary_bytes = frame[at + 1]
            if unary_bytes == 0:
                return faults.HEADER, 0, []
        at += HEADER_BYTES[mode]
        headers.append((size, mode, width, exceptions, high_bits, unary_bytes))
    blocks: list[tuple[int, ...]] = []
    for size, mode, width, exceptions, high_bits, unary_bytes in headers:
        blocks.append((at, size, mode, width, exceptions, high_bits, unary_bytes))
        at += ((size * width + 7) >> 3) + ((exceptions * (POSITION_BITS + high_bits) + 7) >> 3) + unary_bytes
    if at != len(frame):
        return (faults.TRUNCATED if at > len(frame) else faults.TRAILING), 0, []
    return 0, nnz, blocks


def decode_frames(frames: list[bytes], n_genes: int) -> Decoded:
    """Return the cells of `frames`, decoded up to the first that cannot be."""
    fault: tuple[int, int] | None = None
    lengths: list[int] = []
    rows: list[tuple[int, ...]] = []
    start = 0
    for row, frame in enumerate(frames):
        code, nnz, blocks = _parse_frame(frame, n_genes)
        if code:
            fault = (row, code)
            break
        lengths.append(nnz)
        rows.extend((row, start + block[0], *block[1:]) for block in blocks)
        start += len(frame)
    indptr = np.concatenate([[0], np.cumsum(np.array(lengths, np.int64))]).astype(np.int64)
    table = np.array(rows, np.int64).reshape(-1, 8)
    padded = np.frombuffer(b"".join(frames[: len(lengths)]) + bytes(16), np.uint8)
    gaps, gap_faults = _decode_stream(padded, table[0::2])
    counts, count_faults = _decode_stream(padded, table[1::2])
    nnz_of = np.diff(indptr)
    cell = np.repeat(np.arange(len(nnz_of)), nnz_of)
    steps = np.cumsum(gaps + 1)
    begin = np.concatenate([[0], steps])[indptr[:-1]]
    genes = steps - begin[cell] - 1

    # The order of the checks inside a frame: block by block, gaps before counts.
    place = np.arange(len(cell)) - indptr[cell]
    found = [(int(r), int(b), s, int(c)) for s, late in ((0, gap_faults), (2, count_faults)) for r, b, c in late]
    if (beyond := np.flatnonzero(genes >= n_genes)).size:
        found.append((int(cell[beyond[0]]), int(place[beyond[0]] // BLOCK), 1, faults.GENE_RANGE))
    if (over := np.flatnonzero(counts > MAX_COUNT_LESS_ONE)).size:
        found.append((int(cell[over[0]]), int(place[over[0]] // BLOCK), 3, faults.COUNT_OVERFLOW))
    if found:
        row, _, _, code = min(found)
        fault = (row, code)
        indptr = indptr[: row + 1]
    upto = int(indptr[-1])
    return Decoded(indptr, genes[:upto], counts[:upto] + 1, fault)


def _decode_stream(padded: U8, table: I64) -> tuple[I64, list[tuple[int, int, int]]]:
    """Return the values of one stream of all cells and what is wrong with it as (row, block in the row, code).

    `table` has a row per block: row, payload offset, size, mode, width, exceptions, high bits, unary bytes.
    """
    if not len(table):
        return np.zeros(0, np.int64), []
    row, at, size, mode, width, exceptions, high_bits, unary_bytes = table.T
    number = np.arange(len(row)) - np.searchsorted(row, row)
    block = np.repeat(np.arange(len(size)), size)
    first = np.cumsum(size) - size
    position = np.arange(len(block)) - first[block]
    words = _words(padded)
    values = _unpack_low(words, at, size, width, block, position)
    tail = at + ((size * width + 7) >> 3)
    bad: list[tuple[int, int, int]] = []

    if (mode == PATCHED).any():
        owner = np.repeat(np.arange(len(size)), exceptions)
        rank = np.arange(len(owner)) - np.searchsorted(owner, owner)
        bit = rank * (POSITION_BITS + high_bits[owner])
        byte = tail[owner] + (bit >> 3)
        entry = (words[byte].astype(np.uint64) | (words[byte + 4].astype(np.uint64) << np.uint64(32))) >> (
            bit & 7
        ).astype(np.uint64)
        entry &= (np.uint64(1) << (POSITION_BITS + high_bits[owner]).astype(np.uint64)) - np.uint64(1)
        where = (entry & np.uint64(BLOCK - 1)).astype(np.int64)
        high = (entry >> np.uint64(POSITION_BITS)).astype(np.int64) + 1
        backwards = np.zeros(len(owner), bool)
        backwards[1:] = (owner[1:] == owner[:-1]) & (where[1:] <= where[:-1])
        wrong = backwards | (where >= size[owner])
        values[(first[owner] + where)[~wrong]] += (high << width[owner])[~wrong]
        bad += [(int(row[b]), int(number[b]), faults.EXCEPTION) for b in np.unique(owner[wrong])]

    unary = np.flatnonzero(mode == UNARY)
    if len(unary):
        high, wrong_unary = _unary_highs(padded, tail[unary], unary_bytes[unary], size[unary])
        bad += [(int(row[b]), int(number[b]), faults.UNARY) for b in unary[wrong_unary]]
        values[mode[block] == UNARY] += high << np.repeat(width[unary], size[unary])
    return values, bad


def _words(padded: U8) -> npt.NDArray[np.uint32]:
    """Return the little-endian u32 that begins at each byte."""
    wide = padded.astype(np.uint32)
    words = wide[:-3] | (wide[1:-2] << np.uint32(8)) | (wide[2:-1] << np.uint32(16)) | (wide[3:] << np.uint32(24))
    return np.concatenate([words, np.zeros(8, np.uint32)])


def _unpack_low(words: npt.NDArray[np.uint32], at: I64, size: I64, width: I64, block: I64, position: I64) -> I64:
    values = np.zeros(len(block), np.int64)
    some = np.flatnonzero(width[block] > 0)
    owner, position = block[some], position[some]
    lanes = np.where(size[owner] == BLOCK, LANES, 1)
    in_lane = position // lanes * width[owner]
    byte = at[owner] + ((in_lane >> 5) * lanes + position % lanes) * 4
    low = words[byte].astype(np.uint64)
    # Padding reads past the section are harmless: the mask drops those bits.
    next_byte = np.minimum(byte + 4 * lanes, len(words) - 1)
    low |= words[next_byte].astype(np.uint64) << np.uint64(32)
    mask = (np.uint64(1) << width[owner].astype(np.uint64)) - np.uint64(1)
    values[some] = ((low >> (in_lane & 31).astype(np.uint64)) & mask).astype(np.int64)
    return values


def _unary_highs(padded: U8, at: I64, n_bytes: I64, size: I64) -> tuple[I64, npt.NDArray[np.bool_]]:
    """Return the high parts of the unary blocks, and which blocks do not hold exactly one bit per value."""
    which = np.repeat(np.arange(len(at)), n_bytes)
    begin = np.cumsum(n_bytes) - n_bytes
    section = padded[at[which] + np.arange(len(which)) - begin[which]]
    bit = np.flatnonzero(np.unpackbits(section, bitorder="little"))
    owner = which[bit >> 3]
    ones = np.bincount(owner, minlength=len(at))
    wrong = (ones != size) | (section[begin + n_bytes - 1] == 0)
    keep = ~wrong[owner]
    bit, owner = bit[keep], owner[keep]
    before = np.concatenate([[-1], bit[:-1]]) if len(bit) else bit
    starts = np.ones(len(bit), bool)
    starts[1:] = owner[1:] != owner[:-1]
    before = np.where(starts, begin[owner] * 8 - 1, before)
    high = np.zeros(int(size.sum()), np.int64)
    high[np.repeat(~wrong, size)] = bit - before - 1
    return high, wrong
