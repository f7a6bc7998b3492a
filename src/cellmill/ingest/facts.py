"""What is told of whole cells (floor 4, pure): totals, genes, shares, over all genes of the file, matched or not.

Computed before cells are laid onto a vocabulary, so that quality is judged by what was measured and not by what is
kept. Knows arrays and gene names. Must not know files, stores, or which cells are taken.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from cellmill.genes import SPECIES, GeneTable, strip_version
from cellmill.kernel import IngestedCells
from cellmill.sources import GeneColumns

__all__ = ["MITOCHONDRIAL", "RIBOSOMAL", "UNMATCHED", "CellFacts", "classify_genes", "classify_names", "measure_cells"]

MITOCHONDRIAL, RIBOSOMAL, UNMATCHED = 1, 2, 4
# the proteins of the ribosome, and not the kinases (RPS6KA1) or pseudogenes (RPL21P16) whose names begin alike
_RIBOSOMAL_SYMBOL = re.compile(r"RP[SL](?:\d+[AXY]?\d*L?\d*|A|P[0-2])$", re.IGNORECASE)

U8 = npt.NDArray[np.uint8]
I64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class CellFacts:
    """Facts of the cells of a block, over all genes of their file.

    Attributes
    ----------
    total_counts : int64, (n_cells,)
    n_genes_detected : int32, (n_cells,)
        Genes of the file with a count.
    kept_share, mito_share, ribo_share, top_gene_share : float32, (n_cells,)
        Share of the cell's counts on genes that the vocabulary has, on mitochondrial genes, on genes of ribosomal
        proteins, and on the gene with most; NaN for a cell without counts, and for the middle two in a file that
        measured no such gene.
    """

    total_counts: I64
    n_genes_detected: npt.NDArray[np.int32]
    kept_share: npt.NDArray[np.float32]
    mito_share: npt.NDArray[np.float32]
    ribo_share: npt.NDArray[np.float32]
    top_gene_share: npt.NDArray[np.float32]

    def columns(self) -> dict[str, npt.NDArray[Any]]:
        """Return the facts by the names of their columns of obs."""
        return dict(self.__dict__)

    def of(self, cells: npt.NDArray[np.bool_]) -> CellFacts:
        """Return the facts of some of the cells."""
        return self if cells.all() else CellFacts(**{name: values[cells] for name, values in self.columns().items()})


def classify_genes(genes: GeneColumns, target: I64, of_vocabulary: U8) -> U8:
    """Return what each gene of a file counts for: the sum of MITOCHONDRIAL, RIBOSOMAL, UNMATCHED that hold.

    Parameters
    ----------
    target
        int64, shape (n_source_genes,): position of each gene in the vocabulary, -1 for none.
    of_vocabulary
        uint8, shape (n_vocabulary,): `classify_names` of the vocabulary, which knows a matched gene better.
    """
    matched = target >= 0
    classes = np.full(len(target), UNMATCHED, np.uint8)
    classes[matched] = of_vocabulary[target[matched]]
    unmatched = np.flatnonzero(~matched).tolist()
    symbols = genes.symbols or genes.ids
    classes[unmatched] |= classify_names([genes.ids[i] for i in unmatched], [symbols[i] for i in unmatched])
    return classes


def classify_names(ids: Sequence[str], symbols: Sequence[str]) -> U8:
    """Return MITOCHONDRIAL or RIBOSOMAL or 0 for each gene: by its id where a gene table has it, else by its symbol.

    Examples
    --------
    >>> classify_names(["ENSG00000198888.2", "x", "y"], ["", "RPL13A", "RPS6KA1"]).tolist()
    [1, 2, 0]
    """
    classes = np.zeros(len(ids), np.uint8)
    for i, (gene_id, symbol) in enumerate(zip(ids, symbols, strict=True)):
        found = _class_of_id(gene_id)
        if found is not None:
            classes[i] = found
        elif symbol[:3] in ("MT-", "mt-", "Mt-"):
            classes[i] = MITOCHONDRIAL
        elif symbol[:2] in ("RP", "Rp", "rp") and _RIBOSOMAL_SYMBOL.match(symbol):
            classes[i] = RIBOSOMAL
    return classes


def _class_of_id(gene_id: str) -> int | None:
    """Return the class of a gene that a table has under its id, None of any other."""
    species = "human" if gene_id.startswith("ENSG") else "mouse" if gene_id.startswith("ENSMUSG") else None
    return None if species is None else _classes_of_table(species).get(strip_version(gene_id))


@lru_cache(maxsize=len(SPECIES))
def _classes_of_table(species: str) -> dict[str, int]:
    table = GeneTable.load(species)
    mito, ribo = (table.arrow[name].to_pylist() for name in ("mitochondrial", "ribosomal"))
    return {
        gene_id: MITOCHONDRIAL * is_mito + RIBOSOMAL * is_ribo
        for gene_id, is_mito, is_ribo in zip(table.ids, mito, ribo, strict=True)
    }


def measure_cells(cells: IngestedCells, classes: U8) -> CellFacts:
    """Return the facts of a block of cells that the kernel took with these classes of genes.

    Parameters
    ----------
    classes
        uint8, shape (n_source_genes,): `classify_genes`.
    """
    whole = cells.whole
    if whole is None:
        raise ValueError("the cells were taken without classes of genes")

    def share(part: I64, *, measured: bool = True) -> npt.NDArray[np.float32]:
        with np.errstate(invalid="ignore"):
            quotient = part / whole.totals
        return (quotient if measured else np.full(len(part), np.nan)).astype(np.float32)

    mito, ribo, unmatched = whole.of_class.T
    return CellFacts(
        total_counts=whole.totals,
        n_genes_detected=whole.detected,
        kept_share=share(whole.totals - unmatched),
        mito_share=share(mito, measured=bool((classes & MITOCHONDRIAL).any())),
        ribo_share=share(ribo, measured=bool((classes & RIBOSOMAL).any())),
        top_gene_share=share(whole.most),
    )
