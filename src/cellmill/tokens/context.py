"""Tokens in front of a cell's genes that say where it comes from (floor 5, tokens): assay, tissue, drug, depth."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from cellmill.errors import ConfigError, InputError, nearest
from cellmill.tokens.cells import check_number, check_whole

__all__ = ["Context", "Depth", "Obs", "columns_of", "context_tokens", "ids_of"]

I64 = npt.NDArray[np.int64]
# of each column one label for each cell: texts, None for missing; or (codes, names), code -1 for missing
Obs = Mapping[str, "Sequence[str | None] | tuple[npt.NDArray[np.integer[Any]], Sequence[str]]"]


@dataclass(frozen=True)
class Context:
    """One token for the label of a cell in a column of obs.

    Parameters
    ----------
    column
        Column of obs, such as "assay".
    tokens
        Token of each label.
    missing
        Token of cells without a label, and of labels that have no token; None to refuse these.

    Examples
    --------
    >>> Context("assay", {"10x 3' v3": 70001}, missing=70000).of(["10x 3' v3", None]).tolist()
    [70001, 70000]
    """

    column: str
    tokens: Mapping[str, int]
    missing: int | None = None

    def __post_init__(self) -> None:
        if not self.tokens:
            raise ConfigError(f"context {self.column!r} has no tokens; give a mapping of label to token")
        where = f"a token of context {self.column!r}"
        tokens = {str(label): check_whole(where, token, least=0) for label, token in self.tokens.items()}
        object.__setattr__(self, "tokens", MappingProxyType(tokens))
        if self.missing is not None:
            check_whole(f"missing of context {self.column!r}", self.missing, least=0)

    def of(self, labels: Any) -> I64:
        """Return the token of each label, int64[n].

        Raises
        ------
        InputError
            For a label without a token, where there is none for missing ones.
        """
        return ids_of(labels, self.tokens, self.missing, f"context {self.column!r}")

    def to_dict(self) -> dict[str, Any]:
        """Return the configuration as JSON values."""
        return {"column": self.column, "tokens": dict(self.tokens), "missing": self.missing}

    def __reduce__(self) -> tuple[Any, ...]:
        return Context, (self.column, dict(self.tokens), self.missing)


@dataclass(frozen=True)
class Depth:
    """One token for the total of a cell: `first` where it is below all edges, `first` + 1 from the first edge on, ...

    Parameters
    ----------
    edges
        Totals, ascending.
    first
        The first of len(edges) + 1 tokens.

    Examples
    --------
    >>> Depth((1000, 10_000), first=500).of_totals(np.array([999, 1000, 50_000])).tolist()
    [500, 501, 502]
    """

    edges: tuple[float, ...]
    first: int

    def __post_init__(self) -> None:
        edges = tuple(check_number("an edge of a depth token", edge) for edge in self.edges)
        check_whole("first of a depth token", self.first, least=0)
        if not edges or any(a >= b for a, b in itertools.pairwise(edges)):
            raise ConfigError(f"edges of a depth token must be one number or more, ascending, found {self.edges!r}")
        object.__setattr__(self, "edges", edges)

    def of_totals(self, totals: npt.NDArray[np.integer[Any]]) -> I64:
        """Return the token of each total, int64[n]."""
        return self.first + np.searchsorted(np.asarray(self.edges), totals, side="right").astype(np.int64)

    def to_dict(self) -> dict[str, Any]:
        """Return the configuration as JSON values."""
        return {"depth": list(self.edges), "first": self.first}


def as_context(context: Any) -> tuple[Context | Depth, ...]:
    """Return the context of a recipe as a tuple.

    Raises
    ------
    ConfigError
        For what is no sequence of `Context` and `Depth`.
    """
    many = tuple(context) if isinstance(context, Sequence) and not isinstance(context, str) else (context,)
    for one in many:
        if not isinstance(one, (Context, Depth)) or not isinstance(context, Sequence):
            raise ConfigError(f"context must be a tuple of Context(...) and Depth(...), found {context!r}")
    return many


def columns_of(context: Sequence[Context | Depth]) -> tuple[str, ...]:
    """Return the columns of obs that context tokens are made from."""
    return tuple(one.column for one in context if isinstance(one, Context))


def context_tokens(context: Sequence[Context | Depth], obs: Obs | None, totals: npt.NDArray[np.integer[Any]]) -> I64:
    """Return the context tokens of n cells, int64[n, len(context)].

    Raises
    ------
    InputError
        When `obs` lacks a column.
    """
    n = len(totals)
    made = np.empty((n, len(context)), dtype=np.int64)
    for at, one in enumerate(context):
        made[:, at] = one.of_totals(totals) if isinstance(one, Depth) else one.of(labels_of(obs, one.column, n))
    return made


def labels_of(obs: Obs | None, column: str, n: int) -> Any:
    """Return the labels of a column of obs.

    Raises
    ------
    InputError
        When it is not there, or not of n cells.
    """
    if obs is None or column not in obs:
        raise InputError(
            f"this recipe makes a token from the column {column!r} of obs: hand encode obs={{{column!r}: labels}}; "
            f"found {sorted(obs) if obs else 'no obs'}"
        )
    labels = obs[column]
    found = len(labels[0]) if isinstance(labels, tuple) else len(labels)
    if found != n:
        raise InputError(f"obs[{column!r}] must have one label for each of {n} cells, found {found}")
    return labels


def ids_of(labels: Any, ids: Mapping[str, int], missing: int | None, what: str) -> I64:
    """Return the id of each label, int64[n]; `missing` for None and for unknown ones.

    Raises
    ------
    InputError
        For these where `missing` is None.
    """
    if isinstance(labels, tuple):
        codes, names = np.asarray(labels[0]), labels[1]
        if codes.dtype.kind not in "iu" or (len(codes) and not -1 <= int(codes.min()) <= int(codes.max()) < len(names)):
            raise InputError(f"{what}: codes must be whole numbers from -1 to {len(names) - 1}, one for each cell")
        known = np.array([ids.get(str(name), -1) for name in names] + [-1], dtype=np.int64)
        found = known[codes]  # code -1 is the last one
        name_of = [*names, None]
        first = int(np.flatnonzero(found < 0)[0]) if (found < 0).any() else -1
        absent = name_of[int(codes[first])] if first >= 0 else None
    else:
        found = np.array([-1 if label is None else ids.get(str(label), -1) for label in labels], dtype=np.int64)
        first = int(np.flatnonzero(found < 0)[0]) if (found < 0).any() else -1
        absent = labels[first] if first >= 0 else None
    if first >= 0 and missing is None:
        raise InputError(
            f"{what}: cell {first} has the label {absent!r}, which has no token.{nearest(str(absent), ids)} "
            "Add it, or say which token stands for missing labels: missing=..."
        )
    return np.where(found < 0, -1 if missing is None else missing, found).astype(np.int64)
