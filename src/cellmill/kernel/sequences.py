"""Cells as sequences of genes with a value each, binned, fitted, masked or split, padded, in a call (floor 1, kernel).

The family of scGPT and Tahoe-x1. Knows arrays and rules. Must not know what a special token means, nor torch.
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
    "CHOICES",
    "TIES",
    "VALUES",
    "SequenceNumbers",
    "SequenceOut",
    "SequencePlan",
    "SequenceRules",
    "tokenise_sequences",
]

I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]
U64 = npt.NDArray[np.uint64]
F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]

# Names of the numbers that the implementations are handed.
VALUES: Final = {"raw": 0, "bins64": 1, "bins32": 2, "log1p": 3}
TIES: Final = {"keyed": 0, "lowest": 1, "highest": 2}
CHOICES: Final = {"first": 0, "uniform": 1, "expression": 2, "largest": 3}


@dataclass(frozen=True, kw_only=True)
class SequenceRules:
    """What is done with every cell alike.

    Attributes
    ----------
    values : of `VALUES`
        "raw" counts; "bins64", 1 to n_bins - 1 between quantile edges as NumPy computes them in double; "bins32", 1 to
        n_bins between edges as torch computes them in float32; "log1p" of counts per `target_sum` of the cell's sum.
    n_bins : int
        One more than there are edges, 3 or more.
    ties : of `TIES`
        The bin of a value that is several edges: one of those between them by a keyed number (bins64), the lowest, the
        highest.
    choose : of `CHOICES`
        Which genes stay in a row that is too short: the first ones, a uniform sample, a sample without replacement with
        probability in proportion to the count, or those with the largest counts (ties by a keyed number).
    shuffled : bool
        A sampled row comes in the order of its random numbers, not in that of the axis.
    split, split_first : bool
        What is masked goes to a part of its own, after the row was fitted or before.
    keep : int
        Genes at the beginning of each row that stay as they are: raw, never dropped, never masked. `room`, `maskable`
        and
        `skip` count without them.
    mask_heads : bool
        What stands in front of the genes may be masked as they may.
    skip : int
        Genes at the beginning of each row that are never masked.
    spared : float
        A value that is never masked; NaN for none.
    zero_value : float
        Value of a zero that is stored.
    """

    values: int = 0
    n_bins: int = 51
    ties: int = 0
    target_sum: float = 1e4
    choose: int = 1
    shuffled: bool = False
    split: bool = False
    split_first: bool = False
    keep: int = 0
    mask_heads: bool = False
    skip: int = 0
    spared: float = float("nan")
    zero_value: float = 0.0
    mask_value: float = -1.0
    pad_value: float = 0.0
    pad_token: int = 0


@dataclass(frozen=True, kw_only=True)
class SequencePlan:
    """What is decided for each of n cells before its genes are looked at.

    Attributes
    ----------
    room : i64, (n,)
        Most genes of its row that it has itself; with `split_first`, of the part that is seen.
    head_tokens, head_values : i64 and f32, (n, n_head)
        What stands in front of its genes.
    n_mask : i64, (n,), or None for no mask
        How many genes are masked; -1: each by itself with probability `ratio`; -2: ``int(k * ratio)`` of the k that may
        be.
    maskable : i64, (n,)
        Only the first so many genes of the row may be masked.
    ratio : f64, (n,)
    part_room : i64, (n,), or None
        With `split_first`: most genes of the hidden part.
    n_fill : i64, (n,), or None
        Genes that are added with value 0, of those that `fillers[source]` allows and the cell lacks, uniformly. With
        `split_first` 1 to fill both parts up to their rooms.
    fillers : u8, (n_sources, n_columns), or None
    source : i64, (n,), or None
    """

    room: I64
    head_tokens: I64
    head_values: F32
    n_mask: I64 | None = None
    maskable: I64 | None = None
    ratio: F64 | None = None
    part_room: I64 | None = None
    n_fill: I64 | None = None
    fillers: U8 | None = None
    source: I64 | None = None

    @property
    def n_head(self) -> int:
        """Special tokens in front of each row."""
        return int(self.head_tokens.shape[1])


@dataclass(frozen=True, kw_only=True)
class SequenceNumbers:
    """Random numbers to use instead of the keyed ones, each (nnz,) or None: for tests of the arithmetic after a draw.

    Attributes
    ----------
    bin : f64, in [0, 1)
    sample, mask : u64
        The genes with the smallest numbers are taken.
    """

    bin: F64 | None = None
    sample: U64 | None = None
    mask: U64 | None = None


@dataclass(frozen=True, kw_only=True)
class SequenceOut:
    """Where the rows go: flat arrays, row i at starts[i]:starts[i + 1]; None for what nobody wants.

    Attributes
    ----------
    starts, part_starts : i64, (n + 1,)
    genes : i64
        Tokens.
    values, target, raw : f32
        What is seen, what is behind the mask, the counts.
    mask : u8
    lengths : i64, (n,)
        Tokens of each row that are no padding, special ones counted.
    part_genes, part_target, part_raw, part_lengths
        The hidden part, with `split` or `split_first`.
    """

    starts: I64
    genes: I64
    values: F32
    lengths: I64
    target: F32 | None = None
    raw: F32 | None = None
    mask: U8 | None = None
    part_starts: I64 | None = None
    part_genes: I64 | None = None
    part_target: F32 | None = None
    part_raw: F32 | None = None
    part_lengths: I64 | None = None


def tokenise_sequences(
    cells: TokenCells,
    rules: SequenceRules,
    plan: SequencePlan,
    out: SequenceOut,
    *,
    numbers: SequenceNumbers | None = None,
    threads: int = 0,
) -> None:
    """Fill `out` with the rows of the cells.

    Raises
    ------
    ValueError
        When the arrays contradict each other, or a row is shorter than what goes into it.

    Notes
    -----
    Linear in the entries but for the distinct counts above 511 of a cell, which are sorted. Memory is some arrays of
    the longest cell for each thread. Bins are those of the whole cell, before any gene is dropped.
    """
    cells.use(chosen.tokenise_sequences, rules, plan, numbers or _NONE, out, count_threads(threads))


_NONE = SequenceNumbers()
