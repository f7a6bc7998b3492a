"""How many threads a kernel call may use (floor 1, kernel). Changes speed, never results."""

from __future__ import annotations

import os

__all__ = ["default_threads", "set_threads"]

_chosen: int | None = None


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


def default_threads() -> int:
    """Return the number of threads of a call with ``threads=0``.

    The first that is there of: `set_threads`, the environment variable CELLMILL_THREADS, the processors this
    process may run on.

    Raises
    ------
    ValueError
        When CELLMILL_THREADS is not a whole number above 0.
    """
    if _chosen is not None:
        return _chosen
    wish = os.environ.get("CELLMILL_THREADS", "").strip()
    if wish:
        if not wish.isdecimal() or int(wish) < 1:
            raise ValueError(f"CELLMILL_THREADS must be a whole number above 0, found {wish!r}")
        return int(wish)
    affinity = getattr(os, "sched_getaffinity", None)
    return max(1, len(affinity(0)) if affinity else (os.cpu_count() or 1))
