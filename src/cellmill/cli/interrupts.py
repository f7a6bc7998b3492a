"""Ctrl-C that is not lost (floor 9): some libraries take a KeyboardInterrupt for a failure of their own and go on.

What they swallow is remembered, and raised again at the next event of the library or at the end of the command.
"""

from __future__ import annotations

import signal
import sys
import threading
from types import FrameType

from cellmill.events import Event

__all__ = ["raise_if_swallowed", "remember_interrupts", "was_interrupted"]

_interrupted = threading.Event()


def remember_interrupts() -> None:
    """Let Ctrl-C raise KeyboardInterrupt, as it does, and be remembered."""
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, _interrupt)


def was_interrupted() -> bool:
    """Return whether Ctrl-C was pressed, whatever became of it."""
    return _interrupted.is_set()


def raise_if_swallowed(event: Event) -> None:
    """Listen to events: raise KeyboardInterrupt when one was raised before and nobody is dealing with it."""
    del event
    if _interrupted.is_set() and threading.current_thread() is threading.main_thread() and sys.exc_info()[0] is None:
        raise KeyboardInterrupt


def _interrupt(number: int, frame: FrameType | None) -> None:
    del number, frame
    _interrupted.set()
    raise KeyboardInterrupt
