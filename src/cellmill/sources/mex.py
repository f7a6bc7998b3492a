"""Matrix Market folders of 10x and others: matrix.mtx, barcodes.tsv, features.tsv or genes.tsv (floor 3, sources).

Knows the three files, their names and their two generations, and the folders of Parse Biosciences. Text sorted by cell
is streamed; other text is sorted by cell once, in memory or through bucket files.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pyarrow as pa

from cellmill.errors import FormatError, NotFoundError
from cellmill.sources.base import GeneColumns, Limits, MatrixInfo, MatrixReader, Source
from cellmill.sources.entry_reader import EntryReader
from cellmill.sources.features import DROPPED, is_feature_type, keep_gene_expression
from cellmill.sources.mex_names import group_3ca, group_mex
from cellmill.sources.mex_text import MtxHeader, read_header, read_lines, stream_triplets
from cellmill.sources.not_genes import leave_out
from cellmill.sources.side_table import cell_table, join_side_table, read_cells, typed_column
from cellmill.sources.spill import Entries
from cellmill.sources.table_axes import BARCODE_SHARE, CELL_WORDS, Orientation, barcode_share

__all__ = ["MexFiles", "MexSource", "find_matrices", "find_mex"]

MATRIX = "matrix"
MTX_NAME = re.compile(r".*\.mtx(\.gz)?", re.IGNORECASE)
# No gene goes by one of the words for features, as a test proves; IDS and CELL are genes.
FEATURE_WORDS = frozenset(
    {
        "accession", "ensembl", "entrez", "feature", "featureid", "features", "gene", "geneid", "genename", "genes",
        "genesymbol", "hgnc", "id", "index", "name", "names", "row", "rownames", "short", "stable", "symbol", "symbols",
        "version",
    }
)  # fmt: skip
BARCODE_WORDS = frozenset(
    {
        "barcode", "barcodes", "cell", "cellid", "cellname", "cells", "id", "ids", "index", "name", "names", "row",
        "rownames", "sample",
    }
)  # fmt: skip
CELL_COLUMNS_PARSE = ("bc_wells", "bc_index")
MADE_UP_NAME = re.compile(r"[xX]?[01]?|V1|Unnamed: ?0|\.")
_CAMEL = re.compile(r"([a-z])([A-Z])")


@dataclass(frozen=True)
class MexFiles:
    """The files of one Matrix Market input; `labels` may be absent."""

    matrix: Path
    barcodes: Path
    features: Path
    labels: Path | None

    @property
    def is_parse(self) -> bool:
        """Whether the table of labels lists the cells, in the order of the matrix, as Parse Biosciences writes it."""
        return self.barcodes == self.labels


def find_matrices(folder: Path) -> list[Path]:
    """Return the Matrix Market files of a folder that are inputs, by name; see `mex_names.group_mex`."""
    groups = group_mex(path.name for path in folder.iterdir() if path.is_file())
    return [folder / group.matrix for group in groups if group.is_sure]


def find_members(folder: Path) -> set[Path]:
    """Return all files of a folder that belong to a Matrix Market input in it, of 3CA or other: they are no input."""
    names = [path.name for path in folder.iterdir() if path.is_file()]
    groups = group_3ca(names) or [group for group in group_mex(names) if group.is_sure]
    return {folder / name for group in groups for name in group.all}


def find_mex(path: Path) -> MexFiles:
    """Return the files that belong together: `path` is a folder with one matrix, or the matrix itself.

    Raises
    ------
    NotFoundError
        There is nothing at `path`.
    FormatError
        There is no matrix, there are several, or barcodes or features are missing.
    """
    if not path.exists():
        raise NotFoundError(f"{path}: no such file or folder.")
    found = find_matrices(path) if path.is_dir() else [path]
    if len(found) != 1:
        names = ", ".join(item.name for item in found[:4]) or "none"
        raise FormatError(
            f"{path}: expected one Matrix Market file matrix.mtx or matrix.mtx.gz in this folder, found {names}."
            + (" Name the matrix files themselves as inputs." if found else "")
        )
    matrix = found[0]
    groups = group_mex(item.name for item in matrix.parent.iterdir() if item.is_file())
    group = next((one for one in groups if one.matrix == matrix.name), None)
    stem = re.sub(r"(\.mtx)?(\.gz)?$", "", matrix.name, flags=re.IGNORECASE)
    prefix = stem[: -len(MATRIX)] if stem.casefold().endswith(MATRIX) else f"{stem}_"
    if group is None or group.barcodes is None or group.features is None:
        what = "barcodes.tsv" if group is None or group.barcodes is None else "features.tsv (or genes.tsv)"
        raise FormatError(f"{matrix}: {prefix}{what}, plain or .gz, must lie in the same folder, but does not.")
    labels = matrix.with_name(group.labels) if group.labels else None
    return MexFiles(matrix, matrix.with_name(group.barcodes), matrix.with_name(group.features), labels)


class MexSource(Source):
    """One Matrix Market input; its only matrix is "matrix". Labels come from `obs.csv` in the folder.

    Parameters
    ----------
    path : Path
        The folder, or its matrix file.
    limits : Limits, optional
    orientation : {"genes-x-cells", "cells-x-genes"}, optional
        What rows and columns hold; told by the sizes when None.

    Raises
    ------
    FormatError
        A file is missing, truncated, or the three contradict each other, or the orientation that was said.
    """

    kind = "mex"

    def __init__(self, path: Path, *, limits: Limits | None = None, orientation: Orientation | None = None) -> None:
        super().__init__(path, limits=limits)
        self._said = orientation
        self._cells: pa.Table | None = None
        self._files = self._find(path)
        header = read_header(self._files.matrix)
        barcodes, features = self._read_barcodes(), read_tabbed(self._files.features)
        listed = barcodes
        barcodes, features, by_gene = self._oriented(header, barcodes, features)
        self._header_of_cells = listed[0] if len(listed) > len(barcodes) else ""
        self.n_cells = len(barcodes)
        self._barcodes = pa.array(self._cell_names(barcodes), pa.string())
        self._tell_repeated(self._barcodes.to_pylist())
        genes, types = _gene_columns(features, third="genome" if self._files.is_parse else "feature_type")
        self.genes, target, n_dropped = keep_gene_expression(genes, types, where=str(self._files.features))
        if n_dropped:
            self.dropped[DROPPED] = n_dropped
        self.genes, target, left_out = leave_out(self.genes, target)
        self.leave_out(left_out)
        self._found: dict[str, MatrixReader] = {
            MATRIX: EntryReader(
                MatrixInfo(MATRIX, "coo", header.dtype.name, self.n_cells, len(self.genes), header.stored),
                partial(_entries, self._files.matrix, header, by_gene=by_gene, limits=self.limits),
                target=target,
                limits=self.limits,
                label=self._files.matrix.name,
            )
        }

    def _find(self, path: Path) -> MexFiles:
        return find_mex(path)

    def _read_barcodes(self) -> list[str]:
        if not self._files.is_parse:
            return read_tabbed(self._files.barcodes)
        names, self._cells = read_cells(self._files.barcodes, CELL_COLUMNS_PARSE)
        return names

    def _cell_names(self, lines: list[str]) -> list[str]:
        """Return the names of cells: the first field of each line, or another where the first numbers the rows."""
        rows = [_fields(line) for line in lines]
        first = [row[0] for row in rows]
        at = _names_behind_numbers(rows, _fields(self._header_of_cells))
        if at is None:
            return first
        self.note(
            f"{self._files.barcodes.name}: its first column numbers the rows ({first[0]} to {first[-1]}); cells are "
            f"called by column {at + 1}"
        )
        return [row[at] for row in rows]

    def _tell_repeated(self, names: list[str]) -> None:
        n = len(names) - len(set(names))
        if n:
            twice = next(name for name, times in Counter(names).items() if times > 1)
            first = names.index(twice)
            second = names.index(twice, first + 1)
            self.note(
                f"{self._files.barcodes.name}: {n} names stand more than once, for example {twice!r} in lines "
                f"{first + 1} and {second + 1}"
            )

    def release(self) -> None:
        """Let go of entries that were sorted; they are parsed again for the next read."""
        for reader in self._found.values():
            reader.close()

    @property
    def _readers(self) -> Mapping[str, MatrixReader]:
        return self._found

    def _oriented(
        self, header: MtxHeader, barcodes: list[str], features: list[str]
    ) -> tuple[list[str], list[str], bool]:
        """Return barcodes and features without header lines, and whether rows are genes; sizes decide."""
        wanted = (header.n_rows, header.n_columns)
        may_cut = {
            "features": int(is_header_line(features, FEATURE_WORDS)),
            "barcodes": int(is_header_line(barcodes, BARCODE_WORDS)),
        }
        for cut_features, cut_barcodes in ((0, 0), (0, 1), (1, 0), (1, 1)):
            n_genes, n_cells = len(features) - cut_features, len(barcodes) - cut_barcodes
            allowed = cut_features <= may_cut["features"] and cut_barcodes <= may_cut["barcodes"]
            if allowed and wanted in self._shapes(n_genes, n_cells).values():
                for cut, file in ((cut_features, self._files.features), (cut_barcodes, self._files.barcodes)):
                    if cut:
                        self.note(f"{file.name}: its first line was taken for a header")
                by_gene = wanted == self._shapes(n_genes, n_cells).get("genes-x-cells")
                if n_genes == n_cells and self._said is None:
                    by_gene = not self._files.is_parse
                    self._warn_square(n_genes, by_gene=by_gene)
                if not by_gene:
                    self.note(f"{self._files.matrix.name}: stored cells x genes, read so")
                return barcodes[cut_barcodes:], features[cut_features:], by_gene
        said = f" read as {self._said.replace('-', ' ')}" if self._said else ""
        raise FormatError(
            f"{self._files.matrix}:{said} its header says {header.n_rows} x {header.n_columns}, but "
            f"{self._files.features.name} lists {len(features)} features and "
            f"{self._files.barcodes.name} {len(barcodes)} barcodes. "
            f"The files do not belong together, or one is incomplete.{self._surplus(wanted, barcodes, features)}"
        )

    def _shapes(self, n_genes: int, n_cells: int) -> dict[Orientation, tuple[int, int]]:
        """Return the sizes that a matrix may have, by its orientation: the one that was said, or both."""
        shapes: dict[Orientation, tuple[int, int]] = {
            "genes-x-cells": (n_genes, n_cells), "cells-x-genes": (n_cells, n_genes)
        }  # fmt: skip
        return shapes if self._said is None else {self._said: shapes[self._said]}

    def _warn_square(self, n: int, *, by_gene: bool) -> None:
        taken, other = ("genes", "cells") if by_gene else ("cells", "genes")
        self.caution(
            f"{self._files.matrix.name} is square ({n} genes and {n} cells), so that nothing tells which axis holds "
            f"genes; rows were taken for {taken}. If they are {other}, every count is another's: say --format "
            f"mex-{other}-x-{taken} then, or --format mex-{taken}-x-{other} to confirm (in Python: format=)"
        )

    def _surplus(self, wanted: tuple[int, int], barcodes: list[str], features: list[str]) -> str:
        """Return what to say where one line too many is no header: without it all other lines would shift."""
        said = ""
        for file, lines, words in (
            (self._files.features, features, FEATURE_WORDS),
            (self._files.barcodes, barcodes, BARCODE_WORDS),
        ):
            if len(lines) - 1 in wanted and not is_header_line(lines, words):
                said += f" The first line of {file.name}, {lines[0][:60]!r}, is no header that could be left out."
        return said

    def _labels_of_cells(self) -> dict[str, pa.Array]:
        """Return the columns of the table that lists the cells."""
        assert self._cells is not None
        # Numbers of rows that R wrote have no name, and tell nothing.
        return {name: typed_column(self._cells[name]) for name in self._cells.column_names if name.strip()}

    def _read_obs(self) -> pa.Table:
        if self._cells is not None:
            columns = self._labels_of_cells()
            return cell_table(self._barcodes, columns, note=self.note, file=self._files.barcodes.name)
        return join_side_table(
            self._barcodes, self._files.labels, note=self.note, caution=self.caution, file=self._files.matrix.name
        )


def read_tabbed(path: Path) -> list[str]:
    """Return the lines of a file of names, fields with tabs between them whatever the file has."""
    lines = read_lines(path)
    if ".csv" not in path.name.casefold():
        return lines
    return ["\t".join(fields) for fields in csv.reader(lines)]


def is_header_line(lines: list[str], words: frozenset[str]) -> bool:
    r"""Whether the first of these lines names the columns; a line that may be a gene or a cell is never one.

    Examples
    --------
    >>> is_header_line(["gene_id\tgene_name", "ENSG00000141510\tTP53"], FEATURE_WORDS)
    True
    >>> is_header_line(["TP53", "CD3E"], FEATURE_WORDS)
    False
    """
    if len(lines) < 2:
        return False
    fields, after = map(_fields, lines[:2])
    if any(map(is_feature_type, fields[1:])):
        return False
    found = [word for word in re.split(r"[^a-z0-9]+", _CAMEL.sub(r"\1 \2", fields[0]).casefold()) if word]
    if found and words.issuperset(found):
        return True
    # Names of columns that R and pandas make up; "V1" before "V2" is a name of its kind and so data.
    made_up = MADE_UP_NAME.fullmatch(fields[0]) is not None
    return made_up and re.sub(r"\d+", "0", fields[0]) != re.sub(r"\d+", "0", after[0])


def _fields(line: str) -> list[str]:
    return [item.strip().strip('"').strip() for item in line.split("\t")]


def _names_behind_numbers(rows: Sequence[Sequence[str]], header: Sequence[str]) -> int | None:
    """Return which field names the cells where the first one numbers the rows, as R and pandas write it; else None.

    Notes
    -----
    The field under a word for cells, else the second. Names that repeat and are no barcodes are labels: cells that
    have numbers for names keep them.
    """
    width = min(map(len, rows), default=0)
    numbers = [row[0] for row in rows]
    if width < 2 or not any(numbers == [str(i + start) for i in range(len(rows))] for start in (0, 1)):
        return None
    # As R writes it, the header names one column less than there are.
    over = ["", *header] if len(header) + 1 == width else list(header)
    named = [at for at, word in enumerate(over[:width]) if at and re.sub(r"[^a-z]", "", word.casefold()) in CELL_WORDS]
    at = named[0] if named else 1
    names = [row[at] for row in rows]
    are_names = all(names) and (len(set(names)) == len(names) or barcode_share(names) >= BARCODE_SHARE)
    return at if are_names else None


def _gene_columns(lines: list[str], *, third: str) -> tuple[GeneColumns, list[str] | None]:
    """Return genes and feature types from lines of id, name and `third`; one column serves as both id and name."""
    rows = [_fields(line) for line in lines]
    ids = [row[0] for row in rows]
    names = [row[1] if len(row) > 1 and row[1] else row[0] for row in rows]
    columns = {"gene_name": names}
    if rows and all(len(row) > 2 for row in rows):
        columns[third] = [row[2] for row in rows]
    return GeneColumns(ids, columns), columns.get("feature_type")


def _entries(path: Path, header: MtxHeader, *, by_gene: bool, limits: Limits) -> Iterator[Entries]:
    chunk_bytes = max(64, min(1 << 23, limits.memory_budget // 16))
    for part in stream_triplets(path, header, chunk_bytes=chunk_bytes):
        genes, cells = (part.rows, part.columns) if by_gene else (part.columns, part.rows)
        yield Entries(cells, genes, part.values)
