"""Hugging Face datasets: one Arrow file, format "arrow", and a collate that copies no more than `datasets` does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import torch
from datasets.arrow_writer import ArrowWriter
from source import SourceFiles

from systems.base import Parts, System

_SCHEMA = pa.schema([("indices", pa.list_(pa.int32())), ("values", pa.list_(pa.float32()))])


class HfArrow(System):
    packages = ("datasets", "pyarrow")

    def convert(self, inputs: Sequence[Path]) -> None:
        self.place.mkdir(parents=True)
        writer = ArrowWriter(path=str(self.place / "data.arrow"), features=datasets.Features.from_arrow_schema(_SCHEMA))
        for indptr, indices, values in SourceFiles(inputs).blocks():
            offsets = pa.array(indptr.astype(np.int32))
            lists = [pa.ListArray.from_arrays(offsets, pa.array(part)) for part in (indices, values)]
            writer.write_table(pa.table(lists, schema=_SCHEMA))
        writer.finalize()

    def open(self, inputs: Sequence[Path], *, threads: int) -> None:
        self.data = datasets.Dataset.from_file(str(self.place / "data.arrow")).with_format("arrow")
        self.threads, self.n_genes = threads, SourceFiles(inputs).n_genes

    def _wrapped(self, table: pa.Table) -> Parts:
        indices, values = (table.column(name).combine_chunks() for name in ("indices", "values"))
        offsets = indices.offsets.to_numpy()
        first, last = int(offsets[0]), int(offsets[-1])
        return (
            torch.from_numpy(offsets - first),
            torch.from_numpy(indices.values.to_numpy()[first:last]),
            torch.from_numpy(values.values.to_numpy()[first:last]),
        )

    def parts(self, rows: np.ndarray) -> Parts:
        return self._wrapped(self.data[rows.tolist()])

    def run(self, start: int, stop: int) -> Parts:
        return self._wrapped(self.data[start:stop])
