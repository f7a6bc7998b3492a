"""Draws the events of the library (floor 9): bars on a terminal, plain lines in a log, always to standard error.

Knows `cellmill.events` and rich. Knows nothing of what emits.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

from cellmill.cli.interrupts import raise_if_swallowed
from cellmill.events import Event, listening
from cellmill.units import count_text, size_text, time_text

__all__ = ["BarListener", "LineListener", "drawn", "is_quiet", "set_quiet"]

_SECONDS_BETWEEN_LINES = 5.0
_SECONDS_OF_PACE = 1.0  # that a rate is measured over at least
_quiet: ContextVar[bool] = ContextVar("cellmill_cli_quiet", default=False)


def set_quiet(quiet: bool, /) -> None:
    """Draw nothing for the rest of this command when `quiet`."""
    _quiet.set(quiet)


def is_quiet() -> bool:
    """Return whether no progress is shown, neither on a terminal nor in a log."""
    return _quiet.get()


def _amount(done: int, total: int, unit: str) -> str:
    in_words = size_text if unit == "bytes" else count_text
    share = f" of {in_words(total)}" if total else ""
    return f"{in_words(done)}{share} {'' if unit == 'bytes' else unit}".rstrip()


class _Pace:
    """How fast one count of work goes on, from what was done when it was first told: work done before is no speed."""

    def __init__(self) -> None:
        self._work: tuple[int, str] | None = None
        self._first = self._latest = (0.0, 0)

    def text(self, event: Event, now: float) -> str:
        """Take in an event and return rate and remaining time, nothing where they are not known yet."""
        work = event.total, event.unit
        if work != self._work or event.done < self._latest[1]:
            self._work, self._first = work, (now, event.done)
        self._latest = now, event.done
        seconds, done = now - self._first[0], event.done - self._first[1]
        if seconds < _SECONDS_OF_PACE or not done:
            return ""
        rate = done / seconds
        left = f", {time_text((event.total - event.done) / rate)} left" if event.total > event.done else ""
        return f"{_rate(rate)} {event.unit}/s{left}".replace(" /s", "/s")


def _rate(rate: float) -> str:
    return count_text(round(rate)) if rate >= 10 else f"{rate:.2g}"


class LineListener:
    """Plain lines for logs: each message, and at most one line of movement every few seconds and stage.

    Parameters
    ----------
    console : Console
        Where the lines go.
    seconds : float
        Least time between two lines of movement.
    clock : callable
        Returns seconds; replaced in tests.
    """

    def __init__(
        self,
        console: Console,
        *,
        seconds: float = _SECONDS_BETWEEN_LINES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._console = console
        self._seconds = seconds
        self._clock = clock
        self._last: float | None = None
        self._stage = ""
        self._pace = _Pace()

    def __call__(self, event: Event) -> None:
        """Write a line for `event`, or nothing when the last line is too recent."""
        if event.message:
            self._write(event.message)
            return
        now = self._clock()
        pace = self._pace.text(event, now) if event.total else ""
        is_new = event.stage != self._stage
        is_last = bool(event.total) and event.done >= event.total
        if not (is_new or is_last or self._last is None or now - self._last >= self._seconds):
            return
        self._stage, self._last = event.stage, now
        amount = _amount(event.done, event.total, event.unit) if event.done or event.total else ""
        self._write(", ".join(filter(None, [f"{event.stage}: {amount}" if amount else event.stage, pace])))

    def _write(self, line: str) -> None:
        self._console.print(Text(line), soft_wrap=True)


class _AmountColumn(ProgressColumn):
    def render(self, task: Task) -> Text:
        total = int(task.total or 0)
        if not total and not task.completed:
            return Text("")
        return Text(_amount(int(task.completed), total, str(task.fields.get("unit", ""))), style="cyan")


class BarListener:
    """Bars on a terminal: one for each stage under way; a finished stage becomes a line above them."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            _AmountColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[pace]}", style="dim", markup=False),
            console=console,
            refresh_per_second=8,
            transient=True,
        )
        self._tasks: dict[str, TaskID] = {}
        self._paces: dict[TaskID, _Pace] = {}

    def __enter__(self) -> BarListener:
        self._progress.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if exc[0] is None:
            self._retire()
        self._progress.stop()

    def __call__(self, event: Event) -> None:
        """Move the bar of the event's stage, or print its message above the bars."""
        if event.message:
            self._retire(only_finished=True)
            self._progress.console.print(Text(event.message), soft_wrap=True)
        if not (event.done or event.total) and event.message:
            return
        total = event.total or None
        if event.stage not in self._tasks:
            self._begin(event)
        task = self._tasks[event.stage]
        pace = self._paces.setdefault(task, _Pace()).text(event, time.monotonic()) if total else ""
        self._progress.update(task, completed=event.done, total=total, unit=event.unit, pace=pace)

    def _begin(self, event: Event) -> None:
        """Make room for a stage: the outermost unfinished one stays, with this one below it."""
        going_on = self._same_work(event)
        if going_on is not None:
            del self._tasks[going_on.description]
            self._progress.update(going_on.id, description=event.stage)
            self._tasks[event.stage] = going_on.id
            return
        self._retire()
        for task in list(self._progress.tasks)[1:]:
            self._remove(task)
        self._tasks[event.stage] = self._progress.add_task(
            event.stage, total=event.total or None, unit=event.unit, pace=""
        )

    def _same_work(self, event: Event) -> Task | None:
        """Return the stage that this one goes on with under another name: the next file of one count of cells."""
        for task in self._progress.tasks:
            same = event.total and task.total == event.total and task.fields.get("unit") == event.unit
            if same and 0 < task.completed < event.done:
                return task
        return None

    def _retire(self, *, only_finished: bool = False) -> None:
        """Turn every stage that is finished, or whose end is not known, into a line."""
        for task in list(self._progress.tasks):
            if task.finished or (task.total is None and not only_finished):
                seconds = time_text(task.finished_time or task.elapsed or 0.0)
                amount = _amount(int(task.completed), 0, str(task.fields.get("unit", ""))) if task.completed else ""
                line = Text.assemble(("✓ ", "green"), task.description, "  ", (amount, "cyan"), f"  {seconds}")
                self._progress.console.print(line, soft_wrap=True)
                self._remove(task)

    def _remove(self, task: Task) -> None:
        self._progress.remove_task(task.id)
        self._paces.pop(task.id, None)
        del self._tasks[task.description]


@contextmanager
def drawn(console: Console | None = None) -> Iterator[None]:
    """Draw the progress of the enclosed code on standard error, as fits where that goes."""
    console = console or Console(stderr=True, highlight=False)
    with listening(raise_if_swallowed), _drawn(console):
        yield


@contextmanager
def _drawn(console: Console) -> Iterator[None]:
    if _quiet.get():
        yield
    elif console.is_terminal and not os.environ.get("CI"):
        with BarListener(console) as bars, listening(bars):
            yield
    else:
        with listening(LineListener(console)):
            yield
