"""The tokens of a model that has a gene list of its own (floor 5, tokens). Knows vocabularies, no model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

from cellmill.errors import ConfigError
from cellmill.genes import Vocabulary
from cellmill.tokens.cells import check_vocabulary
from cellmill.tokens.gene_tables import GeneTable

__all__ = ["GivenTokens", "ModelTokens"]

I64 = npt.NDArray[np.int64]
GivenTokens = Mapping[str, int] | Sequence[int] | npt.NDArray[np.integer[Any]]


@dataclass(frozen=True)
class ModelTokens:
    """A model's token of each vocabulary token, -1 for a gene that the model lacks; equal where the hashes are.

    Parameters
    ----------
    given
        Of each vocabulary token from 0 on, or of gene ids, whose vocabulary tokens `vocabulary` says. None: a column's
        token is the model's already.

    Raises
    ------
    ConfigError
        Naming the argument `token_of`.

    Examples
    --------
    >>> ModelTokens([-1, -1, 7, 5]).of(np.array([3, 2, 0, 99])).tolist()
    [5, 7, -1, -1]
    """

    table: I64 | None = field(compare=False, repr=False)
    hash: str | None

    def __init__(self, given: GivenTokens | None, vocabulary: Vocabulary | None = None) -> None:
        table = None
        if given is not None:
            table = np.maximum(GeneTable("token_of", given, vocabulary).numbers, -1)
            if not len(table):
                raise ConfigError("token_of is empty; give the model's token of each vocabulary token, -1 for none")
            table.setflags(write=False)
        check_vocabulary(vocabulary)
        object.__setattr__(self, "table", table)
        object.__setattr__(self, "hash", None if table is None else xxhash.xxh3_128_hexdigest(table.tobytes()))

    def of(self, genes: npt.ArrayLike) -> npt.NDArray[Any]:
        """Return the model's token of each column, int64; arguments that are no tokens come back as they are."""
        tokens = np.asarray(genes)
        if self.table is None or tokens.dtype.kind not in "iu":
            return tokens
        inside = (tokens >= 0) & (tokens < len(self.table))
        made = np.full(tokens.shape, -1, dtype=np.int64)
        made[inside] = self.table[tokens[inside]]
        return made
