"""Cells as count tokens, each masked by itself, over a panel or over expressed genes, in a call (floor 1, kernel).

Knows arrays and rules. Must not know noise schedules, nor torch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cellmill.kernel.checks import count_threads
from cellmill.kernel.implementation import chosen
from cellmill.kernel.token_cells import TokenCells

__all__ = ["CountTokenOut", "CountTokenPlan", "tokenise_counts"]

I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]
U32 = npt.NDArray[np.uint32]
U64 = npt.NDArray[np.uint64]
F64 = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class CountTokenPlan:
    """What is done with n cells.

    Attributes
    ----------
    edges : u32, ascending
        The token of a count is how many edges lie at it or below.
    mask_token, pad_token, pad_gene : int
    ratio : f64, (n,)
        A token is masked where the number of its gene for MASK, in [0, 1), is below.
    panel, slot_of : i32, (n_slots,) and (n_columns,), or None for expressed genes
        Column of each slot and slot of each column; -1 for none. A slot without column holds `pad_token`, never masked.
    room : i64, (n,), or None with a panel
        Most genes of each cell: those with the smallest numbers for SAMPLE, or with `largest` the largest counts (ties
        by that number). They stay in the order of the axis.
    largest : bool
    mask : u64, or None
        Numbers instead of the keyed ones, for tests: one for each slot of each cell, or for each entry.
    """

    edges: U32
    mask_token: int
    pad_token: int
    pad_gene: int
    ratio: F64
    panel: I32 | None = None
    slot_of: I32 | None = None
    room: I64 | None = None
    largest: bool = False
    mask: U64 | None = None


@dataclass(frozen=True, kw_only=True)
class CountTokenOut:
    """Where rows go: flat arrays, row i at starts[i]:starts[i + 1].

    Attributes
    ----------
    starts : i64, (n + 1,)
    genes : i64, or None with a panel
    values, target : i64
        Tokens as they are shown, and behind the mask.
    mask : u8
    lengths : i64, (n,)
    """

    starts: I64
    values: I64
    target: I64
    mask: U8
    lengths: I64
    genes: I64 | None = None


def tokenise_counts(cells: TokenCells, plan: CountTokenPlan, out: CountTokenOut, *, threads: int = 0) -> None:
    """Fill `out` with the rows of the cells.

    Raises
    ------
    ValueError
        When the arrays contradict each other, or a row is shorter than what goes into it.
    """
    cells.use(chosen.tokenise_counts, plan, out, count_threads(threads))
