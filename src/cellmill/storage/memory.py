"""How much memory this process may use (floor 2, storage), what its container allows included."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["available_memory", "total_memory"]

_CGROUP = Path("/sys/fs/cgroup")
_MEMINFO = Path("/proc/meminfo")


def total_memory() -> int | None:
    """Return bytes of memory that this process may use, None where the system does not say."""
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None
    limit = _cgroup_bytes("memory.max")  # a container may be allowed less than the machine has
    return total if limit is None else min(total, limit)


def available_memory() -> int:
    """Return bytes of memory that could be taken now, 0 where the system does not say; caches count as free."""
    try:
        lines = _MEMINFO.read_text().splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError, IndexError):
        return 0
    limit, used = _cgroup_bytes("memory.max"), _cgroup_bytes("memory.current")
    return free if limit is None or used is None else min(free, max(0, limit - used + _cgroup_cache_bytes()))


def _cgroup_cache_bytes() -> int:
    """Return bytes of files that the container holds in memory, which give way to whoever needs it."""
    try:
        pairs = dict(line.split() for line in (_CGROUP / "memory.stat").read_text().splitlines())
        return int(pairs["inactive_file"]) + int(pairs["active_file"])
    except (OSError, ValueError, KeyError):
        return 0


def _cgroup_bytes(name: str) -> int | None:
    try:
        text = (_CGROUP / name).read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None
