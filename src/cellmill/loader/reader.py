"""Row ids -> batch (floor 6, loader): one gather per store of a batch, then the recipe. Knows no order, no plan."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from scipy import sparse

from cellmill import kernel
from cellmill import tokens as recipes
from cellmill.errors import ConfigError, nearest
from cellmill.loader.axis import GeneAxis, Missing, align_genes, token_numbers
from cellmill.loader.binding import bind_axis, bind_recipe, measured_of, warn_of_few
from cellmill.loader.obs import ObsColumn, ObsWanted, load_obs
from cellmill.loader.schedule import whole_number
from cellmill.loader.thinning import thin_counts
from cellmill.store import Store
from cellmill.tokens import CSR, Batch, Dense, Recipe, TokenBatch
from cellmill.tokens.csr import INT32_MAX
from cellmill.tokens.kernel_counts import kernel_counts, later_counts

__all__ = ["Reader"]

I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]
TOKEN_FIELDS = tuple(each.name for each in fields(TokenBatch))


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
    downsample
        About how many counts each cell is thinned to, over all genes of its store; None to leave counts as they are.

    Raises
    ------
    ConfigError
        For a `downsample` that is no whole number of at least 1, and for `tokens` that are no recipe.
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
        downsample: int | None = None,
    ) -> None:
        self.downsample = None if downsample is None else whole_number("downsample", downsample, least=1)
        self.stores = tuple(stores)
        self.tokens: Recipe = bind_recipe(CSR() if tokens is None else _as_recipe(tokens), self.stores)
        axis = align_genes(self.stores, self.tokens.genes, missing=missing)
        self.axis: GeneAxis = bind_axis(axis, self.stores, getattr(self.tokens, "vocabulary", None))
        warn_of_few(self.axis, self.tokens, self.stores)
        self.context = load_obs(self.stores, getattr(self.tokens, "obs_columns", ()))
        self.measured = measured_of(self.tokens, self.stores, self.axis)
        self.obs = load_obs(self.stores, obs)
        self._categories = {each.name: each.categories for each in self.obs if each.categories is not None}
        self.panels = tuple(
            None if panel is None else kernel.Panel(panel, n_genes=len(panel), n_columns=len(self.axis))
            for panel in self.axis.panels
        )
        self.seed = seed
        self.threads = threads

    def read(
        self,
        store: I64,
        row: I64,
        *,
        component: I64 | None = None,
        epoch: int = 0,
        threads: int | None = None,
        **place: Any,
    ) -> Batch:
        """Return one batch.

        Parameters
        ----------
        store, row
            int64[n]: code of the store and row id of each cell, in the order wanted.
        component
            int64[n]; zeros when None.
        epoch
            Key of all randomness, the recipe's and that of `downsample`, with the seed and each cell's uid.
        threads
            Threads of the kernel, when not as the reader was told.
        **place
            Further fields of Batch: step, position, padding, those of units.

        Raises
        ------
        FrameError
            For a cell whose bytes cannot be decoded, naming shard and row.
        """
        return self.read_several(store, row, [(len(row), place)], component=component, epoch=epoch, threads=threads)[0]

    def read_several(
        self,
        store: I64,
        row: I64,
        batches: Sequence[tuple[int, Mapping[str, Any]]],
        *,
        component: I64 | None = None,
        epoch: int = 0,
        threads: int | None = None,
    ) -> list[Batch]:
        """Return some batches of one epoch, read in one go: what is done once for all of them costs as much as for one.

        The batches are those that `read` gives one by one, but share memory: one that is kept keeps the others' too.

        Parameters
        ----------
        store, row, component, epoch
            As in `read`, of all batches one after the other.
        batches
            Number of cells and further fields of each batch.
        threads
            Threads of the kernel, when not as the reader was told.

        Raises
        ------
        FrameError
            For a cell whose bytes cannot be decoded, naming shard and row.
        """
        n_threads = self._threads() if threads is None else threads
        groups = self._groups(store)
        uids = np.empty(len(row), dtype=np.uint64)
        for code, here in groups:
            uids[here] = self.stores[code].uids(row[here])
        store, row = np.ascontiguousarray(store), np.ascontiguousarray(row)
        component = np.zeros_like(row) if component is None else np.ascontiguousarray(component)
        tokens_of, totals = self._tokens(groups, store, row, uids, epoch, n_threads)
        per_cell: dict[str, npt.NDArray[Any]] = {
            "cells": uids.view(np.int64),
            "rows": row,
            "stores": store,
            "component": component,
        }
        obs = self._obs_of(self.obs, groups, row)
        made, start = [], 0
        for n, place in batches:
            here = slice(start, start + n)
            start += n
            tokens = tokens_of(here)  # totals may be known then only
            of_batch: dict[str, Any] = {name: torch.from_numpy(value[here]) for name, value in per_cell.items()}
            of_batch["totals"] = torch.from_numpy(totals[here].astype(np.float32))
            of_batch["obs"] = {name: torch.from_numpy(value[here]) for name, value in obs.items()}
            made.append(Batch(**tokens, **of_batch, categories=dict(self._categories), epoch=epoch, **place))
        return made

    def _tokens(
        self, groups: Sequence[tuple[int, Any]], store: I64, row: I64, uids: U64, epoch: int, threads: int
    ) -> tuple[Callable[[slice], dict[str, Any]], I64]:
        """Fields of TokenBatch of a slice of cells, by a function; and the sum of all counts of each cell."""
        recipe = self.tokens
        if isinstance(recipe, Dense) and self.downsample is None:
            dense, totals = self._dense(groups, row, recipe, threads)
            whole = recipe.wrap(dense)
            return lambda here: {"values": whole.values[here], "n_columns": whole.n_columns}, totals
        if self._decodes_late(groups):
            return self._fused(store, row, uids, epoch, threads)
        keys = None if self.downsample is None else self._keys("downsample", epoch, uids)
        counts, totals = self._counts(groups, row, keys, threads)
        n_columns = len(self.axis)

        def rows_of(here: slice) -> tuple[I64, Any, Any]:
            indptr = counts.indptr[here.start : here.stop + 1]
            first, last = int(indptr[0]), int(indptr[-1])
            return indptr - first if first else indptr, counts.indices[first:last], counts.values[first:last]

        if isinstance(recipe, CSR):
            most = int(totals.max(initial=0))

            def wrapped(here: slice) -> dict[str, Any]:
                # values are int64 only in a batch that needs it
                own = most if most <= INT32_MAX else int(totals[here].max(initial=0))
                return _fields(recipe.wrap(*rows_of(here), n_columns=n_columns, most=own))

            return wrapped, totals
        keys = self._keys("tokens", epoch, uids)
        context = self._obs_of(self.context, groups, row)

        def encoded(here: slice) -> dict[str, Any]:
            matrix = kernel_counts(*rows_of(here), n_columns)
            about = self._about(context, store, row, here)
            with kernel.using_threads(threads):
                return _fields(recipe.encode(matrix, self.axis.tokens, keys[here], totals=totals[here], **about))

        return encoded, totals

    def _decodes_late(self, groups: Sequence[tuple[int, Any]]) -> bool:
        """Whether the recipe's kernel can decode the cells itself: all genes of one store, as they were counted."""
        return (
            getattr(self.tokens, "fused", False)
            and len(groups) == 1
            and isinstance(groups[0][1], slice)
            and self.panels[groups[0][0]] is None
            and self.downsample is None
            and self.stores[groups[0][0]].fuses
        )

    def _fused(
        self, store: I64, row: I64, uids: U64, epoch: int, threads: int
    ) -> tuple[Callable[[slice], dict[str, Any]], I64]:
        """As `_tokens`, of cells that are decoded and made tokens of in one go; totals are known when they are."""
        recipe: Any = self.tokens
        keys = self._keys("tokens", epoch, uids)
        groups = self._groups(store)
        context = self._obs_of(self.context, groups, row)
        totals = np.zeros(len(row), dtype=np.int64)

        def encoded(here: slice) -> dict[str, Any]:
            about = self._about(context, store, row, here)
            with kernel.using_threads(threads):
                later = self.stores[groups[0][0]].gather_later(row[here])
                made = _fields(recipe.encode(later_counts(later), self.axis.tokens, keys[here], **about))
                totals[here] = later.totals.view(np.int64)
            return made

        return encoded, totals

    def _about(self, context: Mapping[str, npt.NDArray[Any]], store: I64, row: I64, here: slice) -> dict[str, Any]:
        """What a recipe asks for beside counts: labels of its cells, and which genes were measured in them."""
        about: dict[str, Any] = {}
        if self.context:
            about["obs"] = {
                column.name: (context[column.name][here], column.categories or ()) for column in self.context
            }
        if self.measured is not None:
            about["measured"] = self.measured.of_cells(self.stores, store[here], row[here])
        return about

    def _groups(self, store: I64) -> list[tuple[int, Any]]:
        """Codes of the stores of a batch, and where their cells are."""
        if len(self.stores) == 1 or not len(store):
            return [(0, slice(None))]
        return [(int(code), np.flatnonzero(store == code)) for code in np.unique(store)]

    def _keys(self, purpose: str, epoch: int, uids: U64) -> U64:
        return kernel.keyed_u64(kernel.derive_key(self.seed, purpose, epoch), uids)

    def _counts(
        self, groups: Sequence[tuple[int, Any]], row: I64, keys: U64 | None, threads: int
    ) -> tuple[kernel.Gathered, I64]:
        """Counts of a batch over the axis, thinned where there are keys, and the sum of all counts of each cell."""
        parts = [
            self.stores[code].gather(row[here], panel=self.panels[code], totals=True, threads=threads)
            if keys is None
            else self._thinned(code, row[here], keys[here], threads)
            for code, here in groups
        ]
        if len(parts) == 1:
            return parts[0], _total(parts[0])
        totals = np.empty(len(row), dtype=np.int64)
        for (_, here), part in zip(groups, parts, strict=True):
            totals[here] = _total(part)
        n_columns = len(self.axis)
        matrices = [
            sparse.csr_array((part.values, part.indices, part.indptr), shape=(len(part.indptr) - 1, n_columns))
            for part in parts
        ]
        order = np.argsort(np.concatenate([here for _, here in groups]), kind="stable")
        together = sparse.vstack(matrices, format="csr")[order]
        return kernel.Gathered(together.indptr, together.indices, together.data, None), totals

    def _thinned(self, code: int, row: I64, keys: U64, threads: int) -> kernel.Gathered:
        """Counts of cells of one store over the axis, thinned before a panel is taken: totals are of all genes."""
        store, columns = self.stores[code], self.axis.panels[code]
        assert self.downsample is not None
        whole = store.gather(row, totals=True, threads=threads)
        counts = sparse.csr_array((whole.values, whole.indices, whole.indptr), shape=(len(row), store.n_genes))
        tokens = token_numbers(store)
        thinned = thin_counts(counts, tokens, keys, _total(whole), target=self.downsample)
        upto = np.concatenate([[0], np.cumsum(thinned.data, dtype=np.uint64)])
        totals = np.diff(upto[thinned.indptr]).astype(np.uint64)
        if columns is not None:
            kept = columns[thinned.indices] >= 0
            starts = np.concatenate([[0], np.cumsum(kept)])[thinned.indptr]
            thinned = sparse.csr_array(
                (thinned.data[kept], columns[thinned.indices[kept]], starts), shape=(len(row), len(self.axis))
            )
            thinned.sort_indices()
        return kernel.Gathered(thinned.indptr, thinned.indices, thinned.data, totals)

    def _dense(
        self, groups: Sequence[tuple[int, Any]], row: I64, tokens: Dense, threads: int
    ) -> tuple[npt.NDArray[np.float32], I64]:
        """The matrix of a batch, and the sum of all counts of each cell."""
        how: dict[str, Any] = {"transform": tokens.transform, "threads": threads}
        out = np.empty((len(row), len(self.axis)), dtype=np.float32)
        totals = np.empty(len(row), dtype=np.uint64)
        for code, here in groups:
            whole = isinstance(here, slice)  # all rows are of one store: written where they belong
            sums = totals if whole else np.empty(len(here), dtype=np.uint64)
            part = self.stores[code].gather_dense(
                row[here], panel=self.panels[code], out=out if whole else None, totals_out=sums, **how
            )
            if not whole:
                out[here], totals[here] = part, sums
        return out, totals.view(np.int64)

    def _threads(self) -> int:
        """Worker processes share the cores: one thread each, unless more are asked for."""
        return self.threads or (0 if torch.utils.data.get_worker_info() is None else 1)

    @staticmethod
    def _obs_of(
        columns: Sequence[ObsColumn], groups: Sequence[tuple[int, Any]], row: I64
    ) -> dict[str, npt.NDArray[Any]]:
        made: dict[str, npt.NDArray[Any]] = {}
        for column in columns:
            values = np.empty(len(row), dtype=column.dtype)
            for code, here in groups:
                values[here] = column.values[code][row[here]]
            made[column.name] = values
        return made


def _fields(tokens: TokenBatch) -> dict[str, Any]:
    return {name: getattr(tokens, name) for name in TOKEN_FIELDS}


def _total(part: kernel.Gathered) -> I64:
    return np.asarray(part.totals).view(np.int64)


def _as_recipe(tokens: Any) -> Recipe:
    """Return a recipe as it is; what does not encode, or is the class of one, is refused."""
    if not isinstance(tokens, type) and callable(getattr(tokens, "encode", None)) and hasattr(tokens, "genes"):
        return cast(Recipe, tokens)
    shipped = [name for name in recipes.__all__ if name != "Recipe" and hasattr(getattr(recipes, name), "encode")]
    word = tokens.__name__ if isinstance(tokens, type) else str(tokens)
    written = ", ".join(f"cellmill.tokens.{name}()" for name in shipped)
    raise ConfigError(f"tokens must be a recipe, found {tokens!r}.{nearest(word, shipped)} Recipes: {written}")
