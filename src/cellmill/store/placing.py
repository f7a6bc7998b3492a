"""Where in a store an error of the kernel is (floor 3, store). Knows manifests; opens nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from cellmill.errors import CellmillError, FrameError, InputError
from cellmill.store.manifest import Manifest

__all__ = ["placed"]


def placed(error: CellmillError, rows: npt.NDArray[np.int64], *, path: Path, manifest: Manifest) -> CellmillError:
    """Return an error whose `.position` is one of `rows` with shard and row in its message; others as they are."""
    position = getattr(error, "position", None)
    if position is None:
        return error
    row = int(rows[position])
    if not isinstance(error, FrameError):
        return InputError(f"{path}: {str(error).replace(f'row {position} of this batch', f'row {row}', 1)}")
    upto = np.cumsum(manifest.shards.n_cells)
    index = int(np.searchsorted(upto, row, side="right"))
    entry = manifest.shards[index]
    first = int(upto[index]) - entry.n_cells
    return FrameError(
        f"{path / entry.cells.path}: cell {row - first} of this shard (row {row} of the "
        f"store) cannot be decoded: {getattr(error, 'reason', error)}. Run `cellmill verify {path}`, then restore the "
        "shard from a copy or build the store again."
    )
