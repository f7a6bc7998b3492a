"""Cells a block at a time, measured on every core (floor 4).

Knows how cells are read and handed to threads; must not know what is measured.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import numpy.typing as npt
from scipy import sparse

from cellmill.events import emit
from cellmill.kernel.checks import count_threads

if TYPE_CHECKING:
    from cellmill.store import Store

__all__ = ["F64", "I64", "CellRows", "Cells", "column_sums", "measure_blocks", "n_cells_of"]

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
CellRows = range | I64
Cells = Sequence[tuple["Store", CellRows]]
"""Stores, each with the rows of it that are looked at; a range stands for many rows without listing them."""
T = TypeVar("T")

# A task of a thread: the same whatever the number of threads, so that sums come out the same to the last bit.
_SLICE_CELLS = 1024


def n_cells_of(cells: Cells) -> int:
    """Return how many cells there are."""
    return sum(len(rows) for _, rows in cells)


def measure_blocks(
    cells: Cells,
    measure: Callable[[sparse.csr_array], T],
    *,
    genes: Sequence[str] | None = None,
    block_cells: int,
    threads: int = 0,
    told: str,
) -> Iterator[T]:
    """Yield what `measure` returns of each slice of cells, in the order of the cells.

    Parameters
    ----------
    measure
        Called in threads, with the counts of up to 1,024 cells: CSR, float64, (n, n_genes). It should leave the
        interpreter to others: NumPy's ufuncs and SciPy's products do, `np.bincount` with weights does not.
    genes
        Panel, in the order of the columns; all genes of the store when None.
    block_cells
        Cells read at once. Up to two blocks are in memory.
    threads
        Threads of kernel and measuring; 0 for one per core. The results do not depend on it.
    told
        Name of the work in events.

    Raises
    ------
    QueryError
        When a store lacks a gene of the panel.
    """
    with ThreadPoolExecutor(count_threads(threads)) as pool:
        waiting: deque[Future[T]] = deque()
        for block in _blocks(cells, genes, block_cells, threads, told):
            tasks = [pool.submit(_measured, measure, part) for part in _slices(block)]
            while waiting:  # those of the block before, measured while this one was read
                yield waiting.popleft().result()
            waiting.extend(tasks)
        while waiting:
            yield waiting.popleft().result()


def column_sums(counts: sparse.csr_array, values: F64, weights: F64 | None = None) -> F64:
    """Return the sum over cells of `values`, which stand where those of `counts` do, for each gene.

    `weights` (n_cells,) multiplies the values of each cell. Cheaper than `np.bincount`, and other threads go on.
    """
    laid = sparse.csc_array((values, counts.indices, counts.indptr), shape=counts.shape[::-1])
    summed: F64 = laid @ (np.ones(counts.shape[0]) if weights is None else weights)
    return summed


def _blocks(
    cells: Cells, genes: Sequence[str] | None, block_cells: int, threads: int, told: str
) -> Iterator[sparse.csr_array]:
    done, total = 0, n_cells_of(cells)
    for store, rows in cells:
        for start in range(0, len(rows), block_cells):
            part = np.asarray(rows[start : start + block_cells], dtype=np.int64)
            yield store.read(part, genes=genes, threads=threads)
            done += len(part)
            emit(told, done=done, total=total, unit="cells")


def _measured(measure: Callable[[sparse.csr_array], T], counts: sparse.csr_array) -> T:
    return measure(counts.astype(np.float64))


def _slices(block: sparse.csr_array) -> Iterator[sparse.csr_array]:
    n_cells, n_genes = block.shape
    for start in range(0, n_cells, _SLICE_CELLS):
        stop = min(n_cells, start + _SLICE_CELLS)
        first, last = int(block.indptr[start]), int(block.indptr[stop])
        indptr = block.indptr[start : stop + 1] - first
        parts = (block.data[first:last], block.indices[first:last], indptr)
        yield sparse.csr_array(parts, shape=(stop - start, n_genes))
