"""One shard file, mapped (floor 3). Opened when a cell of it is first asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cellmill.errors import CorruptStoreError
from cellmill.storage import map_file
from cellmill.store.format import Footer, parse_footer, parse_offsets, parse_uids
from cellmill.store.manifest import ShardEntry

__all__ = ["Shard", "open_shard"]


@dataclass(frozen=True)
class Shard:
    """A mapped shard.

    Attributes
    ----------
    data : uint8, shape (file_bytes,)
        The whole file.
    frames : uint8, shape (frames_bytes,)
    offsets : uint32, shape (n_cells + 1,)
        Start of each frame within `frames`.
    uids : uint64, shape (n_cells,)
    """

    path: Path
    data: npt.NDArray[np.uint8]
    footer: Footer
    frames: npt.NDArray[np.uint8]
    offsets: npt.NDArray[np.uint32]
    uids: npt.NDArray[np.uint64]


def open_shard(path: Path, entry: ShardEntry, *, n_genes: int | None) -> Shard:
    """Map a shard and check that it is the one that the manifest names; its number of genes too, where that is known.

    Raises
    ------
    CorruptStoreError
        When the file's length, footer or sizes contradict the manifest.
    """
    data = map_file(path)
    if len(data) != entry.cells.bytes:
        raise CorruptStoreError(
            f"{path}: the manifest says {entry.cells.bytes} bytes, the file has {len(data)}. "
            "Restore it from a copy or build the store again."
        )
    footer = parse_footer(data, where=str(path))
    n_genes = footer.n_genes if n_genes is None else n_genes
    if (footer.n_cells, footer.nnz, footer.n_genes) != (entry.n_cells, entry.nnz, n_genes):
        raise CorruptStoreError(
            f"{path}: the footer says {footer.n_cells} cells, {footer.nnz} counts and {footer.n_genes} genes, "
            f"the manifest {entry.n_cells}, {entry.nnz} and {n_genes}"
        )
    frames = data[footer.frames_start : footer.frames_start + footer.frames_bytes]
    return Shard(path, data, footer, frames, parse_offsets(data, footer), parse_uids(data, footer))
