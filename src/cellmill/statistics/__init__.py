"""Statistics of a store's genes in one streaming pass (floor 4).

Knows how to read a store in batches and how means, variances and scores of genes are defined; must not know torch,
where the cells came from, or what the genes are chosen for.
"""

from __future__ import annotations

from cellmill.statistics.moments import GeneMoments, GeneStatistics, gene_statistics, panel_statistics
from cellmill.statistics.variable import (
    Flavor,
    HvgResult,
    hvg,
    hvg_of_cells,
    hvg_of_statistics,
    score_dispersion,
    score_seurat,
)

__all__ = [
    "Flavor",
    "GeneMoments",
    "GeneStatistics",
    "HvgResult",
    "gene_statistics",
    "hvg",
    "hvg_of_cells",
    "hvg_of_statistics",
    "panel_statistics",
    "score_dispersion",
    "score_seurat",
]
