"""Stages are done once, in order, and a process may be killed at any instruction."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from cellmill.errors import StoreLockedError
from cellmill.events import Event, listening
from cellmill.pipeline.execute import Outcome, Task, execute
from cellmill.pipeline.records import Records
from cellmill.pipeline.stages import Stage, stage

FORK = multiprocessing.get_context("fork")  # the child needs no fresh interpreter, and starts in a millisecond


def fake_stages(*, middle: int = 1, title: str = "t") -> list[Stage]:
    """A chain with a fork: first -> (left, right) -> last; `middle` is an input of right, `title` of last."""
    first = stage("fake", ("first",), name="first", inputs={"n": 1}, outputs=["first.txt"])
    left = stage("fake", ("left",), name="left", inputs={}, after=[first], outputs=["left.txt"])
    right = stage("fake", ("right",), name="right", inputs={"n": middle}, after=[first], outputs=["right.txt"])
    last = stage("fake", ("last",), name="last", inputs={"title": title}, after=[left, right], outputs=["last.txt"])
    return [first, left, right, last]


def fake_work(out: Path, *, pause_seconds: float = 0.0) -> dict[str, Any]:
    """Work that logs that it was done, and whose output is a function of what it builds on."""

    def work(task: Task) -> Mapping[str, Any]:
        name = task.stage.name
        with (out / "log.txt").open("a") as log:
            log.write(f"begin {name}\n")
        time.sleep(pause_seconds)
        text = json.dumps([name, dict(task.stage.inputs), [task.results[one]["text"] for one in task.stage.after]])
        (out / f"{name}.txt").write_text(text)
        time.sleep(pause_seconds)
        return {"text": text}

    return {"fake": work}


def run(out: Path, stages: list[Stage]) -> list[Outcome]:
    return execute(stages, fake_work(out), out=out)


def names(outcomes: list[Outcome], *, ran: bool) -> list[str]:
    return [one.stage.name for one in outcomes if one.ran is ran]


def test_running_again_does_nothing_and_says_why(tmp_path: Path) -> None:
    assert names(run(tmp_path, fake_stages()), ran=True) == ["first", "left", "right", "last"]
    events: list[Event] = []
    with listening(events.append):
        assert names(run(tmp_path, fake_stages()), ran=True) == []
    messages = [event.message for event in events if event.message]
    assert messages[0].startswith("up to date: first (same inputs, finished 20")
    assert messages[-1] == "nothing to do: all 4 stages are up to date"


def test_a_changed_input_redoes_what_builds_on_it_and_says_which(tmp_path: Path) -> None:
    run(tmp_path, fake_stages())
    outcomes = run(tmp_path, fake_stages(middle=2))
    assert names(outcomes, ran=True) == ["right", "last"]
    assert {one.stage.name: one.why for one in outcomes if one.ran} == {
        "right": "changed: n",
        "last": "builds on what changed: right",
    }
    assert names(run(tmp_path, fake_stages(middle=2, title="u")), ran=True) == ["last"]


def test_an_output_that_is_gone_or_cut_is_made_again(tmp_path: Path) -> None:
    run(tmp_path, fake_stages())
    (tmp_path / "left.txt").unlink()
    outcomes = run(tmp_path, fake_stages())
    assert {one.stage.name: one.why for one in outcomes if one.ran} == {"left": "left.txt is gone or was changed"}
    (tmp_path / "last.txt").write_text("")
    assert names(run(tmp_path, fake_stages()), ran=True) == ["last"]


@pytest.mark.parametrize("garbage", [b"", b"{", b"[]", b'{"name": "first"}', b"\xff\xfe"])
def test_an_unreadable_record_means_not_done(tmp_path: Path, garbage: bytes) -> None:
    run(tmp_path, fake_stages())
    (tmp_path / "records" / "fake_first.json").write_bytes(garbage)
    outcomes = run(tmp_path, fake_stages())
    assert "first" in names(outcomes, ran=True)


def test_a_failing_stage_is_named_and_keeps_what_was_finished(tmp_path: Path) -> None:
    work = fake_work(tmp_path)

    def failing(task: Task) -> Mapping[str, Any]:
        if task.stage.name == "right":
            raise ValueError("no")
        return work["fake"](task)  # type: ignore[no-any-return]

    with pytest.raises(ValueError, match="no") as caught:
        execute(fake_stages(), {"fake": failing}, out=tmp_path)
    assert "in the stage: right" in "".join(caught.value.__notes__)
    assert names(run(tmp_path, fake_stages()), ran=True) == ["right", "last"]


def test_the_record_goes_before_the_work_begins(tmp_path: Path) -> None:
    run(tmp_path, fake_stages())
    records = Records(tmp_path / "records")
    changed = fake_stages(middle=2)[2]
    seen: list[Any] = []

    def looking(task: Task) -> Mapping[str, Any]:
        seen.append((records.read(task.stage), task.previous is not None, task.begun))
        return {"text": ""}

    execute([fake_stages()[0], changed], {"fake": looking}, out=tmp_path)
    assert seen == [(None, True, None)]
    assert records.begin(changed) is None
    assert records.begin(changed) == changed.key


def _child(out: str, pause_seconds: float) -> None:
    execute(fake_stages(), fake_work(Path(out), pause_seconds=pause_seconds), out=Path(out))


def test_two_at_once_are_refused_and_the_first_is_named(tmp_path: Path) -> None:
    child = FORK.Process(target=_child, args=(str(tmp_path), 0.5))
    child.start()
    try:
        deadline = time.monotonic() + 30
        while not (tmp_path / "log.txt").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        with pytest.raises(StoreLockedError, match=f"process {child.pid}"):
            run(tmp_path, fake_stages())
    finally:
        child.join(30)
    assert child.exitcode == 0
    assert names(run(tmp_path, fake_stages()), ran=True) == []


def test_killed_at_any_moment_no_finished_stage_is_lost(tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    run(whole, fake_stages())
    wanted = {path.name: path.read_text() for path in whole.glob("*.txt") if path.name != "log.txt"}
    moments = random.Random(0)
    killed = 0
    for trial in range(6):
        out = tmp_path / f"trial{trial}"
        out.mkdir()
        finished: set[str] = set()
        for _ in range(12):
            child = FORK.Process(target=_child, args=(str(out), 0.02))
            child.start()
            log = out / "log.txt"
            before = log.read_text() if log.exists() else ""
            while child.is_alive() and (log.read_text() if log.exists() else "") == before:
                time.sleep(0.001)  # until it has begun a stage
            time.sleep(moments.uniform(0, 0.08))
            if child.is_alive():
                os.kill(child.pid or 0, signal.SIGKILL)
            child.join()
            begun = (log.read_text()[len(before) :]).split("begin ")[1:]
            assert not finished & {name.strip() for name in begun}, "a finished stage was done again"
            finished |= {path.stem.removeprefix("fake_") for path in (out / "records").glob("*.json")}
            killed += child.exitcode == -signal.SIGKILL
            if child.exitcode == 0:
                break
        run(out, fake_stages())
        assert {path.name: path.read_text() for path in out.glob("*.txt") if path.name != "log.txt"} == wanted
    assert killed >= 3
