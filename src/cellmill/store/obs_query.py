"""SQL over obs (floor 3): one SELECT, run by DuckDB, which sees the table `obs` and nothing else of the machine."""

# DuckDB is imported where it is asked something: it takes a tenth of a second, which each process of a build would pay.
from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cellmill.errors import QueryError, nearest

if TYPE_CHECKING:
    import duckdb

__all__ = [
    "PRIVATE_NAMES",
    "Marks",
    "ObsFiles",
    "check_condition",
    "check_not_empty",
    "check_select",
    "columns_of_condition",
    "run_query",
]

_FILE = "__cellmill_file"
_MARKS = "__cellmill_marks"
_MARK_EXPRESSIONS = {"duplicate_of": "m.duplicate_of", "n_copies": "COALESCE(m.n_copies, 1)"}
# names that DuckDB gives to columns of its own while it reads Parquet, in lower case; obs with such a column is
# handed over as a table
PRIVATE_NAMES = frozenset({_FILE, "file_row_number"})
_SQL = {
    "bool": "BOOLEAN", "int32": "INTEGER", "int64": "BIGINT", "uint64": "UBIGINT", "float32": "FLOAT",
    "float64": "DOUBLE", "string": "VARCHAR", "category": "VARCHAR", "null": "VARCHAR",
}  # fmt: skip


class Marks(NamedTuple):
    """Marks of cells, a table of `marks.MARK_SCHEMA`, and the columns of it that are wanted."""

    table: pa.Table
    wanted: tuple[str, ...]


class ObsFiles:
    """Parquet files that hold obs in the types of its schema, for DuckDB to read by itself.

    Parameters
    ----------
    paths
        Files of the shards, in order, all in one folder.
    bases
        int64, shape (n_files,): row id of each file's first cell.
    present
        Names of the columns that at least one of the files has.
    marks
        Marks of cells beside them, where the text asks for some.
    """

    def __init__(
        self, paths: Sequence[Path], bases: npt.NDArray[np.int64], present: frozenset[str], marks: Marks | None = None
    ) -> None:
        self.marks = marks
        self.paths = tuple(paths)
        self.bases = bases
        self.present = present


def check_select(sql: str, columns: Sequence[str]) -> None:
    """Parse a text without running it.

    Raises
    ------
    QueryError
        When it is not one SELECT.
    """
    import duckdb

    with duckdb.connect(":memory:") as connection:
        try:
            _require_select(connection, sql)
        except duckdb.Error as error:
            raise QueryError(_query_message(_the_sql(sql), str(error), columns)) from None


def check_not_empty(where: str, *, what: str) -> None:
    """Check that a condition is not empty: one of a shell's unset variable does not mean "all cells".

    Raises
    ------
    QueryError
        When there is nothing in it; `what` says where the text is from.
    """
    if not where.strip():
        raise QueryError(
            f"{what}: the condition is empty; expected one that a cell meets or not, for example total_counts >= 1000. "
            "To take every cell, leave it out."
        )


def check_condition(where: str, *, what: str) -> None:
    """Check that a text is a condition that looks at one cell at a time, and gives the same whenever it is asked.

    Parameters
    ----------
    where
        What would stand after WHERE.
    what
        Where the text is from, for the message.

    Raises
    ------
    QueryError
        When it is no condition, asks for other cells (a SELECT in it), or calls what changes from run to run.
    """
    import duckdb

    check_not_empty(where, what=what)
    sql = f"SELECT 1 FROM obs WHERE {where}"  # balanced by itself, before it stands in parentheses
    with duckdb.connect(":memory:", config={"autoinstall_known_extensions": "false"}) as connection:
        try:
            _require_select(connection, sql)
            answer = connection.execute("SELECT json_serialize_sql(?)", [sql]).fetchone()
            changing = connection.execute(
                "SELECT DISTINCT function_name FROM duckdb_functions() WHERE stability IN "
                "('VOLATILE', 'CONSISTENT_WITHIN_QUERY')"
            ).fetchall()
        except duckdb.Error as error:
            raise QueryError(_query_message(f"{what}: the condition {where!r}", str(error), [])) from None
    text = answer[0] if answer else ""
    if '"class":"SUBQUERY"' in text:
        raise QueryError(
            f"{what}: {where!r} has a SELECT in it. Cells are looked at one by one while they are read: compare "
            "columns with values, for example total_counts >= 1000."
        )
    unsteady = set(re.findall(r'"function_name":"([^"]+)"', text)) & {name for (name,) in changing}
    if unsteady:
        raise QueryError(
            f"{what}: {where!r} calls {', '.join(sorted(unsteady))}, which gives another "
            "answer whenever it is asked; the same inputs must give the same store."
        )


