"""The batches that genes are chosen within (floor 4): which cells of a store have which label."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cellmill.errors import InputError, QueryError, nearest
from cellmill.statistics.blocks import I64, CellRows

if TYPE_CHECKING:
    from cellmill.store import Store

__all__ = ["rows_by_label"]

_FEWEST_CELLS = 2  # one cell has no variance


def rows_by_label(store: Store, rows: CellRows, column: str) -> list[tuple[str, I64]]:
    """Return the rows of each label of an obs column, labels ascending, rows in the order given.

    Raises
    ------
    QueryError
        When obs has no such column.
    InputError
        When some cells have no label, a label has a single cell, or the column holds measurements (floats).
    """
    if column not in store.obs.schema:
        raise QueryError(
            f"batch: obs has no column {column!r}.{nearest(column, store.obs.columns)} "
            f"Columns: {', '.join(store.obs.columns)}"
        )
    kind = store.obs.schema[column]
    if kind.startswith("float"):
        raise InputError(f"batch: the column {column!r} holds {kind}, no labels; give one of text or whole numbers")
    found = store.column(column, None if isinstance(rows, range) else rows)
    if isinstance(rows, range):
        found = found.slice(rows.start, len(rows))
    if found.null_count:
        raise InputError(
            f"batch: {found.null_count:,} of {len(found):,} cells have no {column!r}. "
            f'Leave them out with a condition (--where "{column} IS NOT NULL"), or choose another column.'
        )
    labels, codes = _coded(found)
    order = np.argsort(codes, kind="stable")
    ends = np.cumsum(np.bincount(codes, minlength=len(labels)))
    ids = np.asarray(rows, dtype=np.int64)[order]
    groups = [(str(label), part) for label, part in zip(labels, np.split(ids, ends[:-1]), strict=True) if len(part)]
    small = [label for label, part in groups if len(part) < _FEWEST_CELLS]
    if small:
        raise InputError(
            f"batch: {len(small)} of {len(groups)} values of {column!r} have a single cell, for example {small[0]!r}; "
            "variances need at least two. Leave such cells out with a condition (--where)."
        )
    return groups


def _coded(column: pa.Array) -> tuple[list[Any], I64]:
    """Return the labels, ascending, and for each cell which of them it has."""
    encoded = column if pa.types.is_dictionary(column.type) else pc.dictionary_encode(column)
    labels = encoded.dictionary.to_pylist()
    order = sorted(range(len(labels)), key=labels.__getitem__)
    place = np.empty(len(labels), dtype=np.int64)
    place[order] = np.arange(len(labels))
    codes = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    return [labels[i] for i in order], place[codes]
