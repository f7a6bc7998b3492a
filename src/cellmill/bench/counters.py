"""What the operating system counts of this process (floor 4, bench). Knows /proc and getrusage only."""

from __future__ import annotations

import resource
import time
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Counters", "anonymous_bytes"]


@dataclass(frozen=True)
class Counters:
    """A moment, or the difference of two.

    Attributes
    ----------
    wall_seconds, cpu_seconds : float
        CPU of all threads of the process.
    major_faults, minor_faults : int
        Page faults that had to wait for the disk, and that did not.
    disk_bytes : int or None
        Bytes fetched from the disk on behalf of this process; None where the system does not tell.
    """

    wall_seconds: float
    cpu_seconds: float
    major_faults: int
    minor_faults: int
    disk_bytes: int | None

    @classmethod
    def now(cls) -> Counters:
        """Return the counters as they stand."""
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return cls(
            wall_seconds=time.perf_counter(),
            cpu_seconds=time.process_time(),
            major_faults=usage.ru_majflt,
            minor_faults=usage.ru_minflt,
            disk_bytes=_disk_bytes(),
        )

    def __sub__(self, before: Counters) -> Counters:
        known = self.disk_bytes is not None and before.disk_bytes is not None
        return Counters(
            wall_seconds=self.wall_seconds - before.wall_seconds,
            cpu_seconds=self.cpu_seconds - before.cpu_seconds,
            major_faults=self.major_faults - before.major_faults,
            minor_faults=self.minor_faults - before.minor_faults,
            disk_bytes=(self.disk_bytes or 0) - (before.disk_bytes or 0) if known else None,
        )


def anonymous_bytes() -> int | None:
    """Return the memory of this process that is its own, mapped pages of files aside; None where it is not told."""
    return _field(Path("/proc/self/status"), "RssAnon:", 1024)


def _disk_bytes() -> int | None:
    return _field(Path("/proc/self/io"), "read_bytes:", 1)


def _field(path: Path, name: str, unit: int) -> int | None:
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        if line.startswith(name):
            return int(line.split()[1]) * unit
    return None
