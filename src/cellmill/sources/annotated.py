"""AnnData's layout of a data set in a container of arrays, of all ages (floor 3, sources).

Knows where AnnData keeps matrices (X, raw, layers), obs and var, and how that changed since 2017. Must not know the
container: h5ad files and zarr stores share it. Must not import anndata: backed slicing is slow and loads what it need
not.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import xxhash
from numpy.typing import NDArray

from cellmill.errors import FormatError
from cellmill.sources.arrays import Array, Group, Node, reading
from cellmill.sources.base import GeneColumns, Limits, MatrixReader, Source
from cellmill.sources.dense import DenseReader
from cellmill.sources.features import DROPPED, GenesOnly, keep_gene_expression, ten_x_types
from cellmill.sources.frame import INDEX_NAMES, Frame, read_frame
from cellmill.sources.known_files import Shared, file_stamp
from cellmill.sources.matrix import Compressed, CscReader, CsrReader
from cellmill.sources.not_genes import leave_out
from cellmill.sources.side_table import cell_table

__all__ = ["AnnotatedSource"]


@dataclass(frozen=True)
class GeneAxis:
    """The genes among the features of a table, and where they stand.

    Attributes
    ----------
    genes : GeneColumns
    target : int32[n_features] or None
        Position of each feature in `genes`, -1 for what is no gene; None where all are.
    n_features : int
    n_dropped : int
        How many features are of another type than genes.
    left_out : dict of str to list of str
        Names of features that are no genes, by what they are: rows of HTSeq and the like, sums.
    """

    genes: GeneColumns
    target: NDArray[np.int32] | None
    n_features: int
    n_dropped: int
    left_out: Mapping[str, Sequence[str]]

    @property
    def key(self) -> str:
        """A hash of all of it."""
        target = b"" if self.target is None else self.target.tobytes()
        names = repr(sorted(self.left_out.items())).encode()
        hashes = f"{xxhash.xxh3_128_hexdigest(target)} {xxhash.xxh3_128_hexdigest(names)}"
        return f"{self.genes.key} {self.n_features} {self.n_dropped} {hashes}"


_AXES: Shared[GeneAxis] = Shared(most_files=65_536, most_values=8, digest=lambda axis: axis.key)


class AnnotatedSource(Source):
    """One data set as AnnData writes it; matrices "X", "raw" and "layers/NAME".

    Parameters
    ----------
    path : Path
    limits : Limits, optional

    Raises
    ------
    FormatError
        The file is truncated, foreign, or its tables and X contradict each other. A broken raw or layer does not stop
        the file from being opened: it is told in `notes`, and the error comes when it is asked for.
    """

    container: str = ""
    """What the file is called, for messages."""

    def __init__(self, path: Path, *, limits: Limits | None = None) -> None:
        super().__init__(path, limits=limits)
        self._stamp = file_stamp(path)  # before it is opened: what is read of a newer state is known under an old stamp
        self._root = self._open_root()
        try:
            with reading(path, "its structure"):
                self._open()
        except BaseException:
            self._close_root()
            raise

    @abstractmethod
    def _open_root(self) -> Group:
        """Open the container and return its topmost group."""

    @abstractmethod
    def _close_root(self) -> None:
        """Close the container."""

    def _open(self) -> None:
        root = self._root
        with reading(self.path, "top level"):
            if "obs" not in root or "var" not in root:
                raise FormatError(
                    f"{self.path} is no {self.container}: it holds {root.listing()}, expected obs, var and X, as "
                    "AnnData writes them."
                )
            self._uns = root.group("uns")
            self._raw, raw_var = _raw_nodes(root)
        self._axis = self._gene_axis("var", root.get("var"))
        self._raw_axis = self._gene_axis("raw/var", raw_var) if raw_var is not None else self._axis
        self.genes = self._axis.genes
        self.n_cells = self._count_cells()
        self._found: dict[str, MatrixReader] = {}
        self._broken_matrices: dict[str, FormatError] = {}
        for name, node in self._matrix_nodes().items():
            self._add_matrix(name, node)
        if not self._found:
            reasons = "; ".join(map(str, self._broken_matrices.values())) or f"it holds {root.listing()}"
            raise FormatError(f"{self.path} has no matrix that can be read (X, raw or layers): {reasons}")

    @property
    def _readers(self) -> Mapping[str, MatrixReader]:
        return self._found

    def _reader(self, matrix: str | None) -> MatrixReader:
        if matrix in self._broken_matrices:
            raise self._broken_matrices[matrix]
        return super()._reader(matrix)

    def genes_of(self, matrix: str) -> GeneColumns:
        """Return the gene axis of a matrix; "raw" has its own."""
        self._reader(matrix)
        return self._raw_axis.genes if matrix == "raw" else self.genes

    @cached_property
    def _cells(self) -> Frame:
        return read_frame(self._root.get("obs"), path=self.path, place="obs", uns=self._uns, note=self.note)

    def _read_obs(self) -> pa.Table:
        with reading(self.path, "obs"):
            frame = self._cells
        index = frame.index
        if index is None:
            self.note(f"{self.path.name}: obs has no index; cells are named by their position")
            index = pa.array([str(i) for i in range(self.n_cells)], pa.string())
        for name, column in frame.columns.items():
            if len(column) != self.n_cells:
                raise FormatError(
                    f"{self.path}: obs[{name!r}] has {len(column)} entries, but there are {self.n_cells} cells."
                )
        return cell_table(index, frame.columns, note=self.note, file=self.path.name)

    def _gene_axis(self, place: str, node: Node | None) -> GeneAxis:
        """Return the genes of a table of features; what else it lists is counted in `dropped`."""
        axis = _AXES.get(self._stamp, place, partial(self._read_gene_axis, place, node))
        where = "" if place == "var" else f", in {place}"
        if axis.n_dropped:
            self.dropped[f"{DROPPED}{where}"] = axis.n_dropped
        self.leave_out({f"{what}{where}": names for what, names in axis.left_out.items()})
        return axis

    def _read_gene_axis(self, place: str, node: Node | None) -> GeneAxis:
        features = self._gene_columns(place, node)
        genes, target, n_dropped = keep_gene_expression(features, ten_x_types(features), where=f"{self.path}, {place}")
        genes, target, left_out = leave_out(genes, target)
        return GeneAxis(genes, target, len(features), n_dropped, left_out)

    def _gene_columns(self, place: str, node: Node | None) -> GeneColumns:
        """Return the gene table's index and text columns."""
        # Numeric gene columns are of no use here, so that they are odd need not be told.
        frame = read_frame(node, path=self.path, place=place, uns=self._uns, note=lambda _: None)
        columns = {name: _texts(column) for name, column in frame.columns.items() if _is_textual(column)}
        if frame.index is None:
            raise FormatError(f"{self.path}: {place} has no index, so its genes have no names.")
        index = frame.index.to_pylist()
        for name, values in columns.items():
            if len(values) != len(index):
                raise FormatError(f"{self.path}: {place}[{name!r}] has {len(values)} entries for {len(index)} genes.")
        return GeneColumns(index, columns)

    def _count_cells(self) -> int:
        """Return the length of the obs index, or of the first column or matrix where obs has no index."""
        node = self._root.get("obs")
        with reading(self.path, "obs"):
            if isinstance(node, Array):
                return self._length_of_index(node)
            index = self._index_of_obs(node) if isinstance(node, Group) else None
            if index is not None:
                return self._length_of_index(index)
            shape = _declared_shape(self._root.get("X"))
        if shape is None:
            raise FormatError(f"{self.path}: obs has no index and X no shape, so the number of cells is unknown.")
        return shape[0]

    def _index_of_obs(self, obs: Group) -> Array | None:
        name = obs.text("_index") or next((n for n in INDEX_NAMES if n in obs), "")
        index = obs.get(name) if name else None
        if isinstance(index, Group):
            index = index.get("codes") or index.get("values")
        return index if isinstance(index, Array) else None

    def _length_of_index(self, index: Array) -> int:
        if index.shape is None or index.ndim != 1:
            raise FormatError(f"{self.path}: the index of obs has the shape {index.shape}, expected one name a cell.")
        return index.shape[0]

    def _matrix_nodes(self) -> dict[str, Node]:
        nodes = {"X": self._root.get("X"), "raw": self._raw}
        layers = self._root.group("layers")
        if layers is not None:
            nodes |= {f"layers/{name}": layers.get(name) for name in layers.names()}
        return {name: node for name, node in nodes.items() if node is not None and not _is_null(node)}

    def _add_matrix(self, name: str, node: Node) -> None:
        try:
            with reading(self.path, f"matrix {name}"):
                self._found[name] = self._make_reader(name, node)
        except FormatError as error:
            if name == "X":
                raise
            self._broken_matrices[name] = error
            self.note(f"{self.path.name}: matrix {name} cannot be read: {error}")

    def _make_reader(self, name: str, node: Node) -> MatrixReader:
        axis = self._raw_axis if name == "raw" else self._axis
        reader = self._whole_reader(name, node, axis.n_features)
        return reader if axis.target is None else GenesOnly(reader, target=axis.target, n_genes=len(axis.genes))

    def _whole_reader(self, name: str, node: Node, n_genes: int) -> MatrixReader:
        n_cells = self.n_cells
        if isinstance(node, Array):
            return self._dense_reader(name, node, n_genes)
        if not isinstance(node, Group):
            raise FormatError(f"{self.path}, matrix {name}: it is neither a group nor an array.")
        shape = _declared_shape(node)
        if shape is not None and shape != (n_cells, n_genes):
            raise FormatError(
                f"{self.path}, matrix {name}: its shape is {shape}, but obs has {n_cells} cells and "
                f"{'raw/var' if name == 'raw' else 'var'} {n_genes} genes."
            )
        by_cell = self._is_by_cell(name, node, n_cells, n_genes)
        axes = (n_cells, n_genes, "cell", "gene") if by_cell else (n_genes, n_cells, "gene", "cell")
        stored = Compressed(
            node, path=self.path, place=name, n_major=axes[0], n_minor=axes[1], major=axes[2], minor=axes[3]
        )
        if stored.unused:
            self.note(f"{self.path.name}, {name}: {stored.unused} stored entries belong to no {stored.major}; skipped")
        return CsrReader(stored, limits=self.limits) if by_cell else CscReader(stored, limits=self.limits)

    def _dense_reader(self, name: str, node: Array, n_genes: int) -> MatrixReader:
        missing = node.chunks_not_stored()
        if missing:
            self.note(
                f"{self.path.name}: {missing} chunks of {name} are not stored and are read as zeros: either only zeros "
                "were there when it was written, or the copy is incomplete"
            )
        return DenseReader(node, path=self.path, place=name, n_cells=self.n_cells, n_genes=n_genes, limits=self.limits)

    def _is_by_cell(self, name: str, node: Group, n_cells: int, n_genes: int) -> bool:
        """Whether a sparse group is CSR; where it does not say, the length of indptr tells."""
        declared = node.text("encoding-type") or node.text("h5sparse_format")
        for kind, by_cell in (("csr", True), ("csc", False)):
            if declared in (kind, f"{kind}_matrix"):
                return by_cell
        if declared:
            raise FormatError(
                f"{self.path}, matrix {name}: its encoding is {declared!r}, expected csr_matrix, csc_matrix or array."
            )
        pointers = node.array("indptr")
        length = pointers.shape[0] - 1 if pointers is not None and pointers.shape else n_cells
        if n_cells == n_genes:
            self.caution(f"{self.path.name}: matrix {name} is square and does not say its layout; read as csr")
        return bool(length != n_genes or n_cells == n_genes)

    def release(self) -> None:
        """Let go of matrices that were sorted by cell; they are sorted again for the next read."""
        for reader in self._found.values():
            reader.close()

    def close(self) -> None:
        """Close the container and delete what was spilt."""
        super().close()
        self._close_root()


