"""Tasks carried out on a Dask cluster (floor 4): the one module that knows `distributed` (extra `dask`).

The plan goes by way of the folder of the store, which all workers see; a message names it by its hash. A worker that
dies loses the task that it had in hand, which the scheduler gives to another one.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from cellmill.errors import CellmillError, ConfigError, MissingDependencyError
from cellmill.events import emit
from cellmill.ingest.digests import Digests
from cellmill.ingest.failures import as_error, as_text
from cellmill.ingest.order import WorkOrder
from cellmill.ingest.plan import BuildPlan
from cellmill.ingest.progress import Progress
from cellmill.ingest.shards import Ingestion
from cellmill.ingest.tasks import Task
from cellmill.store.pieces import Pieces

try:
    import distributed
except ImportError as missing:
    raise MissingDependencyError("distributed", extra="dask", needed_for="building on a Dask cluster") from missing

__all__ = ["carry_out_on_dask"]

_SECONDS_TO_ANSWER = 30


def carry_out_on_dask(
    plan: BuildPlan,
    place: Path,
    tasks: Sequence[Task],
    *,
    dask: str | distributed.Client,
    threads: int,
    progress: Progress,
) -> None:
    """Carry out tasks on the workers of a scheduler; inputs that cannot be used are told to `progress`.

    Raises
    ------
    ConfigError
        When no scheduler answers.
    CellmillError
        When a worker fails of something else than an input, or workers die again and again.
    """
    with _client(dask) as client:
        # a worker has as many tasks at a time as it has threads, so that each task has one
        order = WorkOrder.write(plan, place, threads=threads or 1)
        _wait_for_workers(client)
        _Cluster(client, order, plan, progress).run(tasks)


@contextmanager
def _client(dask: str | distributed.Client) -> Iterator[distributed.Client]:
    if not isinstance(dask, str):
        yield dask
        return
    try:
        client = distributed.Client(dask, timeout=_SECONDS_TO_ANSWER, set_as_default=False)
    except (OSError, TimeoutError, ValueError) as error:
        raise ConfigError(
            f"dask (--dask) {dask!r}: no scheduler answers there ({type(error).__name__}). Give the address that "
            "`dask scheduler` prints when it starts, for example tcp://node1:8786."
        ) from error
    with client:
        yield client


def _wait_for_workers(client: distributed.Client) -> None:
    if not client.scheduler_info(n_workers=-1)["workers"]:
        emit("waiting for Dask workers", message="the Dask scheduler has no workers yet; waiting for the first")
        client.wait_for_workers(1)


class _Cluster:
    """Tasks under way on a cluster."""

    def __init__(self, client: distributed.Client, order: WorkOrder, plan: BuildPlan, progress: Progress) -> None:
        self._client = client
        self._order = order
        self._plan = plan
        self._progress = progress
        self._topic = f"cellmill-{order.hash}"
        self._heard: SimpleQueue[tuple[int, int] | distributed.Future] = SimpleQueue()

    def run(self, tasks: Sequence[Task]) -> None:
        by_number = {task.number: task for task in tasks}
        self._client.subscribe_topic(self._topic, lambda event: self._heard.put(event[1]))
        futures = {self._submitted(task): task for task in tasks}
        try:
            for future in futures:
                future.add_done_callback(self._heard.put)
            left = len(futures)
            while left:
                heard = self._heard.get()
                if isinstance(heard, distributed.Future):
                    left -= 1
                    self._conclude(futures, heard)
                else:
                    number, rows = heard
                    self._progress.told(by_number[number], rows)
        finally:
            self._client.unsubscribe_topic(self._topic)
            self._client.cancel(list(futures))

    def _submitted(self, task: Task) -> distributed.Future:
        # the same key would be the same result, also of a call that failed: a number of this call is part of it
        key = f"cellmill-{self._order.hash[:8]}-{task.key}"
        return self._client.submit(_carry_out, self._order, task, self._topic, key=key, pure=False)

    def _conclude(self, futures: dict[distributed.Future, Task], future: distributed.Future) -> None:
        task = futures[future]
        if future.status == "cancelled":
            if task.source not in self._progress.refused:
                raise CellmillError("the Dask scheduler was stopped, or has cancelled the build; finished work is kept")
            return
        try:
            kind, said = future.result()
        except distributed.KilledWorker as error:
            raise CellmillError(
                f"rows {task.start} to {task.stop} of {self._plan.sources[task.source].path}: workers of the Dask "
                f"cluster died one after the other while they read these ({error}), most often because memory ran "
                "out. Finished work is kept: run the same command again with a smaller --block-cells or larger workers."
            ) from error
        if kind == "done":
            self._progress.told(task, task.n_cells)
        elif kind == "refused":
            self._progress.refuse(task, as_error(*said))
            self._client.cancel([other for other, one in futures.items() if one.source == task.source])
        elif kind == "system":
            raise OSError(*said)
        elif kind == "crashed":
            where = f"rows {task.start} to {task.stop} of {self._plan.sources[task.source].path}"
            raise CellmillError(f"{where}: a Dask worker failed; this was not expected:\n{said}")
        else:
            raise as_error(*said)


def _carry_out(order: WorkOrder, task: Task, topic: str) -> tuple[str, Any]:
    """Carry out a task, in a worker; returns how it ended, errors by name: not all of them can be sent."""
    worker = distributed.get_worker()
    try:
        with (
            Digests() as digests,
            Ingestion(
                _plan(order), Pieces(Path(order.place)), digests, threads=order.threads, folder=Path(order.folder)
            ) as ingestion,
        ):
            ingestion.carry_out(task, lambda rows: worker.log_event(topic, (task.number, rows)))
            ingestion.settle()
    except CellmillError as error:
        return ("refused" if error.exit_code == 2 else "failed"), as_text(error)
    except OSError as error:
        return "system", (error.errno, error.strerror, error.filename)
    except Exception:
        return "crashed", traceback.format_exc()
    return "done", None


@lru_cache(maxsize=1)
def _plan(order: WorkOrder) -> BuildPlan:
    return order.read()
