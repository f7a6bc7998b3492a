"""Geometric sketches (floor 4, mixture): cells chosen evenly over the space that their coordinates fill."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from cellmill.errors import ConfigError, MissingDependencyError, NotFoundError
from cellmill.kernel import derive_key
from cellmill.mixture.cells import Cells
from cellmill.mixture.select import uids_of
from cellmill.store import Store

__all__ = ["read_coordinates", "sketch_choice", "write_coordinates"]

Mask = npt.NDArray[np.bool_]


def write_coordinates(path: Path, uids: npt.NDArray[np.uint64], coordinates: npt.NDArray[np.float32]) -> None:
    """Write coordinates of cells, (n_cells, n), as Parquet: the column uid, and pc1 to pcn."""
    columns = {"uid": pa.array(uids)} | {f"pc{i + 1}": pa.array(coordinates[:, i]) for i in range(coordinates.shape[1])}
    temporary = path.with_name(f".{path.name}.tmp")
    pq.write_table(pa.table(columns), temporary, compression="zstd")
    temporary.replace(path)


def read_coordinates(path: Path) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.float64]]:
    """Return uids, ascending, and coordinates, float64 (n_cells, n), of a file as `cellmill pca` writes it.

    Raises
    ------
    NotFoundError, ConfigError
        When there is no such file, or it is not one of coordinates.
    """
    try:
        table = pq.ParquetFile(path).read()
    except FileNotFoundError:
        raise NotFoundError(f"{path}: there are no coordinates here. Make them: cellmill pca STORE -o {path}") from None
    except (OSError, pa.ArrowException) as error:
        raise ConfigError(f"{path}: cannot be read as Parquet ({str(error).splitlines()[0]})") from None
    names = [name for name in table.column_names if name != "uid"]
    numbers = all(pa.types.is_floating(table.schema.field(name).type) for name in names)
    if "uid" not in table.column_names or table.schema.field("uid").type != pa.uint64() or not names or not numbers:
        raise ConfigError(
            f"{path}: coordinates are a column uid (uint64) and columns of floats, found {table.schema.names}"
        )
    uids = table.column("uid").to_numpy()
    order = np.argsort(uids, kind="stable")
    values = np.stack([table.column(name).to_numpy() for name in names], axis=1).astype(np.float64)
    return uids[order], values[order]


def sketch_choice(cells: Cells, stores: Sequence[Store], path: Path, n: int, *, seed: int) -> Mask:
    """Return which `n` cells a geometric sketch takes; another `n` is another sketch, not a part of this one.

    Raises
    ------
    ConfigError
        When cells have no coordinates, or coordinates that are not finite.

    Notes
    -----
    By the package geosketch (Hie et al., Cell Systems 8, 2019), which draws from NumPy's global generator: its state is
    put back.
    """
    try:
        from geosketch import gs
    except ImportError:
        raise MissingDependencyError("geosketch", extra="sketch", needed_for="a geometric sketch") from None
    known, coordinates = read_coordinates(path)
    uids = uids_of(cells, stores)
    at = np.minimum(np.searchsorted(known, uids), max(0, len(known) - 1))
    missing = int(np.count_nonzero(known[at] != uids)) if len(known) else len(uids)
    if missing:
        raise ConfigError(
            f"{path}: {missing:,} of the {len(uids):,} cells have no coordinates in it. Make them for all cells of the "
            "store: cellmill pca STORE -o FILE"
        )
    points = coordinates[at]
    if not np.isfinite(points).all():
        raise ConfigError(f"{path}: coordinates that are not finite numbers")
    mask = np.zeros(len(uids), dtype=bool)
    order = np.argsort(uids, kind="stable")  # so that the sketch does not depend on where cells lie
    state = np.random.get_state()  # noqa: NPY002  (it is the one that geosketch draws from)
    try:
        chosen = gs(points[order], n, seed=derive_key(seed, "sketch") % 2**32, replace=False)
    finally:
        np.random.set_state(state)  # noqa: NPY002
    mask[order[np.asarray(chosen, dtype=np.int64)]] = True
    return mask
