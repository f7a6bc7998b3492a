"""Columns of obs whose types differ between stores that are merged (floor 3): one without loss, or an error."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cellmill.errors import InputError
from cellmill.store.obs_clash import TypedColumn, clash_between, examples_of, whole_range_of
from cellmill.store.obs_types import STANDARD_COLUMNS
from cellmill.store.reader import Store

__all__ = ["require_one_type", "typed_column"]


def require_one_type(stores: Sequence[Store]) -> None:
    """Check that each column of the merged store can hold what all of them have.

    Raises
    ------
    InputError
        Naming the column, two stores, their types and values, and the remedy.
    """
    columns: dict[str, list[TypedColumn]] = {}
    names: dict[str, str] = {}
    for store in stores:
        for name, kind in store.manifest.obs_schema[len(STANDARD_COLUMNS) :]:
            names.setdefault(name.casefold(), name)  # SQL does not tell upper case from lower
            columns.setdefault(name.casefold(), []).append(typed_column(store, name, kind))
    for folded, owners in columns.items():
        name = names[folded]
        if len({owner.kind for owner in owners}) > 1 and (clash := clash_between(name, owners)):
            raise InputError(
                f"{clash.text}\nBuild one of the stores again with a mapping file (--obs-map) that says what the "
                f"column is, for instance columns: {{{name}: {{type: string}}}}, or that calls it otherwise "
                "(docs/how-to/labels.md); or pass --obs-clash text (in Python: obs_clash='text') to have text of both, "
                "where the number 1.0 becomes '1'."
            )


def typed_column(store: Store, name: str, kind: str) -> TypedColumn:
    """Return a column of a store, its values read when they are asked for."""

    def column() -> Any:
        return store.obs.to_arrow([name]).column(0)

    return TypedColumn(f"the store {store.path}", kind, lambda: examples_of(column()), lambda: whole_range_of(column()))
