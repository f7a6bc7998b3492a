"""What stands among genes and is none: tallies of counting programs, sums, facts of cells (floor 3, sources). Pure.

Knows names. Must not know where they were read: each of these is a count to whoever reads it as a gene, and makes
totals, shares and filters of cells wrong. No name of a human or mouse gene is among them, as a test proves.
"""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from cellmill.sources.base import GeneColumns
from cellmill.sources.features import keep_genes

__all__ = ["FACTS", "is_fact", "leave_out", "what_else"]

TALLIES = "tallies of reads without a gene"
SUMS = "sums over genes"
FACTS = "facts of cells"

# HTSeq (with and, of old, without underscores), STAR --quantMode GeneCounts, featureCounts.
_TALLY = re.compile(
    r"__.+|no_feature|ambiguous|too_low_aqual|not_aligned|alignment_not_unique"
    r"|n_(unmapped|multimapping|nofeature|ambiguous)|unassigned_\w+",
    re.IGNORECASE,
)
_SUM = re.compile(r"((grand|row|column|col|gene|cell)?[ _.-]?(totals?|sums?))", re.IGNORECASE)
# As Seurat, scanpy and scater call what they know of a cell.
_FACT = re.compile(
    r"n(count|feature)_\w+|n_?umis?|n_?genes?|n_?counts?|n_genes_by_counts|(log1p_)?(n_genes_by|total)_counts(_\w+)?"
    r"|pct_counts_\w+|percent[._]\w+|total_umis?|total_features(_by_counts)?|library_size|size_?factors?"
    r"|(leiden|louvain)(_r(es)?_?[\d._]+)?|seurat_clusters|\w+_snn_res[._][\d.]+|clusters?"
    r"|doublet_scores?|predicted_doublets?|(s|g2m)[._]score|(umap|tsne)_\d+",
    re.IGNORECASE,
)


def is_fact(name: str) -> bool:
    """Whether a column of numbers tells something of each cell by its name.

    Examples
    --------
    >>> is_fact("nCount_RNA"), is_fact("percent.mt"), is_fact("TP53")
    (True, True, False)
    """
    return _FACT.fullmatch(name.strip()) is not None


def what_else(name: str) -> str | None:
    """Return what a name among genes stands for if not for a gene; None where it may be one.

    Examples
    --------
    >>> what_else("__no_feature"), what_else("Total"), what_else("TP53")
    ('tallies of reads without a gene', 'sums over genes', None)
    """
    for pattern, what in ((_TALLY, TALLIES), (_SUM, SUMS), (_FACT, FACTS)):
        if pattern.fullmatch(name.strip()):
            return what
    return None


def leave_out(
    genes: GeneColumns, target: NDArray[np.int32] | None
) -> tuple[GeneColumns, NDArray[np.int32] | None, dict[str, list[str]]]:
    """Return the genes without what is none, the new column of each feature, and the names left out by what they are.

    Parameters
    ----------
    genes : GeneColumns
    target : int32[n_features] or None
        Column in `genes` of each feature of the file, -1 for those left out before; None when all stay.
    """
    found = [what_else(name) for name in genes.index]
    if not any(found):
        return genes, target, {}
    kept, moved = keep_genes(genes, np.array([what is None for what in found], bool))
    left_out: dict[str, list[str]] = {}
    for name, what in zip(genes.index, found, strict=True):
        if what:
            left_out.setdefault(what, []).append(name)
    return kept, moved if target is None else _chained(target, moved), left_out


def _chained(first: NDArray[np.int32], second: NDArray[np.int32]) -> NDArray[np.int32]:
    return np.where(first < 0, np.int32(-1), second[first]).astype(np.int32)
