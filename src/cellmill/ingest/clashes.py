"""Columns of obs whose types differ between inputs (floor 4): one without loss, and noted, or an error with remedy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from cellmill.errors import InputError
from cellmill.ingest.base import Base
from cellmill.store.obs_clash import TypedColumn, clash_between, examples_of, whole_range_of
from cellmill.store.obs_types import is_text

__all__ = ["InputColumns", "require_one_type", "widened"]

Names = tuple[tuple[str, str, str], ...]


@dataclass(frozen=True, eq=False)
class InputColumns:
    """Columns of obs of one input.

    Attributes
    ----------
    names : tuple of (column of `table`, store's column, type)
    origin : dict
        Column of `table` -> the file's own, where that is called otherwise.
    """

    path: Path
    table: pa.Table
    names: Names
    origin: Mapping[str, str]


def require_one_type(inputs: Sequence[InputColumns], base: Base | None) -> None:
    """Check that each column of the store can hold what all inputs have, and the store that is added to.

    Raises
    ------
    InputError
        Naming the column, both owners, their types and values, and what to write into the mapping file.
    """
    columns = {name: [column] for name, column in base.typed_columns().items()} if base else {}
    for one in inputs:
        for own, name, kind in one.names:
            column = one.table.column(own)
            known = TypedColumn(str(one.path), kind, partial(examples_of, column), partial(whole_range_of, column))
            columns.setdefault(name, []).append(known)
    for name, owners in columns.items():
        if len({owner.kind for owner in owners}) > 1 and (clash := clash_between(name, owners)):
            by_path = {str(one.path): one for one in inputs}
            mendable = [owner for owner in clash.owners if owner.owner in by_path]
            raise InputError(f"{clash.text}\n{_remedy(name, mendable, clash.owners, by_path)}")


def _remedy(
    name: str, mendable: Sequence[TypedColumn], owners: Sequence[TypedColumn], by_path: Mapping[str, InputColumns]
) -> str:
    """What to write into the mapping file; a store that is added to stays as it is."""
    fixed = next((owner for owner in owners if owner not in mendable), None)
    kind = "string" if fixed is None or is_text(fixed.kind) else fixed.kind
    wrong = [owner for owner in mendable if is_text(owner.kind) != (kind == "string")] or list(mendable)
    lines = ["Say in the mapping file (--obs-map FILE) what it is, for instance:", "  sources:"]
    for owner in wrong:
        one = by_path[owner.owner]
        own = next(own for own, new, _ in one.names if new == name)
        origin = one.origin.get(own, own)
        source = f"from: {_quoted(origin)}, " if origin != name else ""
        lines += [
            f"    - match: {_quoted(one.path.name)}",
            f"      columns: {{{_quoted(name)}: {{{source}type: {kind}}}}}",
        ]
    lines.append(
        "Values that are none of this type can be given others there (`values`), or the column another name "
        f"({{{_quoted(name + '_2')}: {_quoted(name)}}}); see docs/how-to/labels.md."
    )
    return "\n".join(lines)


def _quoted(text: str) -> str:
    plain = text.replace("_", "").replace("-", "").replace(".", "").isalnum() and text[:1].isalpha()
    return text if plain else "'" + text.replace("'", "''") + "'"


def widened(names: Names, schema: Mapping[str, Any]) -> list[str]:
    """Return a note for each column that has another type in the store, which holds each value of it exactly."""
    return [
        f"obs column {name!r} is {kind} in the file and {schema[name]} in the store; each value is the same"
        for _, name, kind in names
        if kind not in ("null", schema[name])
    ]
