"""Statistics of a store's genes in streaming passes (floor 4).

Knows how to read a store in blocks and how means, variances and scores of genes are defined; must not know torch,
where the cells came from, or what the genes are chosen for.
"""

from __future__ import annotations

from cellmill.statistics.analysis import FIGURE_NAME, INFO_NAME, write_analysis
from cellmill.statistics.components import Components, principal_components
from cellmill.statistics.moments import GeneMoments, GeneStatistics, gene_statistics, panel_statistics
from cellmill.statistics.scores import score_dispersion, score_seurat
from cellmill.statistics.unmeasured import counts_unmeasured_as_zero, unmeasured_genes
from cellmill.statistics.variable import FLAVORS, Flavor, HvgResult, hvg, hvg_of_cells, hvg_of_statistics

__all__ = [
    "FIGURE_NAME",
    "FLAVORS",
    "INFO_NAME",
    "Components",
    "Flavor",
    "GeneMoments",
    "GeneStatistics",
    "HvgResult",
    "counts_unmeasured_as_zero",
    "gene_statistics",
    "hvg",
    "hvg_of_cells",
    "hvg_of_statistics",
    "panel_statistics",
    "principal_components",
    "score_dispersion",
    "score_seurat",
    "unmeasured_genes",
    "write_analysis",
]
