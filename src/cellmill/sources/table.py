"""Dense tables of counts as text: CSV, TSV and their kin, genes or cells in rows (floor 3, sources).

Knows how the two axes are told apart and where labels lie. A table that fits the memory budget as entries is parsed
once; a larger one again for each pass, through bucket files where genes are in rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cellmill.errors import FormatError
from cellmill.events import emit
from cellmill.sources.base import GeneColumns, Limits, MatrixInfo, MatrixReader, Source
from cellmill.sources.entry_reader import EntryReader
from cellmill.sources.not_genes import FACTS, is_fact, leave_out, what_else
from cellmill.sources.side_table import find_side_table, join_side_table, side_barcodes, typed_column
from cellmill.sources.spill import CellHistogram, Entries
from cellmill.sources.table_axes import Orientation, gene_share, is_gene, tell_orientation
from cellmill.sources.table_head import TableHead, is_number, read_head
from cellmill.sources.table_text import TablePiece, stream_table

__all__ = ["TableSource", "explain_table", "looks_like_counts"]

MATRIX = "table"
BYTES_PER_ENTRY = 16
LIKELY_GENES = 0.5
MANY_COLUMNS = 10


class TableSource(Source):
    """One table of counts; its only matrix is "table". Labels come from a table beside it, where there is one.

    Parameters
    ----------
    path : Path
    limits : Limits, optional
    orientation : {"genes-x-cells", "cells-x-genes"}, optional
        What rows and columns hold; told by their names when None.

    Raises
    ------
    FormatError
        No table of numbers, lines of unequal length, fields that are no numbers, cells of equal names; or nothing
        tells which axis holds genes.

    Notes
    -----
    Opening reads the whole text once: names of rows and the number of counts are known then, and every field is proven
    to be a number.
    """

    kind = "csv"

    def __init__(self, path: Path, *, limits: Limits | None = None, orientation: Orientation | None = None) -> None:
        super().__init__(path, limits=limits)
        if path.is_dir():
            raise FormatError(f"{path}: a folder; expected one file, a table of counts as text.")
        self._head = read_head(path)
        self._side = find_side_table(path)
        scan = _Scan(self._head, self.limits)
        self._orientation = orientation or _orientation(self._head, scan.labels[0], self._side)
        by_gene = self._orientation == "genes-x-cells"
        genes, cells = scan.labels[0], self._head.columns
        if not by_gene:
            genes, cells = cells, genes
        if not by_gene:
            self._require_cell_names(cells)
        self._require_unique(cells, by_gene=by_gene)
        self.n_cells = len(cells)
        self._cells = pa.array(cells, pa.string())
        self._beside = dict(zip(_label_names(self._head), scan.labels[1:], strict=True))
        listed = GeneColumns(genes, dict(self._beside) if by_gene else {})
        self.genes, target, left_out = leave_out(listed, None)
        self._facts = {} if by_gene else scan.facts
        self._tell_left_out(left_out, cells)
        if self._head.is_short:
            self.note(f"{path.name}: the header is one field short; its first name is that of the second column")
        self._stream = _Stream(self._head, self.limits, by_gene=by_gene, kept=scan.take_kept())
        if scan.is_unended:
            self.note(f"{path.name}: the last line has no end; if the file was cut there, its last number may be wrong")
        self._found: dict[str, MatrixReader] = {
            MATRIX: EntryReader(
                MatrixInfo(MATRIX, "coo", "float64", self.n_cells, len(self.genes), scan.stored),
                self._stream,
                target=target,
                limits=self.limits,
                scanned=(scan.columns if by_gene else CellHistogram(self.n_cells), not by_gene),
                label=path.name,
            )
        }

    def release(self) -> None:
        """Let go of entries that were kept or sorted; they are parsed again for the next read."""
        self._stream.forget()
        for reader in self._found.values():
            reader.close()

    @property
    def _readers(self) -> Mapping[str, MatrixReader]:
        return self._found

    def _tell_left_out(self, left_out: dict[str, list[str]], cells: Sequence[str]) -> None:
        if self._facts:
            names = left_out.pop(FACTS)
            self.note(f"{self.path.name}: columns {', '.join(names)} are facts of cells by their names; read as labels")
        self.leave_out(left_out)
        if left_out and not len(self.genes):
            raise FormatError(f"{self.path}: nothing on its axis of genes is a gene; expected a table of counts.")
        odd = [name for name in cells if what_else(name)]
        if odd:
            self.caution(
                f"{', '.join(map(repr, odd[:3]))} stands among the cells and is read as one, though it is called as a "
                "sum or a fact is. If it is no cell, take it out of the table"
            )

    def _require_cell_names(self, cells: Sequence[str]) -> None:
        """Refuse counts of the first gene as names of cells: both would be wrong in what is built."""
        if cells and is_gene(self._head.corner) and all(map(is_number, cells)):
            raise FormatError(
                f"{self.path}: its first column, {self._head.corner!r}, holds numbers under the name of a gene; "
                "expected names of cells in it. Write the table with the names of its rows."
            )

    def _require_unique(self, cells: Sequence[str], *, by_gene: bool) -> None:
        twice = next((name for name, n in Counter(cells).items() if n > 1), None)
        if twice is None:
            return
        first = cells.index(twice)
        places = first, cells.index(twice, first + 1)
        if by_gene:
            where = " and ".join(f"field {self._head.n_labels + at + 1}" for at in places)
        else:
            where = " and ".join(f"line {self._head.lines + at + 1}" for at in places)
        raise FormatError(
            f"{self.path}: the cell {twice!r} stands in {where}. Labels could belong to either; give each cell a name "
            "of its own, for example with the name of its sample in front."
        )

    def _read_obs(self) -> pa.Table:
        table = join_side_table(self._cells, self._side, note=self.note, caution=self.caution, file=self.path.name)
        if self._orientation == "genes-x-cells":
            return table
        columns = [(name, typed_column(texts)) for name, texts in self._beside.items()]
        for name, column in (*columns, *self._facts.items()):
            if name in table.column_names:
                self.note(f"{self.path.name}: column {name!r} stands beside the counts and in the table of labels")
                name = f"{name}_2"
            table = table.append_column(name, column)
        return table


def explain_table(path: Path) -> str:
    """Return what kind of table lies at a path and which axis holds genes, by its first lines.

    Raises
    ------
    FormatError
        It is no table of numbers.
    """
    head = read_head(path)
    rows = [row[0] for row in head.first_rows]
    side = find_side_table(path)
    _, why = tell_orientation(rows, head.columns, corner=head.corner, cells=side_barcodes(side))
    beside = f", labels from {side.name}" if side else ""
    return f"{head}; {why}{beside}"


def looks_like_counts(path: Path) -> bool:
    """Whether a file is most likely a table of counts, by its first lines: known genes on an axis, numbers beside.

    Notes
    -----
    For files that nobody named. Lists of genes, results of tests and tables of cells lie in the same folders.
    """
    try:
        head = read_head(path)
    except (FormatError, OSError):
        return False
    rows = [row[0] for row in head.first_rows]
    genes = max(gene_share(rows), gene_share(head.columns))
    return genes >= LIKELY_GENES and len(rows) > 0 and len(head.columns) >= (2 if head.looks_whole else MANY_COLUMNS)


def _orientation(head: TableHead, rows: Sequence[str], side: Path | None) -> Orientation:
    found, why = tell_orientation(rows, head.columns, corner=head.corner, cells=side_barcodes(side))
    if found is None:
        raise FormatError(
            f"{head.path}: which axis holds genes cannot be told: {why}. Rows are called {_some(rows)}, columns "
            f"{_some(head.columns)}. Say it: --format csv-genes-x-cells where rows are genes, --format "
            "csv-cells-x-genes where rows are cells (in Python: format=)."
        )
    return found


def _some(names: Sequence[str]) -> str:
    return (
        ", ".join(repr(name[:40]) for name in names[:3]) + (", ..." if len(names) > 3 else "") if names else "nothing"
    )


def _label_names(head: TableHead) -> list[str]:
    """Return names for the columns of names after the first, each once."""
    names: list[str] = []
    for at, name in enumerate(head.header[1 : head.n_labels], 2):
        plain = name.strip() or f"column_{at}"
        names.append(f"{plain}_{at}" if plain in names else plain)
    return names


class _Scan:
    """What one pass over a table finds: names of rows, entries of each column, and the entries while they fit.

    Attributes
    ----------
    labels : list of list of str
        One list for each column of names.
    columns : CellHistogram
        Entries that are not zero, by column.
    stored : int
        Such entries in all.
    facts : dict of str to pyarrow.Array
        Columns of numbers that tell facts of cells by their names, where rows are cells: a value for each row.
    is_unended : bool
        Whether the file ends within a line, though the fields of that line are complete.
    """

    def __init__(self, head: TableHead, limits: Limits) -> None:
        self.labels: list[list[str]] = [[] for _ in range(head.n_labels)]
        self.columns = CellHistogram(len(head.columns))
        self.stored, self.is_unended = 0, False
        self._kept: list[TablePiece] | None = []
        facts = _Facts(head.columns)
        flat = 0
        for piece in stream_table(head, chunk_bytes=chunk_bytes(limits)):
            for name in piece.labels:
                self.labels[flat % head.n_labels].append(name)
                flat += 1
            if piece.columns.size:
                self.columns.add(piece.columns)
                facts.add(piece)
            self.stored += piece.values.size
            self.is_unended = piece.is_unended
            if self.stored * BYTES_PER_ENTRY > limits.memory_budget:
                self._kept = None
            elif self._kept is not None and piece.values.size:
                self._kept.append(TablePiece([], piece.rows.astype(np.int32), piece.columns, piece.values))
            emit(f"scanning {head.path.name}", done=len(self.labels[0]), unit="lines")
        self.facts = facts.columns(len(self.labels[0]))

    def take_kept(self) -> list[TablePiece] | None:
        """Return the entries, once; None where they did not fit."""
        kept, self._kept = self._kept, None
        return kept


class _Facts:
    """Values of the columns that tell facts of cells, gathered piece by piece."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names
        self._is_fact = np.array([is_fact(name) for name in names], bool)
        self._places = np.flatnonzero(self._is_fact).tolist()
        self._pieces: list[TablePiece] = []

    def add(self, piece: TablePiece) -> None:
        """Keep what a piece holds of them."""
        if self._places:
            found = self._is_fact[piece.columns]
            self._pieces.append(TablePiece([], piece.rows[found], piece.columns[found], piece.values[found]))

    def columns(self, n_rows: int) -> dict[str, pa.Array]:
        """Return a column for each, whole numbers as such, null where there is no value."""
        return {self._names[at]: _as_column(self._values(at, n_rows)) for at in self._places}

    def _values(self, at: int, n_rows: int) -> NDArray[np.float64]:
        values = np.zeros(n_rows)
        for piece in self._pieces:
            of_it = piece.columns == at
            values[piece.rows[of_it]] = piece.values[of_it]
        return values


