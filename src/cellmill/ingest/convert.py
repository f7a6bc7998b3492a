"""From a block of a source to cells of the store (floor 4, pure): counts proven, genes mapped, cells named."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

from cellmill import kernel
from cellmill.ingest.audit import Violation, violation_in_cell, violation_in_sum
from cellmill.kernel import IngestedCells
from cellmill.sources import CountBlock

__all__ = ["cell_uids", "convert_block", "gene_hashes"]


def convert_block(
    block: CountBlock,
    *,
    position_of: npt.NDArray[np.int32],
    hashes: npt.NDArray[np.uint64],
    head: Any = None,
    classes: npt.NDArray[np.uint8] | None = None,
    threads: int = 0,
) -> IngestedCells | Violation:
    """Return the cells of a block over the store's genes, or the first value that is no raw count.

    Parameters
    ----------
    block
        As stored (`Source.stored_blocks`) or with its genes in order: the result is the same.
    position_of
        int32, shape (n_source_genes,): storage position of each gene of the file, -1 for none.
    hashes
        uint64, shape (n_store_genes,): `gene_hashes` in storage order.
    head
        Model of the store's head genes, from `kernel.open_model`.
    classes
        uint8, shape (n_source_genes,): `facts.classify_genes`, where whole cells are to be measured.
    threads
        Threads of the kernel; 0 for all cores.

    Notes
    -----
    Where no value is to blame, the first sum of genes in one place of the store that is above 2^32 - 1 is.
    """
    cells = kernel.ingest_cells(
        block.indptr,
        block.indices,
        block.data,
        position_of=position_of,
        gene_hashes=hashes,
        head=head,
        classes=classes,
        threads=threads,
    )
    if isinstance(cells, IngestedCells):
        return cells
    if cells.why == "value":
        return violation_in_cell(block, cells.cell)
    return violation_in_sum(block, cells.cell, position_of)


def gene_hashes(gene_ids: list[str]) -> npt.NDArray[np.uint64]:
    """Return the xxh3-64 of each gene id, uint64: what fingerprints are made of, whatever the storage order."""
    return np.array([xxhash.xxh3_64_intdigest(gene_id.encode()) for gene_id in gene_ids], dtype=np.uint64)


def cell_uids(dataset: str, names: list[str], occurrences: list[int]) -> npt.NDArray[np.uint64]:
    """Return the uid of each cell, uint64: xxh3-64 of dataset, cell name and how often the name came before.

    A cell keeps its uid in every store in which its dataset has the same name. Datasets are named after their files,
    so files that are called alike and name cells alike give equal uids: give files names of their own.
    """
    prefix = dataset + "\0"
    texts = (f"{prefix}{name}\0{n}" for name, n in zip(names, occurrences, strict=True))
    return np.fromiter((xxhash.xxh3_64_intdigest(text.encode()) for text in texts), dtype=np.uint64, count=len(names))
