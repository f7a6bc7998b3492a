"""Token lists in Parquet, read cell by cell: tokens of genes, and counts beside them (floor 3, sources).

Knows shards, row groups and lists, and the marker that corpora put before each cell. Must not know where a table of
tokens lies, nor obs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from cellmill.errors import FormatError
from cellmill.sources.base import Limits, MatrixInfo
from cellmill.sources.gene_tokens import NO_GENE, UNKNOWN, TokenTable
from cellmill.sources.parquet_file import open_parquet, reading_parquet
from cellmill.sources.rows import Rows, split_rows

__all__ = ["EXPRESSIONS", "GENES", "TokenListReader", "TokenShard", "has_token_lists", "look_at_shard"]

GENES, EXPRESSIONS = "genes", "expressions"
LARGEST_AXIS = 2**31 - 1


@dataclass(frozen=True)
class TokenShard:
    """One Parquet file of token lists, as its footer describes it.

    Attributes
    ----------
    path : Path
    group_rows, group_entries : tuple of int
        Cells, and entries of all their lists, of each row group.
    dtype : numpy dtype
        Of the values.
    schema : pyarrow.Schema
    """

    path: Path
    group_rows: tuple[int, ...]
    group_entries: tuple[int, ...]
    dtype: np.dtype[Any]
    schema: pa.Schema

    @property
    def n_cells(self) -> int:
        """Rows of the file."""
        return sum(self.group_rows)


def has_token_lists(schema: pa.Schema) -> bool:
    """Whether a Parquet file has the two columns of lists, whatever is in them."""
    return all(name in schema.names and _is_list(schema.field(name).type) for name in (GENES, EXPRESSIONS))


def look_at_shard(path: Path) -> TokenShard:
    """Return what the footer of a shard says.

    Raises
    ------
    FormatError
        It is no Parquet, or has not the lists of integers `genes` and of numbers `expressions`.
    """
    with open_parquet(path) as file, reading_parquet(path):
        schema, found = file.schema_arrow, file.metadata
        groups = [found.row_group(i) for i in range(found.num_row_groups)]
        _check_lists(path, schema)
        leaves = [str(found.schema.column(i).path).partition(".")[0] for i in range(found.num_columns)]
        at = leaves.index(GENES)
        rows = tuple(int(group.num_rows) for group in groups)
        entries = tuple(int(group.column(at).num_values) for group in groups)
        if min(rows, default=0) < 0 or min(entries, default=0) < 0 or sum(rows) > LARGEST_AXIS:
            raise FormatError(f"{path}: its footer speaks of {sum(rows)} rows; it is damaged, get it again.")
        dtype = np.dtype(schema.field(EXPRESSIONS).type.value_type.to_pandas_dtype())
    return TokenShard(path, rows, entries, dtype, schema)


def _check_lists(path: Path, schema: pa.Schema) -> None:
    wanted = {
        GENES: pa.types.is_integer,
        EXPRESSIONS: lambda kind: pa.types.is_integer(kind) or pa.types.is_floating(kind),
    }
    for name, is_right in wanted.items():
        kind = schema.field(name).type if schema.names.count(name) == 1 else None
        if kind is None or not _is_list(kind) or not is_right(kind.value_type):
            raise FormatError(
                f"{path}: the column {name!r} is {kind or 'missing'}; token lists need genes (lists of integers) and "
                f"expressions (lists of numbers). The columns are {', '.join(schema.names) or 'none'}."
            )


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))


class TokenListReader:
    """The cells of several shards, one after the other; tokens become columns of the table's genes.

    Parameters
    ----------
    name : str
        Of the matrix.
    shards : sequence of TokenShard
    table : TokenTable
    note : callable
        Takes what a person should know.
    """

    def __init__(
        self, name: str, shards: Sequence[TokenShard], table: TokenTable, *, limits: Limits, note: Callable[[str], None]
    ) -> None:
        self._shards, self._table, self._limits, self._note = list(shards), table, limits, note
        n_cells = sum(shard.n_cells for shard in shards)
        self._dtype = np.result_type(*(shard.dtype for shard in shards)) if shards else np.dtype(np.float32)
        stored = sum(sum(shard.group_entries) for shard in shards)
        self.info = MatrixInfo(name, "csr", self._dtype.name, n_cells, len(table.genes), stored)

    def rows(self, start: int, stop: int, *, block_cells: int) -> Iterator[Rows]:
        """Yield the cells from `start` to `stop`."""
        first = 0
        for shard in self._shards:
            if first < stop and first + shard.n_cells > start:
                yield from self._shard_rows(shard, first, start, stop, block_cells)
            first += shard.n_cells

    def _shard_rows(self, shard: TokenShard, first: int, start: int, stop: int, block_cells: int) -> Iterator[Rows]:
        """Yield the cells of one shard, whose first one is at `first`, that lie between `start` and `stop`."""
        with open_parquet(shard.path) as file:
            base = first
            for number, n_rows in enumerate(shard.group_rows):
                if base < stop and base + n_rows > start:
                    place = _Place(shard.path, number, base - first)
                    wanted = max(start, base) - base, min(stop, base + n_rows) - base
                    for rows in self._group_rows(file, shard, place, wanted, block_cells):
                        yield Rows(base + rows.first, rows.indptr, rows.indices, rows.values)
                base += n_rows

    def _group_rows(
        self, file: pq.ParquetFile, shard: TokenShard, place: _Place, wanted: tuple[int, int], block_cells: int
    ) -> Iterator[Rows]:
        """Yield rows `wanted` of one row group, decoded in batches that always begin at the same rows."""
        per_cell = max(1, shard.group_entries[place.group] // max(1, shard.group_rows[place.group]))
        step = max(1, min(block_cells, self._limits.max_block_entries // per_cell))
        at, (start, stop) = 0, wanted
        batches = file.iter_batches(step, row_groups=[place.group], columns=[GENES, EXPRESSIONS], use_threads=False)
        while at < stop:
            with reading_parquet(shard.path, f"row group {place.group}"):
                batch = next(batches, None)
            if batch is None:
                raise FormatError(
                    f"{shard.path}, row group {place.group}: it ends after {at} rows, its footer says "
                    f"{shard.group_rows[place.group]}. It is damaged; get it again."
                )
            a, b = max(start, at) - at, min(stop, at + batch.num_rows) - at
            if a < b:
                piece = self._decoded(batch.slice(a, b - a), place, at + a)
                yield from _cut(piece, block_cells=block_cells, max_entries=self._limits.max_block_entries)
            at += batch.num_rows

    def _decoded(self, batch: pa.RecordBatch, place: _Place, first: int) -> Rows:
        """Return a batch as rows, markers left out; `first` is the row of its first cell in the row group."""
        with reading_parquet(place.path, f"row group {place.group}"):
            indptr, tokens = _lists(batch.column(GENES), GENES, place, first)
            lengths, values = _lists(batch.column(EXPRESSIONS), EXPRESSIONS, place, first)
        if not np.array_equal(indptr, lengths):
            at = int(np.flatnonzero(np.diff(indptr) != np.diff(lengths))[0])
            raise place.wrong(first + at, f"{np.diff(indptr)[at]} genes but {np.diff(lengths)[at]} expressions")
        if int(np.diff(indptr).max(initial=0)) > max(self._limits.max_block_entries, 4 * self.info.n_genes):
            at = int(np.diff(indptr).argmax())
            raise place.wrong(first + at, f"{np.diff(indptr)[at]} entries, but there are {self.info.n_genes} genes")
        columns = self._table.columns(tokens)
        kept = self._without_markers(indptr, tokens, columns, values)
        bad = np.flatnonzero(kept & (columns < 0))
        if bad.size:
            at = int(np.searchsorted(indptr, bad[0], side="right")) - 1
            raise place.wrong(first + at, self._no_gene(int(tokens[bad[0]]), int(columns[bad[0]])))
        before = np.concatenate(([0], np.cumsum(kept, dtype=np.int64)))
        return Rows(first, before[indptr], columns[kept], values[kept].astype(self._dtype, copy=False))

    def _without_markers(
        self, indptr: NDArray[np.int64], tokens: NDArray[Any], columns: NDArray[np.int32], values: NDArray[Any]
    ) -> NDArray[np.bool_]:
        """Return which entries are kept: all but a first one that is the marker of a cell.

        Notes
        -----
        A marker is a token that is no gene, and either known as such (`<cls>`) or below zero in value, as no count is.
        """
        kept = np.ones(tokens.size, bool)
        firsts = indptr[:-1][np.diff(indptr) > 0]
        marks = firsts[(columns[firsts] == NO_GENE) | ((columns[firsts] == UNKNOWN) & (values[firsts] < 0))]
        kept[marks] = False
        if marks.size:
            token, value = int(tokens[marks[0]]), values[marks[0]]
            self._note(
                f"the first entry of a cell's list is a marker (token {token}, value {value:g}), which is no count: "
                "left out of every cell that has it"
            )
        return kept

    def _no_gene(self, token: int, column: int) -> str:
        if column == NO_GENE:
            return f"token {token} is no gene but a mark by {self._table.path}, and stands among the counts"
        return (
            f"token {token} is not in {self._table.path} ({self._table.span}); the table belongs to other lists, or "
            "the file is damaged"
        )

    def close(self) -> None:
        """Nothing is held."""


@dataclass(frozen=True)
class _Place:
    """A row group: its file, its number, and the row of the file with which it begins."""

    path: Path
    group: int
    first: int

    def wrong(self, row: int, finding: str) -> FormatError:
        """Return the error for a row, counted from the beginning of the row group."""
        return FormatError(f"{self.path}, row group {self.group}, row {self.first + row} of the file: {finding}.")


def _lists(column: Any, name: str, place: _Place, first: int) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """Return offsets, beginning with 0, and values of a column of lists."""
    if column.null_count:
        at = int(np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False))[0])
        raise place.wrong(first + at, f"{name} is null, expected a list")
    offsets = column.offsets.to_numpy().astype(np.int64)
    inner = column.values.slice(int(offsets[0]), int(offsets[-1] - offsets[0]))
    offsets = offsets - offsets[0]
    if inner.null_count:
        null = int(np.flatnonzero(inner.is_null().to_numpy(zero_copy_only=False))[0])
        at = int(np.searchsorted(offsets, null, side="right")) - 1
        raise place.wrong(first + at, f"an entry of {name} is null")
    return offsets, inner.to_numpy(zero_copy_only=False)


def _cut(rows: Rows, *, block_cells: int, max_entries: int) -> Iterator[Rows]:
    for a, b in split_rows(rows.indptr, block_cells=block_cells, max_entries=max_entries):
        begin, end = int(rows.indptr[a]), int(rows.indptr[b])
        yield Rows(rows.first + a, rows.indptr[a : b + 1] - begin, rows.indices[begin:end], rows.values[begin:end])
