"""Leaving an iteration early, in any way: no hang, no thread and no file left behind."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from cellmill.loader import Loader

SCRIPT = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
import cellmill as cm
loader = cm.Loader(cm.open(sys.argv[1]), batch_size=10, epochs=None, prefetch=4)
how = sys.argv[2]
stream = iter(loader)
next(stream)
print("begun", flush=True)
if how == "return":
    pass  # the interpreter ends with the iteration open, its thread waiting for room
elif how == "raise":
    for batch in stream:
        raise ValueError("the consumer's own")
elif how == "interrupted between batches":
    for batch in stream:
        time.sleep(60)
"""


def threads_now():
    return len(list(Path("/proc/self/task").iterdir()))


def our_threads():
    return [one.name for one in threading.enumerate() if one.name.startswith("cellmill")]


def files_now():
    return len(list(Path("/proc/self/fd").iterdir()))


def resident_mib():
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


@pytest.mark.parametrize(
    ("how", "code", "said"),
    [
        ("return", 0, ""),
        ("raise", 1, "the consumer's own"),
        ("interrupted between batches", -signal.SIGINT, "KeyboardInterrupt"),
    ],
)
def test_the_process_ends_in_time(atlas, how, code, said):
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(atlas.path), how], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout.readline() == "begun\n"
        if how.startswith("interrupted"):
            time.sleep(0.3)
            process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == code, errors
    assert said in errors


def test_the_first_batch_does_not_wait_for_pandas(atlas):
    script = """
import sys
import cellmill as cm
store = cm.open(sys.argv[1])
mix = cm.Mixture([cm.Component("a", store, where="tissue = 'blood'", choose="50%")], split=cm.Split(), dedupe=True)
for source in (mix, store):
    next(iter(cm.Loader(source, batch_size=10, obs=["cell_type", "total_counts"])))
assert "pandas" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", script, str(atlas.path)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_an_interrupt_while_the_consumer_waits_is_heard(atlas):
    loader = Loader(atlas, batch_size=10, prefetch=1)
    read = loader.reader.read_several

    def slow(*args, **how):
        time.sleep(1.0)
        return read(*args, **how)

    loader.reader.read_several = slow
    main = threading.main_thread().ident
    killer = threading.Timer(0.2, lambda: signal.pthread_kill(main, signal.SIGINT))
    started = time.monotonic()
    stream = iter(loader)
    next(stream)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    try:
        killer.start()
        with pytest.raises(KeyboardInterrupt):
            next(stream)  # of which the reader makes a second of work
    finally:
        signal.signal(signal.SIGINT, before)
    del stream
    assert time.monotonic() - started < 5
    gc.collect()
    patience = time.monotonic() + 20  # what the reader is about it ends
    while our_threads() and time.monotonic() < patience:
        time.sleep(0.01)
    assert not our_threads()


def test_a_thousand_loaders_leave_nothing_behind(atlas):
    def some(number):
        for i in range(number):
            loader = Loader(atlas, batch_size=20, prefetch=2, obs=["cell_type"])
            stream = iter(loader)
            for _ in range(i % 3):
                next(stream)
            if i % 2:
                stream.close()

    some(50)  # what is made once, is made
    gc.collect()
    before, files, memory = threads_now(), files_now(), resident_mib()
    some(1000)
    gc.collect()
    few = 5  # other libraries may start or open something meanwhile; a loader that leaks does so a thousand times
    patience = time.monotonic() + 20  # a thread that was told to end is still there for a moment
    while time.monotonic() < patience and (our_threads() or threads_now() > before + few):
        time.sleep(0.01)
    assert not our_threads()
    assert threads_now() <= before + few
    assert files_now() <= files + few
    assert resident_mib() < memory + 40
