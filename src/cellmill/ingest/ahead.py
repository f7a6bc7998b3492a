"""The next item is made while this one is worked on (floor 4): one thread, a bounded number of items.

Knows iterators and events. Must not know what the items are.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Generic, TypeVar

from cellmill.events import Event, emit, listening

__all__ = ["read_ahead"]

T = TypeVar("T")


class _End:
    """No more items; the error that ended them, if one did."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


class _Item(Generic[T]):
    """An item, told apart from events whatever it is."""

    def __init__(self, value: T) -> None:
        self.value = value


@contextmanager
def read_ahead(items: Iterable[T], *, ahead: int = 1) -> Iterator[Iterator[T]]:
    """Give the same items in the same order, made by a thread that is up to `ahead` items before the one in use.

    Parameters
    ----------
    items
        What it raises is raised here, after the items that came before it. Closed at the end, in its thread.
    ahead
        Items that are ready or being made while another is in use: the bound of memory.

    Notes
    -----
    Events that the thread emits reach the listeners of this one, in order with the items. When the block is left
    early, also by Ctrl-C, the thread ends after the item that it is making.

    Examples
    --------
    >>> with read_ahead(range(3)) as numbers:
    ...     list(numbers)
    [0, 1, 2]
    """
    made: SimpleQueue[_Item[T] | Event | _End] = SimpleQueue()
    free = threading.Semaphore(ahead)
    stopped = threading.Event()

    def make() -> None:
        end = _End()
        iterator = iter(items)
        try:
            with listening(made.put):
                while free.acquire() and not stopped.is_set():
                    try:
                        value = next(iterator)
                    except StopIteration:
                        break
                    made.put(_Item(value))
                    del value  # or it would live until the next one is there
        except BaseException as error:
            end = _End(error)
        finally:
            close = getattr(iterator, "close", None)
            if close is not None:
                close()
            made.put(end)

    # a daemon, so that a read that hangs cannot keep a process alive that was told to end
    thread = threading.Thread(target=make, name="cellmill-read-ahead", daemon=True)
    thread.start()
    try:
        yield _taken(made, free)
    finally:
        stopped.set()
        free.release()
        thread.join()


def _taken(made: SimpleQueue[_Item[T] | Event | _End], free: threading.Semaphore) -> Iterator[T]:
    while True:
        got = made.get()
        if isinstance(got, Event):
            emit(got.stage, done=got.done, total=got.total, unit=got.unit, message=got.message)
        elif isinstance(got, _End):
            if got.error is not None:
                raise got.error
            return
        else:
            value = got.value
            del got
            free.release()
            yield value
            del value
