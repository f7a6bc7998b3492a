"""Which 10x features are genes (floor 3, sources). Pure.

Knows feature types. Must not know where the list of features was read.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cellmill.errors import FormatError
from cellmill.sources.base import GeneColumns

__all__ = ["DROPPED", "GENE_EXPRESSION", "keep_gene_expression"]

GENE_EXPRESSION = "Gene Expression"
DROPPED = "features not Gene Expression"
OTHER_TYPES = frozenset(
    {
        "Antibody Capture", "Antigen Capture", "CRISPR Guide Capture", "Multiplexing Capture", "Custom", "Peaks",
        "Protein Expression", "VDJ", "VDJ-T", "VDJ-B",
    }
)  # fmt: skip


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
        The target is int32[n_features], or None when every feature stays. A third column that never says
        "Gene Expression" and names no other 10x type (GEO files put biotypes there) drops nothing.

    Raises
    ------
    FormatError
        There is no gene among the features.
    """
    if types is None or not types:
        return genes, None, 0
    is_gene = np.array([kind == GENE_EXPRESSION for kind in types], bool)
    if is_gene.all() or not (is_gene.any() or set(types) <= OTHER_TYPES):
        return genes, None, 0
    if not is_gene.any():
        raise FormatError(
            f"{where}: none of its {len(types)} features is a gene; feature types are {', '.join(sorted(set(types)))}, "
            f"expected {GENE_EXPRESSION!r}."
        )
    target = np.where(is_gene, np.cumsum(is_gene) - 1, -1).astype(np.int32)
    kept = np.flatnonzero(is_gene).tolist()
    columns = {name: [column[i] for i in kept] for name, column in genes.columns.items()}
    return GeneColumns([genes.index[i] for i in kept], columns), target, int((~is_gene).sum())
