"""Parquet with errors that help, and the labels in it as obs takes them (floor 3, sources).

Knows Parquet files and Arrow types. Must not know genes or counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cellmill.errors import CellmillError, FormatError

__all__ = ["label_columns", "open_parquet", "read_labels", "reading_parquet"]

STREAM_BYTES = 1 << 20
_TEXT = pa.dictionary(pa.int32(), pa.string())


@contextmanager
def reading_parquet(path: Path, what: str = "") -> Iterator[None]:
    """Turn what Arrow raises while it reads `path` into FormatError."""
    try:
        yield
    except (CellmillError, PermissionError):
        raise
    except (pa.ArrowException, OSError, ValueError, EOFError) as error:
        place = f", {what}" if what else ""
        first_line = (str(error).strip() or repr(error)).splitlines()[0]
        raise FormatError(
            f"{path}{place}: cannot be read as Parquet ({first_line}). It is truncated or damaged; get it again."
        ) from None


def open_parquet(path: Path, *, dictionaries: list[str] | None = None) -> pq.ParquetFile:
    """Return a Parquet file whose columns are read as a stream, page by page, not a row group at a time.

    Raises
    ------
    FormatError
        It is truncated, or no Parquet.
    """
    with reading_parquet(path):
        return pq.ParquetFile(
            path,
            buffer_size=STREAM_BYTES,
            pre_buffer=False,
            page_checksum_verification=True,  # where the file has checksums
            read_dictionary=dictionaries or [],
        )


def label_columns(schema: pa.Schema, *, without: frozenset[str], note: Callable[[str], None], file: str) -> list[str]:
    """Return the columns that obs can hold: text, numbers, booleans; others are told as a note."""
    names = [name for name in schema.names if name not in without]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise FormatError(f"{file}: the column {twice[0]!r} stands twice in this file.")
    kept = [name for name in names if _target(schema.field(name).type) is not None]
    if lost := [name for name in names if name not in kept]:
        kinds = ", ".join(f"{name!r} ({schema.field(name).type})" for name in lost)
        note(f"{file}: columns of obs left out, since obs holds text, numbers and booleans only: {kinds}")
    return kept


def read_labels(file: pq.ParquetFile, names: list[str]) -> Mapping[str, Any]:
    """Return columns of a Parquet file as obs takes them: text as dictionary<int32, string>."""
    if not names:
        return {}
    table = file.read(columns=names)
    return {name: _cast(table.column(name)) for name in names}


def _cast(column: pa.ChunkedArray) -> pa.ChunkedArray:
    target = _target(column.type)
    if column.type == target:
        return column
    if target == _TEXT and not pa.types.is_dictionary(column.type):
        return column.cast(pa.string()).dictionary_encode().cast(target)
    return column.cast(target)


def _target(kind: pa.DataType) -> pa.DataType | None:
    """Return the type in which obs takes a column, None where it cannot."""
    if pa.types.is_dictionary(kind):
        return _TEXT if _target(kind.value_type) == _TEXT else _target(kind.value_type)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return _TEXT
    if pa.types.is_float16(kind):
        return pa.float32()
    if pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_null(kind):
        return kind
    return None
