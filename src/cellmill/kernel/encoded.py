"""Rows of a store that are decoded where they are used, fused with what is made of them (floor 1, kernel).

Knows the native kernel's frames. Must not know files, nor what is made of counts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from cellmill.kernel.checks import count_threads
from cellmill.kernel.faults import frame_error
from cellmill.kernel.gathering import Gathered, RowTable
from cellmill.kernel.implementation import IMPLEMENTATION, chosen

__all__ = ["EncodedRows"]

I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]


class EncodedRows:
    """A batch of cells of which the sizes are known and the counts are not decoded yet.

    A kernel that takes `TokenCells` decodes some cells, makes their tokens and goes on, so that the counts of a batch
    are in no array at all: they are written to and read from the nearest caches. Whoever asks for the counts gets them
    by `gather`, which is what `gather_rows` gives.

    Parameters
    ----------
    table
        Holds the shards of all rows.
    rows : i64, (m,)
        Row ids, any order, repeats allowed.
    n_genes
        Number of genes of the store.
    head
        Model of the store's head genes; None where it has none.
    explained
        Makes of an error whose `.position` is a row of `rows` the one that is raised.
    after
        Called when cells were decoded.

    Raises
    ------
    FrameError
        For the first row whose bytes do not begin as a frame does.
    IndexError
        For a row that the table does not have.
    """

    def __init__(
        self,
        table: RowTable,
        rows: I64,
        *,
        n_genes: int,
        head: Any = None,
        explained: Callable[[Any], Exception] = lambda error: error,
        after: Callable[[], None] = lambda: None,
    ) -> None:
        self.n_genes = n_genes
        self._explained, self._after = explained, after
        self._counts: Gathered | None = None
        self.made = chosen.EncodedCells(table.made, rows, n_genes, head)
        self.raise_for(self.made.fault)
        self.indptr: I64 = self.made.indptr

    @staticmethod
    def possible() -> bool:
        """Whether the kernel in use can do so; the reference decodes first."""
        return IMPLEMENTATION == "native"

    @property
    def decoded(self) -> bool:
        """Whether `gather` was called."""
        return self._counts is not None

    @property
    def totals(self) -> U64:
        """Sum of all counts of each cell, u64 (m,); of cells that no kernel has decoded yet it is found out now.

        Raises as `gather` does.
        """
        totals: U64 = self.made.totals
        if (totals == 0).any() and (np.diff(self.indptr)[totals == 0] > 0).any():  # counts are 1 or more
            self.gather()
            totals = self.made.totals
        return totals

    def gather(self) -> Gathered:
        """Return the cells as CSR, decoded once.

        Raises
        ------
        FrameError
            For the first row whose bytes are not a frame.
        """
        if self._counts is None:
            fault, indptr, indices, values = self.made.gather(count_threads(0))
            self.raise_for(fault)
            self._counts = Gathered(indptr, indices, values, self.made.totals)
        return self._counts

    def raise_for(self, fault: tuple[int, int] | None) -> None:
        """Call when a kernel has decoded the cells: raises what it says of the first that is none; nothing for None.

        Raises
        ------
        FrameError
        """
        self._after()
        if fault is not None:
            raise self._explained(frame_error(*fault, n_genes=self.n_genes)) from None
