"""Cells as one value for each gene of a panel, and their largest other genes as pairs, in a call (floor 1, kernel).

Knows arrays and rules. Must not know how a panel was chosen, nor torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from cellmill.kernel.checks import count_threads
from cellmill.kernel.implementation import chosen
from cellmill.kernel.token_cells import TokenCells

__all__ = ["PANEL_VALUES", "PanelOut", "PanelPlan", "count_other_genes", "tokenise_panels"]

I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]

# Names of the numbers that the implementations are handed.
PANEL_VALUES: Final = {"raw": 0, "cp10k": 1, "log1p_cp10k": 2}


@dataclass(frozen=True, kw_only=True)
class PanelPlan:
    """What is done with n cells.

    Attributes
    ----------
    slot_of : i32, (n_columns,)
        Slot of each column, -1 for a gene outside the panel. No two columns have one slot.
    n_slots : int
    scales : f64, (n,)
        What a count of each cell is multiplied by, but for raw values.
    values : of `PANEL_VALUES`
        The count, the scaled count, or log1p of it; computed in float64 and rounded once.
    fill_to : int
        A cell that expresses fewer genes of the panel than these gets as many other genes as it lacks: those with
        its largest counts, equal ones by ascending token.
    pad_token : int
    """

    slot_of: I32
    n_slots: int
    scales: F64
    values: int = 2
    fill_to: int = 0
    pad_token: int = 0


@dataclass(frozen=True, kw_only=True)
class PanelOut:
    """Where rows go. `other_starts` and the two arrays that it cuts may be empty until the lengths are known.

    Attributes
    ----------
    other_lengths : i64, (n,)
        What `count_other_genes` fills.
    values : f32, (n * n_slots,)
    other_starts : i64, (n + 1,)
    other_genes : i64
        Tokens, by count descending, then `pad_token`.
    other_values : f32
        Then 0.
    """

    other_lengths: I64
    values: F32
    other_starts: I64
    other_genes: I64
    other_values: F32


def count_other_genes(cells: TokenCells, plan: PanelPlan, out: PanelOut, *, threads: int = 0) -> None:
    """Fill `out.other_lengths` with how many other genes each cell gets.

    Raises
    ------
    ValueError
        When the arrays contradict each other.
    """
    chosen.count_other_genes(cells, plan, out, count_threads(threads))


def tokenise_panels(cells: TokenCells, plan: PanelPlan, out: PanelOut, *, threads: int = 0) -> None:
    """Fill `out` but for its lengths.

    Raises
    ------
    ValueError
        When the arrays contradict each other, or a row of other genes is shorter than what goes into it.
    """
    chosen.tokenise_panels(cells, plan, out, count_threads(threads))
