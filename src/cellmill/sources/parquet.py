"""Folders and files of token lists in Parquet, as Tahoe-100M is published (floor 3, sources).

Knows which files of a folder are shards, where the tables of genes, samples and cells lie, and how cells are named.
The lists themselves are read by `token_lists.py`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from cellmill.errors import FormatError, NotFoundError
from cellmill.sources.base import Limits, MatrixReader, Source
from cellmill.sources.gene_tokens import TABLE_NAMES, find_token_table, read_token_table
from cellmill.sources.label_join import join_labels
from cellmill.sources.parquet_file import label_columns, open_parquet, read_labels, reading_parquet
from cellmill.sources.side_table import cell_table
from cellmill.sources.token_lists import EXPRESSIONS, GENES, TokenListReader, TokenShard, has_token_lists, look_at_shard

__all__ = ["ParquetSource", "find_token_shards", "shard_labels"]

# No shard is called so: tables that lie beside token lists, by the names that Tahoe-100M gives them.
SIDE_TABLE = re.compile(r"(^|[._-])metadata\.parquet$", re.IGNORECASE)
# scGPT writes all cells of a folder again, with the marker before each, into this file of the same folder.
SECOND_COPY = "cls_prefix_data.parquet"
NAME_COLUMNS = ("BARCODE_SUB_LIB_ID", "cell", "cell_name", "cell_id", "barcode", "obs_name")
SHORT_GROUP_ROWS = 10_000
LISTS = frozenset({GENES, EXPRESSIONS})
# tables of labels -> the column by which they are joined; None: the one that names the cells
LABEL_TABLES: dict[str, str | None] = {"obs_metadata.parquet": None, "sample_metadata.parquet": "sample"}


def find_token_shards(path: Path) -> list[Path]:
    """Return the shards of token lists at `path`, in the order of their numbers: a file itself, or those of a folder.

    In a folder every Parquet file with such lists counts, and those whose end is cut off, for opening to refuse: left
    out, their cells would be missing. Of a folder that has `data`, as a copy of Tahoe-100M has, the shards there count.
    """
    if path.is_file():
        return [path]
    for folder in (path, path / "data"):
        files = [file for file in _parquet_files(folder) if not SIDE_TABLE.search(file.name)]
        shards = [file for file in files if _may_hold_lists(file)]
        if shards:
            return [file for file in shards if file.name != SECOND_COPY] or shards
    return []


def _parquet_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    files = (file for file in folder.iterdir() if file.suffix.lower() == ".parquet" and not file.name.startswith("."))
    return sorted((file for file in files if file.is_file()), key=_by_number)


def _by_number(path: Path) -> list[tuple[int, str]]:
    """Sort shard 2 before shard 10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", path.name) if part]


def _may_hold_lists(path: Path) -> bool:
    try:
        with open_parquet(path) as file:
            return has_token_lists(file.schema_arrow)
    except (FormatError, OSError):
        return True


