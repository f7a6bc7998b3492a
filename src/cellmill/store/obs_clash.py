"""Columns of one name and several types (floor 3, pure): which become one without a change of any value, which do not.

Text beside category, and whole numbers beside larger ones or beside real ones that hold them exactly, are one column.
Numbers beside text, or truth values beside either, are a clash: somebody has to say what is meant.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from cellmill.store.obs_types import is_text, unify_types

__all__ = ["Clash", "TypedColumn", "clash_between", "examples_of", "whole_range_of"]

_REAL = ("float32", "float64")
_EXACT = 2**53  # beyond it float64 leaves out whole numbers
_SHOWN = 3


@dataclass(frozen=True)
class TypedColumn:
    """A column of one input or store.

    Attributes
    ----------
    owner : str
        Whose it is, as the user calls it.
    kind : str
        Name of its type.
    examples : function
        Returns some of its values.
    whole_range : function
        Returns the smallest and largest of its whole numbers; None where it has no value.
    """

    owner: str
    kind: str
    examples: Callable[[], list[Any]]
    whole_range: Callable[[], tuple[int, int] | None]


@dataclass(frozen=True)
class Clash:
    """Two owners of a column that cannot be one, and what to say of it, up to the remedy."""

    text: str
    owners: tuple[TypedColumn, TypedColumn]


def clash_between(name: str, columns: Sequence[TypedColumn]) -> Clash | None:
    """Return the first clash among columns of one name; None where they are one without loss."""
    known = [column for column in columns if column.kind != "null"]
    kind = known[0].kind if known else "null"
    for i, other in enumerate(known):
        unified = unify_types(kind, other.kind)
        if unified == "string" and not (is_text(kind) and is_text(other.kind)):
            earlier = next(c for c in known[:i] if unify_types(c.kind, other.kind) == "string")
            return _clash(name, earlier, other)
        kind = unified
    if kind != "float64":
        return None
    for column in known:
        if column.kind == "int64" and not _is_exact(column):
            real = next(other for other in known if other.kind in _REAL)
            beyond = f"; real numbers hold whole ones up to 2^53 exactly, and it has {column.whole_range()}"
            return _clash(name, column, real, why=beyond)
    return None


def _is_exact(column: TypedColumn) -> bool:
    found = column.whole_range()
    return found is None or (found[0] >= -_EXACT and found[1] <= _EXACT)


def _clash(name: str, first: TypedColumn, second: TypedColumn, *, why: str = "") -> Clash:
    lines = [f"the obs column {name!r} is of two types, and a column of a store has one:"]
    lines += [f"  {c.owner}: {c.kind}, for example {', '.join(map(repr, c.examples()))}" for c in (first, second)]
    return Clash("\n".join(lines) + why, (first, second))


def examples_of(column: pa.ChunkedArray) -> list[Any]:
    """Return the first few different values of a column."""
    plain = column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column
    return pc.unique(plain.slice(0, 10_000).drop_null()).slice(0, _SHOWN).to_pylist()  # type: ignore[no-any-return]


def whole_range_of(column: pa.ChunkedArray) -> tuple[int, int] | None:
    """Return the smallest and largest value of a column of whole numbers; None where all are null."""
    plain = column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column
    found = pc.min_max(plain).as_py()
    return None if found["min"] is None else (found["min"], found["max"])
