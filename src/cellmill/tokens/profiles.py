"""Normalised profiles of cells (floor 5, tokens): what scFoundation, AIDO.Cell, TranscriptFormer and CellFM share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy import sparse

from cellmill.errors import InputError, VocabularyError
from cellmill.kernel import ProfileNumbers, ProfileOut, ProfilePlan, ProfileRules, TokenCells, tokenise_profiles
from cellmill.tokens.batch import TokenBatch
from cellmill.tokens.cells import Pad, as_cells, as_totals

__all__ = [
    "Tail",
    "Wanted",
    "check_places",
    "make_profiles",
    "read_profiles",
    "refuse_token",
    "row_sums",
    "whole_totals",
]

I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]
F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
U8 = npt.NDArray[np.uint8]


def read_profiles(
    counts: sparse.csr_array, genes: npt.NDArray[np.integer[Any]], keys: U64, *, faithful: bool = False
) -> TokenCells:
    """Return cells as kernels take them, columns of one token added up; see `as_cells`.

    Raises
    ------
    VocabularyError
        In faithful mode for two columns of one token, of which the originals make nothing sound.
    """
    cells = as_cells(counts, genes, keys)
    known = np.sort(cells.token_of[cells.token_of >= 0])
    twice = known[1:][known[1:] == known[:-1]]
    if not len(twice):
        return cells
    if faithful:
        columns = np.flatnonzero(cells.token_of == twice[0]).tolist()
        raise VocabularyError(
            f"genes has token {twice[0]} for columns {columns}; each token may come once. "
            "Without faithful=True such columns are added up."
        )
    return _added_up(cells)


def _added_up(cells: TokenCells) -> TokenCells:
    """Return cells whose columns of one token are the first of them."""
    _, first, of = np.unique(cells.token_of, return_index=True, return_inverse=True)
    column = np.where(cells.token_of >= 0, first[of], np.arange(len(of)))
    shape = (len(cells), len(of))
    merged = sparse.csr_array((cells.counts.astype(np.int64), column[cells.columns], cells.indptr), shape=shape)
    merged.sum_duplicates()
    tokens = np.where(column == np.arange(len(of)), cells.token_of, -1)
    return TokenCells(merged.indptr, merged.indices, merged.data, token_of=tokens, keys=cells.keys)


def row_sums(indptr: npt.NDArray[Any], values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the sum of each row: int64 of whole numbers, float64 of others."""
    kind = np.dtype(np.int64 if values.dtype.kind in "iu" else np.float64)
    sums = np.zeros(len(indptr) - 1, dtype=kind)
    there = np.flatnonzero(np.diff(indptr) > 0)
    if len(there):
        sums[there] = np.add.reduceat(values, indptr[:-1][there], dtype=kind)
    return sums


def whole_totals(counts: sparse.csr_array, totals: npt.NDArray[Any] | None) -> F64:
    """Return the counts of the whole cells: those given, or sums of all columns.

    Raises
    ------
    InputError
        For totals that `as_totals` refuses, and for one below the sum of its cell.
    """
    sums = row_sums(counts.indptr, counts.data).astype(np.float64)
    if totals is None:
        return sums
    given, _ = as_totals(counts, totals)
    low = np.flatnonzero(given < sums)
    if len(low):
        raise InputError(
            f"totals must be the counts of whole cells; cell {low[0]} has {given[low[0]]:g}, but its counts are "
            f"already {sums[low[0]]:g}. Leave totals out to use their sums."
        )
    return given


def check_places(genes: npt.NDArray[np.integer[Any]], n_genes: int) -> None:
    """Check that tokens are places of a list of genes.

    Raises
    ------
    InputError
        Naming the first that is none.
    """
    tokens = np.asarray(genes)
    if tokens.dtype.kind in "iu" and tokens.size and int(tokens.max()) >= n_genes:
        at = int(np.flatnonzero(tokens >= n_genes)[0])
        raise InputError(
            f"genes must be places in a list of {n_genes} genes (n_genes), from 0, or -1 for a gene that is not in it; "
            f"column {at} has {tokens.flat[at]}"
        )


def refuse_token(cells: TokenCells, token: int, why: str) -> None:
    """Check that no gene has the token of padding.

    Raises
    ------
    VocabularyError
        Naming the column.
    """
    if (cells.token_of == token).any():
        column = int(np.argmax(cells.token_of == token))
        raise VocabularyError(
            f"genes has the token {token} in column {column}, which is that of padding. {why}: "
            "say with token_of which token is which."
        )


@dataclass(frozen=True)
class Wanted:
    """How rows become a tensor, and what comes beside it."""

    pad: Pad
    masked: bool = False


@dataclass(frozen=True)
class Tail:
    """What stands behind the genes of n cells: tokens i64, values f32, and which are shown u8, each (n, n_tail)."""

    tokens: I64
    values: F32
    shown: U8

    @staticmethod
    def none(n: int) -> Tail:
        """Return that nothing stands there."""
        return Tail(np.empty((n, 0), np.int64), np.empty((n, 0), np.float32), np.empty((n, 0), np.uint8))

    @property
    def sizes(self) -> I64:
        """Tokens of each cell, i64[n]."""
        sizes: I64 = self.shown.sum(axis=1, dtype=np.int64)
        return sizes


def make_profiles(
    cells: TokenCells,
    rules: ProfileRules,
    room: I64,
    starts: I64,
    wanted: Wanted,
    *,
    tail: Tail | None = None,
    totals: F64 | None = None,
    given: F64 | None = None,
    numbers: ProfileNumbers | None = None,
) -> TokenBatch:
    """Return rows as a batch; `extra["hidden"]` where it is masked. See `kernel.ProfilePlan` for the arrays."""
    tail = Tail.none(len(cells)) if tail is None else tail
    size = int(starts[-1])
    out = ProfileOut(
        starts=starts,
        genes=np.empty(size, dtype=np.int64),
        values=np.empty(size, dtype=np.float32),
        lengths=np.empty(len(cells), dtype=np.int64),
        target=np.empty(size, dtype=np.float32) if wanted.masked else None,
        mask=np.empty(size, dtype=np.uint8) if wanted.masked else None,
        hidden=np.empty(size, dtype=np.uint8) if wanted.masked else None,
    )
    plan = ProfilePlan(
        room=room,
        totals=totals,
        given=given,
        tail_tokens=np.ascontiguousarray(tail.tokens),
        tail_values=np.ascontiguousarray(tail.values),
        tail_shown=np.ascontiguousarray(tail.shown),
    )
    tokenise_profiles(cells, rules, plan, out, numbers=numbers)
    n, flat = len(cells), wanted.pad == "none"
    shape = (size,) if flat else (n, size // n if n else 0)

    def tensor(array: npt.NDArray[Any]) -> torch.Tensor:
        return torch.from_numpy(array).view(shape)

    return TokenBatch(
        values=tensor(out.values),
        genes=tensor(out.genes),
        target=None if out.target is None else tensor(out.target),
        mask=None if out.mask is None else tensor(out.mask).view(torch.bool),
        lengths=torch.from_numpy(out.lengths),
        cu_seqlens=torch.from_numpy(starts.astype(np.int32)) if flat else None,
        extra={} if out.hidden is None else {"hidden": tensor(out.hidden).view(torch.bool)},
    )
