"""How far a build has come (floor 4): rows done of every task, summed over whoever carries them out."""

from __future__ import annotations

from pathlib import Path

from cellmill.errors import CellmillError
from cellmill.events import emit
from cellmill.ingest.plan import BuildPlan
from cellmill.ingest.tasks import Task

__all__ = ["Progress", "tell_refused"]


class Progress:
    """Rows done of the tasks of a plan, told as events.

    Parameters
    ----------
    stage
        What the events are called; None: after the input that is being read.
    total
        Rows of the tasks; None for all of the plan.

    Attributes
    ----------
    refused : dict of int to CellmillError
        Inputs, by their numbers, that turned out not to be usable.
    """

    def __init__(self, plan: BuildPlan, *, stage: str | None = None, total: int | None = None) -> None:
        self._plan = plan
        self._stage = stage
        self._total = plan.n_cells if total is None else total
        self._rows: dict[int, int] = {}
        self._done = 0
        self.refused: dict[int, CellmillError] = {}

    def told(self, task: Task, rows: int) -> None:
        """Take in that so many rows of a task are done; fewer than before, when it is begun anew, do not count."""
        more = rows - self._rows.get(task.number, 0)
        if more <= 0:
            return
        self._rows[task.number] = rows
        self._done += more
        stage = self._stage or f"building from {self._plan.sources[task.source].path.name}"
        emit(stage, done=self._done, total=self._total, unit="cells")

    def refuse(self, task: Task, error: CellmillError) -> None:
        """Take in that an input cannot be used, told by one of its tasks."""
        if task.source in self.refused:
            return
        self.refused[task.source] = error
        others = len(self._plan.sources) > 1
        tell_refused(self._plan.sources[task.source].path, skip=self._plan.options.skip_bad, others=others)


def tell_refused(path: Path, *, skip: bool, others: bool) -> None:
    """Say that an input cannot be used, and whether `others` are worked on; why is said at the end."""
    what = "skipped" if skip else "cannot use"
    rest = "" if skip or not others else "; the others are worked on, and the end says why"
    emit(f"{what} {path.name}", message=f"{what} {path}{rest}")
