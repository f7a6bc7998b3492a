"""Baselines without a format of their own: scipy in memory, and scipy over a memory map."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import scipy.sparse as sp
from source import SourceFiles

from systems.base import Parts, System, from_scipy


class CsrInMemory(System):
    """All counts in memory as one scipy CSR matrix; 8 bytes for each."""

    packages = ("scipy",)
    has_store = False

    def convert(self, inputs: Sequence[Path]) -> None:
        raise NotImplementedError("nothing is written")

    def open(self, inputs: Sequence[Path], *, threads: int) -> None:
        source = SourceFiles(inputs)
        self.n_genes, self.threads = source.n_genes, threads
        # indptr in int32 as long as it fits: scipy would otherwise widen and copy the indices
        pointer = np.int32 if source.nnz < 2**31 else np.int64
        arrays = np.empty(source.nnz, np.float32), np.empty(source.nnz, np.int32)
        indptr, at, cell = np.zeros(source.n_cells + 1, pointer), 0, 0
        for pointers, indices, values in source.blocks():
            arrays[0][at : at + len(values)], arrays[1][at : at + len(values)] = values, indices
            indptr[cell + 1 : cell + len(pointers)] = at + pointers[1:]
            at, cell = at + len(values), cell + len(pointers) - 1
        self.matrix = sp.csr_matrix((*arrays, indptr), shape=(source.n_cells, source.n_genes))

    def parts(self, rows: np.ndarray) -> Parts:
        return from_scipy(self.matrix[rows])  # also for neighbours: scipy's slices are slower than its row index

    def files(self) -> list[Path]:
        return []


class CsrMemoryMap(CsrInMemory):
    """The same matrix in three flat files, mapped; scipy takes rows out of the map."""

    has_store = True

    def convert(self, inputs: Sequence[Path]) -> None:
        source = SourceFiles(inputs)
        self.place.mkdir(parents=True)
        pointers_all = [np.zeros(1, np.int64)]
        with (self.place / "data").open("wb") as data, (self.place / "indices").open("wb") as columns:
            at = 0
            for pointers, indices, values in source.blocks():
                data.write(values.data)
                columns.write(indices.data)
                pointers_all.append(at + pointers[1:])
                at += len(values)
        dtype = np.int32 if source.nnz < 2**31 else np.int64
        np.concatenate(pointers_all).astype(dtype).tofile(self.place / "indptr")

    def open(self, inputs: Sequence[Path], *, threads: int) -> None:
        source = SourceFiles(inputs)
        self.n_genes, self.threads = source.n_genes, threads
        dtype = np.int32 if source.nnz < 2**31 else np.int64
        arrays = (
            np.memmap(self.place / "data", np.float32, "r"),
            np.memmap(self.place / "indices", np.int32, "r"),
            np.memmap(self.place / "indptr", dtype, "r"),
        )
        self.matrix = sp.csr_matrix(arrays, shape=(source.n_cells, source.n_genes), copy=False)
        if not np.shares_memory(self.matrix.indices, arrays[1]):
            raise RuntimeError("scipy copied the mapped indices into memory: this would not be a memory map")

    def files(self) -> list[Path]:
        return [self.place / name for name in ("data", "indices", "indptr")]
