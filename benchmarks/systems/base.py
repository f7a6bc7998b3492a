"""What every system offers to the benchmark: conversion from h5ad, and batches of cells as torch CSR."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import torch

# indptr, indices, values: what a torch CSR tensor is made of
Parts = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


class System(ABC):
    """One way to keep and read cells.

    Attributes
    ----------
    packages : tuple of str
        Distributions whose versions are written down.
    has_threads : bool
        Whether `open(threads=2)` uses two threads inside one process; otherwise two DataLoader workers stand for it.
    keeps_order : bool
        Whether `parts(rows)` gives the rows asked for; otherwise `own_batches` gives what the system likes.
    has_store : bool
        Whether there is something on disk to convert to.
    """

    packages: tuple[str, ...] = ()
    has_threads = False
    keeps_order = True
    has_store = True

    def __init__(self, place: Path) -> None:
        self.place = place
        self.threads = 1
        self.n_genes = 0

    @abstractmethod
    def convert(self, inputs: Sequence[Path]) -> None:
        """Write the counts of h5ad files (CSR float32) to `place`."""

    @abstractmethod
    def open(self, inputs: Sequence[Path], *, threads: int) -> None:
        """Open what `convert` wrote; `inputs` for systems that read the h5ad files themselves."""

    def parts(self, rows: np.ndarray) -> Parts:
        """Return cells by row, in the order asked for."""
        raise NotImplementedError

    def run(self, start: int, stop: int) -> Parts:
        """Return neighbouring cells."""
        return self.parts(np.arange(start, stop))

    def columns(self) -> np.ndarray | None:
        """Return the column of the input that each column of `parts` is; None where they are the same."""
        return None

    def dense_panel(self, rows: np.ndarray, panel: np.ndarray) -> torch.Tensor:
        """Return a few columns of the input as a dense float32 tensor: by a lookup of columns, then scattered."""
        indptr, indices, values = (part.numpy() for part in self.parts(rows))
        column = self.lookup(panel)[indices]
        kept = column >= 0
        dense = np.zeros((len(rows), len(panel)), dtype=np.float32)
        dense[np.repeat(np.arange(len(rows)), np.diff(indptr))[kept], column[kept]] = values[kept]
        return torch.from_numpy(dense)

    def lookup(self, panel: np.ndarray) -> np.ndarray:
        """Return the place in the panel of each column of `parts`, -1 for columns outside."""
        if getattr(self, "_lookup_of", None) is not panel:
            of_input = np.full(self.n_genes, -1, dtype=np.int64)
            of_input[panel] = np.arange(len(panel))
            own = self.columns()
            self._lookup_of, self._lookup = panel, of_input if own is None else of_input[own]
        return self._lookup

    def own_batches(self, batch_cells: int, *, is_random: bool, seed: int) -> Iterator[tuple[Parts, np.ndarray]]:
        """Yield batches in the system's own order, with the rows they hold."""
        raise NotImplementedError

    def files(self) -> list[Path]:
        """Return the files that are read, whose pages are warmed or dropped."""
        return sorted(p for p in self.place.rglob("*") if p.is_file()) if self.place.is_dir() else [self.place]

    def total_bytes(self) -> int:
        """Return the size of everything that was written."""
        return sum(path.stat().st_size for path in self.files())

    def count_bytes(self) -> int:
        """Return the size of the counts: values, genes and where each cell begins, without obs."""
        return self.total_bytes()

    @classmethod
    def versions(cls) -> dict[str, str]:
        """Return the versions of what is measured."""
        found = {}
        for name in (*cls.packages, "torch", "numpy", "scipy"):
            try:
                found[name] = version(name)
            except PackageNotFoundError:
                found[name] = "not installed"
        return found


def torch_csr(parts: Parts, n_columns: int) -> torch.Tensor:
    """Return a torch CSR tensor over the parts; nothing is copied but the row pointers."""
    indptr, indices, values = parts
    return torch.sparse_csr_tensor(
        indptr.to(indices.dtype), indices, values, size=(len(indptr) - 1, n_columns), check_invariants=False
    )


def from_scipy(matrix: object) -> Parts:
    """Return the arrays of a scipy CSR matrix as tensors, not copied."""
    return (
        torch.from_numpy(matrix.indptr),  # type: ignore[attr-defined]
        torch.from_numpy(matrix.indices),  # type: ignore[attr-defined]
        torch.from_numpy(matrix.data),  # type: ignore[attr-defined]
    )
