"""MosaicML Streaming: MDS shards without compression; cells one by one from its LocalDataset."""

from __future__ import annotations

import sys
import types
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from source import SourceFiles

from systems.base import Parts, System


def _stub(name: str) -> None:
    """Stand in for a package that `streaming` imports for pictures and texts, which are not read here."""
    module = types.ModuleType(name)
    module.__getattr__ = lambda attribute: type(attribute, (), {})  # type: ignore[method-assign]
    module.__path__ = []
    sys.modules[name] = module


for _name in (
    "torchvision", "torchvision.transforms", "torchvision.transforms.functional", "torchvision.datasets",
    "transformers", "transformers.feature_extraction_utils", "transformers.tokenization_utils_base",
    "transformers.models", "transformers.models.auto", "transformers.models.auto.tokenization_auto",
):  # fmt: skip
    _stub(_name)

from streaming import LocalDataset, MDSWriter  # noqa: E402


class Mds(System):
    packages = ("mosaicml-streaming",)

    def convert(self, inputs: Sequence[Path]) -> None:
        columns = {"indices": "bytes", "values": "bytes"}  # its "ndarray" refuses cells without counts
        with MDSWriter(out=str(self.place), columns=columns, compression=None) as writer:
            for indptr, indices, values in SourceFiles(inputs).blocks():
                for cell in range(len(indptr) - 1):
                    span = slice(indptr[cell], indptr[cell + 1])
                    writer.write({"indices": indices[span].tobytes(), "values": values[span].tobytes()})

    def open(self, inputs: Sequence[Path], *, threads: int) -> None:
        self.data = LocalDataset(str(self.place))
        self.threads, self.n_genes = threads, SourceFiles(inputs).n_genes

    def parts(self, rows: np.ndarray) -> Parts:
        cells = [self.data[int(row)] for row in rows]
        lengths = [len(cell["indices"]) // 4 for cell in cells]
        indices, values = (bytearray(b"".join(cell[name] for cell in cells)) for name in ("indices", "values"))
        return (
            torch.from_numpy(np.concatenate([[0], np.cumsum(lengths)])),
            torch.from_numpy(np.frombuffer(indices, np.int32)),
            torch.from_numpy(np.frombuffer(values, np.float32)),
        )
