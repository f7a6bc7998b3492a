"""Tasks carried out by processes of this machine (floor 4): a task whose process dies is given to another one."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter, deque
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from cellmill.errors import CellmillError
from cellmill.events import emit
from cellmill.ingest.failures import as_error
from cellmill.ingest.order import WorkOrder
from cellmill.ingest.plan import BuildPlan
from cellmill.ingest.progress import Progress
from cellmill.ingest.tasks import Task

__all__ = ["carry_out_by_workers", "workers_for"]

_MOST_DEATHS = 3  # of processes with the same task in hand
_MOST_BY_DEFAULT = 4  # each needs memory of its own
_MANY_COUNTS = 200_000_000  # about half a minute of one process
_SECONDS_TO_END = 10.0
# not `-m`: the search path of this process may have been changed since it began
_PROGRAM = "import sys; sys.path[:] = {path!r}; from cellmill.ingest.worker import main; main({descriptor})"


def workers_for(tasks: Sequence[Task], workers: int | None) -> int:
    """Return how many processes to use: as many as asked for, but no more than there are tasks.

    By default one, which is this one, where there is little to do or few cores; else one for every two cores, up to 4.
    """
    if workers is None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        many = sum(task.stored for task in tasks) >= _MANY_COUNTS
        workers = min(_MOST_BY_DEFAULT, max(1, cores // 2)) if many else 1
    return max(1, min(workers, len(tasks)))


def carry_out_by_workers(
    plan: BuildPlan, place: Path, tasks: Sequence[Task], *, workers: int, threads: int, progress: Progress
) -> None:
    """Carry out tasks by so many processes; inputs that cannot be used are told to `progress`.

    Raises
    ------
    CellmillError
        When a process fails of something else than an input, or dies again and again.
    """
    order = WorkOrder.write(plan, place, threads=threads)
    _Crew(plan, order, tasks, progress).run(workers)


class _Worker:
    """One process and what it has in hand."""

    def __init__(self, order: WorkOrder) -> None:
        self.connection, theirs = Pipe()
        self.task: Task | None = None
        program = _PROGRAM.format(path=sys.path, descriptor=theirs.fileno())
        try:
            self.process = subprocess.Popen([sys.executable, "-c", program], pass_fds=[theirs.fileno()])
        finally:
            theirs.close()
        self.connection.send(order)

    def give(self, task: Task) -> None:
        self.task = task
        with suppress(OSError):  # dead already: told by the end of the connection
            self.connection.send(task)

    def end(self) -> None:
        """Let go of the process: without the connection it ends by itself, whatever it does."""
        self.connection.close()
        try:
            self.process.wait(_SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class _Crew:
    """Processes at work on the tasks of a plan."""

    def __init__(self, plan: BuildPlan, order: WorkOrder, tasks: Sequence[Task], progress: Progress) -> None:
        self._plan = plan
        self._order = order
        self._waiting = deque(tasks)
        self._progress = progress
        self._deaths: Counter[int] = Counter()
        self._workers: dict[Connection, _Worker] = {}

    def run(self, n_workers: int) -> None:
        try:
            for _ in range(n_workers):
                self._hire()
            while self._workers:
                for connection in wait(list(self._workers)):
                    assert isinstance(connection, Connection)
                    self._hear(self._workers[connection])
        finally:
            for worker in self._workers.values():
                worker.end()

    def _hire(self) -> None:
        worker = _Worker(self._order)
        self._workers[worker.connection] = worker
        self._give_next(worker)

    def _give_next(self, worker: _Worker) -> None:
        """Give a process the next task of an input that can be used, or let it go."""
        while self._waiting:
            task = self._waiting.popleft()
            if task.source not in self._progress.refused:
                worker.give(task)
                return
        worker.task = None
        del self._workers[worker.connection]
        with suppress(OSError):
            worker.connection.send(None)
            worker.process.wait(_SECONDS_TO_END)
        worker.end()

    def _hear(self, worker: _Worker) -> None:
        try:
            kind, said = worker.connection.recv()
        except (EOFError, OSError):
            self._bury(worker)
            return
        task = worker.task
        if kind == "event":
            emit(said.stage, done=said.done, total=said.total, unit=said.unit, message=said.message)
        elif kind == "rows" and task is not None:
            self._progress.told(task, said)
        elif kind == "done":
            self._give_next(worker)
        elif kind == "refused" and task is not None:
            self._progress.refuse(task, as_error(*said))
            self._give_next(worker)
        else:
            raise _failure(kind, said, self._plan, task)

    def _bury(self, worker: _Worker) -> None:
        """Put another process in the place of one that died, and its task in front of the others."""
        del self._workers[worker.connection]
        worker.end()
        task, code = worker.task, worker.process.returncode
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        if task is None:
            raise CellmillError(f"a worker process ended with {how} before it had anything to do")
        self._deaths[task.number] += 1
        where = f"rows {task.start} to {task.stop} of {self._plan.sources[task.source].path}"
        if self._deaths[task.number] >= _MOST_DEATHS:
            raise CellmillError(
                f"{where}: {_MOST_DEATHS} worker processes died one after the other ({how}) while they read these, "
                "most often because memory ran out. Finished work is kept: run the same command again with fewer "
                "--workers or a smaller --block-cells."
            )
        emit("building", message=f"a worker process died ({how}); {where} are given to another one")
        self._waiting.appendleft(task)
        self._hire()


def _failure(kind: str, said: Any, plan: BuildPlan, task: Task | None) -> Exception:
    if kind in ("failed", "unable"):
        return as_error(*said)
    if kind == "system":
        number, reason, filename = said
        return OSError(number, reason, filename)
    where = "" if task is None else f"{plan.sources[task.source].path}: "
    return CellmillError(f"{where}a worker process failed; this was not expected:\n{said}")
