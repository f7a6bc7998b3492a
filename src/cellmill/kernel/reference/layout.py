"""Layout of a frame: constants, and the choice of each block's mode and width (floor 1, kernel).

The words are those of docs/reference/format.md, "Frames". Knows numbers of bits; knows neither genes nor bytes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = [
    "BLOCK",
    "HEADER_BYTES",
    "LANES",
    "MAX_UNARY_BYTES",
    "MAX_UNARY_WIDTH",
    "PATCHED",
    "PLAIN",
    "POSITION_BITS",
    "UNARY",
    "BlockChoice",
    "bit_length",
    "choose_blocks",
]

I64 = npt.NDArray[np.int64]

BLOCK = 128
LANES = 4
POSITION_BITS = 7
PLAIN, PATCHED, UNARY = 0, 1, 2
HEADER_BYTES = (1, 3, 2)
MAX_UNARY_WIDTH = 16
MAX_UNARY_BYTES = 255


class BlockChoice(NamedTuple):
    """What the encoder decided, one number per block; all int64[blocks].

    `exceptions` and `high_bits` are 0 but in patched blocks, `unary_bytes` is 0 but in unary ones.
    """

    size: I64
    mode: I64
    width: I64
    exceptions: I64
    high_bits: I64
    unary_bytes: I64

    def low_bytes(self) -> I64:
        """Return the bytes of each block's packed low bits."""
        return (self.size * self.width + 7) >> 3

    def exception_bytes(self) -> I64:
        """Return the bytes of each block's exceptions."""
        return (self.exceptions * (POSITION_BITS + self.high_bits) + 7) >> 3

    def payload_bytes(self) -> I64:
        """Return the bytes of each block without its header."""
        return self.low_bytes() + self.exception_bytes() + self.unary_bytes


def bit_length(x: I64) -> I64:
    """Return the number of bits of each x in 0..2^53, 0 for 0."""
    return np.frexp(x.astype(np.float64))[1].astype(np.int64)


def choose_blocks(values: I64, block: I64, n_blocks: int) -> BlockChoice:
    """Return the smallest encoding of each block of `values`, int64[nonzeros] in 0..2^32-1; `block` is ascending.

    Notes
    -----
    Candidates in this order: plain, patched by ascending width, unary by ascending width; the first of the smallest
    wins.
    """
    size = np.bincount(block, minlength=n_blocks).astype(np.int64)
    first = np.searchsorted(block, np.arange(n_blocks))
    largest = np.maximum.reduceat(values, first) if n_blocks else np.zeros(0, np.int64)
    full = bit_length(largest)
    highest = int(full.max(initial=0))
    bits = bit_length(values)
    histogram = np.bincount(block * 34 + bits, minlength=n_blocks * 34).reshape(n_blocks, 34)

    never = np.int64(1) << 40
    costs = [HEADER_BYTES[PLAIN] + ((size * full + 7) >> 3)]
    modes, widths = [(PLAIN, -1)], [full]
    exceptions, high_bits, unary_bytes = [np.zeros_like(size)], [np.zeros_like(size)], [np.zeros_like(size)]
    for width in range(highest):
        count = histogram[:, width + 1 :].sum(axis=1).astype(np.int64)
        high = bit_length(np.maximum((largest >> width) - 1, 0))
        cost = HEADER_BYTES[PATCHED] + ((size * width + 7) >> 3) + ((count * (POSITION_BITS + high) + 7) >> 3)
        costs.append(np.where(width < full, cost, never))
        modes.append((PATCHED, width))
        widths.append(np.full_like(size, width))
        exceptions.append(count)
        high_bits.append(high)
        unary_bytes.append(np.zeros_like(size))
    for width in range(min(highest, MAX_UNARY_WIDTH) + 1):
        unary = (size + np.add.reduceat(values >> width, first) + 7) >> 3 if n_blocks else size
        cost = HEADER_BYTES[UNARY] + ((size * width + 7) >> 3) + unary
        costs.append(np.where((unary <= MAX_UNARY_BYTES) & (width <= full), cost, never))
        modes.append((UNARY, width))
        widths.append(np.full_like(size, width))
        exceptions.append(np.zeros_like(size))
        high_bits.append(np.zeros_like(size))
        unary_bytes.append(unary)

    best = np.argmin(np.stack(costs), axis=0) if n_blocks else np.zeros(0, np.int64)
    at = np.arange(n_blocks)
    mode_of = np.array([mode for mode, _ in modes], dtype=np.int64)
    return BlockChoice(
        size, mode_of[best], *(np.stack(column)[best, at] for column in (widths, exceptions, high_bits, unary_bytes))
    )
