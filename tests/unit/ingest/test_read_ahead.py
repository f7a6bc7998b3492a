"""Items made ahead arrive in order, few at a time, with their errors and events; leaving early ends the thread."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from cellmill.errors import FormatError, NotRawCountsError
from cellmill.events import Event, emit, listening
from cellmill.ingest import build
from cellmill.ingest.ahead import read_ahead
from cellmill.ingest.digests import Digests
from cellmill.storage import hash_file


def threads_of(name):
    return [thread for thread in threading.enumerate() if thread.name == name]


def test_items_come_in_order_and_few_are_alive():
    made, taken, most = [], [], 0

    def items():
        for i in range(30):
            made.append(i)
            yield i

    with read_ahead(items(), ahead=2) as got:
        for item in got:
            time.sleep(0.001)
            taken.append(item)
            most = max(most, len(made) - len(taken))
    assert taken == list(range(30))
    assert most == 2
    assert not threads_of("cellmill-read-ahead")


def test_an_error_comes_after_the_items_before_it():
    def items():
        yield 1
        yield 2
        raise FormatError("the third is broken")

    taken = []

    def take():
        with read_ahead(items()) as got:
            for item in got:
                taken.append(item)  # noqa: PERF402 - list.extend keeps nothing of what ends in an error

    with pytest.raises(FormatError, match="third"):
        take()
    assert taken == [1, 2]


def test_leaving_early_closes_the_iterator_in_its_thread():
    closed = []

    def items():
        try:
            yield from range(1000)
        finally:
            closed.append(threading.current_thread().name)

    with read_ahead(items()) as got:
        assert next(got) == 0
    assert closed == ["cellmill-read-ahead"]
    assert not threads_of("cellmill-read-ahead")


def test_events_of_the_thread_reach_the_listeners_of_this_one():
    def items():
        for i in range(3):
            emit("sorting", done=i)
            yield i

    seen: list[tuple[str, Event | int]] = []

    def listen(event):
        seen.append((threading.current_thread().name, event.done))

    here = threading.current_thread().name
    with listening(listen), read_ahead(items()) as got:
        for item in got:
            assert seen[-1] == (here, item)
    assert seen == [(here, 0), (here, 1), (here, 2)]


def test_digests_are_those_of_the_files_and_a_missing_one_is_told_when_asked_for(tmp_path):
    (tmp_path / "a").write_bytes(os.urandom(10_000_000))
    with Digests() as digests:
        digests.start(tmp_path / "a")
        digests.start(tmp_path / "gone")
        assert digests.of(tmp_path / "a") == hash_file(tmp_path / "a")
        with pytest.raises(FileNotFoundError):
            digests.of(tmp_path / "gone")
    assert not threads_of("cellmill-digest")


def test_unfinished_digests_are_given_up(tmp_path):
    with (tmp_path / "large").open("wb") as file:
        file.truncate(1 << 40)  # holes: hashing them would take minutes
    start = time.monotonic()
    with Digests() as digests:
        digests.start(tmp_path / "large")
    assert time.monotonic() - start < 20
    assert not threads_of("cellmill-digest")


def test_a_refused_value_late_in_a_file_ends_the_reading(tmp_path, tiny_h5ad):
    counts = np.random.default_rng(0).poisson(0.5, (900, 60)).astype(np.float32)
    counts[700, 3] = 0.5
    written = tiny_h5ad("bad", counts=counts)
    with pytest.raises(NotRawCountsError, match=r"row 700\).*has the value 0.5, which is not whole"):
        build(tmp_path / "s.mill", written.path, vocabulary="union", block_cells=50)
    assert not threads_of("cellmill-read-ahead")
    assert not threads_of("cellmill-digest")


SCRIPT = """
import sys, time, threading
from cellmill.ingest import admission, build
convert = admission.convert_block
def slow(*args, **kw):
    print("block", flush=True)
    time.sleep(0.05)
    return convert(*args, **kw)
admission.convert_block = slow
try:
    build(sys.argv[1], sys.argv[2], vocabulary="union", block_cells=20)
except KeyboardInterrupt:
    print("left", [t.name for t in threading.enumerate() if t.name.startswith("cellmill")], flush=True)
"""


def test_ctrl_c_ends_a_build_and_its_threads(tmp_path, tiny_h5ad):
    written = tiny_h5ad("f", counts=np.random.default_rng(0).poisson(0.5, (900, 60)))
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(tmp_path / "s.mill"), str(written.path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # a shell may have it ignored
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "block\n"
    process.send_signal(signal.SIGINT)
    out, errors = process.communicate(timeout=60)
    assert out.splitlines()[-1] == "left []"
    assert process.returncode == 0, errors
    assert not (tmp_path / "s.mill").exists()
