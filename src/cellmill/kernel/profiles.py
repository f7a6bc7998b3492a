"""Cells as normalised profiles: ordered genes with a value, fitted and padded, or rows of a panel (floor 1, kernel).

The family of scFoundation, AIDO.Cell, TranscriptFormer and CellFM. Knows arrays and rules. Must not know what a special
token means, nor torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from cellmill.kernel.checks import count_threads
from cellmill.kernel.implementation import chosen
from cellmill.kernel.token_cells import TokenCells

__all__ = [
    "PROFILE_CHOICES",
    "PROFILE_ORDERS",
    "PROFILE_VALUES",
    "PanelRows",
    "ProfileNumbers",
    "ProfileOut",
    "ProfilePlan",
    "ProfileRules",
    "tokenise_panel",
    "tokenise_profiles",
]

I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]
U64 = npt.NDArray[np.uint64]
F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]

# Names of the numbers that the implementations are handed.
PROFILE_VALUES: Final = {"raw": 0, "log1p": 1, "scaled": 2, "given": 3}
PROFILE_ORDERS: Final = {"axis": 0, "token": 1, "count": 2, "keyed": 3}
PROFILE_CHOICES: Final = {"first": 0, "uniform": 1, "log_count": 2}


@dataclass(frozen=True, kw_only=True)
class ProfileRules:
    """What is done with every cell alike.

    Attributes
    ----------
    values : of `PROFILE_VALUES`
        "raw" counts; "log1p" of count / total * `scale`, in double and rounded once; "scaled", count / total * `scale`
        in float32 steps; "given", the numbers of the plan.
    of_kept : bool
        The total is the sum of the genes in the row, not that of the plan; where it is 0, "scaled" values are 0.
    clip : float
        Largest value.
    order : of `PROFILE_ORDERS`
        "axis", as columns come; ascending by "token"; descending by "count", equal ones by token; "keyed", by a random
        number of cell and gene.
    choose : of `PROFILE_CHOICES`
        Which genes stay in a row that is too short: the first ones of the order, a uniform sample, or one drawn gene
        after gene with probability in proportion to log1p(count).
    zeros : bool
        Genes that the cell lacks fill its row, behind its own, fitted and ordered by the same rules, with value 0.
    mask, hidden : float
        ``int(mask * n)`` of the n genes of a row carry loss, ``int(hidden * that)`` of those show the value 0.
    all_if_none : bool
        Where the first number is 0 every gene carries loss, and none is hidden.
    """

    values: int = 0
    scale: float = 1e4
    of_kept: bool = False
    clip: float = float("inf")
    order: int = 0
    choose: int = 0
    zeros: bool = False
    mask: float = 0.0
    hidden: float = 1.0
    all_if_none: bool = False
    pad_token: int = 0
    pad_value: float = 0.0


@dataclass(frozen=True, kw_only=True)
class ProfilePlan:
    """What is decided for each of n cells before its genes are looked at.

    Attributes
    ----------
    room : i64, (n,)
        Most genes of its row.
    totals : f64, (n,), or None for 1
        What its counts are divided by.
    given : f64, (nnz,), or None
        Values of its genes.
    tail_tokens, tail_values, tail_shown : i64, f32 and u8, (n, n_tail)
        What stands behind its genes, where shown.
    """

    room: I64
    tail_tokens: I64
    tail_values: F32
    tail_shown: U8
    totals: F64 | None = None
    given: F64 | None = None

    @property
    def n_tail(self) -> int:
        """Tokens behind the genes of a row."""
        return int(self.tail_tokens.shape[1])


@dataclass(frozen=True, kw_only=True)
class ProfileNumbers:
    """Random numbers to use instead of the keyed ones, each u64 (nnz,) or None: for tests of what follows a draw.

    The genes with the smallest numbers are kept (`sample`, uniform), come first (`order`), are masked (`mask`).
    """

    sample: U64 | None = None
    order: U64 | None = None
    mask: U64 | None = None


@dataclass(frozen=True, kw_only=True)
class ProfileOut:
    """Where the rows go: flat arrays, row i at starts[i]:starts[i + 1]; None for what nobody wants.

    Attributes
    ----------
    starts : i64, (n + 1,)
    genes : i64
        Tokens.
    values, target : f32
        What is seen, and what is behind the mask.
    mask, hidden : u8
        Which genes carry loss, and which of them show no value.
    lengths : i64, (n,)
        Tokens of each row that are no padding, those of the tail counted.
    """

    starts: I64
    genes: I64
    values: F32
    lengths: I64
    target: F32 | None = None
    mask: U8 | None = None
    hidden: U8 | None = None


@dataclass(frozen=True, kw_only=True)
class PanelRows:
    """Rows of a panel to be filled: ``log1p(count / total * scale)`` at the place that is the token, then a tail.

    Attributes
    ----------
    totals : f64, (n,)
    tail : f32, (n, n_tail)
    n_genes : int
        Places of the panel; tokens are below.
    out : f32, (n, n_genes + n_tail)
    """

    totals: F64
    tail: F32
    n_genes: int
    out: F32
    scale: float = 1e4
    clip: float = float("inf")

    @property
    def n_tail(self) -> int:
        """Values behind the genes of a row."""
        return int(self.tail.shape[1])


def tokenise_profiles(
    cells: TokenCells,
    rules: ProfileRules,
    plan: ProfilePlan,
    out: ProfileOut,
    *,
    numbers: ProfileNumbers | None = None,
    threads: int = 0,
) -> None:
    """Fill `out` with the rows of the cells.

    Raises
    ------
    ValueError
        When the arrays contradict each other, or a row is shorter than what goes into it.

    Notes
    -----
    Linear in the entries, but for the orders "count" and "keyed", which sort what is kept. Memory is some arrays of the
    longest cell, or of the columns, for each thread.
    """
    chosen.tokenise_profiles(cells, rules, plan, numbers or _NONE, out, count_threads(threads))


def tokenise_panel(cells: TokenCells, rows: PanelRows, *, threads: int = 0) -> None:
    """Fill `rows.out`.

    Raises
    ------
    ValueError
        When the arrays contradict each other, or a gene of a cell has a token outside the panel.
    """
    chosen.tokenise_panel(cells, rows, count_threads(threads))


_NONE = ProfileNumbers()
