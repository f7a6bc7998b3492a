"""Size and speed of frames: bytes a nonzero against the gene-wise entropy, and cells a second of one thread's CPU time.

    python benchmarks/frames.py FILE.h5ad [FILE.h5 ...]

Reads CSR, CSC or dense counts of X (h5ad) or of the matrix group (10x HDF5) into memory. CPU time, not wall time, so
that a busy machine disturbs little; scipy's row indexing of the same cells in memory stands beside it.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import scipy.sparse as sp

from cellmill import kernel

BATCH = 512
REPEATS = 5


def read_counts(path: Path) -> sp.csr_matrix:
    with h5py.File(path) as file:
        tenx = "matrix" in file
        node = file["matrix"] if tenx else file["X"]
        if isinstance(node, h5py.Dataset):
            return sp.csr_matrix(node[:])
        arrays = node["data"][:], node["indices"][:], node["indptr"][:]
        if tenx:
            return sp.csr_matrix(arrays, shape=tuple(node["shape"][:])[::-1])
        layout = sp.csr_matrix if node.attrs["encoding-type"] == "csr_matrix" else sp.csc_matrix
        return layout(arrays, shape=tuple(node.attrs["shape"])).tocsr()


def by_detection_rate(counts: sp.csr_matrix) -> sp.csr_matrix:
    counts.eliminate_zeros()
    detected = np.bincount(counts.indices, minlength=counts.shape[1])
    ordered = counts[:, np.argsort(-detected, kind="stable")].tocsr()
    ordered.sort_indices()
    return ordered


def entropy_bytes(counts: sp.csr_matrix) -> float:
    """Return the sum over genes of the entropy of the gene's counts over all cells, in bytes a nonzero."""
    n_cells, n_genes = counts.shape
    key = counts.indices.astype(np.int64) << 32 | counts.data.astype(np.int64)
    zeros = n_cells - np.bincount(counts.indices, minlength=n_genes)
    seen = np.concatenate([np.unique(key, return_counts=True)[1], zeros[zeros > 0]])
    return float(-(seen * np.log2(seen / n_cells)).sum() / 8 / counts.nnz)


def cells_per_second(read: Callable[[np.ndarray], object], n_cells: int) -> float:
    order = np.random.default_rng(0).permutation(max(n_cells, 20 * BATCH)) % n_cells
    best = float("inf")
    for _ in range(REPEATS):
        begin = time.process_time()
        for at in range(0, len(order) - BATCH + 1, BATCH):
            read(order[at : at + BATCH])
        best = min(best, (time.process_time() - begin) / (len(order) // BATCH * BATCH))
    return 1 / best


def measure(path: Path) -> None:
    counts = by_detection_rate(read_counts(path))
    n_cells, n_genes = counts.shape
    values = counts.data.astype(np.int64)
    begin = time.process_time()
    frames, offsets = kernel.encode(counts.indptr, counts.indices, values, n_genes=n_genes, threads=1)
    encode_rate = n_cells / (time.process_time() - begin)
    of = np.zeros(BATCH, np.int64)

    def gather(rows: np.ndarray) -> object:
        return kernel.gather([frames], of, offsets[rows], offsets[rows + 1], n_genes=n_genes, threads=1)

    gather_rate = cells_per_second(gather, n_cells)
    print(
        f"{path.name}: {counts.nnz / n_cells:,.0f} nonzeros a cell; {len(frames) / counts.nnz:.3f} bytes a nonzero "
        f"(entropy {entropy_bytes(counts):.3f}); encode {encode_rate:,.0f}, gather {gather_rate:,.0f}, "
        f"scipy in memory {cells_per_second(lambda rows: counts[rows], n_cells):,.0f} cells a CPU second"
    )


if __name__ == "__main__":
    print(f"kernel: {kernel.IMPLEMENTATION}, batches of {BATCH} random cells")
    for name in sys.argv[1:]:
        measure(Path(name))
