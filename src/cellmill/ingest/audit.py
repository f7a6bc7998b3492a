"""The proof that values are raw counts (floor 4): every value, no sample. Pure.

Raw means: finite, not negative, whole, and at most 2^32 - 1. Nothing is rounded or clipped. The kernel proves the
blocks of a build by the same rule; here is what names the value that it refuses, and the proof of a plan's samples.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cellmill.sources import CountBlock
from cellmill.sources.rows import Rows, canonical

__all__ = ["MAX_COUNT", "Violation", "find_violation", "violation_in_cell", "violation_in_sum"]

MAX_COUNT = 2**32 - 1


@dataclass(frozen=True)
class Violation:
    """The first value of a block that is not a raw count.

    Attributes
    ----------
    cell, gene : int
        Row in the file and column in the matrix.
    value : int or float
        As stored, exactly: a whole number where the file's type is one.
    why : str
        "not finite", "negative", "not whole" or "above 2^32-1".
    summed : tuple of int
        Columns of which `value` is the sum, where the genes of a file are one gene of the store.
    """

    cell: int
    gene: int
    value: int | float
    why: str
    summed: tuple[int, ...] = ()


def find_violation(block: CountBlock) -> Violation | None:
    """Return the first value that is not a raw count, or None when all of them are."""
    data = block.data
    wrong = _wrong_values(data)
    if wrong is None or not wrong.any():
        return None
    at = int(np.flatnonzero(wrong)[0])
    value = data[at].item()  # not as a float, which cannot hold all of 64 bits
    cell = int(np.searchsorted(block.indptr, at, side="right")) - 1
    return Violation(cell=block.start + cell, gene=int(block.indices[at]), value=value, why=_why(value))


def violation_in_cell(block: CountBlock, cell: int) -> Violation:
    """Return the violation in one cell of a block as stored, of which the kernel says that it holds one.

    Notes
    -----
    Genes are looked at in ascending order and repeated ones summed first, so that a cell is refused for the same value
    however its file is ordered.
    """
    rows = _ordered(block, cell)
    found = find_violation(CountBlock(rows.first, rows.indptr, rows.indices, rows.values, block.n_genes))
    assert found is not None, "the kernel and the audit disagree about what a count is"
    return found


def violation_in_sum(block: CountBlock, cell: int, position_of: npt.NDArray[np.int32]) -> Violation:
    """Return the violation in one cell of counts, of which the kernel says that genes in one place add up too far.

    Parameters
    ----------
    position_of
        int32, shape (n_source_genes,): place of each gene of the file, -1 for none.
    """
    rows = _ordered(block, cell)
    places, counts = position_of[rows.indices], rows.values.astype(np.float64)
    sums = np.bincount(places[places >= 0], weights=counts[places >= 0])
    place = int(np.flatnonzero(sums > MAX_COUNT)[0])
    columns = tuple(int(column) for column in rows.indices[places == place])
    total = sum(int(count) for count in rows.values[places == place])
    return Violation(block.start + cell, columns[0], total, "above 2^32-1", summed=columns)


def _ordered(block: CountBlock, cell: int) -> Rows:
    """One cell, its genes in order and unique."""
    begin, end = int(block.indptr[cell]), int(block.indptr[cell + 1])
    stored = Rows(
        block.start + cell,
        np.array([0, end - begin], dtype=np.int64),
        block.indices[begin:end],
        block.data[begin:end],
    )
    return canonical(stored, block.n_genes)[0]


def _wrong_values(data: npt.NDArray[np.generic]) -> npt.NDArray[np.bool_] | None:
    """Which values are not raw counts; None when the dtype alone proves all of them."""
    kind, size = data.dtype.kind, data.dtype.itemsize
    if kind == "b" or (kind == "u" and size <= 4):
        return None
    if kind == "u":
        return np.asarray(data > MAX_COUNT)  # type: ignore[operator]
    if kind == "i":
        negative = np.asarray(data < 0)  # type: ignore[operator]
        return negative if size <= 4 else negative | np.asarray(data > MAX_COUNT)  # type: ignore[operator]
    if kind != "f":
        return np.ones(len(data), dtype=bool)
    with np.errstate(invalid="ignore", over="ignore"):
        # 2^32 is exact in float32 and float64, and infinity in float16, where 2^32 - 1 would be rounded up to them; NaN
        # and both infinities are on neither side
        inside = (data >= 0) & (data < 2.0**32)  # type: ignore[operator]
        return np.asarray(~inside | (np.floor(data) != data))


def _why(value: int | float) -> str:
    if not math.isfinite(value):
        return "not finite"
    if value < 0:
        return "negative"
    return "not whole" if value != math.floor(value) else "above 2^32-1"
