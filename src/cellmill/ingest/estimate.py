"""What a build will need (floor 4, pure): bytes read and written, memory, disk, time; roughly, and before it starts."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from typing import Any

from cellmill.ingest.plan import BuildPlan, SourcePlan
from cellmill.ingest.tasks import Task, cut
from cellmill.ingest.workers import workers_for
from cellmill.units import plural, size_text, time_text

__all__ = ["COUNTS_PER_SECOND", "Estimate", "estimate"]

COUNTS_PER_SECOND = 10_000_000
"""Stored counts that one process reads, proves, encodes and writes in a second: declared, not measured here."""
_SECONDS_PER_INPUT = 0.1
_CELLS_PER_SECOND = 200_000  # of names and metadata
_PROCESS_BYTES = 200 << 20  # of the interpreter and its libraries
_BYTES_PER_ENTRY = 60  # index and value as read, of the block in use and of the one ahead, and what becomes of them
_OBS_BYTES_PER_CELL = 400


@dataclass(frozen=True)
class Estimate:
    """What a build will need, roughly.

    Attributes
    ----------
    n_tasks, workers : int
        Tasks, and processes that carry them out.
    bytes_read : int
        Bytes of the inputs' files.
    bytes_written : int
        Bytes of the store, at most.
    spill_bytes : int
        Bytes of temporary files beside it, of as many inputs as are read at a time.
    memory_bytes : int
        Memory of all processes together.
    sorting_bytes : int
        Of these, for sorting an input by cell in one process, at most (`memory`).
    scratch : str or None
        Folder of temporary files; None: the system's.
    seconds : float
        At `COUNTS_PER_SECOND` for each process.
    """

    n_tasks: int
    workers: int
    bytes_read: int
    bytes_written: int
    spill_bytes: int
    memory_bytes: int
    seconds: float
    sorting_bytes: int = 0
    scratch: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data, with the rate that the time was made from."""
        return {**vars(self), "counts_per_second": COUNTS_PER_SECOND}

    def __str__(self) -> str:
        folder = self.scratch or tempfile.gettempdir()
        spilt = f", and {size_text(self.spill_bytes)} of temporary files in {folder}" if self.spill_bytes else ""
        sorting = f", {size_text(self.sorting_bytes)} of it in each for sorting by cell" if self.sorting_bytes else ""
        processes = plural(self.workers, "process", "processes")
        read = f"{size_text(self.bytes_read)} of inputs and tables beside them"
        rate = f"{COUNTS_PER_SECOND // 1_000_000} million counts a second for each process"
        return "\n".join(
            [
                f"reads {read} in {plural(self.n_tasks, 'task')} by {processes}",
                f"disk: at most {size_text(self.bytes_written)} of store{spilt}",
                f"memory: about {size_text(self.memory_bytes)}{sorting} (an estimate)",
                f"time: about {time_text(self.seconds)} (an estimate, at {rate})",
            ]
        )


def estimate(plan: BuildPlan, *, workers: int | None = None) -> Estimate:
    """Return what a build by so many processes will need; None as in `cellmill.build`."""
    tasks = cut(plan)
    n_workers = workers_for(tasks, workers)
    spills = sorted((source.spill_bytes for source in plan.sources), reverse=True)
    memory = max((_memory_bytes(plan, source) for source in plan.sources), default=0)
    return Estimate(
        n_tasks=len(tasks),
        workers=n_workers,
        bytes_read=sum(source.stamp[0] for source in plan.sources),
        bytes_written=plan.estimated_bytes,
        spill_bytes=sum(spills[:n_workers]),
        memory_bytes=n_workers * (_PROCESS_BYTES + memory),
        seconds=_seconds(tasks, n_workers) + _SECONDS_PER_INPUT * len(plan.sources),
        sorting_bytes=max((_sorting_bytes(plan, source) for source in plan.sources), default=0),
        scratch=plan.options.scratch,
    )


def _memory_bytes(plan: BuildPlan, source: SourcePlan) -> int:
    limits = plan.options.limits
    per_cell = source.stored / max(1, source.n_cells)
    entries = min(plan.options.block_cells * per_cell, limits.max_block_entries, source.stored)
    return int(entries * _BYTES_PER_ENTRY + _sorting_bytes(plan, source) + source.n_cells * _OBS_BYTES_PER_CELL)


def _sorting_bytes(plan: BuildPlan, source: SourcePlan) -> int:
    """Bytes for sorting an input by cell; 0 where it is stored so."""
    return 0 if source.starts_anywhere else min(plan.options.memory_bytes, 64 * source.stored)


def _seconds(tasks: tuple[Task, ...], workers: int) -> float:
    """Seconds until the last process is through, each taking the next task when it has none."""
    busy = [0.0] * workers
    for task in tasks:
        first = busy.index(min(busy))
        busy[first] += task.stored / COUNTS_PER_SECOND + task.n_cells / _CELLS_PER_SECOND
    return max(busy)
