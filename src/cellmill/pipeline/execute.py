"""Running stages (floor 8): each that is not up to date, in order, under one lock; and saying why for each.

Knows stages, records and the lock; is handed the work itself, so that it is tested with stages that take a millisecond.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cellmill.events import emit
from cellmill.pipeline.records import Record, Records
from cellmill.pipeline.stages import Stage
from cellmill.storage import exclusive_lock
from cellmill.units import time_text

__all__ = ["Outcome", "Task", "Work", "execute", "why_not_up_to_date"]

Json = Any


@dataclass(frozen=True)
class Outcome:
    """What became of a stage.

    Attributes
    ----------
    stage : Stage
    ran : bool
        False when it was up to date.
    why : str
        Why it was done, or why it was not.
    record : Record
    """

    stage: Stage
    ran: bool
    why: str
    record: Record

    @property
    def line(self) -> str:
        """The outcome as one line of a log."""
        if self.ran:
            return f"done: {self.stage.name} in {time_text(self.record.seconds)} ({self.why})"
        return f"up to date: {self.stage.name} ({self.why})"


@dataclass(frozen=True)
class Task:
    """A stage about to be done, with what it may build on.

    Attributes
    ----------
    stage : Stage
    results : dict
        Results of every stage before it, by name.
    previous : Record or None
        What was recorded of this stage when it was last finished, perhaps with other inputs.
    begun : str or None
        The key under which this stage was begun before and not finished.
    """

    stage: Stage
    results: Mapping[str, Mapping[str, Json]]
    previous: Record | None = None
    begun: str | None = None


Work = Callable[[Task], Mapping[str, Json]]


def execute(
    stages: Iterable[Stage], work: Mapping[str, Work], *, out: Path, places: Mapping[str, Path] | None = None
) -> list[Outcome]:
    """Do every stage that is not up to date and return what became of each, in order.

    Parameters
    ----------
    stages : iterable of Stage
        In an order in which they can be done.
    work : mapping
        The work of each kind of stage; returns the results that its record keeps.
    out : Path
        The experiment's folder; made when it is not there.
    places : mapping, optional
        Where outputs whose name begins with "@" lie.

    Raises
    ------
    StoreLockedError
        When another process runs this experiment; names it.
    Exception
        Whatever the work of a stage raises, with a note that names the stage. What was finished stays finished.
    """
    out.mkdir(parents=True, exist_ok=True)
    with exclusive_lock(out / ".lock", what=f"The experiment in {out}"):
        return _execute(list(stages), work, out, dict(places or {}))


def _execute(stages: list[Stage], work: Mapping[str, Work], out: Path, places: Mapping[str, Path]) -> list[Outcome]:
    records = Records(out / "records")
    outcomes: list[Outcome] = []
    keys = {stage.name: stage.key for stage in stages}
    for i, stage in enumerate(stages):
        emit("stages", done=i, total=len(stages), unit="stages")
        record = records.read(stage)
        why = why_not_up_to_date(stage, record, keys, lambda output: _place(output, out, places))
        if record is not None and not why:
            outcome = Outcome(stage, False, f"same inputs, finished {record.finished}", record)
            emit(stage.name, message=outcome.line)
        else:
            results = {one.stage.name: one.record.results for one in outcomes}
            outcome = _do(
                stage, why, work[stage.kind], records, results, keys, lambda output: _place(output, out, places)
            )
        outcomes.append(outcome)
    emit("stages", done=len(stages), total=len(stages), unit="stages", message=_summary(outcomes))
    return outcomes


def why_not_up_to_date(
    stage: Stage, record: Record | None, keys: Mapping[str, str], place: Callable[[str], Path]
) -> str:
    """Return in words why a stage has to be done; empty when it need not be."""
    if record is None:
        return "not done before"
    changed = sorted(
        name for name in {*stage.inputs, *record.inputs} if stage.inputs.get(name) != record.inputs.get(name)
    )
    if changed:
        return f"changed: {', '.join(changed)}"
    before = {name: keys[name] for name in stage.after}
    renewed = sorted(name for name in {*before, *record.after} if before.get(name) != record.after.get(name))
    if renewed:
        return f"builds on what changed: {', '.join(renewed)}"
    if stage.key != record.key:
        return "done by another version of cellmill"
    for output in stage.outputs:
        size = record.sizes.get(output)
        if not place(output).exists() or (size is not None and place(output).stat().st_size != size):
            return f"{output.removeprefix('@')} is gone or was changed"
    return ""


def _do(
    stage: Stage,
    why: str,
    work: Work,
    records: Records,
    results: Mapping[str, Mapping[str, Json]],
    keys: Mapping[str, str],
    place: Callable[[str], Path],
) -> Outcome:
    previous = records.read(stage)
    begun = records.begin(stage)
    if begun == stage.key and previous is None:
        why = "was begun and not finished"
    emit(stage.name, message=f"begin: {stage.name} ({why})")
    started, clock = _now(), time.perf_counter()
    try:
        found = work(Task(stage, results, previous, begun))
    except BaseException as error:
        error.add_note(f"in the stage: {stage.name}; what was finished before it is kept")
        raise
    record = Record(
        name=stage.name,
        key=stage.key,
        inputs=stage.inputs,
        after={name: keys[name] for name in stage.after},
        started=started,
        finished=_now(),
        seconds=round(time.perf_counter() - clock, 3),
        results=dict(found),
        sizes={output: place(output).stat().st_size for output in stage.outputs if place(output).is_file()},
    )
    records.write(stage, record)
    outcome = Outcome(stage, True, why, record)
    emit(stage.name, message=outcome.line)
    return outcome


def _summary(outcomes: list[Outcome]) -> str:
    ran = sum(outcome.ran for outcome in outcomes)
    if not ran:
        return f"nothing to do: all {len(outcomes)} stages are up to date"
    return f"{ran} of {len(outcomes)} stages done, {len(outcomes) - ran} were up to date"


def _place(output: str, out: Path, places: Mapping[str, Path]) -> Path:
    return places[output] if output.startswith("@") else out / output


def _now() -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
