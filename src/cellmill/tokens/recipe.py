"""What every recipe offers (floor 5, tokens): counts in, tensors out. A recipe never opens a file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from scipy import sparse

from cellmill.errors import ConfigError
from cellmill.tokens.batch import TokenBatch

__all__ = ["Recipe", "as_panel"]


def as_panel(genes: Sequence[str] | None) -> tuple[str, ...] | None:
    """Return a panel of gene ids as a tuple; None for all genes.

    Raises
    ------
    ConfigError
        For one text, whose letters are no genes.
    """
    if isinstance(genes, str):
        raise ConfigError(f"genes must be a list of gene ids, not the text {genes!r}; write [{genes!r}]")
    return None if genes is None else tuple(genes)


class Recipe(Protocol):
    """A frozen configuration that turns counts into what one family of models is fed."""

    @property
    def genes(self) -> tuple[str, ...] | None:
        """The panel whose columns it wants, in order; None for all genes."""
        ...

    def encode(
        self,
        counts: sparse.csr_array,
        genes: npt.NDArray[np.int64],
        keys: npt.NDArray[np.uint64],
        *,
        totals: npt.NDArray[np.int64] | None = None,
    ) -> TokenBatch:
        """Return the tokens of n cells.

        Parameters
        ----------
        counts : csr_array, shape (n, n_columns), uint32
            Columns ascending in each row.
        genes : int64[n_columns]
            Vocabulary token of each column.
        keys : uint64[n]
            A number per cell, from (seed, epoch, uid): the only source of randomness.
        totals : int64[n] or None
            Counts of the whole cell; sums of `counts` when None.
        """
        ...

    def to_dict(self) -> dict[str, Any]:
        """Return the configuration as JSON values."""
        ...
