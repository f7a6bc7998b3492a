"""Cells without genes that have no token (floor 1, kernel). Knows arrays; no vocabulary."""

from __future__ import annotations

import numpy as np

from cellmill.kernel.buffers import empty
from cellmill.kernel.checks import count_threads
from cellmill.kernel.implementation import chosen
from cellmill.kernel.token_cells import TokenCells

__all__ = ["known_cells"]


def known_cells(cells: TokenCells, *, zeros: bool = False, threads: int = 0) -> TokenCells:
    """Return cells without the entries whose column has no token (below 0) and, unless `zeros`, those of count 0.

    Examples
    --------
    >>> cells = TokenCells([0, 2, 3], [0, 1, 1], [5, 6, 7], token_of=np.array([-1, 3]), keys=np.array([1, 2]))
    >>> made = known_cells(cells)
    >>> made.indptr.tolist(), made.columns.tolist(), made.counts.tolist()
    ([0, 1, 2], [1, 1], [6, 7])
    """
    n_threads = count_threads(threads)
    indptr = np.zeros(len(cells) + 1, dtype=np.int64)
    sizes = np.empty(len(cells), dtype=np.int64)
    chosen.count_known(cells, zeros, sizes, n_threads)
    np.cumsum(sizes, out=indptr[1:])
    columns, counts = empty(int(indptr[-1]), np.int32), empty(int(indptr[-1]), np.uint32)
    chosen.write_known(cells, zeros, indptr, columns, counts, n_threads)
    return TokenCells.of_kernel(indptr, columns, counts, token_of=cells.token_of, keys=cells.keys)