def _raw_nodes(root: Group) -> tuple[Node | None, Node | None]:
    """Return (matrix, gene table) of raw, from the group `raw` or the old top-level names `raw.X` and `raw.var`."""
    raw = root.group("raw")
    if raw is not None:
        return raw.get("X"), raw.get("var")
    return root.get("raw.X"), root.get("raw.var")


def _declared_shape(node: Node | None) -> tuple[int, ...] | None:
    """Return the shape that a matrix says it has, None when it says none."""
    if isinstance(node, Array):
        return node.shape if node.ndim == 2 else None
    if not isinstance(node, Group):
        return None
    shape = node.attribute("shape")
    sizes = np.asarray(node.attribute("h5sparse_shape") if shape is None else shape).reshape(-1)
    return (int(sizes[0]), int(sizes[1])) if sizes.size == 2 else None


def _is_null(node: Node) -> bool:
    return node.text("encoding-type") == "null" or (isinstance(node, Array) and node.shape is None)


def _is_textual(column: Any) -> bool:
    kind = column.type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_dictionary(kind))


def _texts(column: Any) -> list[str]:
    if pa.types.is_dictionary(column.type):  # label by label, to_pylist takes ten times as long
        labels = np.array([*_texts(column.dictionary), ""], dtype=object)
        return cast(
            "list[str]", labels[column.indices.fill_null(len(labels) - 1).to_numpy(zero_copy_only=False)].tolist()
        )
    return ["" if item is None else item for item in column.to_pylist()]
