"""cellmill, through its public face."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from source import SourceFiles

import cellmill as cm
from systems.base import Parts, System


class CellmillStore(System):
    packages = ("cellmill",)
    has_threads = True

    def convert(self, inputs: Sequence[Path]) -> None:
        # "union": the files' own ids as they are, so that every system holds the same matrix
        cm.build(self.place, inputs, vocabulary="union")

    def open(self, inputs: Sequence[Path], *, threads: int) -> None:
        self.store = cm.open(self.place)
        self.threads = threads
        self._ids = SourceFiles(inputs).gene_ids()
        self.n_genes = len(self._ids)

    def parts(self, rows: np.ndarray) -> Parts:
        # float32, as the other systems give
        counts = self.store.gather(rows, dtype="float32", threads=self.threads)
        return torch.from_numpy(counts.indptr), torch.from_numpy(counts.indices), torch.from_numpy(counts.values)

    def columns(self) -> np.ndarray:
        place = {gene: i for i, gene in enumerate(self._ids)}
        return np.array([place[gene] for gene in self.store.gene_ids])

    def dense_panel(self, rows: np.ndarray, panel: np.ndarray) -> torch.Tensor:
        if getattr(self, "_panel_of", None) is not panel:
            self._panel_of = panel
            self._panel = self.store.panel([self._ids[i] for i in panel])
        return torch.from_numpy(self.store.read_dense(rows, genes=self._panel, threads=self.threads))

    def count_bytes(self) -> int:
        return cm.open(self.place).n_bytes

    def files(self) -> list[Path]:
        return sorted(p for p in self.place.rglob("*") if p.is_file())
