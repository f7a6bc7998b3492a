"""Tokens in front of a cell's genes that say where it comes from (floor 5, tokens): assay, tissue, drug, depth."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from cellmill.errors import ConfigError, InputError, VocabularyError, nearest
from cellmill.genes import Vocabulary
from cellmill.tokens.cells import MOST_TOKEN, as_totals, check_number, check_whole
from cellmill.tokens.recipe import as_list

__all__ = [
    "Context",
    "Depth",
    "Obs",
    "check_apart",
    "check_column",
    "columns_of",
    "context_tokens",
    "ids_of",
    "refuse_genes",
]

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
        Token of each label, which no gene may have: `vocabulary.n_tokens` and up are free.
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
        check_column("column of a context", self.column)
        if not isinstance(self.tokens, Mapping) or not self.tokens:
            raise ConfigError(f"context {self.column!r} has no tokens; give a mapping of label to token")
        where = f"a token of context {self.column!r}"
        tokens = {
            str(label): check_whole(where, token, least=0, most=MOST_TOKEN) for label, token in self.tokens.items()
        }
        object.__setattr__(self, "tokens", MappingProxyType(tokens))
        if self.missing is not None:
            missing = check_whole(f"missing of context {self.column!r}", self.missing, least=0, most=MOST_TOKEN)
            object.__setattr__(self, "missing", missing)

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

    def __hash__(self) -> int:
        return hash((self.column, frozenset(self.tokens.items()), self.missing))

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
        given = as_list("edges of a depth token", self.edges, "totals")
        edges = tuple(check_number("an edge of a depth token", edge) for edge in given)
        first = check_whole("first of a depth token", self.first, least=0, most=MOST_TOKEN - len(edges))
        if not edges or any(a >= b for a, b in itertools.pairwise(edges)):
            raise ConfigError(f"edges of a depth token must be one number or more, ascending, found {self.edges!r}")
        object.__setattr__(self, "edges", edges)
        object.__setattr__(self, "first", first)

    def of_totals(self, totals: npt.NDArray[Any]) -> I64:
        """Return the token of each total, int64[n]."""
        return self.first + np.searchsorted(np.asarray(self.edges), totals, side="right").astype(np.int64)

    def to_dict(self) -> dict[str, Any]:
        """Return the configuration as JSON values."""
        return {"depth": list(self.edges), "first": self.first}


def check_column(name: str, value: object) -> None:
    """Check that an argument is the name of a column of obs, or None.

    Raises
    ------
    ConfigError
        Naming the argument.
    """
    if value is not None and not isinstance(value, str):
        raise ConfigError(f"{name} must be the name of a column of obs, found {value!r}")


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


def _named(context: Sequence[Context | Depth]) -> Iterator[tuple[str, int]]:
    """Yield what each token of a context stands for, and the token."""
    for one in context:
        if isinstance(one, Depth):
            for above in range(len(one.edges) + 1):
                yield f"a depth above {above} of the edges", one.first + above
            continue
        for label, token in one.tokens.items():
            yield f"the label {label!r} of context {one.column!r}", token
        if one.missing is not None:
            yield f"missing of context {one.column!r}", one.missing


def check_apart(
    context: Sequence[Context | Depth], own: Mapping[str, int], vocabulary: Vocabulary | None, *, offset: int = 0
) -> None:
    """Check that no token means two things: a context, a gene, or what the recipe puts in itself.

    Parameters
    ----------
    own
        What the recipe puts in itself, such as `<pad>`, and its tokens.
    offset
        What is added to the token of each gene.

    Raises
    ------
    ConfigError
        Naming both.
    """
    name_of = {token: name for name, token in own.items()}
    named = list(_named(context))
    free = f"A token means one thing: free are those from vocabulary.n_tokens{' + offset' if offset else ''} on"
    for what, token in named:
        if token in name_of:
            raise ConfigError(f"context: {what} has the token {token}, which is that of {name_of[token]}. {free}")
    if vocabulary is None:
        return
    genes = np.asarray(vocabulary.tokens) + offset
    both = np.flatnonzero(np.isin(genes, [*own.values(), *(token for _, token in named)]))
    if len(both):
        token = int(genes[both[0]])
        what = name_of.get(token) or next(f"context: {what}" for what, one in named if one == token)
        raise ConfigError(f"{what} has the token {token}, which is that of gene {vocabulary.ids[both[0]]!r}. {free}")


def refuse_genes(token_of: I64, context: Sequence[Context | Depth], own: Mapping[str, int], *, offset: int = 0) -> None:
    """Check that no column of the counts has a token that means something else to the recipe; see `check_apart`.

    Raises
    ------
    VocabularyError
        Naming the column and what its token means.
    """
    if not len(token_of):
        return
    low, high = int(token_of.min()) + offset, int(token_of.max()) + offset
    meant = {token: what for what, token in _named(context) if low <= token <= high}
    meant |= {token: what for what, token in own.items() if low <= token <= high}
    found = np.flatnonzero((token_of >= 0) & np.isin(token_of, np.array([*meant], dtype=np.int64) - offset))
    if len(found):
        token = int(token_of[found[0]])
        raise VocabularyError(
            f"genes has the token {token} in column {found[0]}, which as {token + offset} is that of "
            f"{meant[token + offset]}: hand tokens of the recipe's vocabulary, or -1 for a gene without one"
        )


def columns_of(context: Sequence[Context | Depth]) -> tuple[str, ...]:
    """Return the columns of obs that context tokens are made from."""
    return tuple(one.column for one in context if isinstance(one, Context))


def context_tokens(
    context: Sequence[Context | Depth], obs: Obs | None, counts: Any, totals: npt.NDArray[Any] | None
) -> I64:
    """Return the context tokens of n cells, int64[n, len(context)].

    Raises
    ------
    InputError
        When `obs` lacks a column, and for totals that `as_totals` refuses, where a depth needs them.
    """
    n = counts.shape[0]
    made = np.empty((n, len(context)), dtype=np.int64)
    for at, one in enumerate(context):
        if isinstance(one, Depth):
            made[:, at] = one.of_totals(as_totals(counts, totals)[0])
        else:
            made[:, at] = one.of(labels_of(obs, one.column, n))
    return made


def labels_of(obs: Obs | None, column: str, n: int) -> Any:
    """Return the labels of a column of obs.

    Raises
    ------
    InputError
        When it is not there, or not of n cells.
    """
    if not isinstance(obs, Mapping) or column not in obs:
        raise InputError(
            f"this recipe makes a token from the column {column!r} of obs: hand encode obs={{{column!r}: labels}}; "
            f"found {sorted(obs) if isinstance(obs, Mapping) and obs else 'no obs'}"
        )
    labels = obs[column]
    parts = labels if isinstance(labels, tuple) else (labels, ())
    if len(parts) != 2 or not all(isinstance(part, Sized) for part in parts):
        raise InputError(f"obs[{column!r}] must be labels, or a pair of codes and names, found {labels!r:.60}")
    found = len(parts[0])
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
            if not len(names):  # what a loader hands on of a column of numbers
                raise InputError(f"{what}: the column holds numbers, not labels; make it text, or use Depth for totals")
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