def columns_of_condition(where: str) -> list[str]:
    """Return the names of columns in a condition that DuckDB can parse, in order of appearance."""
    import duckdb

    with duckdb.connect(":memory:", config={"autoinstall_known_extensions": "false"}) as connection:
        answer = connection.execute("SELECT json_serialize_sql(?)", [f"SELECT 1 FROM obs WHERE {where}"]).fetchone()
    found: dict[str, None] = {}
    _collect_columns(json.loads(answer[0]) if answer else {}, found)
    return list(found)


def _collect_columns(node: object, found: dict[str, None]) -> None:
    if isinstance(node, dict):
        if node.get("class") == "COLUMN_REF":
            found[node["column_names"][-1]] = None
        for value in node.values():
            _collect_columns(value, found)
    elif isinstance(node, list):
        for value in node:
            _collect_columns(value, found)


def run_query(
    sql: str,
    obs: ObsFiles | pa.Table,
    schema: Sequence[tuple[str, str]],
    *,
    asked: str | None = None,
    check_files: Callable[[], None] = lambda: None,
) -> pa.Table:
    """Run one SELECT over obs, with the column `row`; nothing else on the machine can be read or written by it.

    `asked` is how an error calls what was asked for; the text itself when None. `check_files` is called when a query
    fails that DuckDB had understood: it raises, if the files are to blame.

    Raises
    ------
    QueryError
        When the text is not one SELECT, or DuckDB refuses it.
    """
    import duckdb

    with duckdb.connect(":memory:", config={"autoinstall_known_extensions": "false"}) as connection:
        try:
            _require_select(connection, sql)
            if isinstance(obs, ObsFiles):
                _create_view(connection, obs, schema)
            else:
                connection.register("obs", obs)
            connection.execute("SET enable_external_access=false")
            connection.execute("SET lock_configuration=true")
            return connection.sql(sql).to_arrow_table()
        except duckdb.Error as error:
            if not isinstance(error, (duckdb.ParserException, duckdb.BinderException, duckdb.CatalogException)):
                check_files()
            columns = [name for name, _ in schema]
            raise QueryError(_query_message(asked or _the_sql(sql), str(error), columns)) from None


def _require_select(connection: duckdb.DuckDBPyConnection, sql: str) -> None:
    import duckdb

    statements = connection.extract_statements(sql)
    if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
        raise QueryError(f"expected one SELECT over the table obs, found: {sql.strip()!r}")


def _create_view(connection: duckdb.DuckDBPyConnection, obs: ObsFiles, schema: Sequence[tuple[str, str]]) -> None:
    columns = ", ".join(_expression(name, kind, present=name in obs.present) for name, kind in schema)
    join = ""
    if obs.marks is not None:
        connection.register(_MARKS, obs.marks.table)
        join = f" LEFT JOIN {_MARKS} m ON m.row = s.base + p.file_row_number"
        columns += "".join(f", {_MARK_EXPRESSIONS[name]} AS {name}" for name in obs.marks.wanted)
    paths = [_literal(str(path.absolute())) for path in obs.paths]
    # the bases stand in the view itself: a table of them would be one more that a query can name
    bases = ", ".join(f"({path}, {base}::BIGINT)" for path, base in zip(paths, obs.bases.tolist(), strict=True))
    connection.execute(
        f"CREATE VIEW obs AS SELECT s.base + p.file_row_number AS row, {columns} "
        f"FROM read_parquet([{', '.join(paths)}], union_by_name=true, hive_partitioning=false, "
        f"filename='{_FILE}', file_row_number=true) p "
        f"JOIN (VALUES {bases}) s(file, base) ON p.{_FILE} = s.file{join}"
    )
    folder = _literal(f"{obs.paths[0].parent.absolute()}/")
    connection.execute(f"SET allowed_directories=[{folder}]")


def _expression(name: str, kind: str, *, present: bool) -> str:
    quoted = '"' + name.replace('"', '""') + '"'
    return f"CAST({f'p.{quoted}' if present else 'NULL'} AS {_SQL[kind]}) AS {quoted}"


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _the_sql(sql: str) -> str:
    return f"the SQL {sql.strip()!r}"


def _query_message(asked: str, error: str, columns: Sequence[str]) -> str:
    missing = re.search(r'(?:column|Column|named) "([^"]+)"', error)
    hint = ""
    if missing and missing.group(1) not in columns:
        hint = f" obs has no column {missing.group(1)!r}.{nearest(missing.group(1), columns)}"
    first_line = error.strip().splitlines()[0] if error.strip() else "no message"
    said = first_line.rstrip(".!")  # DuckDB ends some in one, some in none
    listed = f" Columns: {', '.join(columns)}" if columns else ""
    return f"{asked} cannot be run over obs: {said}.{hint}{listed}"
