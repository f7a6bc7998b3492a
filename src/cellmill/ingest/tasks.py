"""A plan cut into tasks (floor 4, pure): each reads some rows of one input and leaves shards, whoever carries it out.

Where shards begin is settled here, by rows alone, so that the same plan gives the same bytes in one process, in many,
and on a cluster: at every `shard_cells` rows of an input a shard begins, whatever task that falls into.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from cellmill.errors import ConfigError
from cellmill.ingest.plan import BuildPlan, SourcePlan
from cellmill.storage import hash_bytes

__all__ = ["Task", "cut", "part_of", "source_key"]


@dataclass(frozen=True)
class Task:
    """Some rows of one input.

    Attributes
    ----------
    number : int
        Its place among the tasks of the plan, and
    source : int
        that of its input among the inputs.
    start, stop : int
        Rows of the input.
    key : str
        xxh3-128 of all that decides the bytes of its shards: the input and its stamp, the rows, the store's genes and
        their order, the types of its columns, the sizes of shards.
    stored : int
        Stored counts that it reads, about.
    """

    number: int
    source: int
    start: int
    stop: int
    key: str
    stored: int

    @property
    def n_cells(self) -> int:
        """Rows that it reads."""
        return self.stop - self.start


def cut(plan: BuildPlan) -> tuple[Task, ...]:
    """Return the tasks of a plan, in the order of its inputs and their rows.

    Inputs of which rows cannot be read from anywhere (by gene, as text) are one task: to begin in the middle of one
    would cost as much as to read it from the start.
    """
    setting = hash_bytes(json.dumps(plan.setting, sort_keys=True).encode())
    tasks: list[Task] = []
    for number, source in enumerate(plan.sources):
        own = hash_bytes(json.dumps([setting, plan.facts_of(source)], sort_keys=True).encode())
        rows = plan.options.shard_cells if source.starts_anywhere else max(1, source.n_cells)
        for start in range(0, source.n_cells, rows):
            stop = min(source.n_cells, start + rows)
            key = hash_bytes(f"{own} {start} {stop}".encode())
            stored = round(source.stored * (stop - start) / source.n_cells)
            tasks.append(Task(len(tasks), number, start, stop, key, stored))
    return tuple(tasks)


def source_key(source: SourcePlan) -> str:
    """Return what names an input as it is now: xxh3-128 of its path, size and newest change."""
    return hash_bytes(json.dumps([str(source.path.resolve()), source.stamp]).encode())


def part_of(tasks: Sequence[Task], part: int, n_parts: int) -> tuple[Task, ...]:
    """Return the tasks of part `part` (from 1) of `n_parts`: neighbours, about equal in stored counts.

    Raises
    ------
    ConfigError
        For a part that is not one of them.

    Examples
    --------
    >>> tasks = [Task(i, 0, i, i + 1, "", 10) for i in range(5)]
    >>> [[task.number for task in part_of(tasks, part, 2)] for part in (1, 2)]
    [[0, 1], [2, 3, 4]]
    """
    if not 1 <= part <= n_parts:
        raise ConfigError(f"task (--task): expected I/N with I from 1 to N, for example 1/8; found {part}/{n_parts}")
    weights = [task.stored + task.n_cells for task in tasks]
    total, before, chosen = max(1, sum(weights)), 0, []
    for task, weight in zip(tasks, weights, strict=True):
        middle = (2 * before + weight) / (2 * total)
        if int(middle * n_parts) == part - 1:
            chosen.append(task)
        before += weight
    return tuple(chosen)
