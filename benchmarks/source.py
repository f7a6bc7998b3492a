"""The h5ad files that all systems start from, read with h5py alone: CSR float32, the same genes in each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import h5py
import numpy as np
import scipy.sparse as sp


class SourceFiles:
    """Several h5ad files seen as one matrix, cells in the order of the files."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = list(paths)
        self.indptr = []
        for path in self.paths:
            with h5py.File(path) as file:
                self.indptr.append(file["X/indptr"][:])
                self.n_genes = int(file["X"].attrs["shape"][1])
        self.bases = np.cumsum([0, *(len(pointers) - 1 for pointers in self.indptr)])

    @property
    def n_cells(self) -> int:
        return int(self.bases[-1])

    @property
    def nnz(self) -> int:
        return int(sum(pointers[-1] for pointers in self.indptr))

    def gene_ids(self) -> list[str]:
        with h5py.File(self.paths[0]) as file:
            return [name.decode() for name in file["var"][file["var"].attrs["_index"]][:]]

    def rows(self, wanted: np.ndarray) -> sp.csr_matrix:
        """Return cells in the order asked for, read one by one."""
        parts: list[sp.csr_matrix | None] = [None] * len(wanted)
        shard_of = np.searchsorted(self.bases, wanted, side="right") - 1
        for shard in np.unique(shard_of):
            with h5py.File(self.paths[shard]) as file:
                data, indices = file["X/data"], file["X/indices"]
                for place in np.flatnonzero(shard_of == shard):
                    local = wanted[place] - self.bases[shard]
                    span = slice(int(self.indptr[shard][local]), int(self.indptr[shard][local + 1]))
                    pointers = np.array([0, span.stop - span.start])
                    arrays = data[span], indices[span], pointers
                    parts[place] = sp.csr_matrix(arrays, shape=(1, self.n_genes))
        return sp.vstack(parts, format="csr")

    def blocks(self, cells: int = 4096) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Yield indptr (from 0), indices (int32) and values (float32) of blocks of cells."""
        for path, indptr in zip(self.paths, self.indptr, strict=True):
            with h5py.File(path) as file:
                data, indices = file["X/data"], file["X/indices"]
                for start in range(0, len(indptr) - 1, cells):
                    pointers = indptr[start : start + cells + 1]
                    span = slice(int(pointers[0]), int(pointers[-1]))
                    yield (
                        (pointers - pointers[0]).astype(np.int64),
                        indices[span].astype(np.int32, copy=False),
                        data[span].astype(np.float32, copy=False),
                    )
