"""cellstream, its per-cell layout; rows by `gather_rows`."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import cellstream
import numpy as np
from cellstream.cell import concat_cell_archives

from systems.base import Parts, System, from_scipy


class CellstreamArchive(System):
    packages = ("cellstream",)
    has_threads = True

    def convert(self, inputs: Sequence[Path]) -> None:
        if len(inputs) == 1:
            cellstream.write_sharded(str(inputs[0]), self.place, layout="cell")
            return
        with tempfile.TemporaryDirectory(dir=self.place.parent) as folder:
            parts = [Path(folder) / f"{number}.csad" for number in range(len(inputs))]
            for path, part in zip(inputs, parts, strict=True):
                cellstream.write_sharded(str(path), part, layout="cell")
            concat_cell_archives(parts, self.place)

    def open(self, inputs: Sequence[Path], *, threads: int) -> None:
        self.store = cellstream.open(self.place)
        self.threads, self.n_genes = threads, self.store.n_vars

    def parts(self, rows: np.ndarray) -> Parts:
        return from_scipy(self.store.gather_rows(rows, n_threads=self.threads))

    def count_bytes(self) -> int:
        archive = cellstream.open(self.place)._packed  # sizes of members are not public
        names = [m["name"] for m in archive.members if m.get("role") in ("payload", "offsets", "indptr")]
        found = sum(archive.member_location(name)[2] for name in names)
        return int(found) if len(names) == 3 else self.total_bytes()
