"""Row ids -> batch (floor 6, loader): one gather per store of a batch, then the recipe. Knows no order, no plan."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy import sparse

from cellmill import kernel
from cellmill.errors import FrameError
from cellmill.loader.axis import GeneAxis, Missing, align_genes
from cellmill.loader.obs import ObsWanted, load_obs
from cellmill.store import Store
from cellmill.tokens import CSR, Batch, Dense, Recipe

__all__ = ["Reader"]

I64 = npt.NDArray[np.int64]


class Reader:
    """Reads cells of some stores as batches of one recipe. Picklable; safe to use from several threads.

    Parameters
    ----------
    stores
        What the codes of `store` in `read` count into.
    tokens
        The recipe.
    obs
        Columns of obs that batches carry; a mapping gives the categories too.
    seed
        Seed of the recipe's randomness.
    threads
        Threads of the kernel; 0 for all cores.
    missing
        What to do with a gene of the panel that no store has: "refuse" or "zero".
    """

    def __init__(
        self,
        stores: Sequence[Store],
        *,
        tokens: Recipe | None = None,
        obs: ObsWanted = (),
        seed: int = 0,
        threads: int = 0,
        missing: Missing = "refuse",
    ) -> None:
        self.stores = tuple(stores)
        self.tokens: Recipe = CSR() if tokens is None else tokens
        self.axis: GeneAxis = align_genes(self.stores, self.tokens.genes, missing=missing)
        self.obs = load_obs(self.stores, obs)
        self.totals = tuple(_totals(store) for store in self.stores)
        self.seed = seed
        self.threads = threads

    def read(self, store: I64, row: I64, *, component: I64 | None = None, epoch: int = 0, **place: Any) -> Batch:
        """Return one batch.

        Parameters
        ----------
        store, row
            int64[n]: code of the store and row id of each cell, in the order wanted.
        component
            int64[n]; zeros when None.
        epoch
            Key of the recipe's randomness, with the seed and each cell's uid.
        **place
            Further fields of Batch: step, position, padding.

        Raises
        ------
        FrameError
            For a cell whose bytes cannot be decoded, naming shard and row.
        """
        groups = self._groups(store)
        uids = np.empty(len(row), dtype=np.uint64)
        totals = np.empty(len(row), dtype=np.int64)
        for code, here in groups:
            uids[here] = self.stores[code].uids(row[here])
            totals[here] = self.totals[code][row[here]]
        if isinstance(self.tokens, Dense):
            tokens = self.tokens.wrap(self._dense(groups, row, self.tokens))
        elif isinstance(self.tokens, CSR) and len(groups) == 1:
            code, here = groups[0]
            tokens = self.tokens.wrap(*self._gather(code, row[here], kernel.gather), n_columns=len(self.axis))
        else:
            keys = kernel.keyed_u64(kernel.derive_key(self.seed, "tokens", epoch), uids)
            tokens = self.tokens.encode(self._counts(groups, row), self.axis.tokens, keys, totals=totals)
        return Batch(
            **{name: getattr(tokens, name) for name in ("values", "genes", "indptr", "n_columns")},
            cells=torch.from_numpy(uids.view(np.int64)),
            rows=torch.from_numpy(np.ascontiguousarray(row)),
            stores=torch.from_numpy(np.ascontiguousarray(store)),
            component=torch.from_numpy(np.zeros_like(row) if component is None else np.ascontiguousarray(component)),
            totals=torch.from_numpy(totals.astype(np.float32)),
            obs=self._obs(groups, row),
            categories={column.name: column.categories for column in self.obs if column.categories is not None},
            epoch=epoch,
            **place,
        )

    def _groups(self, store: I64) -> list[tuple[int, Any]]:
        """Codes of the stores of a batch, and where their cells are."""
        if len(self.stores) == 1 or not len(store):
            return [(0, slice(None))]
        return [(int(code), np.flatnonzero(store == code)) for code in np.unique(store)]

    def _counts(self, groups: Sequence[tuple[int, Any]], row: I64) -> sparse.csr_array:
        parts: list[sparse.csr_array] = []
        for code, here in groups:
            indptr, indices, values = self._gather(code, row[here], kernel.gather)
            parts.append(sparse.csr_array((values, indices, indptr), shape=(len(indptr) - 1, len(self.axis))))
        if len(parts) == 1:
            return parts[0]
        order = np.argsort(np.concatenate([here for _, here in groups]), kind="stable")
        together: sparse.csr_array = sparse.vstack(parts, format="csr")[order]
        return together

    def _dense(self, groups: Sequence[tuple[int, Any]], row: I64, tokens: Dense) -> npt.NDArray[np.float32]:
        if len(groups) == 1:
            code, here = groups[0]
            whole: npt.NDArray[np.float32] = self._gather(
                code, row[here], kernel.gather_dense, transform=tokens.transform
            )
            return whole
        out = np.empty((len(row), len(self.axis)), dtype=np.float32)
        for code, here in groups:
            out[here] = self._gather(code, row[here], kernel.gather_dense, transform=tokens.transform)
        return out

    def _gather(self, code: int, row: I64, gather: Any, **how: Any) -> Any:
        store = self.stores[code]
        try:
            return gather(
                *store.frames(row),
                n_genes=store.n_genes,
                panel=self.axis.panels[code],
                n_columns=len(self.axis),
                threads=self._threads(),
                **how,
            )
        except FrameError as error:
            store.read(row[[getattr(error, "position", 0)]])  # the store names shard and row in its error
            raise

    def _threads(self) -> int:
        """Worker processes share the cores: one thread each, unless more are asked for."""
        return self.threads or (0 if torch.utils.data.get_worker_info() is None else 1)

    def _obs(self, groups: Sequence[tuple[int, Any]], row: I64) -> dict[str, torch.Tensor]:
        made = {}
        for column in self.obs:
            values = np.empty(len(row), dtype=column.dtype)
            for code, here in groups:
                values[here] = column.values[code][row[here]]
            made[column.name] = torch.from_numpy(values)
        return made


def _totals(store: Store) -> I64:
    return np.ascontiguousarray(store.totals(), dtype=np.int64)
