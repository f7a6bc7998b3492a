"""Work ahead of the consumer (floor 6, loader): few threads, a bounded number of results and bytes. Knows no store."""

from __future__ import annotations

import atexit
import contextlib
import os
import queue
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Generic, NamedTuple, TypeVar

from cellmill import kernel

__all__ = ["ALONE", "Ahead", "HowFar", "how_far_ahead", "prefetched"]

Item = TypeVar("Item")
Result = TypeVar("Result")
# batches ahead, however small they are
MOST_BATCHES = 1024
# cells read in one go for each thread of the kernel
CELLS_PER_THREAD = 1536
# a result or its error, and the bytes of it
Made = tuple[Any, BaseException | None, int]


@dataclass
class Ahead:
    """What the threads that work ahead saw.

    Attributes
    ----------
    full_seconds : float
        Time during which none of them worked because enough was made ahead: the consumer was slower.
    most_bytes : int
        The most bytes of results that lay ready at once.
    taken_bytes : int
        Bytes of the results that the consumer has taken.
    """

    full_seconds: float = 0.0
    most_bytes: int = 0
    taken_bytes: int = 0


class HowFar(NamedTuple):
    """How work ahead is shared out: batches ahead, batches read in one go, reading threads, kernel threads of each."""

    batches: int
    group: int
    readers: int
    threads: int | None


ALONE = HowFar(0, 1, 1, None)


