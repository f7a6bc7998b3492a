"""Numbers as people read them (floor 0): bytes, seconds, counts. Pure."""

from __future__ import annotations

__all__ = ["count_text", "size_text", "time_text"]


def size_text(n_bytes: float) -> str:
    """Return a byte count in binary units.

    Examples
    --------
    >>> size_text(1536)
    '1.5 KiB'
    """
    size = float(n_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(size) < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def time_text(seconds: float) -> str:
    """Return a duration as people say it.

    Examples
    --------
    >>> time_text(75.2)
    '1 min 15 s'
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"


def count_text(n: int) -> str:
    """Return a whole number with thousands separated.

    Examples
    --------
    >>> count_text(1234567)
    '1,234,567'
    """
    return f"{n:,}"
