"""10x Genomics HDF5: version 3 (group `matrix`) and version 2 (one group for each genome) (floor 3, sources).

Knows the two layouts, features that are no genes, and cells that are spread over several genomes. 10x stores genes x
cells compressed by cell, so cells are read as they lie.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from cellmill.errors import FormatError
from cellmill.sources.arrays import Group, read_text, reading
from cellmill.sources.base import GeneColumns, Limits, MatrixInfo, MatrixReader, Source
from cellmill.sources.features import DROPPED, keep_gene_expression
from cellmill.sources.hdf5 import Hdf5Group, open_hdf5, top_level
from cellmill.sources.matrix import Compressed, CsrReader
from cellmill.sources.rows import Rows, group_by_cell, keep_columns, split_rows
from cellmill.sources.side_table import join_side_table

__all__ = ["TenxSource", "genome_groups"]

MATRIX = "matrix"
PARTS = frozenset({"data", "indices", "indptr", "barcodes"})


def genome_groups(file: h5py.File) -> list[str]:
    """Return the groups of a 10x file: ["matrix"] (version 3), genomes in file order (version 2), [] of others."""
    found = [name for name in file if isinstance(file.get(name), h5py.Group) and set(file[name]) >= PARTS]
    v3 = [name for name in found if name == MATRIX and "features" in file[name]]
    return v3 or [name for name in found if {"genes", "gene_names"} & set(file[name])]


@dataclass(frozen=True)
class Genome:
    """One group: its barcodes, its features and its matrix."""

    barcodes: Any
    genes: GeneColumns
    types: list[str] | None
    stored: Compressed


class TenxSource(Source):
    """One 10x HDF5 file; its only matrix is "matrix". Labels come from `<file stem>.obs.csv` beside it.

    Parameters
    ----------
    path : Path
    limits : Limits, optional

    Raises
    ------
    FormatError
        The file is truncated, foreign, or its parts contradict each other.
    """

    kind = "10x-h5"

    def __init__(self, path: Path, *, limits: Limits | None = None) -> None:
        super().__init__(path, limits=limits)
        self._file = open_hdf5(path)
        try:
            with reading(path, "its structure"):
                self._open()
        except BaseException:
            self._file.close()
            raise

    def _open(self) -> None:
        with reading(self.path, "top level"):
            groups = genome_groups(self._file)
            if not groups:
                raise FormatError(
                    f"{self.path} is an HDF5 file but not one of 10x: it holds {top_level(self._file)}, expected "
                    "a group `matrix` (barcodes, features, data, indices, indptr), or one such group for each genome."
                )
        genomes = [self._genome(name) for name in groups]
        self._barcodes, row_of = _union(genomes, self.path)
        self.n_cells = len(self._barcodes)
        if len(genomes) > 1:
            self.note(
                f"{self.path.name}: the genes of {len(groups)} genomes ({', '.join(groups)}) were put side by side"
            )
        types = [kind for genome in genomes for kind in genome.types or ["Gene Expression"] * len(genome.genes)]
        features = _concatenated([genome.genes for genome in genomes])
        self.genes, target, n_dropped = keep_gene_expression(features, types, where=str(self.path))
        if n_dropped:
            self.dropped[DROPPED] = n_dropped
        readers = [CsrReader(genome.stored, limits=self.limits) for genome in genomes]
        self._found: dict[str, MatrixReader] = {
            MATRIX: TenxReader(readers, row_of, target=target, n_genes=len(self.genes), limits=self.limits)
        }

    @property
    def _readers(self) -> Mapping[str, MatrixReader]:
        return self._found

    def _genome(self, name: str) -> Genome:
        group = Hdf5Group(self._file[name])
        features = group.group("features") or group
        with reading(self.path, f"group {name}"):
            barcodes = pc.fill_null(_text(group, "barcodes"), "")
            if "features" in group:
                ids, names = _texts(features, "id"), _texts(features, "name")
            else:
                names = _texts(group, "gene_names")
                ids = _texts(group, "genes") or names
            types, genomes = _texts(features, "feature_type"), _texts(features, "genome") or [name] * len(ids or ())
            sizes = group.array("shape")
            shape = tuple(int(size) for size in sizes.read()) if sizes is not None else None
        if ids is None:
            raise FormatError(f"{self.path}, group {name}: it has no gene ids; the file is damaged.")
        n_cells, n_genes = len(barcodes), len(ids)
        if shape is not None and shape != (n_genes, n_cells):
            raise FormatError(
                f"{self.path}, group {name}: its shape is {shape}, but it lists {n_genes} features "
                f"and {n_cells} barcodes."
            )
        columns = {"gene_name": names, "feature_type": types, "genome": genomes}
        for column, values in columns.items():
            if values is not None and len(values) != n_genes:
                raise FormatError(
                    f"{self.path}, group {name}: {len(values)} entries of {column} for {n_genes} features."
                )
        stored = Compressed(
            group, path=self.path, place=name, n_major=n_cells, n_minor=n_genes, major="cell", minor="gene"
        )
        if stored.unused:
            self.note(f"{self.path.name}, {name}: {stored.unused} stored entries belong to no cell; skipped")
        genes = GeneColumns(ids, {column: values for column, values in columns.items() if values is not None})
        return Genome(barcodes, genes, types, stored)

    def _read_obs(self) -> pa.Table:
        side = self.path.with_name(f"{self.path.stem}.obs.csv")
        table = side if side.is_file() else None
        return join_side_table(self._barcodes, table, note=self.note, caution=self.caution, file=self.path.name)

    def close(self) -> None:
        """Close the file."""
        super().close()
        self._file.close()


def _text(group: Group, name: str) -> Any:
    array = group.array(name)
    if array is None:
        raise KeyError(f"{name} is missing")
    return read_text(array.read())


def _texts(group: Group, name: str) -> list[str] | None:
    return [item or "" for item in _text(group, name).to_pylist()] if name in group else None


def _concatenated(parts: list[GeneColumns]) -> GeneColumns:
    if len(parts) == 1:
        return parts[0]
    shared = [name for name in parts[0].columns if all(name in part.columns for part in parts)]
    columns = {name: [item for part in parts for item in part.columns[name]] for name in shared}
    return GeneColumns([item for part in parts for item in part.index], columns)


def _union(genomes: list[Genome], path: Path) -> tuple[Any, list[NDArray[np.int64]]]:
    """Return the cells of all genomes in order of first mention, and the row of each in each genome (-1: absent)."""
    first = genomes[0].barcodes
    if all(genome.barcodes.equals(first) for genome in genomes):
        return first, [np.arange(len(first), dtype=np.int64)] * len(genomes)
    for genome in genomes:
        if len(genome.barcodes.unique()) != len(genome.barcodes):
            raise FormatError(
                f"{path}, group {genome.stored.place}: barcodes repeat, so its cells cannot be joined "
                "to those of the other genome."
            )
    every = pc.unique(pa.chunked_array([genome.barcodes for genome in genomes]))
    return every, [
        pc.index_in(every, genome.barcodes).fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
        for genome in genomes
    ]


class TenxReader:
    """The matrices of all genomes as one: columns side by side, features that are no genes left out."""

    def __init__(
        self,
        parts: list[CsrReader],
        row_of: list[NDArray[np.int64]],
        *,
        target: NDArray[np.int32] | None,
        n_genes: int,
        limits: Limits,
    ) -> None:
        self._parts, self._row_of, self._target, self._limits = parts, row_of, target, limits
        dtype = np.result_type(*(part.stored.dtype for part in parts))
        stored = sum(part.stored.stored for part in parts)
        self.info = MatrixInfo(MATRIX, "csr", dtype.name, row_of[0].size, n_genes, stored)
        self._pointers: list[NDArray[np.int64]] = []

    def rows(self, start: int, stop: int, *, block_cells: int) -> Iterator[Rows]:
        """Yield the cells from `start` to `stop`, genes only."""
        if len(self._parts) == 1:
            whole = self._parts[0].rows(start, stop, block_cells=block_cells)
        else:
            whole = self._joined(start, stop, block_cells)
        for rows in whole:
            yield keep_columns(rows, self._target)

    def _joined(self, start: int, stop: int, block_cells: int) -> Iterator[Rows]:
        """Yield cells that are spread over several genomes; their pointers are held, since rows are not in order."""
        if not self._pointers:
            self._pointers = [part.stored.pointers(0, part.stored.n_major) for part in self._parts]
        for first in range(start, stop, block_cells):
            last = min(stop, first + block_cells)
            sizes = sum(
                _sizes(pointers, row_of[first:last])
                for pointers, row_of in zip(self._pointers, self._row_of, strict=True)
            )
            ends = np.concatenate(([0], np.cumsum(sizes)))
            for a, b in split_rows(ends, block_cells=block_cells, max_entries=self._limits.max_block_entries):
                yield self._side_by_side(first + a, first + b)

    def _side_by_side(self, first: int, last: int) -> Rows:
        cells, genes, values, offset = [], [], [], 0
        for part, pointers, row_of in zip(self._parts, self._pointers, self._row_of, strict=True):
            for cell, row, length in _runs(row_of[first:last]):
                rows = part.run(row, pointers[row : row + length + 1])
                cells.append(np.repeat(np.arange(first + cell, first + cell + length), np.diff(rows.indptr)))
                genes.append(rows.indices + np.int32(offset))
                values.append(rows.values)
            offset += part.stored.n_minor
        if not cells:
            return Rows(
                first, np.zeros(last - first + 1, np.int64), np.empty(0, np.int32), np.empty(0, self.info.dtype)
            )
        return group_by_cell(
            np.concatenate(cells), np.concatenate(genes), np.concatenate(values), first=first, n_cells=last - first
        )

    def close(self) -> None:
        """Let go of the pointers."""
        self._pointers = []


def _sizes(pointers: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    lengths = np.append(np.diff(pointers), 0)  # row -1, an absent cell, is the last: no entries
    return lengths[rows]


def _runs(rows: NDArray[np.int64]) -> Iterator[tuple[int, int, int]]:
    """Yield (position, first row, length) of the runs of consecutive rows; absent ones (-1) are left out."""
    present = np.flatnonzero(rows >= 0)
    if present.size == 0:
        return
    breaks = np.flatnonzero((np.diff(present) != 1) | (np.diff(rows[present]) != 1)) + 1
    for run in np.split(present, breaks):
        yield int(run[0]), int(rows[run[0]]), int(run.size)