def how_far_ahead(prefetch: int | None, batch_cells: int, threads: int, *, grouped: bool = True) -> HowFar:
    """Return how to work ahead of a consumer of batches of so many cells, with so many threads (0: all cores).

    Two readers, so that Python's part of one batch runs while the kernel decodes another; each has half of the kernel's
    threads, and reads so many cells in one go that Python's part is small beside the kernel's.
    """
    if prefetch == 0:
        return ALONE
    cores = threads or kernel.default_threads()
    readers = min(2, cores)
    each = cores // readers  # never more than were asked for
    group = max(1, CELLS_PER_THREAD * each // max(1, batch_cells)) if grouped else 1
    if prefetch is None:
        return HowFar(min(MOST_BATCHES, 3 * readers * group), min(group, MOST_BATCHES // 4), readers, each)
    group = min(group, max(1, prefetch // (2 * readers)))
    return HowFar(prefetch, group, min(readers, max(1, prefetch)), each if prefetch > 1 else cores)


def prefetched(
    make: Callable[[Sequence[Item]], Sequence[Result]],
    items: Iterable[Item],
    *,
    depth: int,
    group: int = 1,
    threads: int = 1,
    limit_bytes: int | None = None,
    size: Callable[[Result], int] = lambda result: 0,
    seen: Ahead | None = None,
) -> Iterator[Result]:
    """Yield the result of each item, in order, made ahead by some threads in groups of items.

    The first group is one item, so that the first result is there early; the next ones double. An exception in `make`
    is raised where its result would have come: a group that fails is made again item by item. The threads end soon
    after the generator does, also when it is closed or dropped early. After a fork the child cannot go on with the
    parent's generator and is told so.

    Parameters
    ----------
    make
        Returns one result for each of some consecutive items. It is called by several threads at a time.
    depth
        Results made ahead, at most, those that are being made counted; 0 for no threads, and single items.
    group
        Items of a group, at most; no more than `depth` has room for.
    threads
        How many there are.
    limit_bytes
        Results that lie ready, and those being made if each is as large as the largest so far, stay within it; so only
        a result that is larger than all before it goes beyond. One is always made, however large.
    size
        Bytes of a result.
    seen
        Where to note what the threads saw.

    Raises
    ------
    RuntimeError
        When a forked child goes on with an iteration that its parent began.
    """
    seen = seen or Ahead()
    if depth <= 0:
        for item in items:
            result = make([item])[0]
            seen.taken_bytes += size(result)
            yield result
            del result
        return
    work = _Work(make, iter(items), depth, max(1, min(group, depth)), threads, limit_bytes, size, seen)
    made: deque[Made] | None = None
    try:
        work.start()
        while (made := work.take()) is not None:
            while made:
                work.check_process()
                result, error, n_bytes = made.popleft()
                work.let_go(n_bytes)
                if error is not None:
                    raise error
                yield result
                del result  # what the consumer lets go of is not held here
    finally:
        result = made = None  # type: ignore[assignment]  # a traceback that is kept holds this frame
        work.stop()


@dataclass(eq=False)
class _Work(Generic[Item, Result]):
    """The threads and what they share. Holds no reference to the generator, so that dropping that one ends the threads.

    Results go to the consumer group by group, through a queue that wakes it up once: waking up costs as much as a small
    batch, and so do threads that wake up to find no room.
    """

    make: Callable[[Sequence[Item]], Sequence[Result]]
    items: Iterator[Item]
    depth: int
    group: int
    n_threads: int
    limit_bytes: int | None
    size: Callable[[Result], int]
    seen: Ahead
    owner: int = field(default_factory=os.getpid)
    changed: threading.Condition = field(default_factory=threading.Condition)
    # groups in order; None at the end
    ready: queue.SimpleQueue[deque[Made] | None] = field(default_factory=queue.SimpleQueue)
    n_ready: int = 0  # results that are made and not let go of, also those whose turn has not come
    ready_bytes: int = 0
    largest: int = 0
    in_making: int = 0  # items that threads have taken and not handed in
    begun: int = 0  # groups taken so far: the number of the next one
    handed_in: int = 0  # groups that went to the consumer
    early: dict[int, deque[Made]] = field(default_factory=dict)  # groups done before one that comes first
    working: int = 0
    waiting: int = 0  # threads that wait for room
    idle_since: float | None = None
    exhausted: bool = False  # no further group is begun: items are at an end, or an error is on its way
    stopped: bool = False
    threads: list[threading.Thread] = field(default_factory=list)

    def start(self) -> None:
        # daemons, and stopped by `_stop_all`: an iteration that is never closed must not keep the process from ending
        _LIVE.add(self)
        for _ in range(self.n_threads):
            thread = threading.Thread(target=self._run, name="cellmill-prefetch", daemon=True)
            self.threads.append(thread)
            thread.start()

    def check_process(self) -> None:
        if os.getpid() != self.owner:
            raise RuntimeError("this iteration was begun by the parent process; call iter() anew after a fork")

    def take(self) -> deque[Made] | None:
        """Return the next group, or its error as the last of it; None after the last one."""
        self.check_process()
        return self.ready.get()

    def let_go(self, n_bytes: int) -> None:
        """Note that a result is the consumer's now."""
        with self.changed:
            self.n_ready -= 1
            self.ready_bytes -= n_bytes
            self.seen.taken_bytes += n_bytes
            if self.waiting and self._room():
                self.changed.notify_all()

    def stop(self) -> None:
        """Tell the threads to end, and let go of what lies ready. Does not wait for them.

        The collector calls this too, of an iteration that was forgotten, in any thread and at any moment: one of these
        threads, or one that holds a lock which they need in order to end. So nothing here may wait for long.
        """
        if os.getpid() != self.owner:  # in a forked child there are no threads, and the lock may be held for ever
            return
        self.stopped = True
        if self.changed.acquire(timeout=1.0):
            try:
                self.early.clear()
                self.changed.notify_all()
            finally:
                self.changed.release()
        with contextlib.suppress(queue.Empty):
            while True:
                self.ready.get_nowait()

    def join(self) -> None:
        """Wait for the threads to end."""
        for thread in self.threads:
            if thread.ident is not None and thread is not threading.current_thread():
                thread.join()

    def _run(self) -> None:
        taken: tuple[int, list[Item]] | None = None
        try:
            while (taken := self._take_items()) is not None:
                made = self._made(taken[1])
                self._hand_in(taken[0], len(taken[1]), made)
                taken = None
                del made
        except BaseException as error:  # of `items`, or of the memory for what is noted here: handed over all the same
            failed: deque[Made] = deque([(None, error, 0)])
            with self.changed:
                if taken is None:
                    taken = self.begun, []
                    self.begun += 1
                    self.working += 1
                self._hand_in(taken[0], len(taken[1]), failed)
        finally:
            if not any(thread.is_alive() for thread in self.threads if thread is not threading.current_thread()):
                _LIVE.discard(self)

    def _made(self, items: list[Item]) -> deque[Made]:
        """Return the results of a group; of one that fails, those before the first error, and that error."""
        made: deque[Made] = deque()
        try:
            made.extend((result, None, self.size(result)) for result in self.make(items))
        except BaseException as error:  # handed over: the consumer raises it
            if len(items) == 1:
                return deque([(None, error, 0)])
            made.clear()
            for item in items:
                made += self._made([item])
                if made[-1][1] is not None:
                    break
        return made

    def _take_items(self) -> tuple[int, list[Item]] | None:
        """Wait until there is room, and return the next items and the number of their group; None at the end."""
        with self.changed:
            while not self.stopped and not self.exhausted and not self._room():
                if not self.working and self.idle_since is None:
                    self.idle_since = time.perf_counter()
                self.waiting += 1
                self.changed.wait(5.0)  # not for ever: who stops this may have been unable to say so
                self.waiting -= 1
            if self.idle_since is not None:
                self.seen.full_seconds += time.perf_counter() - self.idle_since
                self.idle_since = None
            if self.stopped or self.exhausted:
                return None
            items = list(islice(self.items, min(self._room(), 1 << min(self.begun, 30))))
            if not items:
                self._end()
                return None
            self.working += 1
            self.in_making += len(items)
            self.begun += 1
            return self.begun - 1, items

    def _room(self) -> int:
        """Items that the next group may have; 0 while enough is ahead. Whole groups, unless nothing is ahead."""
        if self.begun and not self.largest and not self.handed_in:
            return 0  # until the first is done nobody knows how large they are
        if self.n_ready + self.in_making == 0:
            return self._within(self.group)
        return self._within(self.group) if self.n_ready + self.in_making + self.group <= self.depth else 0

    def _within(self, group: int) -> int:
        """Return how many of so many items fit into the bytes; one where nothing else is ahead."""
        if self.limit_bytes is None or not self.largest:
            return group
        fit = (self.limit_bytes - self.ready_bytes - self.in_making * self.largest) // self.largest
        return int(min(group, max(fit, 0 if self.n_ready + self.in_making else 1)))

    def _hand_in(self, number: int, n_items: int, made: deque[Made]) -> None:
        with self.changed:
            self.working -= 1
            self.in_making -= n_items
            if self.stopped:
                return
            self.early[number] = made
            self.n_ready += len(made)
            for _, error, n_bytes in made:
                self.ready_bytes += n_bytes
                self.largest = max(self.largest, n_bytes)
                self.exhausted |= error is not None
            self.seen.most_bytes = max(self.seen.most_bytes, self.ready_bytes)
            while self.handed_in in self.early:
                self.ready.put(self.early.pop(self.handed_in))
                self.handed_in += 1
            if self.exhausted:
                self._end()
            elif self.waiting and self._room():
                self.changed.notify_all()

    def _end(self) -> None:
        """Begin nothing more; once the last group is handed in, tell the consumer."""
        self.exhausted = True
        self.changed.notify_all()
        if not self.working:
            self.ready.put(None)


_LIVE: weakref.WeakSet[_Work[Any, Any]] = weakref.WeakSet()


@atexit.register
def _stop_all() -> None:
    """End every thread before the interpreter goes: one in the middle of native code would be killed there."""
    live = list(_LIVE)
    for work in live:
        work.stop()
    for work in live:
        work.join()
