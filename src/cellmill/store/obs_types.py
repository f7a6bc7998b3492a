"""The few types of obs, and how columns of several files become one (floor 3, pure)."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from cellmill.errors import InputError

__all__ = [
    "FACT_COLUMNS",
    "OBS_TYPES",
    "STANDARD_COLUMNS",
    "STORED_COLUMNS",
    "arrow_type",
    "cast_obs",
    "is_text",
    "type_name",
    "unify_types",
]

# name -> type of the columns that every store has, first and in this order
STANDARD_COLUMNS: dict[str, str] = {
    "cell": "string",
    "dataset": "category",
    "uid": "uint64",
    "fingerprint": "uint64",
    "total_counts": "int64",
    "n_genes_detected": "int32",
}
# what stores have beside them since whole cells are measured: `total_counts` and `n_genes_detected` are then of all
# genes of the cell's file, `stored_counts` and `n_genes_stored` of those that the store holds
FACT_COLUMNS: dict[str, str] = {
    "kept_share": "float32",
    "mito_share": "float32",
    "ribo_share": "float32",
    "top_gene_share": "float32",
    "stored_counts": "int64",
    "n_genes_stored": "int32",
}
# column of obs -> the one that says the same where a store is older than it
STORED_COLUMNS: dict[str, str] = {"stored_counts": "total_counts", "n_genes_stored": "n_genes_detected"}
_ARROW: dict[str, pa.DataType] = {
    "bool": pa.bool_(),
    "int32": pa.int32(),
    "int64": pa.int64(),
    "uint64": pa.uint64(),
    "float32": pa.float32(),
    "float64": pa.float64(),
    "string": pa.string(),
    "category": pa.dictionary(pa.int32(), pa.string()),
    "null": pa.null(),
}
OBS_TYPES = tuple(_ARROW)


def arrow_type(name: str) -> pa.DataType:
    """Return the Arrow type behind a type name of the manifest."""
    return _ARROW[name]


def is_text(name: str) -> bool:
    """Return whether a type name of the manifest stands for text."""
    return name in ("string", "category")


def type_name(kind: pa.DataType) -> str:
    """Return the manifest's name for an Arrow type: the smallest of the few types of obs that holds it exactly.

    Raises
    ------
    InputError
        For types that obs cannot hold (lists, structs, ...).
    """
    if pa.types.is_dictionary(kind):
        return "category" if type_name(kind.value_type) in ("string", "null") else type_name(kind.value_type)
    if pa.types.is_boolean(kind):
        return "bool"
    if pa.types.is_integer(kind):
        if pa.types.is_uint64(kind):
            return "uint64"
        return "int32" if kind.bit_width < 32 or pa.types.is_int32(kind) else "int64"
    if pa.types.is_floating(kind):
        return "float64" if pa.types.is_float64(kind) else "float32"
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return "string"
    if pa.types.is_null(kind):
        return "null"
    raise InputError(f"obs cannot hold a column of Arrow type {kind}")


def unify_types(first: str, second: str) -> str:
    """Return the type for a column that has these two in different files; text, where nothing else serves.

    Notes
    -----
    Whole numbers (but uint64) beside real ones become float64: nearest value, exact up to 2^53. All else is lossless.

    Examples
    --------
    >>> unify_types("int64", "float32"), unify_types("category", "int64"), unify_types("null", "bool")
    ('float64', 'string', 'bool')
    """
    pair = {first, second}
    if len(pair) == 1:
        return first
    if "null" in pair:
        return (pair - {"null"}).pop()
    if pair == {"string", "category"}:
        return "category"
    if pair == {"int32", "int64"}:
        return "int64"
    if pair <= {"int32", "int64", "float32", "float64"}:
        return "float64"
    return "string"


def cast_obs(table: pa.Table, schema: Sequence[tuple[str, str]]) -> pa.Table:
    """Return the columns of `schema`, in its order and types; columns that `table` lacks are null, and so is NaN."""
    present = set(table.column_names)
    columns = [
        _cast(table.column(name), kind) if name in present else pa.nulls(table.num_rows, _ARROW[kind])
        for name, kind in schema
    ]
    return pa.table(columns, schema=pa.schema([(name, _ARROW[kind]) for name, kind in schema]))


def _cast(column: pa.ChunkedArray, kind: str) -> pa.ChunkedArray:
    target = _ARROW[kind]
    if pa.types.is_dictionary(column.type) and column.type != target:
        column = column.cast(column.type.value_type)
    if pa.types.is_floating(column.type):  # SQL ranks NaN above every number, so that `age > 18` would select it
        column = pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
    if column.type == target:
        return column
    if kind == "category":
        return column.cast(pa.string()).dictionary_encode().cast(target)
    whole_to_real = pa.types.is_integer(column.type) and pa.types.is_floating(target)
    return column.cast(target, safe=not whole_to_real)
