"""Which 10x features are genes (floor 3, sources). Pure but for the reader that leaves the others out.

Knows feature types. Must not know where the list of features was read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from cellmill.errors import FormatError
from cellmill.sources.base import MISSING_TEXTS, GeneColumns, MatrixReader, Spills
from cellmill.sources.rows import Rows, keep_columns

__all__ = [
    "DROPPED",
    "GENE_EXPRESSION",
    "GenesOnly",
    "is_feature_type",
    "keep_gene_expression",
    "keep_genes",
    "ten_x_types",
]

GENE_EXPRESSION = "Gene Expression"
TYPE_COLUMNS = frozenset({"feature_type", "feature_types"})
DROPPED = "features not Gene Expression"
OTHER_TYPES = frozenset(
    {
        "Antibody Capture", "Antigen Capture", "CRISPR Guide Capture", "Multiplexing Capture", "Custom", "Peaks",
        "Protein Expression", "VDJ", "VDJ-T", "VDJ-B",
    }
)  # fmt: skip


def _folded(kind: str) -> str:
    """Return a type as it is compared: people write "gene expression" and "Antibody_Capture" too."""
    return re.sub(r"[\s_-]+", " ", kind).strip().casefold()


_GENE = _folded(GENE_EXPRESSION)
_OTHER = frozenset(_folded(kind) for kind in OTHER_TYPES)


def is_feature_type(kind: str) -> bool:
    """Whether a text is one of the feature types of 10x, in any spelling.

    Examples
    --------
    >>> is_feature_type("antibody capture"), is_feature_type("protein_coding")
    (True, False)
    """
    return _folded(kind) == _GENE or _folded(kind) in _OTHER


def ten_x_types(genes: GeneColumns) -> list[str] | None:
    """Return the column of a gene table that names feature types of 10x, None where none does.

    Notes
    -----
    A column of that name is not enough: `feature_type` of CELLxGENE holds biotypes, beside 10x's `feature_types`.
    """
    for name, column in genes.columns.items():
        if name.casefold() in TYPE_COLUMNS and any(map(is_feature_type, set(column))):
            return column
    return None


def keep_gene_expression(
    genes: GeneColumns, types: Sequence[str] | None, *, where: str
) -> tuple[GeneColumns, NDArray[np.int32] | None, int]:
    """Return the genes among features, the new column of each feature (-1: no gene), and how many were left out.

    Parameters
    ----------
    genes : GeneColumns
        All features.
    types : sequence of str or None
        Their feature types; None where the file has none: all are genes.
    where : str
        File, for messages.

    Returns
    -------
    tuple
        The target is int32[n_features], or None when every feature stays. What is of another 10x type is always left
        out; what is of a type unknown to 10x only where the others say "Gene Expression" (GEO files put biotypes into
        that column). A feature without a type stays.

    Raises
    ------
    FormatError
        There is no gene among the features.
    """
    if types is None or not types:
        return genes, None, 0
    folded = {kind: _folded(kind) for kind in set(types)}
    typed = _GENE in folded.values()
    kept_kinds = {
        kind
        for kind, what in folded.items()
        if what == _GENE or what in MISSING_TEXTS or (not typed and what not in _OTHER)
    }
    is_gene = np.array([kind in kept_kinds for kind in types], bool)
    if is_gene.all():
        return genes, None, 0
    if not is_gene.any():
        raise FormatError(
            f"{where}: none of its {len(types)} features is a gene; feature types are {', '.join(sorted(set(types)))}, "
            f"expected {GENE_EXPRESSION!r}."
        )
    return *keep_genes(genes, is_gene), int((~is_gene).sum())


def keep_genes(genes: GeneColumns, is_gene: NDArray[np.bool_]) -> tuple[GeneColumns, NDArray[np.int32]]:
    """Return the genes among features, and the new column of each feature (-1: no gene)."""
    target = np.where(is_gene, np.cumsum(is_gene) - 1, -1).astype(np.int32)
    kept = np.flatnonzero(is_gene).tolist()
    columns = {name: [column[i] for i in kept] for name, column in genes.columns.items()}
    return GeneColumns([genes.index[i] for i in kept], columns), target


class GenesOnly:
    """Another reader's matrix without the features that are no genes."""

    def __init__(self, reader: MatrixReader, *, target: NDArray[np.int32], n_genes: int) -> None:
        self._reader, self._target = reader, target
        self.info = replace(reader.info, n_genes=n_genes)

    def rows(self, start: int, stop: int, *, block_cells: int) -> Iterator[Rows]:
        """Yield the cells from `start` to `stop`, genes only."""
        for rows in self._reader.rows(start, stop, block_cells=block_cells):
            yield keep_columns(rows, self._target)

    @property
    def spill_bytes(self) -> int:
        """Bytes of disk that the other reader takes."""
        return self._reader.spill_bytes if isinstance(self._reader, Spills) else 0

    def close(self) -> None:
        """Release what the other reader holds."""
        self._reader.close()
