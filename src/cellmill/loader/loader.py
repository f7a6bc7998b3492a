"""The loader (floor 6): plan, seed and position -> batches. Its state is one number.

Knows plans, stores and recipes; knows no model and no training loop.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info

from cellmill.errors import ConfigError, StateMismatchError
from cellmill.loader.axis import Missing
from cellmill.loader.diagnostics import Meter, advice
from cellmill.loader.obs import ObsWanted, with_columns
from cellmill.loader.placement import choose_device
from cellmill.loader.prefetch import ALONE, Ahead, HowFar, how_far_ahead, prefetched
from cellmill.loader.reader import Reader
from cellmill.loader.schedule import Last, Schedule, Step, whole_number
from cellmill.loader.state import STATE_FORMAT, check_state, identity
from cellmill.mixture import Mixture, Order, Plan, UnitPlan, Units, choose_order, plan_cells, plan_units
from cellmill.store import Store
from cellmill.tokens import Batch, Recipe

__all__ = ["STATE_FORMAT", "Loader", "Source", "as_plan", "place_in_world", "plan_of"]

Source = Mixture | Plan | UnitPlan | Store
PREFETCH_BYTES = 256 << 20
BATCH_BYTES = 3 << 10  # of a batch beside its numbers: a dozen tensors, each an object of Python


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
        Mixture (planned here), Plan (of cells or units), or Store (every cell once per epoch).
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
    prefetch, prefetch_bytes
        Batches made ahead, those that are being made counted, and the bytes of those that lie ready, at most; None for
        as many as keep the kernel busy, 0 for none. One batch is made ahead however large it is. Small batches are read
        several at a time (some 1,500 cells for each thread) and are views of one buffer: one that you keep keeps it,
        and `copy.deepcopy` of it does not. Not used in worker processes, which are ahead by themselves.
    threads
        Threads of the kernel; 0 for all cores (one in worker processes).
    missing_genes
        What to do with a gene of the recipe's panel that no store has: "refuse", or "zero".
    units
        `Sets`, `Pairs` or `Chunks`: what is drawn instead of single cells; when None, as the mixture says. Batches,
        epochs, ranks and positions count these then; batches carry `unit`, `is_control`, and in `obs` the columns that
        units are made by. How many there are, and what becomes of cells that do not fill one, is in
        `loader.plan.counts`.
    downsample
        About how many counts each cell is thinned to, molecule by molecule, over all its genes; cells with fewer stay
        as they are. What becomes of a cell follows from seed, epoch and its uid alone. `batch.totals` are those
        that are left.
    pin_memory
        Whether batches lie in pinned memory, from which a CUDA device copies while the program goes on.
    device
        Where batches shall lie; to a CUDA device they are copied from pinned memory, without waiting for the copy.

    Raises
    ------
    ConfigError
        For arguments that cannot be meant, a column of obs that is not there, or a last batch with fewer cells than
        ranks; for a device that is not there, or pinned memory without a CUDA device.
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
        prefetch: int | None = None,
        threads: int = 0,
        missing_genes: Missing = "refuse",
        units: Units | None = None,
        prefetch_bytes: int = PREFETCH_BYTES,
        downsample: int | None = None,
        pin_memory: bool = False,
        device: torch.device | str | int | None = None,
    ) -> None:
        super().__init__()
        self.seed = whole_number("seed", seed, least=0)
        self.epochs = None if epochs is None else whole_number("epochs", epochs, least=1)
        self.prefetch = None if prefetch is None else whole_number("prefetch", prefetch, least=0)
        self.prefetch_bytes = whole_number("prefetch_bytes", prefetch_bytes, least=1)
        self.device, self.pin_memory = choose_device(device, pin_memory=pin_memory)
        batch_size = whole_number("batch_size", batch_size, least=1)
        self.plan: Plan | UnitPlan = plan_of(source, units)
        found_rank, found_size = place_in_world(rank, world_size)
        what = "units" if isinstance(self.plan, UnitPlan) else "cells"
        self.schedule = Schedule(self.plan.n_draws, batch_size, last, found_rank, found_size, what)
        self.order = choose_order(order, batch_size=batch_size)
        if isinstance(self.plan, UnitPlan):
            obs = with_columns(obs, self.plan.keys)
        self.reader = Reader(
            self.plan.stores, tokens=tokens, obs=obs, seed=self.seed, threads=threads, missing=missing_genes,
            downsample=downsample,
        )  # fmt: skip
        # where the next iteration starts, the epoch that it began with, and whether workers iterate; shared with them
        self._shared = torch.zeros(3, dtype=torch.int64).share_memory_()  # type: ignore[no-untyped-call]
        self._began = 0  # the epoch that this iteration, or the last one, began with
        self._start = 0  # where that iteration began
        self._position = 0
        self._meter = Meter()
        self._given = 0  # in a worker: steps of this iteration that are behind it, those of other workers included
        self._resume: dict[str, Any] | None = None  # in a worker: the state that its next iteration goes on from

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
        given = 0
        if self._resume is not None:
            start, self._began, given = self._resume["position"], self._resume["began"], self._resume["given"]
            self._resume = None
        self._position, self._start, self._given = start, start, given
        self._shared[2] = worker is not None
        if worker is None:
            self._pass_over_nothing(start)
        elif self.device is not None:
            raise ConfigError(
                f"device={self.device} is for a loader that this process iterates: worker processes hand batches over "
                "in main memory. Leave `device` out, and call batch.to(device)"
            )
        return self._iterate(start, self._began, given, worker)

    def _pass_over_nothing(self, start: int) -> None:
        """Move on at once where nothing is left: who asks for an iterator and drops it has had all that there was."""
        if self.epochs is not None and start >= (self._began + self.epochs) * self.plan.n_draws:
            self._shared[1] = start // self.plan.n_draws

    def _iterate(self, start: int, began: int, given: int, worker: Any) -> Iterator[Batch]:
        first, stride = (0, 1) if worker is None else (worker.id, worker.num_workers)
        first += given
        end_epoch = None if self.epochs is None else began + self.epochs
        steps: Iterator[int] = itertools.count(first, stride)
        if end_epoch is not None:
            steps = iter(range(first, self.schedule.steps_to(end_epoch, start=start), stride))
        ahead, far = Ahead(), self._how_far_ahead() if worker is None else ALONE
        made = prefetched(
            lambda indices: self._make(indices, start, far.threads), steps, depth=far.batches, group=far.group,
            threads=far.readers, limit_bytes=self.prefetch_bytes, size=_bytes_of, seen=ahead,
        )  # fmt: skip
        self._meter.begin(ahead, self.plan.stores)
        clock = time.perf_counter
        asked = before = clock()
        try:
            for batch in made:
                self._position = batch.position
                self._given += stride
                now = clock()
                self._meter.add(batch, waited=now - asked)
                self._meter.seconds += now - before
                before = now
                if self.device is not None:
                    batch = batch.to(self.device, non_blocking=True)
                yield batch
                del batch  # what the consumer lets go of is not held here while the next one is waited for
                asked = clock()
        finally:
            made.close()  # type: ignore[attr-defined]
            self._meter.end()
        if end_epoch is not None and worker is None:
            self._position = max(start, end_epoch * self.plan.n_draws)
            self._shared[:2] = torch.tensor([self._position, self._position // self.plan.n_draws])

    def _how_far_ahead(self) -> HowFar:
        cells = self.schedule.batch_size // self.schedule.world_size
        if isinstance(self.plan, UnitPlan):  # made one by one
            return how_far_ahead(self.prefetch, cells * self.plan.cells_per_unit, self.reader.threads, grouped=False)
        return how_far_ahead(self.prefetch, cells, self.reader.threads)

    def _make(self, indices: Sequence[int], start: int, threads: int | None) -> list[Batch]:
        """Return the batches of consecutive steps, read in one go for each epoch; each as if it were made alone."""
        if indices[0] == 0:  # it is waited for: all threads for it
            threads = None
        steps = [self.schedule.step(index, start=start) for index in indices]
        if isinstance(self.plan, UnitPlan):
            return [self._pinned(self._make_units(self.plan, step, threads)) for step in steps]
        made: list[Batch] = []
        for epoch, some in itertools.groupby(steps, key=lambda step: step.epoch):
            these = list(some)
            positions = np.concatenate([step.positions for step in these]) if len(these) > 1 else these[0].positions
            component, store, row, _ = self.plan.draw(positions, seed=self.seed, order=self.order)
            batches = [(len(step.positions), _place_of(step)) for step in these]
            made += self.reader.read_several(store, row, batches, component=component, epoch=epoch, threads=threads)
        return [self._pinned(batch) for batch in made]

    def _pinned(self, batch: Batch) -> Batch:
        return batch.pin_memory() if self.pin_memory else batch

    def _make_units(self, plan: UnitPlan, step: Step, threads: int | None) -> Batch:
        made = plan.draw(step.positions, seed=self.seed, order=self.order)
        padding = made.fills if plan.units.short == "pad" else np.zeros_like(made.fills)
        if step.padding is not None:
            padding = padding | np.repeat(step.padding, plan.cells_per_unit)
        place = {**_place_of(step), "padding": torch.from_numpy(padding) if padding.any() else None}
        return self.reader.read(
            made.store,
            made.row,
            component=made.component,
            epoch=step.epoch,
            threads=threads,
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
            (torchdata's StatefulDataLoader asks the workers themselves: use its own `state_dict`.)

        Raises
        ------
        ConfigError
            When workers iterate and `after` is not given.
        """
        worker = get_worker_info()
        if worker is not None:
            return self._state_of_worker(worker)
        next_began, by_workers = self._shared[1:].tolist()
        if after is None and by_workers:
            raise ConfigError(
                "batches of this loader come from worker processes, so only you know which you have used: "
                "loader.state_dict(after=batch) with the last one"
            )
        began = self._began if after is None or after.epoch < next_began else next_began
        return self._state(self._position if after is None else after.position, began)

    def _identity(self) -> dict[str, Any]:
        vocabulary = getattr(self.reader.tokens, "vocabulary", None)
        return identity(self.plan, self.seed, self.order, of_tokens=None if vocabulary is None else vocabulary.hash)

    def _state(self, position: int, began: int) -> dict[str, Any]:
        return {
            "format": STATE_FORMAT,
            **self._identity(),
            "position": position,
            "began": began,
            "epochs": self.epochs,
            "batch_size": self.schedule.batch_size,
        }

    def _state_of_worker(self, worker: Any) -> dict[str, Any]:
        """Where the iteration began, and the steps of it that are behind this worker."""
        return {**self._state(self._start, self._began), "given": self._given, "workers": worker.num_workers}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Let the next iteration go on after the batches that a state has seen; on any number of ranks and workers.

        The next iteration is the rest of the one that the state is from: nothing, when that had handed out its last
        batch. The iteration after it goes on with the epochs that follow. With more `epochs` than before, the rest is
        longer by these. The batch size is no part of a state: a loader of another one goes on with the same next cell,
        in batches of its own size. (The window of order="blocked" follows from the batch size: give the old order as
        ``cellmill.mixture.Blocked(...)``; the error says which.)

        Raises
        ------
        StateMismatchError
            When plan, seed or order are others, so that "go on" would mean nothing; names old and new.
        """
        check_state(state, self._identity())
        self.schedule.check(state["position"])
        worker = get_worker_info()
        if worker is not None:  # of what workers share, the main process alone says where it is
            self._resume = _worker_state(state, worker.num_workers, self.schedule.batch_size)
        elif "given" in state:
            raise StateMismatchError(
                "this state is that of one worker of a StatefulDataLoader; load the whole state of that one into a "
                f"StatefulDataLoader with {state.get('workers')} workers"
            )
        else:
            self._go_to(state["position"], began=state["began"])

    def _go_to(self, position: int, *, began: int) -> None:
        self._position, self._start, self._began = position, position, began
        self._shared.copy_(torch.tensor([position, began, 0]))

    def state_at(self, steps: int) -> dict[str, Any]:
        """Return the state after so many steps of the iteration that was begun last, for those who count them.

        What `state_dict(after=batch)` says of the last batch of these, where batches were made into something else.
        """
        steps = whole_number("steps", steps, least=0)
        start = self._start
        return self._state(self.schedule.step(steps - 1, start=start).after if steps else start, self._began)

    def report(self) -> dict[str, Any]:
        """Return what this loader saw of itself so far, as JSON values.

        Cells per second; the share of the time that the consumer waited for batches, and that the readers waited since
        enough was made ahead; bytes; page faults of this process that went to the disk, and of stores at URLs the
        blocks found in the cache and those fetched; bits of label entropy of batches, beside what batches of true
        random order have by formula (`ideal_bits`) and exactly (`random_bits`); and `advice` in words.
        """
        said = self._meter.to_dict()
        return {
            **said,
            "advice": advice(said, prefetch=self._how_far_ahead().batches),
            "genes": len(self.reader.axis),
            "genes_missing_by_store": {
                str(store.path): n for store, n in zip(self.plan.stores, self.reader.axis.missing, strict=True) if n
            },
            "position": self._position,
            "plan": self.plan.hash,
            **({"units": asdict(self.plan.counts)} if isinstance(self.plan, UnitPlan) else {}),
        }


def plan_of(source: Source, units: Units | None = None) -> Plan | UnitPlan:
    """Return the plan of what is drawn: of units where these are given, or the mixture names them; else of cells.

    Raises
    ------
    ConfigError
        When other units are asked for than those that a plan is made of.
    """
    if isinstance(source, UnitPlan):
        if units not in (None, source.units):
            raise ConfigError(f"units={units!r}, but the plan is one of {source.units!r}; give the plan of its cells")
        return source
    plan = as_plan(source)
    chosen = plan.units if units is None else units
    return plan if chosen is None else plan_units(plan, chosen)


def as_plan(source: Source) -> Plan:
    """Return the plan of cells: of a mixture, a plan as it is, or of every cell of a store."""
    if isinstance(source, Mixture):
        return source.plan()
    if isinstance(source, Plan):
        return source
    if isinstance(source, UnitPlan):
        raise ConfigError("expected a plan of single cells, found one of units; `plan.plan` is that of its cells")
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


def _place_of(step: Step) -> dict[str, Any]:
    padding = None if step.padding is None else torch.from_numpy(step.padding)
    return {"step": step.number, "position": step.after, "padding": padding}


def _bytes_of(batch: Batch) -> int:
    return BATCH_BYTES + sum(tensor.nbytes for _, tensor in batch.tensors())


def _worker_state(state: Mapping[str, Any], n_workers: int, batch_size: int) -> dict[str, Any]:
    """Return a state for a worker to go on from; its steps mean something only with as many workers, and batches."""
    given = state.get("given", 0)
    for name, mine in (("workers", n_workers), ("batch_size", batch_size)):
        if given and state.get(name) != mine:
            raise StateMismatchError(
                f"this state counts steps: {name} was {state.get(name)}, is {mine}. Keep it as it was"
            )
    return {"position": state["position"], "began": state["began"], "given": given}
