"""The cells' metadata (floor 3): one Parquet file per shard, read as one table. Knows nothing of counts.

Each file keeps the columns its source had; the manifest's schema says what readers see: files that lack a column
give nulls, and columns that differ in type are widened by `unify_types`.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from cellmill.errors import InputError, QueryError, nearest
from cellmill.storage import sync_file, sync_folder

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "STANDARD_COLUMNS",
    "ObsTable",
    "arrow_type",
    "cast_obs",
    "run_query",
    "type_name",
    "unify_types",
    "write_obs",
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
_CATEGORY = pa.dictionary(pa.int32(), pa.string())
_ARROW: dict[str, pa.DataType] = {
    "bool": pa.bool_(),
    "int32": pa.int32(),
    "int64": pa.int64(),
    "uint64": pa.uint64(),
    "float32": pa.float32(),
    "float64": pa.float64(),
    "string": pa.string(),
    "category": _CATEGORY,
    "null": pa.null(),
}
_SQL = {
    "bool": "BOOLEAN", "int32": "INTEGER", "int64": "BIGINT", "uint64": "UBIGINT", "float32": "FLOAT",
    "float64": "DOUBLE", "string": "VARCHAR", "category": "VARCHAR", "null": "VARCHAR",
}  # fmt: skip
_GLOB_CHARACTERS = re.compile(r"[*?\[\]{}]")


def arrow_type(name: str) -> pa.DataType:
    """Return the Arrow type behind a type name of the manifest."""
    return _ARROW[name]


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
    """Return the type that holds the values of both without loss (text, where nothing else does).

    Examples
    --------
    >>> unify_types("int32", "float32"), unify_types("category", "int64"), unify_types("null", "bool")
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
    if pair <= {"int32", "float32", "float64"}:
        return "float64"
    return "string"


def cast_obs(table: pa.Table, schema: Sequence[tuple[str, str]]) -> pa.Table:
    """Return the columns of `schema`, in its order and types; columns that `table` lacks are null."""
    present = set(table.column_names)
    columns: list[pa.ChunkedArray | pa.Array] = []
    for name, kind in schema:
        target = _ARROW[kind]
        if name not in present:
            columns.append(pa.nulls(table.num_rows, target))
            continue
        column = table.column(name)
        if column.type != target:
            if pa.types.is_dictionary(column.type):
                column = column.cast(column.type.value_type)
            column = column.cast(pa.string()).dictionary_encode() if kind == "category" else column.cast(target)
            column = column.cast(target)
        columns.append(column)
    return pa.table(columns, schema=pa.schema([(name, _ARROW[kind]) for name, kind in schema]))


def write_obs(table: pa.Table, path: Path) -> None:
    """Write the obs of one shard as Parquet (zstd), under a temporary name and renamed."""
    temporary = path.with_name(f".{path.name}.tmp")
    hashes = {"uid", "fingerprint"}
    pq.write_table(
        table,
        temporary,
        compression="zstd",
        row_group_size=1 << 16,
        use_dictionary=[name for name in table.column_names if name not in hashes],
    )
    sync_file(temporary)
    temporary.replace(path)
    sync_folder(path.parent)


