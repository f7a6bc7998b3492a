"""The cells' metadata (floor 3): one Parquet file per shard, read as one table. Knows nothing of counts.

Each file keeps the columns its source had; the manifest's schema says what readers see: files that lack a column
give nulls, and columns that differ in type are cast by `cast_obs`, whoever reads them.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cellmill.errors import CorruptStoreError, InputError, QueryError, nearest
from cellmill.storage import hash_file, sync_file, sync_folder
from cellmill.store.columns import arrow_rows, numbers_of
from cellmill.store.manifest import ShardEntry
from cellmill.store.marks import MARK_COLUMNS, named_marks, with_marks
from cellmill.store.obs_query import PRIVATE_NAMES, Marks, ObsFiles, check_select, run_query
from cellmill.store.obs_types import (
    FACT_COLUMNS,
    STANDARD_COLUMNS,
    STORED_COLUMNS,
    arrow_type,
    cast_obs,
    is_text,
    type_name,
    unify_types,
)
from cellmill.store.parquet import damage_named, open_parquet
from cellmill.store.rows import checked_rows
from cellmill.store.unchanged import Unchanged

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "FACT_COLUMNS",
    "STANDARD_COLUMNS",
    "ObsTable",
    "arrow_type",
    "cast_obs",
    "type_name",
    "unify_types",
    "write_obs",
]

# what DuckDB takes for a pattern, and bytes of a path that are not UTF-8
_NOT_PLAIN = re.compile("[*?\\[\\]{}\ud800-\udfff]")


def write_obs(table: pa.Table, path: Path) -> None:
    """Write the obs of one shard as Parquet (zstd), NaN as null, under a temporary name and renamed."""
    temporary = path.with_name(f".{path.name}.tmp")
    hashes = {"uid", "fingerprint"}
    pq.write_table(
        # DuckDB cannot make up for a NaN in a file: Parquet's statistics leave it out, and `isnan` is judged by them
        cast_obs(table, [(field.name, type_name(field.type)) for field in table.schema]),
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
    folder
        The store.
    shards
        Its shards, in order.
    schema
        Name and type of each column that readers see.
    unchanged
        Watch over the store.
    marks
        Gives the marks of cells that equal others, as `duplicates.read_marks`; None where there can be none.

    Notes
    -----
    Where there are marks, `duplicate_of` and `n_copies` can be asked for by name, as if they were columns; a column
    of these names that the store has itself comes first.
    """

    def __init__(
        self,
        folder: Path,
        shards: Sequence[ShardEntry],
        schema: Sequence[tuple[str, str]],
        *,
        unchanged: Unchanged,
        marks: Callable[[], pa.Table | None] | None = None,
    ) -> None:
        self._read_marks = marks
        self._files = tuple(folder / shard.obs.path for shard in shards)
        self._hashes = tuple(shard.obs.xxh3 for shard in shards)
        self._bases = np.cumsum(np.array([0, *(shard.n_cells for shard in shards)], dtype=np.int64))
        self._schema = tuple(schema)
        self._unchanged = unchanged
        self._kinds: dict[int, dict[str, str]] = {}

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
        """Return columns as an Arrow table, one row per cell (a table without columns has no rows in Arrow).

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
        IndexError
            For a row id outside 0..n_cells-1; InputError for rows that are not whole numbers.
        CorruptStoreError
            When a file of obs is damaged.
        """
        wanted = self._wanted(columns)
        with self._unchanged.during():
            asked = self._marks_among(wanted)
            if rows is None:
                ids = np.arange(len(self) if asked else 0, dtype=np.int64)
                table = self._concat([self._read(i, wanted) for i in range(len(self._files))], wanted)
            else:
                ids = checked_rows(rows, n_cells=len(self), where="obs")
                table = self._taken(ids, wanted)
            return with_marks(table, self._marks, ids, asked) if asked else table

    @cached_property
    def _marks(self) -> pa.Table:
        """The marks of the cells that equal others.

        Raises
        ------
        QueryError
            When nobody has looked for equal cells.
        """
        found = self._read_marks() if self._read_marks is not None else None
        if found is None:
            raise QueryError(
                f"obs has no column {' or '.join(MARK_COLUMNS)}: equal cells have not been looked for in this store, "
                "or not since it was changed. To do so: cellmill duplicates STORE --mark"
            )
        return found

    def _marks_among(self, columns: Sequence[tuple[str, str]]) -> list[str]:
        own = self.schema
        return [name for name, _ in columns if name in MARK_COLUMNS and name not in own]

    def _taken(self, ids: npt.NDArray[np.int64], wanted: Sequence[tuple[str, str]]) -> pa.Table:
        shard_of = np.searchsorted(self._bases, ids, side="right") - 1
        parts, positions = [], []
        for shard in np.unique(shard_of):
            chosen = np.flatnonzero(shard_of == shard)
            parts.append(self._read(int(shard), wanted).take(arrow_rows(ids[chosen] - self._bases[shard])))
            positions.append(chosen)
        table = self._concat(parts, wanted)
        if not positions:
            return table
        back = np.empty(len(ids), dtype=np.int64)
        back[np.concatenate(positions)] = np.arange(len(ids))
        return table.take(arrow_rows(back))

    def stored(self, name: str, rows: npt.ArrayLike | None = None) -> npt.NDArray[np.int64]:
        """Return `stored_counts` or `n_genes_stored` of cells, int64, also of those that were written without."""
        older = STORED_COLUMNS[name]  # the same number in files from before whole cells were measured
        if name not in self.schema:
            return numbers_of(self.to_arrow([older], rows).column(older)).astype(np.int64)
        table = self.to_arrow([name, older], rows)
        return numbers_of(pc.coalesce(table.column(name), table.column(older))).astype(np.int64)

    def to_pandas(self, columns: Sequence[str] | None = None, rows: npt.ArrayLike | None = None) -> pd.DataFrame:
        """Return columns as a pandas data frame; categories stay categories."""
        frame: pd.DataFrame = self.to_arrow(columns, rows).to_pandas()
        return frame

    def _wanted(self, columns: Sequence[str] | None) -> list[tuple[str, str]]:
        kinds = {**MARK_COLUMNS, **self.schema}
        if columns is None:
            return list(self._schema)
        if isinstance(columns, str):
            raise InputError(f"columns must be a list of names, not the text {columns!r}; write [{columns!r}]")
        for name in columns:
            if name not in kinds:
                known = ", ".join(self.columns)
                raise QueryError(f"obs has no column {name!r}.{nearest(name, kinds)} Columns: {known}")
        return [(name, kinds[name]) for name in columns]

    def _read(self, shard: int, wanted: Sequence[tuple[str, str]]) -> pa.Table:
        file, kinds = self._open(shard)
        names = [name for name, _ in wanted if name in kinds]
        with file, damage_named(self._files[shard]):
            # a table without columns forgets its length
            table = file.read(columns=names) if names else pa.table({"": pa.nulls(file.metadata.num_rows)})
            return cast_obs(table, wanted)

    def _open(self, shard: int) -> tuple[pq.ParquetFile, dict[str, str]]:
        """Return the file of a shard, open, and the type of each of its columns."""
        path = self._files[shard]
        file = open_parquet(path, n_rows=int(self._bases[shard + 1] - self._bases[shard]))
        with damage_named(path):
            kinds = {field.name: type_name(field.type) for field in file.schema_arrow}
        if wrong := [name for name, kind in STANDARD_COLUMNS.items() if kinds.get(name) != kind]:
            raise CorruptStoreError(
                f"{path}: not the obs of a shard: {wrong[0]!r} is {kinds.get(wrong[0], 'missing')}, expected "
                f"{STANDARD_COLUMNS[wrong[0]]}. Restore it from a copy or build the store again."
            )
        if len(kinds) != len(file.schema_arrow):
            raise CorruptStoreError(f"{path}: two columns of one name. Restore it from a copy.")
        self._kinds[shard] = kinds
        return file, kinds

    def _stored_types(self) -> list[dict[str, str]]:
        for shard in range(len(self._files)):
            if shard not in self._kinds:
                self._open(shard)[0].close()
        return [self._kinds[shard] for shard in range(len(self._files))]

    @staticmethod
    def _concat(parts: Sequence[pa.Table], wanted: Sequence[tuple[str, str]]) -> pa.Table:
        if not parts:
            return pa.schema([(name, arrow_type(kind)) for name, kind in wanted]).empty_table()
        return pa.concat_tables(parts).unify_dictionaries().combine_chunks()

    def check(self, sql: str) -> None:
        """Parse a text without running it.

        Raises
        ------
        QueryError
            When it is not one SELECT.
        """
        check_select(sql, self.columns)

    def query(self, sql: str) -> pa.Table:
        """Run one SELECT over the table `obs`, which has the column `row` (row id) beside those of obs.

        A text that names `duplicate_of` or `n_copies` has these columns as well.

        Raises
        ------
        QueryError
            When DuckDB refuses the text, or it is more than one SELECT.
        CorruptStoreError
            When a file of obs is damaged.

        Notes
        -----
        DuckDB reads only the columns and row groups that it needs, as long as every file holds the types of the
        schema. Where one does not, all of obs is read and cast first, in memory: both ways give the same values.
        """
        with self._unchanged.during():
            asked = named_marks(sql, self.columns)  # a join, so only where they are asked for
            stored = self._stored_types()
            if not self._is_plain(stored):
                ids = np.arange(len(self), dtype=np.int64)
                table = self._concat([self._read(i, self._schema) for i in range(len(self._files))], self._schema)
                if asked:
                    table = with_marks(table, self._marks, ids, asked)
                return run_query(sql, table.add_column(0, "row", pa.array(ids)), self._schema)
            present = frozenset(name for kinds in stored for name in kinds)
            marks = Marks(self._marks, tuple(asked)) if asked else None
            with self._plain_files() as files:
                obs = ObsFiles(files, self._bases[:-1], present, marks)
                return run_query(sql, obs, self._schema, check_files=self._check_files)

    def _check_files(self) -> None:
        for path, stated in zip(self._files, self._hashes, strict=True):
            with damage_named(path):
                found = hash_file(path)
            if found != stated:
                raise CorruptStoreError(
                    f"{path}: its checksum is not the manifest's; the bytes have changed. "
                    "Restore it from a copy or build the store again."
                )

    def _is_plain(self, stored: Sequence[dict[str, str]]) -> bool:
        """Whether DuckDB sees what `cast_obs` gives: its casts print and round numbers in other ways than Arrow's."""
        schema = self.schema
        found = {(name, kind) for kinds in stored for name, kind in kinds.items()}
        return bool(stored) and all(
            name.lower() not in PRIVATE_NAMES
            and name in schema
            and (kind in ("null", schema[name]) or (is_text(kind) and is_text(schema[name])))
            for name, kind in found
        )

    @contextmanager
    def _plain_files(self) -> Iterator[list[Path]]:
        """Paths of the files; through a link, where DuckDB would take characters of a path for a pattern."""
        if not _NOT_PLAIN.search(str(self._files[0].parent)):
            yield list(self._files)
            return
        with tempfile.TemporaryDirectory(prefix="cellmill-") as folder:
            link = Path(folder) / "obs"
            link.symlink_to(self._files[0].parent.resolve(), target_is_directory=True)
            yield [link / file.name for file in self._files]
