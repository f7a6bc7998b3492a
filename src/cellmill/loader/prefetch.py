"""Work ahead of the consumer (floor 6, loader): one thread, a bounded number of results. Knows nothing of cells."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

__all__ = ["prefetched"]

Item = TypeVar("Item")
Result = TypeVar("Result")


def prefetched(make: Callable[[Item], Result], items: Iterable[Item], *, depth: int) -> Iterator[Result]:
    """Yield `make(item)` for each item, in order, made up to `depth` items ahead by one thread.

    An exception in `make` is raised where its result would have come. The thread ends when the generator does, also
    when it is closed or dropped early. After a fork the child cannot go on with the parent's generator and is told so.

    Raises
    ------
    RuntimeError
        When a forked child goes on with an iteration that its parent began.
    """
    if depth <= 0:
        for item in items:
            yield make(item)
        return
    owner = os.getpid()
    executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="cellmill-prefetch")
    source = iter(items)
    try:
        pending: deque[Future[Result]] = deque(executor.submit(make, item) for item in islice(source, depth))
        while pending:
            if os.getpid() != owner:
                raise RuntimeError("this iteration was begun by the parent process; call iter() anew after a fork")
            result = pending.popleft().result()
            pending.extend(executor.submit(make, item) for item in islice(source, 1))
            yield result
    finally:
        if os.getpid() == owner:  # in a forked child the thread does not exist, and waiting for it would be for ever
            executor.shutdown(wait=True, cancel_futures=True)