class ParquetSource(Source):
    """Token lists in Parquet: one shard, or all shards of a folder, with the table of genes that goes with them.

    Parameters
    ----------
    path : Path
        A file with the lists `genes` and `expressions`, a folder of such files, or one that holds them in `data`.
    limits : Limits, optional

    Raises
    ------
    FormatError
        A file is truncated or has other columns, or there is no table that says what the tokens mean.

    Notes
    -----
    Cells are named by the column BARCODE_SUB_LIB_ID or one like it, else by file and row. All other columns are obs.
    Labels of cells (obs_metadata.parquet) and of samples (sample_metadata.parquet: the doses of Tahoe-100M), which lie
    in `metadata` or beside the lists, are joined to them; columns that the lists have themselves are kept.
    """

    kind = "parquet"

    def __init__(self, path: Path, *, limits: Limits | None = None) -> None:
        super().__init__(path, limits=limits)
        if not path.exists():
            raise NotFoundError(f"{path}: no such file or folder.")
        files = find_token_shards(path)
        if not files:
            raise FormatError(
                f"{path}: no Parquet file with the lists {GENES} and {EXPRESSIONS} in this folder, nor in its data."
            )
        self._shards = [look_at_shard(file) for file in files]
        self._folder = files[0].parent
        if path.is_dir():
            self._note_others(files)
        table_path = find_token_table(self._folder)
        if table_path is None:
            raise FormatError(
                f"{path}: its lists hold gene tokens, but no table says which gene each of them stands for. Put one "
                f"beside it, or in metadata/ beside or above it: gene_metadata.parquet (columns token_id, ensembl_id, "
                f"gene_symbol; Tahoe-100M has it in metadata/), or the vocabulary of names and tokens as JSON "
                f"({', '.join(TABLE_NAMES[1:])})."
            )
        table = read_token_table(table_path)
        self.note(f"genes are what {table_path.name} says of their tokens ({table.span})")
        self.genes = table.genes
        reader = TokenListReader(EXPRESSIONS, self._shards, table, limits=self.limits, note=self.note)
        self._found: dict[str, MatrixReader] = {EXPRESSIONS: reader}
        self.n_cells = reader.info.n_cells

    def _note_others(self, shards: list[Path]) -> None:
        """Tell which Parquet files of the folder are not read."""
        others = [file.name for file in _parquet_files(self._folder) if file not in shards]
        if SECOND_COPY in others:
            self.note(f"{SECOND_COPY} holds the cells of the other files again; it is not read")
        unread = [name for name in others if name != SECOND_COPY and not SIDE_TABLE.search(name)]
        if unread:
            more = ", ..." if len(unread) > 4 else ""
            self.note(f"{len(unread)} Parquet files without token lists are not read: {', '.join(unread[:4])}{more}")

    def starts_anywhere(self, matrix: str) -> bool:
        """Whether row groups are short: reading begins at one's first row, whichever is wanted."""
        self._reader(matrix)
        return max((rows for shard in self._shards for rows in shard.group_rows), default=0) <= SHORT_GROUP_ROWS

    @property
    def _readers(self) -> Mapping[str, MatrixReader]:
        return self._found

    def _read_obs(self) -> pa.Table:
        key = next((name for name in NAME_COLUMNS if all(name in shard.schema.names for shard in self._shards)), None)
        tables = [self._shard_obs(shard, key) for shard in self._shards]
        with reading_parquet(self.path, "obs"):
            obs = pa.concat_tables(tables, promote_options="permissive").unify_dictionaries().combine_chunks()
        for name, column in LABEL_TABLES.items():
            obs = self._joined(obs, name, "cell" if column is None else column, key if column is None else column)
        return obs

    def _shard_obs(self, shard: TokenShard, key: str | None) -> pa.Table:
        columns = shard_labels(shard, note=self.note, file=self.path.name)
        if key is None:
            cells = pa.array([f"{shard.path.stem}_{row}" for row in range(shard.n_cells)], pa.string())
            self.note("the lists do not name their cells: they are called by file and row")
        else:
            cells = columns.pop(key).cast(pa.string())
            if cells.null_count:
                raise FormatError(f"{shard.path}: {cells.null_count} cells have no {key}; every cell needs a name.")
            self.note(f"cells are called by the column {key}")
        return cell_table(cells, columns, note=self.note, file=self.path.name)

    def _joined(self, obs: pa.Table, name: str, column: str, key: str | None) -> pa.Table:
        """Return obs with the columns of a table of labels that lies with the lists, where there is one."""
        places = (self._folder / "metadata", self._folder, self._folder.parent / "metadata")
        path = next((place / name for place in places if (place / name).is_file()), None)
        if path is None:
            return obs
        if key is None or column not in obs.column_names:
            self.note(f"{name} is not joined: the lists have no column to join it by")
            return obs
        return join_labels(obs, path, column=column, key=key, note=self.note)


def shard_labels(shard: TokenShard, *, note: Callable[[str], None], file: str) -> dict[str, Any]:
    """Return the columns of a shard beside its lists, as obs takes them.

    Raises
    ------
    FormatError
        They cannot be read, or are not one for each cell.
    """
    names = label_columns(shard.schema, without=LISTS, note=note, file=file)
    texts = [name for name in names if pa.types.is_string(shard.schema.field(name).type)]
    with open_parquet(shard.path, dictionaries=texts) as file, reading_parquet(shard.path, "obs"):
        columns = dict(read_labels(file, names))
    for name, column in columns.items():
        if len(column) != shard.n_cells:
            raise FormatError(
                f"{shard.path}: the column {name!r} has {len(column)} rows, expected {shard.n_cells}. The file is "
                "damaged; get it again."
            )
    return columns


def row_names(n_cells: int) -> Any:
    """Return "0", "1", ... as names of cells."""
    return pa.array(np.arange(n_cells)).cast(pa.string())
