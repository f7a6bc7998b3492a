"""Cells as sequences of genes by value, the largest first, padded, in a call (floor 1, kernel).

The family of Geneformer, Nicheformer and Cell2Sentence. Knows arrays and rules. Must not know what a special token
means, nor torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from cellmill.kernel.checks import count_threads
from cellmill.kernel.implementation import chosen
from cellmill.kernel.token_cells import TokenCells

__all__ = ["RANK_VALUES", "RankOut", "RankPlan", "RankRules", "rank_genes", "rank_keys"]

I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]
U8 = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]

# Names of the numbers that the implementations are handed.
RANK_VALUES: Final = {"ratio": 0, "divided": 1, "reciprocal": 2, "scaled": 3}

# What the kernel looks up of a column when it ranks by keys; native/key_order.hpp has the same.
KEYED_COUNTS: Final = 24
KEYED: Final = np.dtype([("divisor", np.float64), ("token", np.int64), ("keys", np.uint16, (KEYED_COUNTS,))])
NO_KEY: Final = 0xFFFF


@dataclass(frozen=True, kw_only=True)
class RankRules:
    """What is done with every cell alike.

    Attributes
    ----------
    values : of `RANK_VALUES`
        The value of a gene of count x in a cell of n counts, d being the divisor of its column: "ratio", ``x / d``;
        "divided", ``x / n * 1e4 / d``; "reciprocal", ``x * (1 / n) * 1e4 * (1 / d)``; "scaled", ``x * (1e4 / n) / d``.
        The last bits differ, and with them the order of values that are equal in exact arithmetic.
    single : bool
        All steps before the divisor in float32; the divisor's in float64 always.
    keyed_ties : bool
        Equal values by a keyed number of the gene; by token, ascending, otherwise.
    token_offset : int
        Added to the token of each gene.
    """

    values: int = 0
    single: bool = False
    keyed_ties: bool = False
    token_offset: int = 0
    pad_token: int = 0


@dataclass(frozen=True, kw_only=True)
class RankPlan:
    """What is decided before the genes of n cells are looked at.

    Attributes
    ----------
    room : i64, (n,)
        Most genes of a row.
    divisors : f64, (n_columns,)
        Finite and above 0.
    head : i64, (n, n_head)
        Tokens in front of the genes.
    tail : i64, (n_tail,)
        Tokens behind the genes of every cell.
    totals : f64, (n,), or None where no value needs them
    values : f64, (nnz,), or None
        What is ranked instead of the counts; no NaN.
    ties : u64, (nnz,), or None
        Equal values by these, the smallest first; equal ones again by place.
    keyed : u8, (n_columns, 64), or None
        From `rank_keys` of these divisors and tokens: the same rows in less time, for ratios whose ties go by token.
    """

    room: I64
    divisors: F64
    head: I64
    tail: I64
    totals: F64 | None = None
    values: F64 | None = None
    ties: U64 | None = None
    keyed: U8 | None = None

    @property
    def n_head(self) -> int:
        """Special tokens in front of each row."""
        return int(self.head.shape[1])


@dataclass(frozen=True, kw_only=True)
class RankOut:
    """Where the rows go: flat arrays, row i at starts[i]:starts[i + 1]; None for what nobody wants.

    Attributes
    ----------
    starts : i64, (n + 1,)
    genes : i64
        Tokens.
    values : f32
        What was ranked; 0 at special tokens and padding.
    lengths : i64, (n,)
        Tokens of each row that are no padding, special ones counted.
    ranked : f64
        `values` before they were rounded.
    per_10k : f64
        Counts per 10,000 of the cell's total, 0 at special tokens and padding; by the same steps as `RankRules.values`
        (a reciprocal is multiplied by for "reciprocal", float32 with `single`).
    """

    starts: I64
    genes: I64
    values: F32
    lengths: I64
    ranked: F64 | None = None
    per_10k: F64 | None = None


def rank_keys(cells: TokenCells, divisors: F64) -> U8:
    """Return what is known beforehand of how small counts of each column rank, u8[n_columns, 64], for `RankPlan.keyed`.

    Parameters
    ----------
    cells
        An example of those that will be ranked. How many of their values are told apart by keys, and so the time, hangs
        on it; the order does not.
    divisors : f64, (n_columns,)

    Notes
    -----
    A key is the place of ``count / divisor`` among those of all columns and counts up to 24, each as wide as it is
    frequent in the example. Values of another key are never compared, those of one key always.
    """
    room = np.zeros((len(divisors) + 1) * KEYED.itemsize, dtype=np.uint8)
    begin = -room.ctypes.data % KEYED.itemsize  # where a line of the cache begins
    made = room[begin : begin + len(divisors) * KEYED.itemsize].view(KEYED)
    made["divisor"], made["token"] = divisors, cells.token_of
    by_token = np.argsort(cells.token_of, kind="stable")
    values = np.arange(1, KEYED_COUNTS + 1) / divisors[by_token, None]
    order = np.argsort(-values, axis=None, kind="stable")  # equal ones by token, then by column
    small = (cells.counts > 0) & (cells.counts <= KEYED_COUNTS)
    place = cells.columns[small].astype(np.int64) * KEYED_COUNTS + cells.counts[small] - 1
    seen = np.bincount(place, minlength=values.size).reshape(values.shape)[by_token].ravel()[order]
    # what the example lacks may come all the same: as much room for all of it as for what the example has
    width = seen + max(int(seen.sum()), 1) / len(seen)
    upto = np.cumsum(width)
    keys = np.empty(values.size, dtype=np.uint16)
    keys[order] = np.floor((upto - width) / upto[-1] * NO_KEY).astype(np.uint16)
    made["keys"][by_token] = keys.reshape(values.shape)
    return made.view(np.uint8).reshape(len(made), KEYED.itemsize)


def rank_genes(cells: TokenCells, rules: RankRules, plan: RankPlan, out: RankOut, *, threads: int = 0) -> None:
    """Fill `out` with the genes of each cell, the largest value first.

    Raises
    ------
    ValueError
        When the arrays contradict each other, or a row is shorter than what goes into it.

    Notes
    -----
    Linear in the entries, but for the few values that agree in their first differing bits, which are compared. Memory
    is some arrays of the longest cell for each thread.
    """
    cells.use(chosen.rank_genes, rules, plan, out, count_threads(threads))
