"""How many threads a kernel call may use (floor 1, kernel). Changes speed, never results."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["default_threads", "set_threads", "using_threads"]

_chosen: int | None = None
_here = threading.local()


def set_threads(n: int) -> None:
    """Make `n` the number of threads of calls that ask for none; 0 returns to the automatic choice.

    Raises
    ------
    ValueError
        When `n` is negative.
    """
    global _chosen
    if n < 0:
        raise ValueError(f"the number of threads must be 0 (automatic) or more, found {n}")
    _chosen = n or None


@contextmanager
def using_threads(n: int) -> Iterator[None]:
    """Make `n` the number of threads of calls that ask for none, in the calling thread alone; 0 changes nothing."""
    before: int = getattr(_here, "n", 0)
    _here.n = n or before
    try:
        yield
    finally:
        _here.n = before


def default_threads() -> int:
    """Return the number of threads of a call with ``threads=0``.

    The first that is there of: `using_threads`, `set_threads`, the environment variable CELLMILL_THREADS, the
    processors this process may run on.

    Raises
    ------
    ValueError
        When CELLMILL_THREADS is not a whole number above 0.
    """
    here: int = getattr(_here, "n", 0)
    if here:
        return here
    if _chosen is not None:
        return _chosen
    wish = os.environ.get("CELLMILL_THREADS", "").strip()
    if wish:
        if not wish.isdecimal() or int(wish) < 1:
            raise ValueError(f"CELLMILL_THREADS must be a whole number above 0, found {wish!r}")
        return int(wish)
    affinity = getattr(os, "sched_getaffinity", None)
    return max(1, len(affinity(0)) if affinity else (os.cpu_count() or 1))
