"""Genes of a cell by value, the largest first (floor 5, tokens): what Geneformer and its kind have in common."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import xxhash
from scipy import sparse

from cellmill.errors import InputError
from cellmill.genes import Vocabulary
from cellmill.kernel import RankOut, RankPlan, RankRules, TokenCells, empty, rank_genes, rank_keys
from cellmill.tokens.batch import TokenBatch
from cellmill.tokens.cells import as_cells
from cellmill.tokens.per_gene import PerGene
from cellmill.tokens.sequences import Shape, shaped_starts

__all__ = ["KnownRanks", "cells_with", "one_column_each", "rank_rows", "refuse_no_total", "summed"]

I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]
U64 = npt.NDArray[np.uint64]
F64 = npt.NDArray[np.float64]

COUNTED_TOKENS = 1 << 22  # tokens below are counted to find doubles, larger ones sorted


class KnownRanks:
    """What is known beforehand of how counts rank, `kernel.rank_keys`, for axes of which many cells were ranked.

    To find it out of 36,000 genes takes 0.2 s, afterwards a cell takes 14 us instead of 19: it pays from some 40,000
    cells on, which any training has, and costs a short read no more than that. Rows are the same with it and without.
    """

    AFTER = 4096  # cells
    MOST = 4  # axes

    def __init__(self) -> None:
        self._cells: dict[bytes, int] = {}
        self._keyed: dict[bytes, U8] = {}

    def of(self, cells: TokenCells, divisors: F64) -> U8 | None:
        """Return what is known of an axis and its divisors; None while few cells of it were seen."""
        state = xxhash.xxh3_128(cells.token_of.data)
        state.update(divisors.data)
        axis = state.digest()
        known = self._keyed.get(axis)
        if known is not None:
            return known
        if len(self._cells) > 64:  # a caller whose axis is never the same
            self._cells.clear()
        seen = self._cells.get(axis, 0) + len(cells)
        self._cells[axis] = seen
        if seen < self.AFTER or not int(cells.indptr[-1]):
            return None
        self._cells.pop(axis, None)
        if len(self._keyed) >= self.MOST:  # what another thread puts into the old one is found out again
            self._keyed = {}
        return self._keyed.setdefault(axis, rank_keys(cells, divisors))

    def __reduce__(self) -> tuple[type[KnownRanks], tuple[()]]:
        return KnownRanks, ()  # another process finds out by itself


def rank_rows(
    cells: TokenCells,
    rules: RankRules,
    shape: Shape,
    *,
    divisors: F64 | None = None,
    head: I64 | None = None,
    tail: tuple[int, ...] = (),
    totals: F64 | None = None,
    values: F64 | None = None,
    ties: U64 | None = None,
    keyed: U8 | None = None,
    per_10k: bool = False,
) -> TokenBatch:
    """Return the genes of each cell by value, cut to a length, as a batch.

    Parameters
    ----------
    divisors
        Of each column; 1 when None.
    head
        int64[n, n_head]: tokens in front of the genes; none when None.
    tail
        Tokens behind them.
    totals, values, ties, keyed
        As in `kernel.RankPlan`.
    per_10k
        Whether the batch carries counts per 10,000, `extra["per_10k"]`.
    """
    n = len(cells)
    heads = np.empty((n, 0), dtype=np.int64) if head is None else np.ascontiguousarray(head, dtype=np.int64)
    special = heads.shape[1] + len(tail)
    room = np.minimum(cells.sizes, shape.max_length - special)
    starts = shaped_starts(room + special, shape)
    size, flat = int(starts[-1]), shape.pad == "none"
    out = RankOut(
        starts=starts,
        genes=empty(size, np.int64),
        values=empty(size, np.float32),
        lengths=np.empty(n, dtype=np.int64),
        per_10k=empty(size, np.float64) if per_10k else None,
    )
    plan = RankPlan(
        room=room,
        divisors=np.ones(len(cells.token_of)) if divisors is None else divisors,
        head=heads,
        tail=np.array(tail, dtype=np.int64),
        totals=totals,
        values=values,
        ties=ties,
        keyed=keyed,
    )
    rank_genes(cells, rules, plan, out)
    view = (size,) if flat else (n, size // n if n else 0)
    return TokenBatch(
        values=torch.from_numpy(out.values).view(view),
        genes=torch.from_numpy(out.genes).view(view),
        lengths=torch.from_numpy(out.lengths),
        cu_seqlens=torch.from_numpy(starts.astype(np.int32)) if flat else None,
        extra={} if out.per_10k is None else {"per_10k": torch.from_numpy(out.per_10k).view(view)},
        n_columns=len(cells.token_of),
    )


def summed(cells: TokenCells) -> TokenCells:
    """Return cells in which columns of one token are one column, the first of them, with the sum of their counts.

    Raises
    ------
    InputError
        For a sum above 2^32 - 1.
    """
    tokens = cells.token_of
    if not _has_doubles(tokens):
        return cells
    stored = (cells.counts.astype(np.int64), cells.columns, cells.indptr)
    counts = one_column_each(sparse.csr_array(stored, shape=(len(cells), len(tokens))), tokens)
    if counts.nnz and int(counts.data.max()) >= 1 << 32:
        at = int(np.argmax(counts.data))
        cell = int(np.searchsorted(counts.indptr, at, side="right")) - 1
        raise InputError(
            f"counts of columns that have one token are summed; cell {cell}, token {tokens[counts.indices[at]]} sums "
            f"to {counts.data[at]}, above 2^32-1"
        )
    return TokenCells(counts.indptr, counts.indices, counts.data, token_of=tokens, keys=cells.keys)


def one_column_each(counts: sparse.csr_array, tokens: npt.NDArray[np.integer[Any]]) -> sparse.csr_array:
    """Return a matrix whose columns of one token are summed into the first of them; as it is where there are none."""
    if not _has_doubles(tokens.astype(np.int64)):
        return counts
    _, first, of = np.unique(tokens, return_index=True, return_inverse=True)
    made = sparse.csr_array((counts.data.copy(), first[of][counts.indices], counts.indptr.copy()), shape=counts.shape)
    made.sum_duplicates()  # sorts the columns too
    return made


def _has_doubles(tokens: I64) -> bool:
    known = tokens[tokens >= 0]
    if not len(known) or int(known.max()) >= COUNTED_TOKENS:
        return len(np.unique(known)) < len(known)
    return int(np.bincount(known).max()) > 1


def cells_with(
    counts: sparse.csr_array,
    genes: npt.NDArray[np.integer[Any]],
    keys: U64,
    table: PerGene,
    vocabulary: Vocabulary | None,
) -> tuple[TokenCells, F64]:
    """Return cells without the genes that have no number in a table, and the number of each column, 1 where none."""
    cells = as_cells(counts, genes, keys)
    numbers = table.of(cells.token_of, vocabulary)
    absent = np.isnan(numbers)
    if (absent & (cells.token_of >= 0)).any():
        cells = as_cells(counts, np.where(absent, -1, cells.token_of), keys)
    return cells, np.where(absent, 1.0, numbers)


def refuse_no_total(totals: F64, needed: npt.NDArray[np.bool_], why: str) -> None:
    """Refuse a total of 0 where one is divided by.

    Raises
    ------
    InputError
        Naming the cell.
    """
    bad = needed & (totals == 0)
    if bad.any():
        raise InputError(f"totals must be above 0 here, cell {int(np.flatnonzero(bad)[0])} has 0: {why}")
