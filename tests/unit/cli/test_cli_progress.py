"""Progress: lines in a log, bars on a terminal, never on standard output."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from cellmill.cli.progress import BarListener, LineListener, drawn, set_quiet
from cellmill.events import Event, emit


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def lines_of(events: list[tuple[float, Event]]) -> list[str]:
    out, clock = io.StringIO(), Clock()
    listener = LineListener(Console(file=out, width=40), seconds=5, clock=clock)
    for at, event in events:
        clock.now = at
        listener(event)
    return out.getvalue().splitlines()


def test_movement_is_throttled_to_one_line_every_few_seconds() -> None:
    events = [(i * 0.1, Event("reading a.h5ad", done=i, total=1000, unit="cells")) for i in range(200)]
    lines = lines_of(events)
    assert lines[0] == "reading a.h5ad: 0 of 1,000 cells"
    assert lines[1] == "reading a.h5ad: 50 of 1,000 cells, 10 cells/s, 1 min 35 s left"
    assert len(lines) == 4  # the first, then one after 5, 10 and 15 seconds


def test_first_and_last_of_a_stage_are_always_said() -> None:
    lines = lines_of(
        [
            (0.0, Event("a", done=1, total=2, unit="cells")),
            (0.1, Event("b", done=1, total=3, unit="shards")),
            (0.2, Event("b", done=2, total=3, unit="shards")),
            (0.3, Event("b", done=3, total=3, unit="shards")),
        ]
    )
    assert lines == ["a: 1 of 2 cells", "b: 1 of 3 shards", "b: 3 of 3 shards"]


def test_the_rate_is_of_this_run_and_of_all_files_of_one_count() -> None:
    lines = lines_of(
        [
            (0.0, Event("building from a", done=600, total=1000, unit="cells")),  # by a run that was interrupted
            (6.0, Event("building from a", done=700, total=1000, unit="cells")),
            (10.0, Event("building from b", done=800, total=1000, unit="cells")),
            (16.0, Event("proving b", done=1, total=2, unit="matrices")),
            (20.0, Event("building from b", done=1000, total=1000, unit="cells")),
        ]
    )
    assert lines[1] == "building from a: 700 of 1,000 cells, 17 cells/s, 18.0 s left"
    assert lines[2] == "building from b: 800 of 1,000 cells, 20 cells/s, 10.0 s left"
    assert lines[3] == "proving b: 1 of 2 matrices"
    assert lines[4] == "building from b: 1,000 of 1,000 cells"  # begun anew: nothing is known yet


def test_bars_show_rate_and_remaining_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr("cellmill.cli.progress.time.monotonic", clock)
    with BarListener(Console(file=io.StringIO(), force_terminal=True, width=120)) as bars:
        bars(Event("building by 2 processes", done=0, total=1000, unit="cells"))
        clock.now = 4.0
        bars(Event("building by 2 processes", done=200, total=1000, unit="cells"))
        assert bars._progress.tasks[0].fields["pace"] == "50 cells/s, 16.0 s left"


def test_every_message_is_a_line() -> None:
    lines = lines_of([(0.0, Event("train", message=f"up to date: arm {i} [x]")) for i in range(5)])
    assert lines == [f"up to date: arm {i} [x]" for i in range(5)]


def test_long_message_stays_one_line() -> None:
    assert lines_of([(0.0, Event("a", message="word " * 50))]) == [("word " * 50)]


def test_stage_without_amount_is_named_alone() -> None:
    assert lines_of([(0.0, Event("looking at a.h5ad"))]) == ["looking at a.h5ad"]


def test_bars_on_a_terminal_leave_a_line_for_each_finished_stage() -> None:
    out = io.StringIO()
    with BarListener(Console(file=out, force_terminal=True, width=100)) as bars:
        bars(Event("reading", done=5, total=10, unit="cells"))
        bars(Event("reading", done=10, total=10, unit="cells"))
        bars(Event("packing", done=1, total=4, unit="shards"))
        bars(Event("note", message="one cell was empty"))
    text = out.getvalue()
    assert "✓" in text
    assert "one cell was empty" in text
    assert "reading" in text.split("packing")[0]


def test_next_file_of_the_same_count_goes_on_in_the_same_bar() -> None:
    out = io.StringIO()
    with BarListener(Console(file=out, force_terminal=True, width=100)) as bars:
        bars(Event("building from a", done=100, total=300, unit="cells"))
        bars(Event("building from b", done=200, total=300, unit="cells"))
        assert [task.description for task in bars._progress.tasks] == ["building from b"]
        bars(Event("building from c", done=300, total=300, unit="cells"))
    assert out.getvalue().count("✓") == 1


def test_outer_stage_stays_and_the_latest_stands_below_it() -> None:
    with BarListener(Console(file=io.StringIO(), force_terminal=True, width=100)) as bars:
        bars(Event("stages", done=0, total=8, unit="stages"))
        for i in range(4):
            bars(Event(f"training arm {i}", done=1, total=40, unit="epochs"))
            assert [task.description for task in bars._progress.tasks] == ["stages", f"training arm {i}"]
        bars(Event("stages", done=1, total=8, unit="stages"))
        assert bars._progress.tasks[0].completed == 1


def test_unfinished_stage_is_not_called_finished_after_an_error() -> None:
    out = io.StringIO()

    def fail() -> None:
        with BarListener(Console(file=out, force_terminal=True, width=100)) as bars:
            bars(Event("counting"))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert "✓" not in out.getvalue()


def test_same_stage_may_come_again() -> None:
    with BarListener(Console(file=io.StringIO(), force_terminal=True)) as bars:
        for _ in range(3):
            bars(Event("epoch", done=1, total=2, unit="batches"))
            bars(Event("epoch", done=2, total=2, unit="batches"))
            bars(Event("validation", done=1, total=1, unit="batches"))


def test_library_events_reach_the_console() -> None:
    out = io.StringIO()
    with drawn(Console(file=out, width=80)):
        emit("reading", done=3, total=3, unit="cells")
    emit("reading", message="after the end")
    assert out.getvalue() == "reading: 3 of 3 cells\n"


def test_quiet_draws_nothing() -> None:
    out = io.StringIO()
    set_quiet(True)
    try:
        with drawn(Console(file=out, width=80)):
            emit("reading", message="hello")
    finally:
        set_quiet(False)
    assert out.getvalue() == ""


def test_progress_goes_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    with drawn():
        emit("reading", message="hello")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "hello\n"
