"""Cells without genes that have no token, in NumPy (floor 1, kernel)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from cellmill.kernel.token_cells import TokenCells

__all__ = ["count_known", "write_known"]

I64 = npt.NDArray[np.int64]


def count_known(cells: TokenCells, zeros: bool, sizes: I64, threads: int) -> None:
    """Write how many entries of each cell have a token and, unless `zeros`, a count; `threads` is ignored."""
    del threads
    upto = np.concatenate([[0], np.cumsum(_known(cells, zeros))])
    sizes[:] = np.diff(upto[cells.indptr])


def write_known(
    cells: TokenCells,
    zeros: bool,
    indptr: I64,
    columns: npt.NDArray[np.int32],
    counts: npt.NDArray[np.uint32],
    threads: int,
) -> None:
    """Write these entries; `threads` is ignored."""
    del threads, indptr
    known = _known(cells, zeros)
    columns[:], counts[:] = cells.columns[known], cells.counts[known]


def _known(cells: TokenCells, zeros: bool) -> npt.NDArray[np.bool_]:
    known = cells.token_of[cells.columns] >= 0
    return known if zeros else known & (cells.counts > 0)
