"""What every source of cells gives: genes, obs, and blocks of counts (floor 3, sources).

Knows cells, genes and matrices. Must not know a file format (its neighbours do), stores, or what a raw count is:
values are handed on as they are, and `cellmill.ingest` proves them.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Protocol, Self, runtime_checkable

import numpy as np
import pyarrow as pa
import xxhash
from numpy.typing import NDArray

from cellmill.errors import FormatError, InputError, nearest
from cellmill.sources.rows import BrokenRows, Rows, canonical

__all__ = [
    "DEFAULT_MEMORY_BUDGET",
    "CountBlock",
    "GeneColumns",
    "Layout",
    "Limits",
    "MatrixInfo",
    "MatrixReader",
    "Source",
    "Spills",
]

Layout = Literal["csr", "csc", "dense", "coo"]
DEFAULT_MEMORY_BUDGET = 256 << 20

ID_COLUMNS = (
    "gene_id", "ensembl_id", "ensemble_id", "ensembl_gene_id", "feature_id", "gene_ids", "ensembl",
    "ensembl_ids", "accession",
)  # fmt: skip
SYMBOL_COLUMNS = (
    "feature_name", "gene_name", "gene_names", "symbol", "gene_symbols", "gene_symbol", "symbols", "gene_short_name",
    "hgnc_symbol", "name", "gene",
)  # fmt: skip
ENSEMBL = re.compile(r"(?:[A-Za-z0-9.\-]+_+)?ENS[A-Z]{0,4}G\d{11}(?:\.\d+)?(?:_PAR_Y)?$")
ENSEMBL_SHARE = 0.6
MISSING_TEXTS = frozenset({"", "nan", "na", "n/a", "<na>", "none", "null"})
GENERIC_NAMES = frozenset(
    {
        "matrix", "filtered_feature_bc_matrix", "raw_feature_bc_matrix", "filtered_gene_bc_matrices",
        "raw_gene_bc_matrices", "filtered_gene_bc_matrices_h5", "raw_gene_bc_matrices_h5",
        "sample_filtered_feature_bc_matrix", "sample_raw_feature_bc_matrix", "filtered", "raw", "outs", "count",
        "counts", "gene", "genefull", "solo.out", "mtx", "mex", "hg19", "hg38", "grch38", "grch37", "mm10", "mm9",
        "grcm38", "grcm39", "adata", "data", "dge", "dge_filtered", "dge_unfiltered", "count_matrix",
    }
)  # fmt: skip


@dataclass(frozen=True)
class Limits:
    """How much memory a source may take, and where it may put what does not fit.

    Attributes
    ----------
    memory_budget : int
        Bytes for sorting entries by cell (CSC, unsorted Matrix Market); beyond it, bucket files are written.
    spill_dir : Path or None
        Where bucket files go; None: the system's temporary folder.
    max_block_entries : int
        Stored entries in one block; a block that would hold more is cut.
    max_dense_values : int
        Cells times genes of one read from a dense matrix.
    max_chunk_bytes : int
        One chunk of an array, unpacked; a file with larger ones is refused, since a chunk cannot be read in part.
    """

    memory_budget: int = DEFAULT_MEMORY_BUDGET
    spill_dir: Path | None = None
    max_block_entries: int = 1 << 22
    max_dense_values: int = 1 << 24
    max_chunk_bytes: int = 256 << 20

    @property
    def chunk_entries(self) -> int:
        """Entries that are streamed at a time when sorting by cell."""
        return max(64, min(1 << 22, self.memory_budget // 128))


@dataclass(frozen=True)
class MatrixInfo:
    """One matrix of a source, as stored.

    Attributes
    ----------
    name : str
        "X", "raw", "layers/NAME" (h5ad, zarr), "matrix" (10x, Matrix Market, loom), "table" (CSV and its kin).
    layout : {"csr", "csc", "dense", "coo"}
        Seen as cells x genes: csr can be read cell by cell.
    dtype : str
        NumPy name of the stored values.
    n_cells, n_genes : int
        Shape; `n_genes` after dropping features that are no genes.
    stored : int
        Stored entries, explicit zeros included; cells times genes when dense.
    """

    name: str
    layout: Layout
    dtype: str
    n_cells: int
    n_genes: int
    stored: int


@dataclass(frozen=True)
class CountBlock:
    """Consecutive cells of one matrix, rows in file order; genes ascend in each cell, but for `Source.stored_blocks`.

    Attributes
    ----------
    start : int
        Position in the file of the first cell.
    indptr : int64[n + 1]
        Starts at 0.
    indices : int32[nnz]
        Gene positions in `Source.genes_of(matrix)`.
    data : number[nnz]
        Values in the file's own dtype, NaN, negative and explicit zero values included.
    n_genes : int
    merged : int
        Entries of the same cell and gene that were summed into another one of this block.
    """

    start: int
    indptr: NDArray[np.int64]
    indices: NDArray[np.int32]
    data: NDArray[Any]
    n_genes: int
    merged: int = 0

    @property
    def n_cells(self) -> int:
        """Cells in this block."""
        return self.indptr.size - 1

    @property
    def stop(self) -> int:
        """Position in the file one past the last cell."""
        return self.start + self.n_cells


def ensembl_share(names: Sequence[str]) -> float:
    """Return the share of names that look like Ensembl gene ids, over at most 2,000 names spread evenly."""
    sample = names[:: max(1, len(names) // 2000)]
    return sum(ENSEMBL.match(name) is not None for name in sample) / len(sample) if sample else 0.0


@dataclass(frozen=True)
class GeneColumns:
    """The gene axis of a matrix: the index and the text columns of the gene table.

    Attributes
    ----------
    index : list of str
        Names in file order; not necessarily unique.
    columns : dict of str to list of str
        Text columns, missing entries as "".
    """

    index: list[str]
    columns: dict[str, list[str]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.index)

    @cached_property
    def key(self) -> str:
        """A hash of the index, and of names and texts of the columns."""
        digest = xxhash.xxh3_128()
        for texts in (self.index, list(self.columns), *self.columns.values()):
            digest.update(np.array([len(texts), *map(len, texts)], dtype=np.int64).tobytes())
            digest.update("".join(texts).encode("utf-8", "surrogatepass"))
        return digest.hexdigest()

    def _first(self, wanted: Sequence[str], *, ensembl: bool) -> list[str] | None:
        by_name = {name.casefold(): column for name, column in self.columns.items()}
        for name in wanted:
            column = by_name.get(name)
            if column is not None and (ensembl_share(column) >= ENSEMBL_SHARE) == ensembl:
                return column
        return None

    @cached_property
    def ids(self) -> list[str]:
        """The best identifiers: an index of Ensembl ids, else a column of them where there is one, else the index.

        Notes
        -----
        An index of Ensembl ids comes first, because a column beside it may hold another species' orthologues. Where a
        column has no entry, the gene keeps the name that the index gives it.
        """
        if ensembl_share(self.index) >= ENSEMBL_SHARE:
            return self.index
        column = self._first(ID_COLUMNS, ensembl=True)
        if column is None:
            return self.index
        return [
            name if found.strip().casefold() in MISSING_TEXTS else found
            for found, name in zip(column, self.index, strict=True)
        ]

    @cached_property
    def symbols(self) -> list[str] | None:
        """Gene symbols: a name column, else an index that is no Ensembl ids; None where the file has neither."""
        column = self._first(SYMBOL_COLUMNS, ensembl=False)
        if column is not None:
            return column
        return None if ensembl_share(self.index) >= ENSEMBL_SHARE else self.index

    @property
    def feature_type(self) -> list[str] | None:
        """10x feature types, where the file has them."""
        for name in ("feature_type", "feature_types"):
            if name in self.columns:
                return self.columns[name]
        return None


class MatrixReader(Protocol):
    """Reads one matrix by runs of cells; errors of layout leave as `BrokenRows`, all others name the file."""

    info: MatrixInfo

    def rows(self, start: int, stop: int, *, block_cells: int) -> Iterator[Rows]:
        """Yield the cells from `start` to `stop` in order, at most `block_cells` at a time."""
        ...

    def close(self) -> None:
        """Release what was held between reads."""
        ...


@runtime_checkable
class Spills(Protocol):
    """A reader that may have to sort its matrix by cell on disk."""

    @property
    def spill_bytes(self) -> int:
        """Bytes of disk that sorting takes at most; 0 where it needs none."""
        ...


class Source(ABC):
    """Count matrices of one input, read by blocks and never whole. A context manager.

    Attributes
    ----------
    path : Path
        The file, or the folder of a Matrix Market matrix or a zarr store.
    kind : str
        One of `FORMATS`: "h5ad", "zarr", "loom", "10x-h5", "mex", "csv", ...
    name : str
        Name of the data set: the file's stem, with the parent folder before generic names.
    n_cells, n_genes : int
        Shape of the default matrix.
    genes : GeneColumns
        Gene axis of the default matrix; see `genes_of` for the others.
    dropped : dict of str to int
        What is left out of every matrix, counted: {"features not Gene Expression": 12}; a raw matrix with genes of its
        own is counted on its own.
    limits : Limits
    """

    kind: str = ""

    def __init__(self, path: Path, *, limits: Limits | None = None) -> None:
        self.path = path
        self.limits = limits or Limits()
        self.dropped: dict[str, int] = {}
        self._notes: list[str] = []
        self._cautions: list[str] = []
        self._merged: dict[str, int] = {}
        self._obs: pa.Table | None = None
        self._closed = False

    n_cells: int
    genes: GeneColumns

    @property
    @abstractmethod
    def _readers(self) -> Mapping[str, MatrixReader]:
        """The readers of this source by matrix name, the default first."""

    @abstractmethod
    def _read_obs(self) -> pa.Table:
        """Read the table of cells; `obs` keeps it."""

    @property
    def name(self) -> str:
        """Name of the data set, for the obs column `dataset`."""
        return dataset_name(self.path)

    @property
    def n_genes(self) -> int:
        """Genes of the default matrix."""
        return len(self.genes)

    @property
    def notes(self) -> list[str]:
        """What a person should know about how this input was read; grows as obs and blocks are read."""
        summed = [
            f"{self.path.name}, {matrix}: {n} entries repeated a cell and gene and were summed"
            for matrix, n in self._merged.items()
        ]
        return [*self.cautions, *self.remarks, *summed]

    @property
    def remarks(self) -> list[str]:
        """The notes without the entries summed so far, which a block counts itself (`CountBlock.merged`)."""
        return list(self._notes)

    @property
    def cautions(self) -> list[str]:
        """What may be wrong with how this input was read, for a person to decide; a build warns of it."""
        return list(self._cautions)

    def note(self, text: str) -> None:
        """Keep a remark, once."""
        if text not in self._notes:
            self._notes.append(text)

    def caution(self, text: str) -> None:
        """Keep a remark that a person has to see, once."""
        if text not in self._cautions:
            self._cautions.append(text)

    def leave_out(self, names: Mapping[str, Sequence[str]]) -> None:
        """Count features that are no genes as `dropped`, by what they are, and name some in a note."""
        for what, found in names.items():
            self.dropped[what] = len(found)
            some = ", ".join(found[:6]) + (", ..." if len(found) > 6 else "")
            self.note(f"{self.path.name}: left out as no genes but {what}: {some}")

    def obs(self) -> pa.Table:
        """Return the table of cells: `cell` (string names, not necessarily unique), then the file's columns in order.

        Notes
        -----
        Categoricals are dictionary<int32, string>; numbers, booleans and strings keep their type. Columns that
        cannot be represented are left out and named in `notes`.
        """
        if self._obs is None:
            self._check_open()
            self._obs = self._read_obs()
        return self._obs

    def origins(self) -> pa.Table | None:
        """Return `dataset` and `uid` of each cell where the input settles them itself; None where `name` does.

        Further columns are facts of whole cells by their names in a store, where the input knows more of the cells than
        its counts tell.
        """
        return None

    def matrices(self) -> list[MatrixInfo]:
        """Return what can be read from this source, the default matrix first."""
        return [reader.info for reader in self._readers.values()]

    def starts_anywhere(self, matrix: str) -> bool:
        """Whether reading a matrix from some cell on costs no more than those cells: it is stored cell by cell.

        Where it is not (by gene, in any order, as text), an input is read in one go, by one process.
        """
        return self._reader(matrix).info.layout in ("csr", "dense") and not self.spill_bytes(matrix)

    def genes_of(self, matrix: str) -> GeneColumns:
        """Return the gene axis of a matrix ("raw" has its own)."""
        self._reader(matrix)
        return self.genes

    def spill_bytes(self, matrix: str | None = None) -> int:
        """Return the bytes of disk that reading a matrix takes at most, in `Limits.spill_dir`; 0 where it needs none.

        Notes
        -----
        Matrices that are not stored by cell (CSC, Matrix Market in another order, dense ones in tall chunks) are sorted
        by cell: in memory up to `Limits.memory_budget`, beyond it through files that are deleted on `close`.
        """
        reader = self._reader(matrix)
        return reader.spill_bytes if isinstance(reader, Spills) else 0

    def blocks(
        self, matrix: str | None = None, *, block_cells: int = 4096, start: int = 0, stop: int | None = None
    ) -> Iterator[CountBlock]:
        """Return an iterator over the cells from `start` to `stop` of a matrix, in file order, as blocks of counts.

        Parameters
        ----------
        matrix : str, optional
            A name of `matrices()`; the default matrix when None.
        block_cells : int
            Most cells of a block; blocks are cut smaller where cells hold very many entries.

        Raises
        ------
        InputError
            No such matrix, or cells outside the file.
        FormatError
            The file contradicts itself; file, matrix and place are named. Raised while iterating.

        Notes
        -----
        Memory is bounded by the block and `limits`, not by the file. Values are the file's own, proven by nobody yet.
        """
        reader = self._reader(matrix)
        return self._canonical_blocks(reader, self._rows(reader, block_cells, start, stop))

    def stored_blocks(
        self, matrix: str | None = None, *, block_cells: int = 4096, start: int = 0, stop: int | None = None
    ) -> Iterator[CountBlock]:
        """Return `blocks` as they lie in the file: genes of a cell in any order, repeated ones not summed.

        Notes
        -----
        For the kernel, which puts cells in order itself; arguments and errors are those of `blocks`.
        """
        reader = self._reader(matrix)
        rows = self._rows(reader, block_cells, start, stop)
        return (_as_block(piece, reader.info.n_genes) for piece in rows)

    def _rows(self, reader: MatrixReader, block_cells: int, start: int, stop: int | None) -> Iterator[Rows]:
        self._check_open()
        end = self.n_cells if stop is None else stop
        if not 0 <= start <= end <= self.n_cells:
            raise InputError(f"{self.path}: cells {start} to {end} were asked for, but there are {self.n_cells}.")
        if block_cells < 1:
            raise InputError(f"block_cells must be at least 1, not {block_cells}.")
        return self._sound_rows(reader, start, end, block_cells)

    def _sound_rows(self, reader: MatrixReader, start: int, stop: int, block_cells: int) -> Iterator[Rows]:
        try:
            yield from reader.rows(start, stop, block_cells=block_cells)
        except BrokenRows as broken:
            raise self._broken(reader.info.name, str(broken)) from None

    def _canonical_blocks(self, reader: MatrixReader, rows: Iterator[Rows]) -> Iterator[CountBlock]:
        info, merged = reader.info, 0
        while (piece := next(rows, None)) is not None:
            ordered, summed = canonical(piece, info.n_genes)
            del piece
            if summed:
                merged += summed
                self._merged[info.name] = max(merged, self._merged.get(info.name, 0))
            yield _as_block(ordered, info.n_genes, summed)

    def _broken(self, matrix: str, finding: str) -> FormatError:
        return FormatError(
            f"{self.path}, matrix {matrix}: {finding}. The file is damaged or was written wrongly; "
            "get it again, or write it again with the program that made it."
        )

    def _reader(self, matrix: str | None) -> MatrixReader:
        readers = self._readers
        if matrix is None and readers:
            return next(iter(readers.values()))
        if matrix is None or matrix not in readers:
            raise InputError(
                f"{self.path} has no matrix {matrix!r}; it has {', '.join(readers) or 'none'}."
                f"{nearest(matrix or '', readers)}"
            )
        return readers[matrix]

    def release(self) -> None:  # noqa: B027 - most sources hold nothing
        """Let go of what is held between reads, in memory or on the disk; the next read takes it up again."""

    def _check_open(self) -> None:
        if self._closed:
            raise InputError(f"{self.path} was closed; open it again to read from it.")

    def close(self) -> None:
        """Close the file and delete what was spilt; may be called twice."""
        if not self._closed:
            self._closed = True
            for reader in self._readers.values():
                reader.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{self.kind} {str(self.path)!r}: {self.n_cells} cells x {self.n_genes} genes>"


def _as_block(rows: Rows, n_genes: int, merged: int = 0) -> CountBlock:
    indices = rows.indices.astype(np.int32, copy=False)
    return CountBlock(rows.first, rows.indptr, indices, rows.values, n_genes, merged)


def dataset_name(path: Path) -> str:
    """Return a name for the data set at `path`: its stem, after the nearest telling folder where the stem is generic.

    Examples
    --------
    >>> dataset_name(Path("kidney_3/outs/filtered_feature_bc_matrix.h5"))
    'kidney_3_filtered_feature_bc_matrix'
    """
    name = re.sub(
        r"(\.(h5ad|h5|hdf5|mtx|csv|tsv|tab|txt|gz|loom|zarr|zip|parquet))+$", "", path.name, flags=re.IGNORECASE
    )
    if name.casefold() not in GENERIC_NAMES:
        return re.sub(r"[._-](matrix|counts?|((raw|umi)[._-])?counts?[._-]matrix)$", "", name) or name
    for parent in path.absolute().parents:
        if parent.name and parent.name.casefold() not in GENERIC_NAMES:
            return f"{parent.name}_{name}"
    return name
