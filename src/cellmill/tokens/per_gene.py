"""A number for each gene that a published model comes with (floor 5, tokens): medians, means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

from cellmill.errors import ConfigError
from cellmill.genes import Vocabulary

__all__ = ["PerGene"]

I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]
DENSE_TOKENS = 1 << 22  # a table of so many tokens is looked up, a larger one searched


class PerGene:
    """Numbers of genes, by gene id or by token.

    Parameters
    ----------
    name
        The argument that it is given for, for messages.
    given
        A mapping of gene id to number, whose tokens a vocabulary says; a mapping of token to number; or an array over
        tokens, NaN for those without a number.
    positive
        Whether a 0 is refused too.

    Raises
    ------
    ConfigError
        For numbers that are negative or not finite, and for what is no table.

    Examples
    --------
    >>> PerGene("medians", {7: 2.5, 3: 1.0}).of(np.array([3, 4, -1, 7]), None).tolist()
    [1.0, nan, nan, 2.5]
    """

    def __init__(self, name: str, given: Any, *, positive: bool = False) -> None:
        self.name = name
        self.ids: tuple[str, ...] | None = None
        tokens: Sequence[int] | I64 = ()
        if isinstance(given, Mapping):
            by_id = all(isinstance(key, str) for key in given)
            if not by_id and not all(isinstance(key, (int, np.integer)) for key in given):
                raise ConfigError(f"{name} must be keyed by gene ids alone or by tokens alone")
            self.ids = tuple(given) if by_id and given else None
            tokens, numbers = (() if by_id else list(given)), list(given.values())
        elif isinstance(given, str) or np.ndim(given) != 1:
            raise ConfigError(
                f"{name} must be a mapping of gene id or token to a number, or an array with one number for each "
                f"token, found {type(given).__name__}"
            )
        else:
            tokens, numbers = np.arange(len(given)), list(given)
        try:
            self.values: F64 = np.array(numbers, dtype=np.float64)
        except (TypeError, ValueError):
            raise ConfigError(f"{name} holds something that is no number: {numbers[:3]!r}, ...") from None
        self.tokens: I64 = np.array(tokens, dtype=np.int64)
        if not isinstance(given, Mapping):  # of an array NaN is no number
            there = ~np.isnan(self.values)
            self.tokens, self.values = self.tokens[there], self.values[there]
        self._refuse_strange(positive)
        self.digest = self._hash()
        self._tables: dict[str, tuple[I64 | None, F64]] = {}

    @classmethod
    def take(cls, name: str, given: Any, *, positive: bool = False) -> PerGene:
        """Return what was given as it is where it is such a table already."""
        return given if isinstance(given, PerGene) else cls(name, given, positive=positive)

    def _refuse_strange(self, positive: bool) -> None:
        if not len(self.values):
            raise ConfigError(f"{self.name} is empty; give the table that the model comes with")
        bad = ~np.isfinite(self.values) | (self.values < 0) | (positive & (self.values == 0))
        if bad.any():
            at = int(np.flatnonzero(bad)[0])
            gene = f"token {self.tokens[at]}" if self.ids is None else f"gene {self.ids[at]!r}"
            least = "above 0" if positive else "0 or more"
            raise ConfigError(
                f"{self.name} must be finite and {least}; {gene} has {self.values[at]}. Leave out genes without one."
            )
        if self.ids is None and (len(np.unique(self.tokens)) < len(self.tokens) or int(self.tokens.min()) < 0):
            raise ConfigError(f"{self.name}: tokens must be 0 or more, each once")

    def _hash(self) -> str:
        if self.ids is None:
            order = np.argsort(self.tokens)
            said = [self.tokens[order].tobytes(), self.values[order].tobytes()]
        else:
            pairs = sorted(zip(self.ids, self.values.tolist(), strict=True))
            said = ["\0".join(gene for gene, _ in pairs).encode(), np.array([one for _, one in pairs]).tobytes()]
        state = xxhash.xxh3_128()
        for part in said:
            state.update(part)
        return state.hexdigest()

    def of(self, tokens: I64, vocabulary: Vocabulary | None) -> F64:
        """Return the number of each token, float64[n], NaN for those without one and for token -1.

        Raises
        ------
        ConfigError
            When the table is by gene id and there is no vocabulary, or when no token has a number.
        """
        known, values = self._table(vocabulary)
        if known is None:
            within = (tokens >= 0) & (tokens < len(values))
            found = np.where(within, values[np.where(within, tokens, 0)], np.nan)
        else:
            at = np.minimum(np.searchsorted(known, tokens), len(known) - 1)
            found = np.where(known[at] == tokens, values[at], np.nan)
        if len(tokens) and np.isnan(found).all():
            raise ConfigError(
                f"{self.name} has a number for none of the {len(tokens):,} genes (tokens such as "
                f"{tokens[:3].tolist()}); is it the table of another vocabulary?"
            )
        return found

    def _table(self, vocabulary: Vocabulary | None) -> tuple[I64 | None, F64]:
        """Return tokens ascending and their numbers; or, where it is small, None and an array over all tokens."""
        if self.ids is not None and vocabulary is None:
            raise ConfigError(
                f"{self.name} is by gene id, so the vocabulary must say which token a gene has: give vocabulary=..., "
                f"or key {self.name} by token"
            )
        key = "" if self.ids is None or vocabulary is None else vocabulary.hash
        if key not in self._tables:
            tokens, values = self.tokens, self.values
            if self.ids is not None and vocabulary is not None:
                at = vocabulary.index_of(self.ids)
                tokens, values = np.asarray(vocabulary.tokens)[at[at >= 0]], values[at >= 0]
            self._tables[key] = _lookup(tokens, values)
        return self._tables[key]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PerGene) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        return f"<{self.name} of {len(self.values):,} genes, {self.digest[:8]}>"


def _lookup(tokens: I64, values: F64) -> tuple[I64 | None, F64]:
    if int(tokens.max(initial=0)) >= DENSE_TOKENS:
        order = np.argsort(tokens)
        return tokens[order], values[order]
    table = np.full(int(tokens.max(initial=0)) + 1, np.nan)
    table[tokens] = values
    return None, table
