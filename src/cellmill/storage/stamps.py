"""What tells one state of a file from every other (floor 2). Pure: looks at what `stat` found, not at files."""

from __future__ import annotations

import os

__all__ = ["Stamp", "stamp_of"]

Stamp = tuple[int, ...]
"""Device, inode, size, and times of the last change of content and of status, in ns."""


def stamp_of(found: os.stat_result) -> Stamp:
    """Return the stamp of a file. The time of status cannot be set back, as `utime` sets that of content."""
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
