"""Genes of many inputs laid onto one vocabulary (floor 4, pure): files with the same genes are aligned once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cellmill.genes import Alignment, GeneTable, Vocabulary
from cellmill.ingest.facts import classify_genes, classify_names
from cellmill.ingest.gene_columns import align_columns
from cellmill.sources import GeneColumns

__all__ = ["AlignedGenes", "GeneAligner"]


@dataclass(frozen=True, eq=False)
class AlignedGenes:
    """Where the genes of a file go, and what each counts for.

    Attributes
    ----------
    alignment : Alignment
    classes : uint8, shape (n_source_genes,)
        `facts.classify_genes`.
    """

    alignment: Alignment
    classes: npt.NDArray[np.uint8]


class GeneAligner:
    """Aligns genes of files with a vocabulary; the files of a study mostly have the same, which are looked up once."""

    def __init__(self, vocabulary: Vocabulary, table: GeneTable | None, *, min_match: float) -> None:
        self._vocabulary, self._table, self._min_match = vocabulary, table, min_match
        self._classes: npt.NDArray[np.uint8] | None = None
        self._known: dict[str, AlignedGenes] = {}

    def align(self, genes: GeneColumns, where: str) -> AlignedGenes:
        """Return where the genes go; `where` names the file in an error.

        Raises
        ------
        GeneMatchError
            When too few of them are found.
        """
        key = genes.key
        if key not in self._known:
            if self._classes is None:
                self._classes = classify_names(self._vocabulary.ids, self._vocabulary.symbols)
            alignment = align_columns(
                genes,
                vocabulary=self._vocabulary,
                table=self._table,
                min_match=self._min_match,
                where=where,
            )
            self._known[key] = AlignedGenes(alignment, classify_genes(genes, alignment.target, self._classes))
        return self._known[key]
