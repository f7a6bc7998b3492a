"""Progress as events (floor 0): the library emits, whoever listens draws.

Knows nothing of terminals; `cellmill.cli` listens and draws a bar on a terminal and plain lines in a log.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

__all__ = ["Event", "Listener", "emit", "listening"]


@dataclass(frozen=True)
class Event:
    """One piece of progress.

    Attributes
    ----------
    stage : str
        What is going on, in words for the user: "reading pbmc.h5ad".
    done, total : int
        Work finished and work in all, in `unit`; `total` is 0 when it is not known.
    unit : str
        "cells", "epochs", "shards", ...
    message : str
        A line worth keeping in a log; empty for mere movement.
    """

    stage: str
    done: int = 0
    total: int = 0
    unit: str = ""
    message: str = ""


Listener = Callable[[Event], None]
_listeners: ContextVar[tuple[Listener, ...]] = ContextVar("cellmill_listeners", default=())


def emit(stage: str, *, done: int = 0, total: int = 0, unit: str = "", message: str = "") -> None:
    """Tell every listener of this context about progress; costs nothing when nobody listens."""
    listeners = _listeners.get()
    if listeners:
        event = Event(stage=stage, done=done, total=total, unit=unit, message=message)
        for listener in listeners:
            listener(event)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Send the events of the enclosed code to `listener` as well.

    Examples
    --------
    >>> seen = []
    >>> with listening(seen.append):
    ...     emit("reading", done=1, total=2, unit="cells")
    >>> seen[0].done
    1
    """
    token = _listeners.set((*_listeners.get(), listener))
    try:
        yield
    finally:
        _listeners.reset(token)
