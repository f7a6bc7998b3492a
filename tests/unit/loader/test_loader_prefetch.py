"""The thread that reads ahead: in order, never leaked, never stuck."""

from __future__ import annotations

import gc
import multiprocessing
import threading
import time

import pytest

from cellmill.loader.prefetch import prefetched


def threads() -> int:
    return sum(thread.name.startswith("cellmill-prefetch") for thread in threading.enumerate())


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_results_come_in_order(depth):
    assert list(prefetched(lambda x: x * x, range(20), depth=depth)) == [x * x for x in range(20)]
    assert threads() == 0


def test_no_more_than_depth_ahead():
    made: list[int] = []
    stream = prefetched(lambda x: made.append(x) or x, iter(range(100)), depth=2)
    assert next(stream) == 0
    time.sleep(0.05)
    assert max(made) <= 2
    stream.close()


@pytest.mark.parametrize("how", ["close", "drop"])
def test_leaving_early_ends_the_thread(how):
    stream = prefetched(lambda x: x, iter(range(10**9)), depth=2)
    next(stream)
    assert threads() == 1
    if how == "close":
        stream.close()
    else:
        del stream
        gc.collect()
    assert threads() == 0


@pytest.mark.parametrize("depth", [0, 2])
def test_an_exception_is_raised_in_its_place(depth):
    def make(x: int) -> int:
        if x == 3:
            raise ValueError("the fourth")
        return x

    got = []
    with pytest.raises(ValueError, match="the fourth"):
        got.extend(iter_into(got, prefetched(make, range(10), depth=depth)))
    assert got == [0, 1, 2]
    assert threads() == 0


def iter_into(into, stream):
    for item in stream:
        into.append(item)
    return []


def test_an_exception_in_the_consumer_ends_the_thread():
    def consume():
        for _ in prefetched(lambda x: x, iter(range(10**9)), depth=2):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        consume()
    gc.collect()
    assert threads() == 0


def test_a_forked_child_neither_hangs_nor_goes_on():
    stream = prefetched(lambda x: x, iter(range(10**9)), depth=2)
    next(stream)

    def child(out) -> None:
        try:
            next(stream)
            out.put("went on")
        except RuntimeError as error:
            out.put(str(error))

    context = multiprocessing.get_context("fork")
    out = context.Queue()
    process = context.Process(target=child, args=(out,))
    process.start()
    message = out.get(timeout=20)
    process.join(timeout=20)
    assert process.exitcode == 0
    assert "after a fork" in message
    assert next(stream) == 1
    stream.close()
