"""annbatch: zarr v3 shuffled as it is written, read in blocks of 512 by its Loader with the defaults.

It needs Python 3.12. Its order is its own: random blocks of neighbours, mixed; the rows that a batch holds are known by
a column of obs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import torch
import zarr
from annbatch import DatasetCollection, Loader

from systems.base import Parts, System

zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"})


def _only_row(group: Any) -> anndata.AnnData:
    obs = anndata.io.read_elem(group["obs"])[["row"]]
    return anndata.AnnData(X=anndata.io.sparse_dataset(group["X"]), obs=obs)


class AnnbatchCollection(System):
    packages = ("annbatch", "anndata", "zarr", "zarrs")
    has_threads = True
    keeps_order = False

    def convert(self, inputs: Sequence[Path]) -> None:
        sizes = [anndata.read_h5ad(path, backed="r").n_obs for path in inputs]
        bases = dict(zip(map(str, inputs), np.cumsum([0, *sizes]), strict=False))

        def load(path: Any) -> anndata.AnnData:
            lazy = anndata.experimental.read_lazy(path)
            obs = lazy.obs.to_memory()
            obs["row"] = np.arange(len(obs)) + bases[str(path)]
            return anndata.AnnData(X=lazy.X, obs=obs, var=pd.DataFrame(index=lazy.var_names))

        DatasetCollection(str(self.place)).add_adatas([str(path) for path in inputs], load_adata=load)

    def open(self, inputs: Sequence[Path], *, threads: int) -> None:
        self.threads = threads
        self.collection = DatasetCollection(str(self.place), mode="r")
        self.n_genes = int(next(iter(self.collection))["X"].attrs["shape"][1])

    def own_batches(self, batch_cells: int, *, is_random: bool, seed: int) -> Iterator[tuple[Parts, np.ndarray]]:
        while True:
            loader = Loader(
                batch_size=batch_cells,
                shuffle=is_random,
                rng=np.random.default_rng(seed) if is_random else None,
                preload_to_gpu=False,
                to="torch",
            ).use_collection(self.collection, load_adata=_only_row)
            for batch in loader:
                counts: torch.Tensor = batch["X"]
                parts = counts.crow_indices(), counts.col_indices(), counts.values()
                yield parts, batch["obs"]["row"].to_numpy()
            seed += 1

    def count_bytes(self) -> int:
        return sum(p.stat().st_size for p in self.place.rglob("*") if p.is_file() and "X" in p.parts)
