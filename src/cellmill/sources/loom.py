"""loom files of versions 1 to 3, read through h5py (floor 3, sources).

Knows that rows are genes and columns are cells, and where their attributes lie. Must not import loompy.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from cellmill.errors import FormatError
from cellmill.sources.arrays import Array, Group, Node, reading
from cellmill.sources.base import GeneColumns, Limits, MatrixReader, Source
from cellmill.sources.dense import DenseReader
from cellmill.sources.features import DROPPED, GenesOnly, keep_gene_expression, ten_x_types
from cellmill.sources.frame import UnreadableError, plain_column
from cellmill.sources.hdf5 import Hdf5Group, open_hdf5
from cellmill.sources.not_genes import leave_out
from cellmill.sources.side_table import cell_table

__all__ = ["PARTS", "LoomSource"]

MATRIX = "matrix"
PARTS = frozenset({"matrix", "row_attrs", "col_attrs"})
CELL_NAMES = ("cellid", "cell_id", "obs_names", "barcode", "barcodes", "cell_names", "cellname", "cell", "cell_barcode")
GENE_NAMES = (
    "gene", "genes", "gene_name", "gene_names", "genename", "var_names", "symbol", "name", "accession", "gene_id",
    "gene_ids", "ensembl_id", "ensembl", "geneid",
)  # fmt: skip


class LoomSource(Source):
    """One loom file; matrices "matrix" and "layers/NAME".

    Parameters
    ----------
    path : Path
    limits : Limits, optional

    Raises
    ------
    FormatError
        The file is truncated, foreign, or its attributes and matrix contradict each other. A broken layer does not
        stop the file from being opened: it is told in `notes`, and the error comes when it is asked for.

    Notes
    -----
    Cells are named by the column attribute CellID (or obs_names, barcode, ...), genes by the row attribute Gene (or
    var_names, Accession, ...); upper and lower case are not told apart.
    """

    kind = "loom"

    def __init__(self, path: Path, *, limits: Limits | None = None) -> None:
        super().__init__(path, limits=limits)
        self._file = open_hdf5(path)
        try:
            with reading(path, "its structure"):
                self._open(Hdf5Group(self._file))
        except BaseException:
            self._file.close()
            raise

    def _open(self, root: Group) -> None:
        matrix = root.array(MATRIX)
        if matrix is None or matrix.shape is None or matrix.ndim != 2:
            raise FormatError(
                f"{self.path} holds {root.listing()}, expected what a loom file has: matrix (genes x cells), "
                "row_attrs and col_attrs."
            )
        n_features, self.n_cells = matrix.shape
        features = self._features(root.group("row_attrs"), n_features)
        genes, target, n_dropped = keep_gene_expression(
            features, ten_x_types(features), where=f"{self.path}, row_attrs"
        )
        if n_dropped:
            self.dropped[DROPPED] = n_dropped
        self.genes, self._target, left_out = leave_out(genes, target)
        self.leave_out(left_out)
        self._cells = root.group("col_attrs")
        self._n_features = n_features
        self._found: dict[str, MatrixReader] = {MATRIX: self._make_reader(MATRIX, matrix)}
        self._broken_layers: dict[str, FormatError] = {}
        layers = root.group("layers")
        for name in layers.names() if layers is not None else []:
            self._add_layer(f"layers/{name}", layers.get(name) if layers is not None else None)

    @property
    def _readers(self) -> Mapping[str, MatrixReader]:
        return self._found

    def _reader(self, matrix: str | None) -> MatrixReader:
        if matrix in self._broken_layers:
            raise self._broken_layers[matrix]
        return super()._reader(matrix)

    def _add_layer(self, name: str, node: Node | None) -> None:
        try:
            with reading(self.path, f"matrix {name}"):
                if not isinstance(node, Array):
                    raise FormatError(f"{self.path}, matrix {name}: it is no dense array.")
                self._found[name] = self._make_reader(name, node)
        except FormatError as error:
            self._broken_layers[name] = error
            self.note(f"{self.path.name}: matrix {name} cannot be read: {error}")

    def _make_reader(self, name: str, array: Array) -> MatrixReader:
        reader = DenseReader(
            array,
            path=self.path,
            place=name,
            n_cells=self.n_cells,
            n_genes=self._n_features,
            limits=self.limits,
            axes="genes x cells",
        )
        if self._target is None:
            return reader
        return GenesOnly(reader, target=self._target, n_genes=len(self.genes))

    def _features(self, group: Group | None, n_features: int) -> GeneColumns:
        """Return the names of the rows and their text attributes."""
        columns = self._attributes("row_attrs", group, n_features, "genes", quietly=True)
        texts = {
            name: ["" if item is None else item for item in column.to_pylist()]
            for name, column in columns.items()
            if pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
        }
        name = _first(GENE_NAMES, texts)
        if name is None:
            raise FormatError(
                f"{self.path}: no row attribute names the genes; expected Gene, Accession or the like, found "
                f"{', '.join(columns) or 'none'}."
            )
        return GeneColumns(texts[name], {other: column for other, column in texts.items() if other != name})

    def _read_obs(self) -> pa.Table:
        columns = self._attributes("col_attrs", self._cells, self.n_cells, "cells", quietly=False)
        name = _first(CELL_NAMES, columns)
        if name is None:
            self.note(f"{self.path.name}: no column attribute names the cells; they are named by their position")
            names = pa.array([str(i) for i in range(self.n_cells)], pa.string())
        else:
            names = pc.fill_null(columns.pop(name).cast(pa.string()), "")
        return cell_table(names, columns, note=self.note, file=self.path.name)

    def _attributes(self, place: str, group: Group | None, length: int, of: str, *, quietly: bool) -> dict[str, Any]:
        """Return the attributes of an axis that are vectors; others are told, unless quietly."""
        columns = {}
        for name in group.names() if group is not None else []:
            with reading(self.path, f"{place}[{name!r}]"):
                node = group.get(name) if group is not None else None
                if not isinstance(node, Array) or node.shape is None or node.ndim != 1:
                    if not quietly:
                        shape = f"its shape is {node.shape}" if isinstance(node, Array) else "it is no array"
                        self.note(f"{self.path.name}: {place} {name!r} was skipped ({shape})")
                    continue
                if node.shape[0] != length:
                    raise FormatError(
                        f"{self.path}: {place}[{name!r}] has {node.shape[0]} entries, but the matrix has {length} {of}."
                    )
                try:
                    columns[name] = _decoded(node, plain_column(node))
                except UnreadableError as what:
                    if not quietly:
                        self.note(f"{self.path.name}: {place} {name!r} was skipped ({what})")
        return columns

    def release(self) -> None:
        """Let go of matrices that were sorted by cell; they are sorted again for the next read."""
        for reader in self._found.values():
            reader.close()

    def close(self) -> None:
        """Close the file and delete what was spilt."""
        super().close()
        self._file.close()


def _first(wanted: Sequence[str], columns: Mapping[str, Any]) -> str | None:
    """Return the first of the wanted names that is a column, as it is spelt there."""
    by_name = {name.casefold(): name for name in reversed(list(columns))}
    return next((by_name[name] for name in wanted if name in by_name), None)


def _decoded(node: Array, column: Any) -> Any:
    """Return text with XML entities resolved where it is of fixed length: version 2 wrote what is not ASCII so."""
    if node.dtype.kind != "S" or not pc.any(pc.match_substring(column, "&")).as_py():
        return column
    encoded = column.dictionary_encode()
    plain = [item if item is None else html.unescape(item) for item in encoded.dictionary.to_pylist()]
    return pa.array(plain, pa.string()).take(encoded.indices)
