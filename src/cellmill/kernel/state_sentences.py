"""Cells as their genes by expression, with a share each, task genes and a mask, in a call (floor 1, kernel).

The family of STATE SE. Knows arrays and rules. Must not know what an embedding is, nor torch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cellmill.kernel.checks import count_threads
from cellmill.kernel.implementation import chosen
from cellmill.kernel.token_cells import TokenCells

__all__ = ["StateOut", "StatePlan", "tokenise_state"]

I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]
U64 = npt.NDArray[np.uint64]
F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class StatePlan:
    """What is done with n cells.

    Tasks: `n_expressed` genes with counts, `n_unexpressed` without, each kind without replacement where it has more
    than that (those with the smallest numbers for DRAW and PART, by token), else with replacement; of a kind that a
    cell lacks, genes of the other. Then the shared ids. Their values are those of all counts.

    Row: `first`, then genes by count descending, equal ones by their number for ORDER (upper half, then by token), up
    to `width`; then genes without counts: where the data has genes for a whole row those with the smallest numbers for
    ORDER, else drawn with replacement by FILL. A value is the share of log1p(count), float32, in their sum, in percent,
    and the same for each gene of a cell without counts.

    Mask: int(mask_ratio * length) slots, none the first: slots of task genes, a sample of them by MASK where they are
    more, and other slots too where they are fewer.

    Attributes
    ----------
    ids : i64, (n_columns,)
        Embedding id of each column, -1 to n_ids - 1.
    kept : u8, (n_columns,)
        Whether a column takes part.
    logged : u8, (n,)
        Whether the counts of a cell are put through log1p.
    fraction : f64, (n,)
        Of the counts of a cell so many are drawn with replacement, rounded down; 1 takes all, and draws none.
    shared, shared_columns : i64 and i32, (n, n_shared)
        Ids, and the column of each, -1 where the data has none.
    n_ids, width, n_expressed, n_unexpressed, n_shared : int
    mask_ratio : float
    first, padding : int
    first_column : int
        With `faithful`, the column whose id and share stand in the first slot; -1 for `first` and 0.
    faithful : bool
        As the original: genes of value below 1 count as unexpressed; of a cell without counts one gene is the expressed
        task, over and over; a first slot whose gene is a task counts as masked, though it is not.
    binary : bool
        Task values 0 and 1.
    order, mask : u64, (n, n_columns) and (n, width), or None
        Numbers instead of those for ORDER and MASK, for tests.
    """

    ids: I64
    kept: U8
    logged: U8
    fraction: F64
    shared: I64
    shared_columns: I32
    n_ids: int
    width: int
    n_expressed: int
    n_unexpressed: int
    n_shared: int
    mask_ratio: float
    first: int
    padding: int
    first_column: int = -1
    faithful: bool = False
    binary: bool = False
    order: U64 | None = None
    mask: U64 | None = None


@dataclass(frozen=True, kw_only=True)
class StateOut:
    """Where rows go.

    Attributes
    ----------
    genes, values, mask : i64, f32 and u8, (n * width,)
    lengths : i64, (n,)
    task_genes, task_values : i64 and f32, (n * n_tasks,)
        Expressed, unexpressed, shared.
    totals : f32, (n,)
        Sum of the task values, before they are made binary.
    faults : u8, (n,)
        1 where no gene is left to fill the row, 2 where none is for the unexpressed tasks: the original fails there.
    """

    genes: I64
    values: F32
    mask: U8
    lengths: I64
    task_genes: I64
    task_values: F32
    totals: F32
    faults: U8


def tokenise_state(cells: TokenCells, plan: StatePlan, out: StateOut, *, threads: int = 0) -> None:
    """Fill `out` with the rows, tasks and masks of the cells.

    Raises
    ------
    ValueError
        When the arrays contradict each other, or no column is kept.
    """
    cells.use(chosen.tokenise_state, plan, out, count_threads(threads))
