"""The map-style face (floor 6, loader), for people who bring their own sampler. Knows stores and recipes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from torch.utils.data import Dataset as TorchDataset

from cellmill.errors import ConfigError
from cellmill.loader.obs import ObsWanted
from cellmill.loader.reader import Reader
from cellmill.store import Store
from cellmill.tokens import Batch, Recipe

__all__ = ["Dataset"]


class Dataset(TorchDataset[Batch]):
    """Cells of a store by index; a whole batch is read at once.

    Parameters
    ----------
    store
        The store.
    tokens
        Recipe; `CSR()` when None.
    obs
        Columns of obs that batches carry.
    rows
        Row ids that indices count into; all cells when None. Of a boolean mask, give ``np.flatnonzero(mask)``.
    seed
        Seed of the recipe's randomness, together with `epoch` (an attribute to be set) and each cell's uid.
    threads
        Threads of the kernel; 0 for all cores (one in worker processes).
    downsample
        As in `Loader`.

    Examples
    --------
    >>> from torch.utils.data import DataLoader
    >>> cells = Dataset(store, obs=["cell_type"])  # doctest: +SKIP
    >>> DataLoader(cells, batch_size=256, shuffle=True, collate_fn=cells.collate)  # doctest: +SKIP
    """

    def __init__(
        self,
        store: Store,
        *,
        tokens: Recipe | None = None,
        obs: ObsWanted = (),
        rows: npt.ArrayLike | None = None,
        seed: int = 0,
        threads: int = 0,
        downsample: int | None = None,
    ) -> None:
        self.reader = Reader([store], tokens=tokens, obs=obs, seed=seed, threads=threads, downsample=downsample)
        given = None if rows is None else np.asarray(rows)
        if given is not None and (given.ndim != 1 or (len(given) and given.dtype.kind not in "iu")):
            raise ConfigError(
                f"rows must be row ids, found {given.dtype} of shape {given.shape}; "
                "of a mask, give np.flatnonzero(mask)"
            )
        self.rows = None if given is None else given.astype(np.int64)
        if self.rows is not None and len(self.rows) and not 0 <= self.rows.min() <= self.rows.max() < store.n_cells:
            raise ConfigError(f"rows must lie in 0..{store.n_cells - 1}")
        self.epoch = 0

    def __len__(self) -> int:
        return self.reader.stores[0].n_cells if self.rows is None else len(self.rows)

    def __getitem__(self, index: int) -> Batch:
        """Return a batch of one cell."""
        return self.__getitems__([index])

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """Return a batch of cells, in the order asked for; negative indices count from the end.

        Raises
        ------
        IndexError
            For an index outside the dataset.
        """
        at = np.asarray(indices, dtype=np.int64)
        size = len(self)
        at = np.where(at < 0, at + size, at)
        if len(at) and not 0 <= at.min() <= at.max() < size:
            raise IndexError(f"index outside 0..{size - 1}")
        row = at if self.rows is None else self.rows[at]
        return self.reader.read(np.zeros_like(row), row, epoch=self.epoch)

    @staticmethod
    def collate(batch: Batch) -> Batch:
        """Return the batch as it is: the `collate_fn` for torch's DataLoader."""
        return batch
