"""The obs and var tables of AnnData files of all ages as Arrow columns (floor 3, sources).

Knows the encodings of data frames since 2017: compound dataset with labels in uns, dataframe 0.1.0 with
`__categories`, dataframe 0.2.0 with categorical, nullable and string arrays. Must not know matrices.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from cellmill.errors import FormatError
from cellmill.sources.arrays import Array, Group, Node, read_text, reading

__all__ = ["INDEX_NAMES", "Frame", "UnreadableError", "plain_column", "read_frame"]

INDEX_NAMES = ("_index", "index")
MISSING_CODE = -1


class UnreadableError(Exception):
    """A column that has no counterpart in a table; the message says what it is."""


@dataclass(frozen=True)
class Frame:
    """A table as read: the index as strings (None where the file has none), and the columns in order.

    Attributes
    ----------
    index : pyarrow.StringArray or None
    columns : dict of str to pyarrow.Array
    """

    index: Any
    columns: dict[str, Any]


def read_frame(
    node: Node | None,
    *,
    path: Path,
    place: str,
    uns: Group | None,
    note: Callable[[str], None],
) -> Frame:
    """Return the table at `node`; columns that cannot be represented are left out and told to `note`.

    Parameters
    ----------
    node : Group or Array or None
        A data frame group, or the array of records of old files.
    place : str
        "obs", "var" or "raw/var", for messages.
    uns : Group or None
        Where old files keep `<column>_categories`.

    Raises
    ------
    FormatError
        The table contradicts itself or is damaged.
    """
    if isinstance(node, Array) and node.dtype.names:
        named = _compound_columns(node, path, place, uns)
    elif isinstance(node, Group):
        named = _group_columns(node, path, place, note)
    else:
        found = "missing" if node is None else "a dataset"
        raise FormatError(f"{path}: {place} is {found}, expected a table (a group of columns, or a compound dataset).")
    index, columns = None, {}
    _require_stored(node, path, place, note)
    for name, is_index, read in named:
        with reading(path, f"{place}[{name!r}]"):
            try:
                column = read()
            except UnreadableError as what:
                if is_index:
                    raise FormatError(
                        f"{path}: the index of {place}, {name!r}, cannot be read as names ({what}); "
                        "expected a vector with one name a row."
                    ) from None
                note(f"{path.name}: {place} column {name!r} was skipped ({what})")
                continue
        if is_index:
            index = _names(column)
        else:
            columns[name] = column
    return Frame(index, columns)


def _require_stored(node: Node, path: Path, place: str, note: Callable[[str], None]) -> None:
    """Refuse names of which chunks are not stored; tell the columns that read as zeros where theirs are not.

    Notes
    -----
    Writers leave out chunks of zeros alone, so those of a column cannot be told from lost ones.
    """
    with reading(path, place):
        index = _index_name(node) if isinstance(node, Group) else ""
        columns = {name: node.get(name) for name in node.names()} if isinstance(node, Group) else {"": node}
        missing = {name: n for name, column in columns.items() if (n := _chunks_not_stored(column))}
    if index in missing:
        raise FormatError(
            f"{path}, {place}[{index!r}]: {missing[index]} chunks are not stored, so names are missing; the copy is "
            "incomplete. Get it again."
        )
    if missing:
        named = ", ".join(name for name in missing if name) or "it"
        note(
            f"{path.name}, {place}: {named} hold chunks that are not stored and are read as zeros (the first label): "
            "either only those were there when it was written, or the copy is incomplete"
        )


def _chunks_not_stored(node: Node | None) -> int:
    if isinstance(node, Group):
        return sum(_chunks_not_stored(node.get(name)) for name in ("codes", "values", "categories"))
    return node.chunks_not_stored() if isinstance(node, Array) else 0


def _index_name(group: Group) -> str:
    """Return the name of the column that is the index, "" where there is none."""
    return group.text("_index") or next((name for name in INDEX_NAMES if name in group), "")


Named = tuple[str, bool, Callable[[], Any]]


def _group_columns(group: Group, path: Path, place: str, note: Callable[[str], None]) -> Iterator[Named]:
    """Yield (name, is the index, how to read it), the index first."""
    with reading(path, place):
        index_name = _index_name(group)
        order = _column_order(group, index_name)
        present = set(group.names())
    if index_name:
        if index_name not in group:
            raise FormatError(f"{path}: {place} names its index {index_name!r}, which is missing; the file is damaged.")
        yield index_name, True, lambda: _column(group.get(index_name))
    for name in order:
        if name not in group:
            note(f"{path.name}: {place} column {name!r} is listed but not stored")
        else:
            yield name, False, lambda name=name: _column(group.get(name))  # type: ignore[misc]
    extra = sorted(present - {name.split("/")[0] for name in order} - {index_name, "__categories"})
    if extra:
        note(f"{path.name}: {place} holds {', '.join(extra[:5])}, which its column order does not list; skipped")


def _column_order(group: Group, index_name: str) -> list[str]:
    order = group.attribute("column-order")
    if order is None:
        return [name for name in group.names() if name not in (index_name, "__categories")]
    return [item.decode() if isinstance(item, bytes) else str(item) for item in np.asarray(order).reshape(-1)]


def _compound_columns(dataset: Array, path: Path, place: str, uns: Group | None) -> Iterator[Named]:
    fields = list(dataset.dtype.names or ())
    index_name = next((name for name in INDEX_NAMES if name in fields), fields[0])
    yield index_name, True, lambda: _plain(dataset.field(index_name))
    for name in fields:
        if name != index_name:
            yield name, False, lambda name=name: _compound_column(dataset, name, uns)  # type: ignore[misc]


def _compound_column(dataset: Array, name: str, uns: Group | None) -> Any:
    values = dataset.field(name)
    labels = uns.array(f"{name}_categories") if uns is not None else None
    if labels is not None and values.dtype.kind in "iu":
        return _categorical(values, _column(labels))
    return _plain(values)


def _column(node: Node | None) -> Any:
    """Return one column of a data frame group, whatever its encoding."""
    if isinstance(node, Group):
        return _encoded(node)
    if not isinstance(node, Array):
        raise UnreadableError("it is neither a group nor an array")
    labels = node.referred("categories")
    if isinstance(labels, Array):
        return _categorical(node.read(), _column(labels))
    return plain_column(node)


def plain_column(array: Array) -> Any:
    """Return a vector of numbers, booleans or text as an Arrow array.

    Raises
    ------
    UnreadableError
        It is no vector, or of a type that no column can have.
    """
    if array.shape is None or array.ndim != 1:
        raise UnreadableError(f"its shape is {array.shape}")
    return _plain(array.read(), text=array.is_text)


def _encoded(group: Group) -> Any:
    """Return a column that is a group of its own: labels by code, or values under a mask."""
    codes, values, mask = group.array("codes"), group.get("values"), group.array("mask")
    if codes is not None and "categories" in group:
        return _categorical(codes.read(), _column(group.get("categories")))
    if values is not None and mask is not None:
        return _masked(_column(values), mask.read())
    raise UnreadableError(f"encoding {group.text('encoding-type') or 'unknown'!r}")


def _plain(values: NDArray[Any], *, text: bool = False) -> Any:
    """Return an array of numbers, booleans or text."""
    if values.ndim != 1:
        raise UnreadableError(f"its shape is {values.shape}")
    if text or values.dtype.kind in "SU" or (values.dtype.kind == "O" and _all_text(values)):
        return read_text(values)
    if values.dtype.kind == "f" and values.dtype.itemsize == 2:
        values = values.astype(np.float32)
    if values.dtype.kind not in "biuf" or values.dtype.itemsize > 8:
        raise UnreadableError(f"its type is {values.dtype}")
    return pa.array(values.astype(values.dtype.newbyteorder("="), copy=False))


def _all_text(values: NDArray[Any]) -> bool:
    return all(item is None or isinstance(item, str | bytes) for item in values.tolist())


def _masked(values: Any, mask: NDArray[Any]) -> Any:
    """Return `values` with nulls where `mask` is true."""
    if len(values) != mask.size:
        raise ValueError(f"{len(values)} values but {mask.size} mask entries")
    return pc.if_else(pa.array(mask.astype(bool)), pa.scalar(None, values.type), values)


def _categorical(codes: NDArray[Any], categories: Any) -> Any:
    """Return dictionary<int32, string>; -1 is null, equal and null categories are folded."""
    if codes.ndim != 1 or codes.dtype.kind not in "iu":
        raise ValueError(f"category codes are {codes.dtype} of shape {codes.shape}, expected a vector of integers")
    codes = codes.astype(np.int64)
    if codes.size and not (codes.min() >= MISSING_CODE and codes.max() < len(categories)):
        at = int(np.flatnonzero((codes < MISSING_CODE) | (codes >= len(categories)))[0])
        raise ValueError(f"entry {at} has category code {int(codes[at])}, but there are {len(categories)} categories")
    labels = categories if pa.types.is_string(categories.type) else pa.array(_as_text(categories), pa.string())
    unique = labels.drop_null().unique()
    position = pc.index_in(labels, unique).fill_null(MISSING_CODE).to_numpy(zero_copy_only=False)
    moved = np.append(position, MISSING_CODE).astype(np.int32)[codes]
    return pa.DictionaryArray.from_arrays(pa.array(moved, mask=moved == MISSING_CODE), unique)


def _as_text(column: Any) -> list[str | None]:
    return [None if item is None else str(item) for item in column.to_pylist()]


def _names(column: Any) -> Any:
    """Return an index as strings without nulls."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        column = pa.array(_as_text(column), pa.string())
    return pc.fill_null(column, "")
