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
            table = _by_id(given, vocabulary) if isinstance(given, Mapping) else _numbers(given)
            table.setflags(write=False)
        object.__setattr__(self, "table", table)
        object.__setattr__(self, "hash", None if table is None else xxhash.xxh3_128_hexdigest(table.tobytes()))

    def of(self, genes: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return the model's token of each column, int64; arguments that are no tokens come back as they are."""
        if self.table is None or np.asarray(genes).dtype.kind not in "iu":
            return genes
        inside = (genes >= 0) & (genes < len(self.table))
        made = np.full(np.shape(genes), -1, dtype=np.int64)
        made[inside] = self.table[genes[inside]]
        return made


def _numbers(given: Any) -> I64:
    numbers = np.array(given)
    if numbers.ndim != 1 or not len(numbers) or numbers.dtype.kind not in "iu":
        raise ConfigError(
            "token_of must be one whole number for each vocabulary token, or a mapping of gene id to whole number; "
            f"found shape {numbers.shape}, dtype {numbers.dtype}"
        )
    return np.maximum(numbers.astype(np.int64), -1)


def _by_id(given: Mapping[str, int], vocabulary: Vocabulary | None) -> I64:
    if vocabulary is None:
        raise ConfigError("token_of is a mapping of gene ids, whose tokens a vocabulary must say: pass vocabulary=")
    place = vocabulary.index_of(given)
    if not (place >= 0).any():
        raise ConfigError(
            f"token_of names no gene of the vocabulary {vocabulary.name}, which has ids such as {vocabulary.ids[0]}; "
            f"found {', '.join(list(given)[:3]) or 'an empty mapping'}"
        )
    table = np.full(int(vocabulary.tokens.max()) + 1, -1, dtype=np.int64)
    table[vocabulary.tokens[place[place >= 0]]] = _numbers(list(given.values()))[place >= 0]
    return table
