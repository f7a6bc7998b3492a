"""The loader (floor 6): plan, seed and position -> batches. Its state is one number.

Knows plans, stores and recipes; knows no model and no training loop.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info

from cellmill.errors import ConfigError, StateMismatchError
from cellmill.loader.axis import Missing
from cellmill.loader.diagnostics import Meter
from cellmill.loader.obs import ObsWanted, with_columns
from cellmill.loader.prefetch import prefetched
from cellmill.loader.reader import Reader
from cellmill.loader.schedule import Last, Schedule, Step, whole_number
from cellmill.mixture import Mixture, Order, Plan, UnitPlan, Units, choose_order, plan_cells, plan_units
from cellmill.store import Store
from cellmill.tokens import Batch, Recipe

__all__ = ["STATE_FORMAT", "Loader", "Source", "as_plan", "place_in_world"]

Source = Mixture | Plan | Store
STATE_FORMAT = 2


class Loader(IterableDataset[Batch]):
    """Batches of a mixture, a plan or a whole store, in an order that is a pure function of plan, seed and position.

    Each iteration runs over `epochs` epochs and the next one goes on with the epoch after; each epoch has another order
    and draws each cell exactly as often as the plan says. Works without worker processes (one thread reads ahead, the
    kernel has its own threads), and the same in ``torch.utils.data.DataLoader(loader, batch_size=None,
    num_workers=k)``, by fork or spawn, with persistent workers or not: the same batches in the same order. With worker
    processes call `set_epoch` before each further iteration: workers never move the loader on.

    Parameters
    ----------
    source
        Mixture (planned here), Plan, or Store (every cell once per epoch).
    batch_size
        Cells (with `units`: units) in one global step, over all ranks. Steps hold the same cells whatever the number
        of ranks.
    tokens
        Recipe; `CSR()` when None.
    obs
        Columns of obs that batches carry; a mapping name -> categories fixes the codes (None: those that occur).
    seed
        Order and recipe; the plan's own order seed counts as well.
    epochs
        Epochs of one iteration; None for no end.
    rank, world_size
        From torch.distributed where it is initialised, else from the environment (RANK, WORLD_SIZE, as torchrun sets
        them), else 0 and 1.
    order
        "exact", "blocked" (for cold or remote data), "stored" (no shuffling), or an Order.
    last
        What becomes of an epoch's last, short batch: "keep", "drop", or "pad" with cells from the epoch's beginning,
        marked in `batch.padding`.
    prefetch
        Batches made ahead; 0 for none. Not used in worker processes, which are ahead by themselves.
    threads
        Threads of the kernel; 0 for all cores (one in worker processes).
    missing_genes
        What to do with a gene of the recipe's panel that no store has: "refuse", or "zero".
    units
        `Sets`, `Pairs` or `Chunks`: what is drawn instead of single cells. Batches, epochs, ranks and positions count
        these then; batches carry `unit`, `is_control`, and in `obs` the columns that units are made by. How many there
        are, and what becomes of cells that do not fill one, is in `loader.plan.counts`.

    Raises
    ------
    ConfigError
        For arguments that cannot be meant, a column of obs that is not there, or a last batch with fewer cells than
        ranks.
    MixtureError
        When the mixture cannot be planned.

    Examples
    --------
    >>> loader = Loader(store, batch_size=512, obs=["cell_type"])  # doctest: +SKIP
    >>> for batch in loader:  # doctest: +SKIP
    ...     x = batch.to_sparse_csr()
    """

    def __init__(
        self,
        source: Source,
        *,
        batch_size: int = 512,
        tokens: Recipe | None = None,
        obs: ObsWanted = (),
        seed: int = 0,
        epochs: int | None = 1,
        rank: int | None = None,
        world_size: int | None = None,
        order: str | Order = "exact",
        last: Last = "keep",
        prefetch: int = 2,
        threads: int = 0,
        missing_genes: Missing = "refuse",
        units: Units | None = None,
    ) -> None:
        super().__init__()
        self.seed = whole_number("seed", seed, least=0)
        self.epochs = None if epochs is None else whole_number("epochs", epochs, least=1)
        self.prefetch = whole_number("prefetch", prefetch, least=0)
        batch_size = whole_number("batch_size", batch_size, least=1)
        plan = as_plan(source)
        self.plan: Plan | UnitPlan = plan if units is None else plan_units(plan, units)
        found_rank, found_size = place_in_world(rank, world_size)
        what = "cells" if units is None else "units"
        self.schedule = Schedule(self.plan.n_draws, batch_size, last, found_rank, found_size, what)
        self.order = choose_order(order, batch_size=batch_size)
        if isinstance(self.plan, UnitPlan):
            obs = with_columns(obs, self.plan.keys)
        self.reader = Reader(
            self.plan.stores, tokens=tokens, obs=obs, seed=self.seed, threads=threads, missing=missing_genes
        )
        # where the next iteration starts, the epoch that it began with, and whether workers iterate; shared with them
        self._shared = torch.zeros(3, dtype=torch.int64).share_memory_()  # type: ignore[no-untyped-call]
        self._began = 0  # the epoch that this iteration, or the last one, began with
        self._position = 0
        self._meter = Meter()

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if not self._shared.is_shared():  # a copy, not a worker's loader
            self._shared.share_memory_()

    def __repr__(self) -> str:
        plan, schedule = self.plan, self.schedule
        epochs = "no end of epochs" if self.epochs is None else f"epochs: {self.epochs}"
        draws = "draws" if isinstance(plan, Plan) else f"units of {plan.cells_per_unit:,} cells"
        rank = f", rank {schedule.rank} of {schedule.world_size}" if schedule.world_size > 1 else ""
        return (
            f"<Loader of {plan.n_cells:,} cells, {plan.n_draws:,} {draws} an epoch in batches of "
            f"{schedule.batch_size}, {epochs}, {len(self.gene_ids):,} genes, next draw {self._position:,}{rank}>"
        )

    # ---- what it gives ----------------------------------------------------------------------------------------

    @property
    def gene_ids(self) -> tuple[str, ...]:
        """Gene id of each column of a batch."""
        return self.reader.axis.gene_ids

    @property
    def categories(self) -> dict[str, tuple[str, ...]]:
        """Names of the codes of each text column of obs."""
        return {column.name: column.categories for column in self.reader.obs if column.categories is not None}

    @property
    def steps_per_epoch(self) -> int:
        """Steps of one epoch, the same on every rank."""
        return self.schedule.steps_per_epoch

    def __len__(self) -> int:
        """Steps that the next iteration has, on this rank as on every other."""
        if self.epochs is None:
            raise TypeError("a loader with epochs=None has no length")
        start, began, _ = self._shared.tolist()
        return max(0, self.schedule.steps_to(began + self.epochs, start=start))

    def __iter__(self) -> Iterator[Batch]:
        # no generator: persistent workers must see where to start before the main process can move on
        worker = get_worker_info()
        start, self._began, _ = self._shared.tolist()
        self._position = start
        self._shared[2] = worker is not None
        return self._iterate(start, self._began, worker)

    def _iterate(self, start: int, began: int, worker: Any) -> Iterator[Batch]:
        first, stride = (0, 1) if worker is None else (worker.id, worker.num_workers)
        end_epoch = None if self.epochs is None else began + self.epochs
        steps: Iterator[int] = itertools.count(first, stride)
        if end_epoch is not None:
            steps = iter(range(first, self.schedule.steps_to(end_epoch, start=start), stride))
        made = prefetched(lambda index: self._make(index, start), steps, depth=self.prefetch if worker is None else 0)
        clock = time.perf_counter
        asked = before = clock()
        try:
            for batch in made:
                self._position = batch.position
                now = clock()
                self._meter.add(batch, waited=now - asked)
                self._meter.seconds += now - before
                before = now
                yield batch
                asked = clock()
        finally:
            made.close()  # type: ignore[attr-defined]
        if end_epoch is not None and worker is None:
            self._position = max(start, end_epoch * self.plan.n_draws)
            self._shared[:2] = torch.tensor([self._position, self._position // self.plan.n_draws])

    def _make(self, index: int, start: int) -> Batch:
        step = self.schedule.step(index, start=start)
        place: dict[str, Any] = {"epoch": step.epoch, "step": step.number, "position": step.after}
        if isinstance(self.plan, UnitPlan):
            return self._make_units(self.plan, step, place)
        component, store, row, _ = self.plan.draw(step.positions, seed=self.seed, order=self.order)
        padding = None if step.padding is None else torch.from_numpy(step.padding)
        return self.reader.read(store, row, component=component, padding=padding, **place)

    def _make_units(self, plan: UnitPlan, step: Step, place: dict[str, Any]) -> Batch:
        made = plan.draw(step.positions, seed=self.seed, order=self.order)
        padding = made.fills if plan.units.short == "pad" else np.zeros_like(made.fills)
        if step.padding is not None:
            padding = padding | np.repeat(step.padding, plan.cells_per_unit)
        return self.reader.read(
            made.store,
            made.row,
            component=made.component,
            padding=torch.from_numpy(padding) if padding.any() else None,
            unit=torch.from_numpy(made.unit),
            is_control=torch.from_numpy(made.is_control),
            n_units=len(step.positions),
            set_size=plan.units.size,
            **place,
        )

    # ---- where it is ------------------------------------------------------------------------------------------

    def set_epoch(self, epoch: int) -> None:
        """Let the next iteration begin at the start of an epoch, and run over `epochs` epochs from there.

        Iterating again goes on by itself, except with worker processes, which never move the loader on: there call it
        before each further iteration, as with torch's DistributedSampler.
        """
        epoch = whole_number("epoch", epoch, least=0)
        self._go_to(epoch * self.plan.n_draws, began=epoch)

    def state_dict(self, after: Batch | None = None) -> dict[str, Any]:
        """Return the state, a small dict of JSON values: positions of the run that are used up.

        Parameters
        ----------
        after
            The last batch that was used; that which this loader handed out last when None. It must be given when
            batches come through a DataLoader with workers: they are further ahead, and say nothing to this loader.

        Raises
        ------
        ConfigError
            When workers iterate and `after` is not given.
        """
        next_began, by_workers = self._shared[1:].tolist()
        if after is None and by_workers:
            raise ConfigError(
                "batches of this loader come from worker processes, so only you know which you have used: "
                "loader.state_dict(after=batch) with the last one"
            )
        began = self._began if after is None or after.epoch < next_began else next_began
        return {
            "format": STATE_FORMAT,
            **self._identity(),
            "position": self._position if after is None else after.position,
            "began": began,
            "epochs": self.epochs,
            "batch_size": self.schedule.batch_size,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Let the next iteration go on after the batches that a state has seen; on any number of ranks and workers.

        The next iteration is the rest of the one that the state is from: nothing, when that had handed out its last
        batch. The iteration after it goes on with the epochs that follow. With more `epochs` than before, the rest is
        longer by these. The batch size is no part of a state: a loader of another one goes on with the same next cell,
        in batches of its own size.

        Raises
        ------
        StateMismatchError
            When plan, seed or order are others, so that "go on" would mean nothing; names old and new.
        """
        found = state.get("format") if isinstance(state, Mapping) else state
        if not isinstance(state, Mapping) or found != STATE_FORMAT:
            raise StateMismatchError(f"this is no state of a loader of this version (format {found!r})")
        for name in ("position", "began"):
            if type(state.get(name)) is not int or state[name] < 0:
                raise StateMismatchError(f"this is no state of a loader: {name} is {state.get(name)!r}")
        mine = self._identity()
        meaning = {"plan": "the cells, their stores, amounts or units", "seed": "the seed", "order": "the order"}
        for key, what in meaning.items():
            if state.get(key) != mine[key]:
                raise StateMismatchError(
                    f"this state belongs to another run: {what} changed ({key} was {state.get(key)}, is {mine[key]}). "
                    "Load it into a loader with the old ones, or start anew"
                )
        self.schedule.check(state["position"])
        self._go_to(state["position"], began=state["began"])

    def _identity(self) -> dict[str, Any]:
        """What a state and its loader must have in common."""
        return {"plan": self.plan.hash, "seed": self.seed, "order": self.order.to_dict()}

    def _go_to(self, position: int, *, began: int) -> None:
        self._position, self._began = position, began
        self._shared.copy_(torch.tensor([position, began, 0]))

    def report(self) -> dict[str, Any]:
        """Return what this loader saw of itself so far: cells per second, waits, bytes, mixing of labels, genes."""
        return {
            **self._meter.to_dict(),
            "genes": len(self.reader.axis),
            "genes_missing_by_store": {
                str(store.path): n for store, n in zip(self.plan.stores, self.reader.axis.missing, strict=True) if n
            },
            "position": self._position,
            "plan": self.plan.hash,
            **({"units": asdict(self.plan.counts)} if isinstance(self.plan, UnitPlan) else {}),
        }


def as_plan(source: Source) -> Plan:
    """Return the plan of a mixture, a plan as it is, or the plan of every cell of a store."""
    if isinstance(source, Mixture):
        return source.plan()
    if isinstance(source, Plan):
        return source
    if isinstance(source, str | os.PathLike):
        raise ConfigError(f"expected a Mixture, Plan or Store, found the path {source!r}; open it with cellmill.open")
    if not isinstance(source, Store):
        raise ConfigError(f"expected a Mixture, Plan or Store, found {source!r}")
    return plan_cells({"all": [(source, range(source.n_cells))]})


def place_in_world(rank: int | None, world_size: int | None) -> tuple[int, int]:
    """Return rank and world size: as given, or of torch.distributed, or of the environment, or 0 and 1."""
    if (rank is None) != (world_size is None):
        raise ConfigError("give both rank and world_size, or none of them")
    if rank is not None and world_size is not None:
        return rank, world_size
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    found = os.environ.get("RANK", ""), os.environ.get("WORLD_SIZE", "")
    return (int(found[0]), int(found[1])) if all(text.isdecimal() for text in found) else (0, 1)
