"""From a block of a source to cells of the store (floor 4, pure): genes mapped, duplicates summed, cells named."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import xxhash
from scipy import sparse

from cellmill import kernel
from cellmill.errors import InputError
from cellmill.ingest.audit import MAX_COUNT
from cellmill.sources import CountBlock

__all__ = ["CellBlock", "cell_uids", "convert_block", "gene_hashes"]


@dataclass(frozen=True)
class CellBlock:
    """Cells ready to be encoded, genes in storage order.

    Attributes
    ----------
    indptr : int64, shape (n_cells + 1,)
    indices : int32, shape (nnz,)
        Storage positions, ascending and unique in each cell.
    values : uint32, shape (nnz,)
        At least 1.
    totals : int64, shape (n_cells,)
    fingerprints : uint64, shape (n_cells,)
    umi_per_source_gene : float64, shape (n_source_genes,)
        Sum of counts of each gene of the file, also of those that match nothing.
    """

    indptr: npt.NDArray[np.int64]
    indices: npt.NDArray[np.int32]
    values: npt.NDArray[np.uint32]
    totals: npt.NDArray[np.int64]
    fingerprints: npt.NDArray[np.uint64]
    umi_per_source_gene: npt.NDArray[np.float64]

    @property
    def n_cells(self) -> int:
        """Number of cells."""
        return len(self.indptr) - 1

    @property
    def n_detected(self) -> npt.NDArray[np.int32]:
        """Genes detected in each cell, int32, shape (n_cells,)."""
        return np.diff(self.indptr).astype(np.int32)


def convert_block(
    block: CountBlock,
    counts: npt.NDArray[np.uint32],
    *,
    position_of: npt.NDArray[np.int64],
    hashes: npt.NDArray[np.uint64],
    sums_duplicates: bool,
) -> CellBlock:
    """Return the cells of a block over the store's genes.

    Parameters
    ----------
    counts
        The block's values, proven.
    position_of
        int64, shape (n_source_genes,): storage position of each gene of the file, -1 for none.
    hashes
        uint64, shape (n_store_genes,): `gene_hashes` in storage order.
    sums_duplicates
        Whether several genes of the file may share a position.

    Raises
    ------
    InputError
        When the sum of duplicated genes is above 2^32 - 1.
    """
    n_cells, n_store = len(block.indptr) - 1, len(hashes)
    # a bincount with weights sums in float64: exact up to 2^53 UMIs of one gene in a block
    umi = np.bincount(block.indices, weights=counts, minlength=len(position_of)).astype(np.float64)
    position = position_of[block.indices]
    kept = (position >= 0) & (counts > 0)
    kept_before = np.concatenate([[0], np.cumsum(kept, dtype=np.int64)])
    indptr = kept_before[block.indptr]
    values = counts[kept].astype(np.uint64 if sums_duplicates else np.uint32)
    matrix = sparse.csr_array((values, position[kept].astype(np.int32), indptr), shape=(n_cells, n_store))
    matrix = matrix.tocsc().tocsr()  # two counting sorts: linear, and every cell's genes come out ascending
    if sums_duplicates:
        matrix.sum_duplicates()
        if matrix.nnz and int(matrix.data.max()) > MAX_COUNT:
            raise InputError(f"the counts of duplicated genes add up to {int(matrix.data.max())}, above 2^32-1")
    values_out = matrix.data.astype(np.uint32, copy=False)
    indptr_out, indices_out = matrix.indptr.astype(np.int64), matrix.indices.astype(np.int32, copy=False)
    sums = np.concatenate([[0], np.cumsum(values_out, dtype=np.int64)])
    return CellBlock(
        indptr=indptr_out,
        indices=indices_out,
        values=values_out,
        totals=sums[indptr_out[1:]] - sums[indptr_out[:-1]],
        fingerprints=kernel.fingerprint(indptr_out, indices_out, values_out, hashes),
        umi_per_source_gene=umi,
    )


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
