"""bionemo-scdl: memory-mapped CSR, uint16 values (its smallest that holds single-cell counts), its own collate."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from bionemo.scdl.io.single_cell_collection import SingleCellCollection
from bionemo.scdl.io.single_cell_memmap_dataset import SingleCellMemMapDataset
from bionemo.scdl.util.torch_dataloader_utils import collate_sparse_matrix_batch

from systems.base import Parts, System


class Scdl(System):
    packages = ("bionemo-scdl",)

    def convert(self, inputs: Sequence[Path]) -> None:
        with tempfile.TemporaryDirectory(dir=self.place.parent) as folder:
            links = Path(folder) / "inputs"
            links.mkdir()
            for number, path in enumerate(inputs):
                (links / f"{number:05d}.h5ad").symlink_to(path.resolve())
            parts = Path(folder) / "parts"
            collection = SingleCellCollection(str(parts))
            collection.load_h5ad_multi(str(links), max_workers=2, data_dtype="uint16", use_X_not_raw=True)
            collection.flatten(str(self.place), destroy_on_copy=True)
            shutil.rmtree(parts, ignore_errors=True)

    def open(self, inputs: Sequence[Path], *, threads: int) -> None:
        self.data = SingleCellMemMapDataset(str(self.place))
        self.threads = threads
        self.n_genes = int(self.data.number_of_variables()[0])

    def parts(self, rows: np.ndarray) -> Parts:
        batch = collate_sparse_matrix_batch([self.data[int(row)] for row in rows])
        return batch.crow_indices(), batch.col_indices(), batch.values()

    def count_bytes(self) -> int:
        names = ("data.npy", "col_ptr.npy", "row_ptr.npy")
        found = [self.place / name for name in names]
        return sum(path.stat().st_size for path in found) if all(p.exists() for p in found) else self.total_bytes()
