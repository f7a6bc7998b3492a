"""Large tables of labels in Parquet, joined to cells without holding them in memory (floor 3, sources).

Knows keys and columns; DuckDB does the join, in bounded memory. Must not know matrices.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cellmill.errors import FormatError
from cellmill.sources.parquet_file import label_columns, reading_parquet

__all__ = ["join_labels"]

# By this column tables of many cells are sorted, so that row groups of other values need not be read.
PART = "plate"
MOST_PARTS = 16


def join_labels(obs: pa.Table, path: Path, *, column: str, key: str, note: Callable[[str], None]) -> pa.Table:
    """Return obs with the columns of the Parquet table at `path` that it does not have yet.

    Parameters
    ----------
    obs : pyarrow.Table
    path : Path
        One row for each value of `key`; in any order, rows of other cells among them.
    column, key : str
        Joined where the first, of obs, equals the second, of the table.

    Raises
    ------
    FormatError
        The table cannot be read, knows none of the cells, or has two rows for one of them.
    """
    with reading_parquet(path):
        # not pyarrow.dataset: it brings pandas in, for a third of a second of every build
        schema = pq.read_schema(path)
    if key not in schema.names:
        note(f"{path.name} is not joined: it has no column {key}")
        return obs
    has = {name.casefold() for name in obs.column_names}
    wanted = label_columns(schema, without=frozenset({key}), note=note, file=path.name)
    new = [name for name in wanted if name.casefold() not in has]
    if not new or not obs.num_rows:
        return obs
    found = _left_join(obs, path, schema, column=column, key=key, names=new)
    known = found.column("found")
    missing = obs.num_rows - (pc.sum(known).as_py() or 0)
    if missing == obs.num_rows:
        examples = ", ".join(obs.column(column)[:2].cast(pa.string()).fill_null("").to_pylist())
        raise FormatError(
            f"{path}: none of its rows has the {key} of a cell here (for example {examples}); it belongs to other "
            "cells. Put the right table there, or take it away to go without its labels."
        )
    if missing:
        note(f"{path.name}: {missing} of {obs.num_rows} cells have no row in it; their labels from it are null")
    note(f"{path.name} is joined by {key}: {', '.join(new)}")
    for name in new:
        labels = found.column(name)
        if pa.types.is_string(labels.type) or pa.types.is_large_string(labels.type):
            labels = labels.cast(pa.string()).dictionary_encode().cast(pa.dictionary(pa.int32(), pa.string()))
        obs = obs.append_column(name, labels.combine_chunks())
    return obs.combine_chunks()


def _left_join(obs: pa.Table, path: Path, schema: pa.Schema, *, column: str, key: str, names: list[str]) -> pa.Table:
    """Return `found` and the named columns for each row of obs, in order."""
    cells = pa.table({"key": obs.column(column).cast(pa.string()), "at": np.arange(obs.num_rows, dtype=np.int64)})
    chosen = ", ".join(f"labels.{_quoted(name)}" for name in names)
    sql = (
        f"SELECT cells.at, labels.{_quoted(key)} IS NOT NULL AS found, {chosen} FROM cells "
        f"LEFT JOIN (SELECT * FROM read_parquet(?){_part_of(obs, schema)}) AS labels "
        f"ON cells.key = CAST(labels.{_quoted(key)} AS VARCHAR) ORDER BY cells.at"
    )
    import duckdb

    connection = duckdb.connect()
    try:
        connection.execute("SET enable_progress_bar = false")
        connection.register("cells", cells)
        with reading_parquet(path):
            found = connection.sql(sql, params=[str(path)]).to_arrow_table()
    except duckdb.Error as error:
        first_line = str(error).splitlines()[0]
        raise FormatError(f"{path}: cannot be joined to the cells ({first_line}). Get it again.") from None
    finally:
        connection.close()
    at = found.column("at").to_numpy()
    if (twice := np.flatnonzero(at[1:] == at[:-1])).size:
        name = obs.column(column)[int(at[twice[0]])].as_py()
        raise FormatError(f"{path}: {key} {name!r} stands in more than one row; expected one row for each.")
    return found


def _part_of(obs: pa.Table, schema: pa.Schema) -> str:
    """Return the condition by which only rows of the cells' own parts are read, where both tables name them."""
    if PART not in obs.column_names or PART not in schema.names:
        return ""
    kind = schema.field(PART).type
    values = obs.column(PART).unique()
    if len(values) > MOST_PARTS or values.null_count or not (pa.types.is_string(kind) or pa.types.is_integer(kind)):
        return ""
    listed = ", ".join("'" + str(value).replace("'", "''") + "'" for value in values.to_pylist())
    return f" WHERE {PART} IN ({listed})"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
