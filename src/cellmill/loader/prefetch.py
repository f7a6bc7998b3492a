"""Work ahead of the consumer (floor 6, loader): one thread, a bounded number of results and bytes. Knows no cells."""

from __future__ import annotations

import atexit
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

__all__ = ["Ahead", "prefetched"]

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass
class Ahead:
    """What the thread that works ahead saw.

    Attributes
    ----------
    full_seconds : float
        Time that it waited because enough was made ahead: the consumer was slower.
    most_bytes : int
        The most bytes of results that lay ready at once.
    """

    full_seconds: float = 0.0
    most_bytes: int = 0


def prefetched(
    make: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    depth: int,
    limit_bytes: int | None = None,
    size: Callable[[Result], int] = lambda result: 0,
    seen: Ahead | None = None,
) -> Iterator[Result]:
    """Yield `make(item)` for each item, in order, made ahead by one thread.

    An exception in `make` is raised where its result would have come. The thread ends when the generator does, also
    when it is closed or dropped early. After a fork the child cannot go on with the parent's generator and is told so.

    Parameters
    ----------
    depth
        Results made ahead, at most; 0 for no thread.
    limit_bytes
        Results that lie ready, and one more as large as the largest so far, stay within it; so only a result that is
        larger than all before it goes beyond. One is always made, however large.
    size
        Bytes of a result.
    seen
        Where to note what the thread saw.

    Raises
    ------
    RuntimeError
        When a forked child goes on with an iteration that its parent began.
    """
    if depth <= 0:
        for item in items:
            yield make(item)
        return
    work = _Work(make, iter(items), depth, limit_bytes, size, seen or Ahead())
    try:
        work.start()
        while True:
            work.check_process()
            ready = work.take()
            if ready is None:
                return
            result, error = ready
            if error is not None:
                raise error
            del ready
            yield result
            del result  # what the consumer lets go of is not held here
    finally:
        work.stop()


@dataclass(eq=False)
class _Work(Generic[Item, Result]):
    """The thread and its queue. Holds no reference to the generator, so that dropping that one ends the thread."""

    make: Callable[[Item], Result]
    items: Iterator[Item]
    depth: int
    limit_bytes: int | None
    size: Callable[[Result], int]
    seen: Ahead
    owner: int = field(default_factory=os.getpid)
    changed: threading.Condition = field(default_factory=threading.Condition)
    ready: deque[tuple[Any, BaseException | None, int]] = field(default_factory=deque)
    ready_bytes: int = 0
    largest: int = 0
    stopped: bool = False
    ended: bool = False
    thread: threading.Thread | None = None

    def start(self) -> None:
        # a daemon, and stopped by `_stop_all`: an iteration that is never closed must not keep the process from ending
        self.thread = threading.Thread(target=self._run, name="cellmill-prefetch", daemon=True)
        _LIVE.add(self)
        self.thread.start()

    def check_process(self) -> None:
        if os.getpid() != self.owner:
            raise RuntimeError("this iteration was begun by the parent process; call iter() anew after a fork")

    def take(self) -> tuple[Any, BaseException | None] | None:
        """Return the next result or its error; None after the last one."""
        with self.changed:
            while not self.ready and not self.ended:
                self.changed.wait()
            if not self.ready:
                return None
            result, error, n_bytes = self.ready.popleft()
            self.ready_bytes -= n_bytes
            self.changed.notify_all()
        return result, error

    def stop(self) -> None:
        """End the thread and wait for it; what lies ready is let go of."""
        if os.getpid() != self.owner:  # in a forked child the thread does not exist, and the lock may be held for ever
            return
        with self.changed:
            self.stopped = True
            self.ready.clear()
            self.changed.notify_all()
        if self.thread is not None and self.thread.ident is not None and self.thread is not threading.current_thread():
            self.thread.join()
        _LIVE.discard(self)

    def _run(self) -> None:
        try:
            for item in self.items:
                if not self._wait_for_room():
                    return
                result = self.make(item)
                self._put(result, None, self.size(result))
                del result
        except BaseException as error:  # handed over: the consumer raises it
            self._put(None, error, 0)
        finally:
            with self.changed:
                self.ended = True
                self.changed.notify_all()

    def _wait_for_room(self) -> bool:
        """Wait until there is room for one more result; False when nobody wants it."""
        with self.changed:
            if not self._is_full() or self.stopped:
                return not self.stopped
            began = time.perf_counter()
            while self._is_full() and not self.stopped:
                self.changed.wait()
            self.seen.full_seconds += time.perf_counter() - began
            return not self.stopped

    def _is_full(self) -> bool:
        if not self.ready:
            return False
        too_large = self.limit_bytes is not None and self.ready_bytes + self.largest > self.limit_bytes
        return len(self.ready) >= self.depth or too_large

    def _put(self, result: Any, error: BaseException | None, n_bytes: int) -> None:
        with self.changed:
            if self.stopped:
                return
            self.ready.append((result, error, n_bytes))
            self.ready_bytes += n_bytes
            self.largest = max(self.largest, n_bytes)
            self.seen.most_bytes = max(self.seen.most_bytes, self.ready_bytes)
            self.changed.notify_all()


_LIVE: weakref.WeakSet[_Work[Any, Any]] = weakref.WeakSet()


@atexit.register
def _stop_all() -> None:
    """End every thread before the interpreter goes: one in the middle of native code would be killed there."""
    for work in list(_LIVE):
        work.stop()
