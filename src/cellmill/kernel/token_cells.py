"""Cells of one batch as recipes of tokens take them, checked (floor 1, kernel). Knows arrays; no vocabulary."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final

import numpy as np
import numpy.typing as npt

from cellmill.kernel.checks import as_i64, as_integers, check_u64
from cellmill.kernel.keys import GAMMA, MASK64
from cellmill.kernel.reference.random import mix64

if TYPE_CHECKING:
    from cellmill.kernel.encoded import EncodedRows

__all__ = ["DRAW", "FILL", "MASK", "ORDER", "PART", "RATIO", "SAMPLE", "TokenCells", "cell_numbers"]

I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
U32 = npt.NDArray[np.uint32]
U64 = npt.NDArray[np.uint64]
Integers = npt.NDArray[np.integer[Any]]

# What a random number of a gene or a cell is for; native/tokens.hpp has the same numbers.
SAMPLE: Final = 2
MASK: Final = 3
RATIO: Final = 4
FILL: Final = 5
ORDER: Final = 6
DRAW: Final = 7
PART: Final = 8


@dataclass(frozen=True)
class TokenCells:
    """The counts of n cells over the columns of one axis.

    Parameters
    ----------
    indptr : i64, (n + 1,)
        Cell i holds entries indptr[i]:indptr[i + 1].
    columns : i32, (nnz,)
        Columns, ascending in each cell.
    counts : u32, (nnz,)
        Counts; a recipe says what a zero that is stored means.
    token_of : i64, (n_columns,)
        Token of each column.
    keys : u64, (n,)
        A number for each cell, the only source of randomness. The number of gene `token` for one purpose is
        `keyed_u64(key, token, purpose)`: it depends on neither the place of the gene nor the other genes of the cell.

    Raises
    ------
    ValueError
        When the arrays contradict each other.
    """

    indptr: I64
    columns: I32
    counts: U32
    token_of: I64
    keys: U64
    # where columns and counts come from while nobody has asked for them
    encoded: ClassVar[EncodedRows | None] = None

    def __init__(
        self, indptr: Integers, columns: Integers, counts: Integers, *, token_of: Integers, keys: Integers
    ) -> None:
        pointers, values = as_i64(indptr, "indptr"), as_integers(counts, "counts")
        genes, tokens = as_integers(columns, "columns"), as_i64(token_of, "token_of")
        if len(pointers) < 1 or pointers[0] != 0 or pointers[-1] != len(genes) or (np.diff(pointers) < 0).any():
            raise ValueError("indptr must start at 0, never fall, and end at the number of entries")
        if len(genes) != len(values):
            raise ValueError(f"columns and counts must be of one length, found {len(genes)} and {len(values)}")
        if len(genes) and not (int(genes.min()) >= 0 and int(genes.max()) < len(tokens)):
            raise ValueError(f"columns must lie in 0..{len(tokens) - 1}, found {genes.min()}..{genes.max()}")
        if values.dtype != np.uint32 and len(values) and not (int(values.min()) >= 0 and int(values.max()) < 1 << 32):
            raise ValueError(f"counts must lie in 0..2^32-1, found {values.min()}..{values.max()}")
        for name, value in (
            ("indptr", pointers),
            ("columns", np.ascontiguousarray(genes, dtype=np.int32)),
            ("counts", np.ascontiguousarray(values, dtype=np.uint32)),
            ("token_of", tokens),
            ("keys", check_u64(keys, len(pointers) - 1, "keys")),
        ):
            object.__setattr__(self, name, value)

    @classmethod
    def of_kernel(cls, indptr: I64, columns: I32, counts: U32, *, token_of: I64, keys: U64) -> TokenCells:
        """Return cells of arrays that the kernel has gathered: of the types above, and not looked at again."""
        made = cls.__new__(cls)
        given = {"indptr": indptr, "columns": columns, "counts": counts, "token_of": token_of, "keys": keys}
        for name, value in given.items():
            object.__setattr__(made, name, value)
        return made

    @classmethod
    def of_encoded(cls, encoded: EncodedRows, *, token_of: I64, keys: U64) -> TokenCells:
        """Return cells that are decoded by the kernel that uses them, or when their columns or counts are asked for."""
        made = cls.__new__(cls)
        given = {"indptr": encoded.indptr, "token_of": token_of, "keys": keys, "encoded": encoded}
        for name, value in given.items():
            object.__setattr__(made, name, value)
        return made

    def __getattr__(self, name: str) -> Any:  # of what is not there yet
        if name not in ("columns", "counts") or self.encoded is None:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        counts = self.encoded.gather()
        for own, value in (("columns", counts.indices), ("counts", counts.values), ("encoded", None)):
            object.__setattr__(self, own, value)
        return getattr(self, name)

    def use(self, kernel: Callable[..., Any], *args: Any) -> None:
        """Call a function of the native kernel or its twin with these cells, which it may have to decode.

        Raises
        ------
        FrameError
            For the first cell that cannot be decoded.
        """
        encoded = self.encoded
        if encoded is not None and encoded.decoded:
            _ = self.columns  # which takes what was decoded already, for totals say
            encoded = None
        fault = kernel(self, *args)
        if encoded is not None:
            encoded.raise_for(fault)

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def sizes(self) -> I64:
        """Entries of each cell, i64[n]."""
        return np.diff(self.indptr)


def cell_numbers(keys: U64, purpose: int, counter: int = 0) -> U64:
    """Return a random number of each cell for one purpose, u64[n]: ``keyed_u64(key, counter, purpose)`` of each key."""
    stream = mix64(mix64(keys) + np.uint64(purpose * GAMMA & MASK64))
    return mix64(stream ^ mix64(np.array([counter], dtype=np.uint64)))