def _as_column(values: NDArray[np.float64]) -> pa.Array:
    missing = np.isnan(values)
    known = values[~missing]
    if np.isfinite(known).all() and (known == np.floor(known)).all():
        return pa.array(np.where(missing, 0, values).astype(np.int64), mask=missing)
    return pa.array(values, mask=missing)


class _Stream:
    """The entries of a table, each time it is called; those kept by the scan are given once and let go."""

    def __init__(self, head: TableHead, limits: Limits, *, by_gene: bool, kept: list[TablePiece] | None) -> None:
        self._head, self._limits, self._by_gene, self._kept = head, limits, by_gene, kept

    def forget(self) -> None:
        """Let go of the entries kept."""
        self._kept = None

    def __call__(self) -> Iterator[Entries]:
        kept, self._kept = self._kept, None
        pieces = stream_table(self._head, chunk_bytes=chunk_bytes(self._limits)) if kept is None else iter(kept)
        for piece in pieces:
            rows: NDArray[np.int32] = piece.rows.astype(np.int32, copy=False)
            cells, genes = (piece.columns, rows) if self._by_gene else (rows, piece.columns)
            yield Entries(cells, genes, piece.values)


def chunk_bytes(limits: Limits) -> int:
    """Return how much text is parsed at once: it takes some forty times its size meanwhile."""
    return max(256, min(1 << 19, limits.memory_budget // 128))
