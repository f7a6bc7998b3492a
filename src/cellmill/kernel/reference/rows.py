"""Panels and tables of rows in NumPy (floor 1, kernel): where the frames of cells lie, by row id."""

from __future__ import annotations

import mmap
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["Panel", "RowTable", "ShardSpan"]

U8 = npt.NDArray[np.uint8]
U16 = npt.NDArray[np.uint16]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
U32 = npt.NDArray[np.uint32]
U64 = npt.NDArray[np.uint64]


class Panel(NamedTuple):
    """The output column of each gene, -1 to drop it, and how many columns there are."""

    column_of: I32
    n_columns: int


class ShardSpan(NamedTuple):
    """Frames of a shard and where each begins; see `cellmill.kernel.RowTable.put`."""

    frames: U8
    starts: U32
    steps: U16

    def start_of(self, cell: I64) -> I64:
        """Return where the frames of cells begin, int64."""
        if len(self.steps) == 0:
            return self.starts[cell].astype(np.int64)
        return np.asarray(self.starts[cell >> 4].astype(np.int64) + self.steps[cell])


class RowTable:
    """As `cellmill.kernel.RowTable`."""

    def __init__(self, firsts: I64) -> None:
        if len(firsts) == 0 or firsts[0] != 0 or (np.diff(firsts) < 0).any():
            raise ValueError("firsts must start at 0 and never fall")
        self._firsts = firsts
        self._shards: dict[int, ShardSpan] = {}
        self._numbers: dict[int, U64] = {}

    def put(self, shard: int, frames: U8, starts: U32, steps: U16) -> None:
        """Put a shard in."""
        if not 0 <= shard < len(self._firsts) - 1:
            raise ValueError(f"there is no shard {shard}")
        entries = int(self._firsts[shard + 1] - self._firsts[shard]) + 1
        wanted = (entries, 0) if len(steps) == 0 else ((entries + 15) // 16, entries)
        if (len(starts), len(steps)) != wanted:
            raise ValueError(f"the offsets of shard {shard} do not fit its cells")
        self._shards[shard] = ShardSpan(frames, starts, steps)

    def missing(self, rows: I64) -> list[int]:
        """Return the shards of these rows that were not put in."""
        return [int(shard) for shard in np.unique(self._shard_of(rows)) if int(shard) not in self._shards]

    def put_numbers(self, shard: int, numbers: U64) -> None:
        """Put the numbers of a shard's cells in."""
        if not 0 <= shard < len(self._firsts) - 1:
            raise ValueError(f"there is no shard {shard}")
        if len(numbers) != self._firsts[shard + 1] - self._firsts[shard]:
            raise ValueError(f"the numbers of shard {shard} do not fit its cells")
        self._numbers[shard] = numbers

    def missing_numbers(self, rows: I64) -> list[int]:
        """Return the shards of these rows whose numbers were not put in."""
        return [int(shard) for shard in np.unique(self._shard_of(rows)) if int(shard) not in self._numbers]

    def numbers(self, rows: I64) -> U64:
        """Return the number of each row."""
        out = np.empty(len(rows), dtype=np.uint64)
        shard_of = self._shard_of(rows)
        for shard in np.unique(shard_of):
            if int(shard) not in self._numbers:
                raise ValueError(f"the numbers of shard {shard} were not put in")
            here = shard_of == shard
            out[here] = self._numbers[int(shard)][rows[here] - self._firsts[shard]]
        return out

    def will_need(self, rows: I64) -> None:
        """Ask the system to read the mapped pages of these rows."""
        shards, shard_of, start, stop = self.find(rows)
        for number, begin, end in zip(shard_of.tolist(), start.tolist(), stop.tolist(), strict=True):
            frames = shards[number]
            root = frames
            while isinstance(root.base, np.ndarray):
                root = root.base
            if 0 <= begin < end <= len(frames) and hasattr(root.base, "madvise"):  # what holds a mapped file
                at = frames.ctypes.data - root.ctypes.data + begin
                page = at // mmap.PAGESIZE * mmap.PAGESIZE
                root.base.madvise(mmap.MADV_WILLNEED, page, at - page + end - begin)

    def find(self, rows: I64) -> tuple[list[U8], I64, I64, I64]:
        """Return (shards, shard of each row, start, stop) as `gather` takes them."""
        shard_of = self._shard_of(rows)
        start, stop = np.empty(len(rows), np.int64), np.empty(len(rows), np.int64)
        used, local = np.unique(shard_of, return_inverse=True)
        for number in used.tolist():
            if number not in self._shards:
                raise ValueError(f"shard {number} was not put in")
            here = shard_of == number
            cells = rows[here] - self._firsts[number]
            start[here] = self._shards[number].start_of(cells)
            stop[here] = self._shards[number].start_of(cells + 1)
        return [self._shards[int(number)].frames for number in used], local.astype(np.int64), start, stop

    def _shard_of(self, rows: I64) -> I64:
        if len(rows) and (int(rows.min()) < 0 or int(rows.max()) >= int(self._firsts[-1])):
            raise IndexError(f"rows {rows.min()}..{rows.max()} are not all in the table")
        return np.searchsorted(self._firsts, rows, side="right").astype(np.int64) - 1
