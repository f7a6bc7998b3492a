"""Head genes in NumPy: counts coded by rANS against one frequency table a gene (floor 1, kernel).

Knows the layout of docs/reference/format.md, "Head genes". Every byte that is decoded is taken as hostile.
Knows neither how tables are fitted, nor frames, nor files. Each step does one gene of all cells at once.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cellmill.kernel import faults

__all__ = [
    "FIRST_STATE",
    "HEADER",
    "MAGIC",
    "MAX_GENES",
    "MODEL_FAULTS",
    "PROBABILITY_BITS",
    "SYMBOLS",
    "VERSION",
    "HeadModel",
    "bit_length",
    "model_fault",
    "parse_tables",
    "raw_bits",
    "symbols_of",
]

I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]
U32 = npt.NDArray[np.uint32]
U64 = npt.NDArray[np.uint64]

PROBABILITY_BITS = 14
TOTAL = 1 << PROBABILITY_BITS
SYMBOLS = 124  # Of counts up to 2^32-1; the escape of a gene is the symbol after its last literal one.
FIRST_STATE = 1
LOWEST = 1 << 16  # Below it a state takes up a word, while there are words.
ESCAPE_BITS = 32

MAGIC, VERSION, MAX_GENES = b"CELLHEAD", 1, 65_535
HEADER = struct.Struct("<8sHHI")
HASH_BYTES = 8

MODEL_FAULTS = {
    1: "it ends before its last table",
    2: "it does not begin as a model of head genes of version 1 does",
    3: "its number of genes is 0 or above 65,535",
    4: "a gene has no literal symbol, or more than 124",
    5: "a frequency is 0, is not a varint of two bytes at most, or the frequencies of a gene pass 2^14 - 1",
    6: "bytes are left over after its last table",
    7: "its hash is not that of its bytes",
}


class _ModelError(Exception):
    """Carries the number of a fault in MODEL_FAULTS."""

    def __init__(self, code: int) -> None:
        super().__init__(MODEL_FAULTS[code])
        self.code = code


def _parse(data: bytes) -> list[I64]:
    if len(data) < HEADER.size + HASH_BYTES:
        raise _ModelError(1)
    magic, version, zero, n_genes = HEADER.unpack_from(data)
    if (magic, version, zero) != (MAGIC, VERSION, 0):
        raise _ModelError(2)
    if not 1 <= n_genes <= MAX_GENES:
        raise _ModelError(3)
    at, end = HEADER.size, len(data) - HASH_BYTES
    tables = []
    for _ in range(n_genes):
        if at >= end:
            raise _ModelError(1)
        literals = data[at]
        at += 1
        if not 1 <= literals <= SYMBOLS:
            raise _ModelError(4)
        rest = []
        for _ in range(literals):
            long = at < end and data[at] >= 128
            if at + long >= end:
                raise _ModelError(1)
            frequency = data[at] & 127 | (data[at + 1] << 7 if long else 0)
            if frequency == 0 or frequency >= TOTAL:
                raise _ModelError(5)
            rest.append(frequency)
            at += 1 + long
        if sum(rest) >= TOTAL:
            raise _ModelError(5)
        tables.append(np.array([TOTAL - sum(rest), *rest], np.int64))
    if at != end:
        raise _ModelError(6)
    return tables


def parse_tables(data: bytes) -> list[I64]:
    """Return the frequencies of each gene's literal symbols and of its escape, which add up to 2^14.

    Raises
    ------
    ValueError
        When the bytes are not a model; its hash is not looked at.
    """
    try:
        return _parse(data)
    except _ModelError as error:
        raise ValueError(f"the model of the head genes cannot be read: {error}") from None


def model_fault(data: bytes) -> int:
    """Return 0 when `data` is a model, else what is wrong as a key of MODEL_FAULTS; its hash is not looked at."""
    try:
        _parse(data)
    except _ModelError as error:
        return error.code
    return 0


def bit_length(x: I64) -> I64:
    """Return the number of bits of each x in 0..2^53, 0 for 0."""
    return np.frexp(x.astype(np.float64))[1].astype(np.int64)


def symbols_of(counts: I64) -> I64:
    """Return the symbol, 0..123, of each count in 0..2^32-1: itself below 8, else its leading bit and the two below."""
    exponent = np.maximum(bit_length(counts) - 1, 3)
    return np.where(counts < 8, counts, 8 + 4 * (exponent - 3) + (counts >> (exponent - 2) & 3))


def raw_bits(symbols: I64) -> I64:
    """Return how many bits of a count its symbol does not say."""
    return np.where(symbols < 8, 0, (symbols - 8 >> 2) + 1)


class _Sections(NamedTuple):
    """Where the decoder stands in each of its cells; it is changed in place.

    `state` u64, `at` and `end` i64 (bytes), `fault` i64 (0: none yet).
    """

    data: U8
    state: U64
    at: I64
    end: I64
    fault: I64


class HeadModel:
    """The frequency tables of head genes; codes the counts of many cells by them.

    Parameters
    ----------
    data : bytes
        A model, its hash included; the hash is not looked at.

    Raises
    ------
    ValueError
        When the bytes are not a model.
    """

    def __init__(self, data: bytes) -> None:
        self._tables = parse_tables(bytes(data))
        self._starts = [np.concatenate([[0], np.cumsum(table)]) for table in self._tables]

    @property
    def n_genes(self) -> int:
        """How many head genes there are."""
        return len(self._tables)

    def encode(self, indptr: I64, indices: I64, values: U32) -> tuple[U8, U64]:
        """Return (sections, offsets): section i of the cells is sections[offsets[i]:offsets[i + 1]].

        Raises
        ------
        ValueError
            When a cell's genes do not ascend, are not head genes, or have a count of 0.
        """
        _check_cells(indptr, indices, values, self.n_genes)
        n_cells = len(indptr) - 1
        cell = np.repeat(np.arange(n_cells), np.diff(indptr))
        order = np.argsort(indices, kind="stable")
        bounds = np.searchsorted(indices[order], np.arange(self.n_genes + 1))
        state = np.full(n_cells, FIRST_STATE, np.uint64)
        words: list[tuple[I64, U64]] = []
        counts = np.zeros(n_cells, np.int64)
        for gene in range(self.n_genes - 1, -1, -1):
            here = order[bounds[gene] : bounds[gene + 1]]
            counts[:] = 0
            counts[cell[here]] = values[here]
            self._encode_gene(gene, counts, state, words)
        return _join(state, words)

    def _encode_gene(self, gene: int, counts: I64, state: U64, words: list[tuple[I64, U64]]) -> None:
        table, start = self._tables[gene], self._starts[gene]
        literals = len(table) - 1
        symbols = symbols_of(counts)
        escaped = symbols >= literals
        bits = np.where(escaped, ESCAPE_BITS, raw_bits(symbols))
        symbols = np.where(escaped, literals, symbols)
        # What is read last is written first: the low bits, the high bits, the symbol.
        for shift, width in ((0, np.minimum(bits, 16)), (16, np.maximum(bits - 16, 0))):
            _emit(state, np.uint64(1) << (32 - width).astype(np.uint64), words)
            mask = (np.uint64(1) << width.astype(np.uint64)) - np.uint64(1)
            state[:] = state << width.astype(np.uint64) | (counts.astype(np.uint64) >> np.uint64(shift)) & mask
        frequency = table[symbols].astype(np.uint64)
        _emit(state, frequency << np.uint64(18), words)
        whole, part = np.divmod(state, frequency)
        state[:] = (whole << np.uint64(PROBABILITY_BITS)) + part + start[symbols].astype(np.uint64)

    def decode(self, sections: U8, offsets: U64, capacity: int | I64) -> tuple[tuple[int, int] | None, I64, I32, U32]:
        """Return (fault, indptr, indices, values) of the cells whose sections these are.

        `fault` is None, or (cell, code) of the first that is none or has more than `capacity` nonzeros (one number,
        or one for each cell); the arrays then hold the cells before it. Codes are those of `cellmill.kernel.faults`.
        """
        sections = np.asarray(sections, np.uint8)
        bounds = offsets.astype(np.int64)
        if len(bounds) < 1 or (np.diff(bounds) < 0).any() or bounds[-1] > len(sections):
            raise ValueError("offsets must never fall and end inside the sections")
        at = _open(sections, bounds)
        n_cells = len(at.state)
        found = np.zeros(n_cells, np.int64)
        cells, genes, counts = [], [], []
        for gene in range(self.n_genes):
            count, zero_escape = self._decode_gene(gene, at)
            live = at.fault == 0
            at.fault[live & zero_escape] = faults.HEAD_ESCAPE
            at.fault[live & ~zero_escape & (count > 0) & (found >= capacity)] = faults.NONZEROS
            here = np.flatnonzero((at.fault == 0) & (count > 0))
            found[here] += 1
            cells.append(here)
            genes.append(np.full(len(here), gene, np.int32))
            counts.append(count[here].astype(np.uint32))
        live = at.fault == 0
        at.fault[live & (at.at < at.end)] = faults.TRAILING
        at.fault[live & (at.at >= at.end) & (at.state != FIRST_STATE)] = faults.HEAD_STATE
        bad = np.flatnonzero(at.fault)
        kept = int(bad[0]) if len(bad) else n_cells
        cell = np.concatenate(cells)
        order = np.argsort(cell, kind="stable")
        order = order[cell[order] < kept]
        fault = (kept, int(at.fault[kept])) if len(bad) else None
        indptr = np.concatenate([[0], np.cumsum(found[:kept])]).astype(np.int64)
        return fault, indptr, np.concatenate(genes)[order], np.concatenate(counts)[order]

    def _decode_gene(self, gene: int, at: _Sections) -> tuple[I64, npt.NDArray[np.bool_]]:
        """Return (count, whether that is an escape of 0) of one gene in every cell."""
        table, start = self._tables[gene], self._starts[gene]
        state = at.state
        slot = (state & np.uint64(TOTAL - 1)).astype(np.int64)
        symbols = np.searchsorted(start, slot, side="right") - 1
        state[:] = table[symbols].astype(np.uint64) * (state >> np.uint64(PROBABILITY_BITS)) + (
            slot - start[symbols]
        ).astype(np.uint64)
        _refill(at)
        escaped = symbols == len(table) - 1
        bits = np.where(escaped, ESCAPE_BITS, raw_bits(symbols))
        raw = np.zeros(len(state), np.int64)
        for width in (np.maximum(bits - 16, 0), np.minimum(bits, 16)):
            mask = (np.int64(1) << width) - 1
            raw = raw << width | state.astype(np.int64) & mask
            state[:] = state >> width.astype(np.uint64)
            _refill(at)
        coded = np.where(symbols < 8, symbols, (4 + ((symbols - 8) & 3) << np.where(escaped, 0, bits)) | raw)
        count = np.where(escaped, raw, coded)
        return count, escaped & (raw == 0)


def _emit(state: U64, limit: U64, words: list[tuple[I64, U64]]) -> None:
    """Move the low word of each state that has reached its limit to `words`."""
    full = np.flatnonzero(state >= limit)
    if len(full):
        words.append((full, state[full] & np.uint64(LOWEST - 1)))
        state[full] >>= np.uint64(16)


def _refill(at: _Sections) -> None:
    """Take a word into each state that is low, where there is one."""
    low = np.flatnonzero((at.state < LOWEST) & (at.at < at.end))
    if len(low):
        where = at.at[low]
        word = at.data[where].astype(np.uint64) | at.data[where + 1].astype(np.uint64) << np.uint64(8)
        at.state[low] = at.state[low] << np.uint64(16) | word
        at.at[low] += 2


def _join(state: U64, words: list[tuple[I64, U64]]) -> tuple[U8, U64]:
    """Return (sections, offsets): of each cell its last state in as few bytes as hold it, then words, last first."""
    n_cells = len(state)
    state_bytes = (bit_length(state.astype(np.int64)) + 7) >> 3
    cell = np.concatenate([np.zeros(0, np.int64), *(cells for cells, _ in reversed(words))])
    word = np.concatenate([np.zeros(0, np.uint64), *(low for _, low in reversed(words))])
    n_words = np.bincount(cell, minlength=n_cells)
    offsets = np.concatenate([[0], np.cumsum(state_bytes + 2 * n_words)]).astype(np.int64)
    sections = np.zeros(int(offsets[-1]), np.uint8)
    for byte in range(4):
        here = np.flatnonzero(state_bytes > byte)
        sections[offsets[here] + byte] = state[here] >> np.uint64(8 * byte) & np.uint64(255)
    order = np.argsort(cell, kind="stable")
    cell, word = cell[order], word[order]
    place = offsets[cell] + state_bytes[cell] + 2 * (np.arange(len(cell)) - (np.cumsum(n_words) - n_words)[cell])
    sections[place] = word & np.uint64(255)
    sections[place + 1] = word >> np.uint64(8)
    return sections, offsets.astype(np.uint64)


def _open(data: U8, bounds: I64) -> _Sections:
    """Return the first state of every cell: all of one or two bytes, three of an odd length, else four."""
    begin, end = bounds[:-1], bounds[1:]
    length = end - begin
    state_bytes = np.where(length < 3, length, 4 - length % 2)
    state = np.zeros(len(length), np.uint64)
    for byte in range(4):
        here = np.flatnonzero(state_bytes > byte)
        state[here] |= data[begin[here] + byte].astype(np.uint64) << np.uint64(8 * byte)
    fault = np.where(length == 0, faults.TRUNCATED, 0)
    short = (length > 0) & (bit_length(state.astype(np.int64)) + 7 >> 3 != state_bytes)
    fault = np.where(short, faults.HEAD_STATE, fault).astype(np.int64)
    # A cell at fault reads no more, so that it cannot leave its bytes.
    return _Sections(data, state, np.where(fault == 0, begin + state_bytes, end), end, fault)


def _check_cells(indptr: I64, indices: I64, values: U32, n_genes: int) -> None:
    if len(indptr) < 1 or indptr[0] != 0 or indptr[-1] != len(indices) or (np.diff(indptr) < 0).any():
        raise ValueError("indptr must start at 0, never fall, and end at the number of nonzeros")
    if len(indices) != len(values):
        raise ValueError(f"indices and values must be of one length, found {len(indices)} and {len(values)}")
    falls = np.zeros(len(indices), bool)
    falls[1:] = indices[1:] <= indices[:-1]
    falls[indptr[:-1][indptr[:-1] < len(indices)]] = False
    bad = np.flatnonzero((indices < 0) | (indices >= n_genes) | (values == 0) | falls)
    if len(bad):
        cell = int(np.searchsorted(indptr, bad[0], side="right")) - 1
        raise ValueError(
            f"cell {cell}: head genes must be ascending, each once, in 0..{n_genes - 1}, and counts must be 1 or more"
        )