class ObsTable:
    """The metadata of all cells of a store, read when asked for.

    Parameters
    ----------
    files
        Parquet files of the shards, in order.
    n_cells
        Number of cells of each.
    schema
        Name and type of each column that readers see.
    """

    def __init__(self, files: Sequence[Path], n_cells: Sequence[int], schema: Sequence[tuple[str, str]]) -> None:
        self._files = tuple(files)
        self._bases = np.concatenate([[0], np.cumsum(np.asarray(n_cells, dtype=np.int64))]).astype(np.int64)
        self._schema = tuple(schema)

    @property
    def columns(self) -> list[str]:
        """Names of the columns, in order."""
        return [name for name, _ in self._schema]

    @property
    def schema(self) -> dict[str, str]:
        """Type of each column: bool, int32, int64, uint64, float32, float64, string or category."""
        return dict(self._schema)

    def __len__(self) -> int:
        return int(self._bases[-1])

    def __repr__(self) -> str:
        return f"ObsTable({len(self)} cells, columns: {', '.join(self.columns)})"

    def to_arrow(self, columns: Sequence[str] | None = None, rows: npt.ArrayLike | None = None) -> pa.Table:
        """Return columns as an Arrow table, one row per cell.

        Parameters
        ----------
        columns
            Names; all when None.
        rows
            Row ids, any order, repeats allowed; all cells when None.

        Raises
        ------
        QueryError
            For a column that is not there, naming the nearest.
        """
        wanted = self._wanted(columns)
        if rows is None:
            return self._concat([self._read(i, wanted) for i in range(len(self._files))], wanted)
        ids = np.asarray(rows, dtype=np.int64)
        shard_of = np.searchsorted(self._bases, ids, side="right") - 1
        parts, positions = [], []
        for shard in np.unique(shard_of):
            chosen = np.flatnonzero(shard_of == shard)
            parts.append(self._read(int(shard), wanted).take(pa.array(ids[chosen] - self._bases[shard])))
            positions.append(chosen)
        table = self._concat(parts, wanted)
        if not positions:
            return table
        back = np.empty(len(ids), dtype=np.int64)
        back[np.concatenate(positions)] = np.arange(len(ids))
        return table.take(pa.array(back))

    def to_pandas(self, columns: Sequence[str] | None = None, rows: npt.ArrayLike | None = None) -> pd.DataFrame:
        """Return columns as a pandas data frame; categories stay categories."""
        frame: pd.DataFrame = self.to_arrow(columns, rows).to_pandas()
        return frame

    def _wanted(self, columns: Sequence[str] | None) -> list[tuple[str, str]]:
        kinds = self.schema
        if columns is None:
            return list(self._schema)
        if isinstance(columns, str):
            raise InputError(f"columns must be a list of names, not the text {columns!r}; write [{columns!r}]")
        for name in columns:
            if name not in kinds:
                raise QueryError(f"obs has no column {name!r}.{nearest(name, kinds)} Columns: {', '.join(kinds)}")
        return [(name, kinds[name]) for name in columns]

    def _read(self, shard: int, wanted: Sequence[tuple[str, str]]) -> pa.Table:
        file = pq.ParquetFile(self._files[shard])
        present = set(file.schema_arrow.names)
        names = [name for name, _ in wanted if name in present]
        table = file.read(columns=names)
        if not names:  # a table without columns forgets its length
            table = pa.table({"": pa.nulls(file.metadata.num_rows)})
        return cast_obs(table, wanted)

    @staticmethod
    def _concat(parts: Sequence[pa.Table], wanted: Sequence[tuple[str, str]]) -> pa.Table:
        if not parts:
            return pa.schema([(name, _ARROW[kind]) for name, kind in wanted]).empty_table()
        return pa.concat_tables(parts).unify_dictionaries().combine_chunks()

    def check(self, sql: str) -> None:
        """Parse a text without running it.

        Raises
        ------
        QueryError
            When it is not one SELECT.
        """
        with duckdb.connect(":memory:") as connection:
            try:
                _require_select(connection, sql)
            except duckdb.Error as error:
                raise QueryError(_query_message(sql, str(error), self.columns)) from None

    def query(self, sql: str) -> pa.Table:
        """Run one SELECT over the table `obs`, which has the column `row` (row id) beside those of obs.

        Raises
        ------
        QueryError
            When DuckDB refuses the text, or it is more than one SELECT.
        """
        with self._plain_files() as files:
            return run_query(sql, files, self._bases, self._schema)

    @contextmanager
    def _plain_files(self) -> Iterator[list[Path]]:
        """Paths of the files; through a link, where DuckDB would take characters of a path for a pattern."""
        if not self._files or not _GLOB_CHARACTERS.search(str(self._files[0].parent)):
            yield list(self._files)
            return
        with tempfile.TemporaryDirectory(prefix="cellmill-") as folder:
            link = Path(folder) / "obs"
            link.symlink_to(self._files[0].parent.resolve(), target_is_directory=True)
            yield [link / file.name for file in self._files]


def run_query(
    sql: str, files: Sequence[Path], bases: npt.NDArray[np.int64], schema: Sequence[tuple[str, str]]
) -> pa.Table:
    """Run one SELECT over the view `obs` of Parquet files; nothing else on the machine can be read or written by it.

    Raises
    ------
    QueryError
        When the text is not one SELECT, or DuckDB refuses it.
    """
    columns = [name for name, _ in schema]
    with duckdb.connect(":memory:", config={"autoinstall_known_extensions": "false"}) as connection:
        try:
            _require_select(connection, sql)
            _create_view(connection, files, bases, schema)
            result = connection.sql(sql).to_arrow_table()
        except duckdb.Error as error:
            raise QueryError(_query_message(sql, str(error), columns)) from None
    return result


def _require_select(connection: duckdb.DuckDBPyConnection, sql: str) -> None:
    statements = connection.extract_statements(sql)
    if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
        raise QueryError(f"expected one SELECT over the table obs, found: {sql.strip()!r}")


def _create_view(
    connection: duckdb.DuckDBPyConnection,
    files: Sequence[Path],
    bases: npt.NDArray[np.int64],
    schema: Sequence[tuple[str, str]],
) -> None:
    paths = [str(file.absolute()) for file in files]
    typed = ", ".join(f"CAST(p.{_quoted(name)} AS {_SQL[kind]}) AS {_quoted(name)}" for name, kind in schema)
    if not paths:
        empty = ", ".join(f"CAST(NULL AS {_SQL[kind]}) AS {_quoted(name)}" for name, kind in schema)
        connection.execute(f"CREATE VIEW obs AS SELECT CAST(NULL AS BIGINT) AS row, {empty} WHERE FALSE")
    else:
        shards = pa.table({"filename": paths, "base": bases[:-1]})
        connection.register("shards_arrow", shards)
        connection.execute("CREATE TABLE shards AS SELECT * FROM shards_arrow")
        connection.unregister("shards_arrow")
        listed = ", ".join(f"'{path.replace(chr(39), chr(39) * 2)}'" for path in paths)
        connection.execute(
            f"CREATE VIEW obs AS SELECT s.base + p.file_row_number AS row, {typed} "
            f"FROM read_parquet([{listed}], union_by_name=true, filename=true, file_row_number=true) p "
            "JOIN shards s ON p.filename = s.filename"
        )
        folder = str(files[0].parent.absolute()).replace("'", "''")
        connection.execute(f"SET allowed_directories=['{folder}/']")
    connection.execute("SET enable_external_access=false")
    connection.execute("SET lock_configuration=true")


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _query_message(sql: str, error: str, columns: Sequence[str]) -> str:
    missing = re.search(r'(?:column|Column|named) "([^"]+)"', error)
    hint = ""
    if missing and missing.group(1) not in columns:
        hint = f" obs has no column {missing.group(1)!r}.{nearest(missing.group(1), columns)}"
    first_line = error.strip().splitlines()[0] if error.strip() else "no message"
    return f"the SQL {sql.strip()!r} cannot be run over obs: {first_line}.{hint} Columns: {', '.join(columns)}"
