"""Which bytes of an object are asked for together (floor 2, pure)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["BLOCK_BYTES", "GAP_BLOCKS", "RANGE_BLOCKS", "blocks_of", "plan_ranges"]

BLOCK_BYTES = 1 << 16  # what the cache keeps as one piece: 64 KiB
# a request costs a round trip of some 20 ms, in which about this much more could have come
GAP_BLOCKS = 4
RANGE_BLOCKS = 128  # 8 MiB: longer stretches are cut, so that they come side by side, and a retry repeats little

I64 = npt.NDArray[np.int64]


def blocks_of(start: npt.NDArray[np.uint64], stop: npt.NDArray[np.uint64]) -> I64:
    """Return the numbers of the blocks that spans of bytes touch, int64, ascending, each once; empty spans touch none.

    Examples
    --------
    >>> blocks_of(np.array([5, 65530], np.uint64), np.array([9, 65540], np.uint64)).tolist()
    [0, 1]
    """
    held = stop > start
    first = (start[held] // BLOCK_BYTES).astype(np.int64)
    last = ((stop[held] - np.uint64(1)) // BLOCK_BYTES).astype(np.int64)
    found = [first]
    # few spans reach beyond a second block, so this turns once or twice
    while (more := first < last).any():
        first, last = first[more] + 1, last[more]
        found.append(first)
    return np.unique(np.concatenate(found))


def plan_ranges(blocks: I64) -> list[tuple[int, int]]:
    """Return ranges [first, stop) of block numbers that cover `blocks`, few and of bounded length.

    Parameters
    ----------
    blocks
        int64, ascending, each once.

    Returns
    -------
    list of (first, stop)
        Blocks at most `GAP_BLOCKS` apart are in one range, what lies between them too; none is longer than
        `RANGE_BLOCKS`.

    Examples
    --------
    >>> plan_ranges(np.array([3, 4, 6, 100]))
    [(3, 7), (100, 101)]
    """
    if not len(blocks):
        return []
    cuts = np.flatnonzero(np.diff(blocks) > GAP_BLOCKS + 1)
    firsts = blocks[np.concatenate([[0], cuts + 1])].tolist()
    stops = (blocks[np.concatenate([cuts, [len(blocks) - 1]])] + 1).tolist()
    return [
        (at, min(at + RANGE_BLOCKS, stop))
        for first, stop in zip(firsts, stops, strict=True)
        for at in range(first, stop, RANGE_BLOCKS)
    ]
