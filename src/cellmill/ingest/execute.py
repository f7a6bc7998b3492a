"""Carrying out tasks (floor 4): here, by processes of this machine, or on a Dask cluster; the bytes are equal."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from cellmill.errors import CellmillError, ConfigError
from cellmill.events import emit
from cellmill.ingest.digests import Digests
from cellmill.ingest.failures import is_about_input
from cellmill.ingest.plan import BuildPlan
from cellmill.ingest.progress import Progress
from cellmill.ingest.shards import Ingestion
from cellmill.ingest.tasks import Task
from cellmill.ingest.workers import carry_out_by_workers, workers_for
from cellmill.store.pieces import Pieces

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["Means", "carry_out"]


@dataclass(frozen=True)
class Means:
    """By whom tasks are carried out.

    Attributes
    ----------
    threads : int
        Threads of the kernel, shared by all processes of this machine; 0 for all cores.
    workers : int or None
        Processes of this machine; None: one where there is little to do, see `workers_for`.
    dask : str or distributed.Client or None
        Address or client of a Dask scheduler, instead of processes of this machine.
    """

    threads: int = 0
    workers: int | None = None
    dask: str | Client | None = None

    def __post_init__(self) -> None:
        if self.dask is not None and self.workers is not None:
            raise ConfigError(
                "workers (--workers) are processes of this machine, dask (--dask) those of a cluster: give one of them"
            )
        if self.workers is not None and self.workers < 1:
            raise ConfigError(f"workers (--workers) must be at least 1, not {self.workers}")

    def threads_of_each(self, workers: int) -> int:
        """Threads of the kernel in each of so many processes."""
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return max(1, (self.threads or cores) // workers)


def carry_out(plan: BuildPlan, pieces: Pieces, tasks: Sequence[Task], means: Means) -> dict[int, CellmillError]:
    """Write the pieces of tasks that are not finished yet; returns the errors of inputs that cannot be used.

    An input that cannot be used does not stop the work on others; whatever else goes wrong does.
    """
    rows = {task.number: _rows_done(pieces, task) for task in tasks}
    unfinished = [task for task in tasks if rows[task.number] < task.n_cells]
    done = sum(rows.values())
    if done:
        emit("building", message=f"going on after {done} cells that an interrupted run had finished")
    total = sum(task.n_cells for task in tasks)
    workers = workers_for(unfinished, means.workers)
    if means.dask is not None:
        from cellmill.ingest.dask_cluster import carry_out_on_dask

        stage: str | None = "building on Dask"
    else:
        stage = f"building by {workers} processes" if workers > 1 else None
    progress = Progress(plan, stage=stage, total=total)
    for task in tasks:
        progress.told(task, rows[task.number])
    if not unfinished:
        return {}
    if means.dask is not None:
        carry_out_on_dask(plan, pieces.place, unfinished, dask=means.dask, threads=means.threads, progress=progress)
    elif workers > 1:
        threads = means.threads_of_each(workers)
        carry_out_by_workers(plan, pieces.place, unfinished, workers=workers, threads=threads, progress=progress)
    else:
        _carry_out_here(plan, pieces, unfinished, threads=means.threads, progress=progress)
    return progress.refused


def _rows_done(pieces: Pieces, task: Task) -> int:
    finished = pieces.finished(task.key)
    return int(finished[-1].facts["stop"]) - task.start if finished else 0


def _carry_out_here(
    plan: BuildPlan, pieces: Pieces, tasks: Sequence[Task], *, threads: int, progress: Progress
) -> None:
    with Digests() as digests, Ingestion(plan, pieces, digests, threads=threads) as ingestion:
        for task in tasks:
            if task.source in progress.refused:
                continue
            try:
                ingestion.carry_out(task, partial(progress.told, task))
            except CellmillError as error:
                if not is_about_input(error):
                    raise
                progress.refuse(task, error)
        ingestion.settle()
