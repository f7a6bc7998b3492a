"""The cells of a component as row ids, contiguous runs as ranges (floor 4, mixture). Knows numbers only."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

__all__ = ["Cells", "Segment"]

I64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Segment:
    """Row ids of one store, ascending and unique.

    Attributes
    ----------
    store : int
        Position of the store in the plan.
    rows : range or int64 array
        A range where they are contiguous, which takes no memory.
    """

    store: int
    rows: range | I64

    @classmethod
    def of(cls, store: int, rows: range | I64) -> Segment:
        """Return the segment; contiguous arrays become ranges."""
        if not isinstance(rows, range) and len(rows) and int(rows[-1]) - int(rows[0]) + 1 == len(rows):
            rows = range(int(rows[0]), int(rows[-1]) + 1)
        return cls(store, rows)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def array(self) -> I64:
        """The row ids as an int64 array."""
        if isinstance(self.rows, range):
            return np.arange(self.rows.start, self.rows.stop, dtype=np.int64)
        return self.rows

    def take(self, index: I64) -> I64:
        """Return the row ids at positions of this segment, int64[k]."""
        return index + self.rows.start if isinstance(self.rows, range) else self.rows[index]

    def keep(self, mask: npt.NDArray[np.bool_]) -> Segment:
        """Return the rows where `mask` is true."""
        return Segment.of(self.store, self.array[mask])


@dataclass(frozen=True)
class Cells:
    """The cells of one component: segments, one after the other.

    Index i of a component is the i-th row id over its segments.
    """

    segments: tuple[Segment, ...]

    def __len__(self) -> int:
        return sum(map(len, self.segments))

    @cached_property
    def starts(self) -> I64:
        """Index at which each segment begins, and the number of cells; int64[n_segments + 1]."""
        return np.concatenate([[0], np.cumsum([len(s) for s in self.segments])]).astype(np.int64)

    def take(self, index: I64) -> tuple[I64, I64]:
        """Return store and row id of the cells at `index`; int64[k] each."""
        if len(self.segments) == 1:
            segment = self.segments[0]
            return np.full(len(index), segment.store, dtype=np.int64), segment.take(index)
        store = np.empty(len(index), dtype=np.int64)
        row = np.empty(len(index), dtype=np.int64)
        of = np.searchsorted(self.starts, index, side="right") - 1
        for number in np.unique(of):
            here = of == number
            segment = self.segments[number]
            store[here] = segment.store
            row[here] = segment.take(index[here] - self.starts[number])
        return store, row

    def keep(self, mask: npt.NDArray[np.bool_]) -> Cells:
        """Return the cells where `mask`, bool[n_cells], is true; segments left empty go."""
        parts = [
            segment.keep(mask[start : start + len(segment)])
            for segment, start in zip(self.segments, self.starts[:-1].tolist(), strict=True)
        ]
        return Cells(tuple(part for part in parts if len(part)))

    def rows(self, store: int) -> I64:
        """Return the row ids in one store, int64, ascending, unique."""
        parts = [segment.array for segment in self.segments if segment.store == store]
        return np.unique(np.concatenate(parts)) if parts else np.empty(0, dtype=np.int64)

    def digest(self, stores: Sequence[str]) -> str:
        """Return a hash of the row ids and of the digests of their stores."""
        state = hashlib.blake2b(digest_size=16)
        for segment in self.segments:
            rows = segment.rows
            state.update(f"{stores[segment.store]}:{len(segment)}:".encode())
            if isinstance(rows, range):
                state.update(f"range({rows.start},{rows.stop})".encode())
            else:
                state.update(np.ascontiguousarray(rows, dtype="<i8").tobytes())
        return state.hexdigest()
