"""Cells as sentences of genes drawn by expression, put together by chromosome, in a call (floor 1, kernel).

The family of UCE. Knows arrays and rules. Must not know which genome they are of, nor torch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cellmill.kernel.checks import count_threads
from cellmill.kernel.implementation import chosen
from cellmill.kernel.token_cells import TokenCells

__all__ = ["SentenceOut", "SentencePlan", "tokenise_sentences"]

I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]
F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class SentencePlan:
    """What is done with n cells.

    A sentence is `first`, then for each chromosome that was drawn from ``chromosome + offset``, its genes by place, as
    often as they were drawn, and `last`. Genes are drawn with replacement, with weight ``log1p(count)`` in float32,
    divided by the sum (added in float64, by token) and once more by the sum of that (in float32). A draw is the first
    gene whose cumulative weight, in float64, over the whole of them is above a uniform number; genes go by token. Draws
    end when another one does not fit. Chromosomes come by their numbers, equal places by token.

    Attributes
    ----------
    rows, chromosomes, places : i64, (n_columns,)
        What stands for each gene (-1 leaves it out), its chromosome, and where it lies there.
    n_draws, width : int
        Draws of each cell, and the length of a row.
    first, last, padding, offset : int
    uniforms : f64, (n, n_draws), or None
        Numbers in [0, 1) instead of those of the cell for DRAW, for tests.
    order : u64, (n, n_columns), or None
        Numbers of the chromosome of each gene instead of those for ORDER, for tests.
    """

    rows: I64
    chromosomes: I64
    places: I64
    n_draws: int
    width: int
    first: int
    last: int
    padding: int
    offset: int
    uniforms: F64 | None = None
    order: U64 | None = None


@dataclass(frozen=True, kw_only=True)
class SentenceOut:
    """Where rows go.

    Attributes
    ----------
    genes : i64, (n * width,)
    values : f32, (n * width,)
        Count of the gene of each token, 0 for others.
    lengths, drawn : i64, (n,)
        Tokens that are no padding, and draws that were made.
    """

    genes: I64
    values: F32
    lengths: I64
    drawn: I64


def tokenise_sentences(cells: TokenCells, plan: SentencePlan, out: SentenceOut, *, threads: int = 0) -> None:
    """Fill `out` with the sentences of the cells; a cell without genes is `first` alone.

    Raises
    ------
    ValueError
        When the arrays contradict each other.
    """
    cells.use(chosen.tokenise_sentences, plan, out, count_threads(threads))
