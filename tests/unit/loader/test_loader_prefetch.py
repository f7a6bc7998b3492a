"""The thread that reads ahead: in order, never leaked, never stuck."""

from __future__ import annotations

import gc
import itertools
import multiprocessing
import random
import threading
import time
import weakref

import pytest

from cellmill.loader.prefetch import prefetched


def threads(*, wanted: int = 0) -> int:
    """Threads that read ahead; after a moment for those that were told to end."""
    patience = time.monotonic() + 5
    while True:
        n = sum(thread.name.startswith("cellmill-prefetch") for thread in threading.enumerate())
        if n <= wanted or time.monotonic() > patience:
            return n
        time.sleep(0.005)


def each(function):
    """A `make` of groups from one of single items."""
    return lambda items: [function(item) for item in items]


@pytest.mark.parametrize("n_threads", [1, 2, 5])
@pytest.mark.parametrize(("depth", "group"), [(0, 1), (1, 1), (3, 1), (3, 3), (12, 4)])
def test_results_come_in_order(depth, group, n_threads):
    pause = random.Random(1)

    def square(x: int) -> int:
        time.sleep(pause.random() * 0.002)
        return x * x

    options = {"depth": depth, "group": group, "threads": n_threads, "limit_bytes": 30, "size": lambda x: x % 7}
    assert list(prefetched(each(square), range(60), **options)) == [x * x for x in range(60)]
    assert threads() == 0


def test_groups_double_until_they_are_whole():
    sizes = []
    stream = prefetched(lambda items: sizes.append(len(items)) or list(items), range(100), depth=16, group=8)
    assert list(stream) == list(range(100))
    assert sizes[:4] == [1, 2, 4, 8] and sum(sizes) == 100 and max(sizes) == 8


def test_the_bytes_ahead_stay_within_the_limit_with_threads_and_groups():
    alive, most, lock = set(), 0, threading.Lock()

    def make(items):
        nonlocal most
        with lock:  # what is being made counts as soon as it is begun
            alive.update(items)
            most = max(most, len(alive))
        time.sleep(0.001)
        return list(items)

    for item in prefetched(make, range(200), depth=64, group=8, threads=3, limit_bytes=100, size=lambda _: 10):
        with lock:
            alive.discard(item)
        time.sleep(0.0005)
    # ten fit; the first groups are begun before any size is known: 1 + 2 + 4, and the consumer holds one
    assert 3 <= most <= 11


def test_two_threads_work_at_the_same_time():
    both = threading.Barrier(2, timeout=20)  # passed by no thread alone

    def make(items):
        if items[0] > 0:
            both.wait()
        return items

    assert list(prefetched(make, range(9), depth=4, threads=2)) == list(range(9))


def test_no_more_than_depth_ahead():
    made: list[int] = []
    stream = prefetched(each(lambda x: made.append(x) or x), iter(range(100)), depth=2)
    assert next(stream) == 0
    time.sleep(0.05)
    assert max(made) <= 2
    stream.close()


@pytest.mark.parametrize("how", ["close", "drop"])
def test_leaving_early_ends_the_thread(how):
    stream = prefetched(list, iter(range(10**9)), depth=2)
    next(stream)
    assert threads(wanted=1) == 1
    if how == "close":
        stream.close()
    else:
        del stream
        gc.collect()
    assert threads() == 0


@pytest.mark.parametrize(("depth", "group", "n_threads"), [(0, 1, 1), (2, 1, 1), (2, 1, 2), (8, 8, 1), (40, 8, 3)])
def test_an_exception_is_raised_in_its_place(depth, group, n_threads):
    def make(x: int) -> int:
        if x in (6, 7, 12):
            raise ValueError(f"number {x}")
        return x

    got = []
    with pytest.raises(ValueError, match="number 6"):
        got.extend(iter_into(got, prefetched(each(make), range(20), depth=depth, group=group, threads=n_threads)))
    assert got == [0, 1, 2, 3, 4, 5]
    assert threads() == 0


def iter_into(into, stream):
    for item in stream:
        into.append(item)
    return []


@pytest.mark.parametrize(("group", "n_threads"), [(1, 1), (4, 2)])
def test_an_exception_of_the_items_is_raised_behind_what_came_before(group, n_threads):
    def items():
        yield from range(5)
        raise ValueError("no more")

    got = []
    with pytest.raises(ValueError, match="no more"):
        got.extend(iter_into(got, prefetched(list, items(), depth=8, group=group, threads=n_threads)))
    assert got == list(range(len(got))) and len(got) in (3, 5)  # a group that could not be taken whole is not made
    assert threads() == 0


def test_the_collector_may_close_an_iteration_in_one_of_its_own_threads():
    """Of an iteration in a circle of references, while the threads hold and wait for their lock."""

    class Circle:
        pass

    for _ in range(20):
        circle = Circle()
        circle.self = circle

        def collecting():
            for item in itertools.count():
                if item > 20:
                    gc.collect()
                yield item

        circle.stream = prefetched(list, collecting(), depth=4, threads=2)
        next(circle.stream)
        del circle
    gc.collect()
    assert threads() == 0


def test_what_lies_ready_is_let_go_of_when_the_consumer_leaves():
    class Thing:
        pass

    stream = prefetched(lambda items: [Thing() for _ in items], range(100), depth=40, group=8, threads=2)
    next(stream)
    time.sleep(0.1)
    alive = [weakref.ref(one) for one in gc.get_objects() if isinstance(one, Thing)]
    assert len(alive) > 8
    frame = stream.gi_frame  # as a traceback that is kept would hold it
    stream.close()
    assert threads() == 0
    gc.collect()
    assert not [one for one in alive if one() is not None]
    del frame


def test_an_exception_in_the_consumer_ends_the_thread():
    def consume():
        for _ in prefetched(list, iter(range(10**9)), depth=2):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        consume()
    gc.collect()
    assert threads() == 0


def test_a_forked_child_neither_hangs_nor_goes_on():
    stream = prefetched(list, iter(range(10**9)), depth=2)
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
