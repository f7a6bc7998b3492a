"""h5ad as anndata reads it, backed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import anndata
import numpy as np
import scipy.sparse as sp

from systems.base import Parts, System, from_scipy


class H5adBacked(System):
    """The h5ad files themselves, through anndata's backed mode."""

    packages = ("anndata", "h5py")
    has_store = False

    def convert(self, inputs: Sequence[Path]) -> None:
        raise NotImplementedError("the inputs are read as they are")

    def open(self, inputs: Sequence[Path], *, threads: int) -> None:
        self.inputs, self.threads = list(inputs), threads
        self.opened = [anndata.read_h5ad(path, backed="r") for path in inputs]
        self.bases = np.cumsum([0, *(adata.n_obs for adata in self.opened)])
        self.n_genes = self.opened[0].n_vars

    def parts(self, rows: np.ndarray) -> Parts:
        order = np.argsort(rows, kind="stable")
        ascending = rows[order]
        shard_of = np.searchsorted(self.bases, ascending, side="right") - 1
        found = [
            self.opened[shard].X[ascending[shard_of == shard] - self.bases[shard]] for shard in np.unique(shard_of)
        ]
        back = np.empty(len(rows), dtype=np.int64)
        back[order] = np.arange(len(rows))
        return from_scipy(sp.csr_matrix(sp.vstack(found, format="csr")[back]))

    def files(self) -> list[Path]:
        return list(getattr(self, "inputs", []))
