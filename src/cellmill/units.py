"""Numbers as people read them (floor 0): bytes, seconds, counts. Pure."""

from __future__ import annotations

import math

__all__ = ["count_text", "plural", "share_text", "size_text", "time_text"]


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


def plural(n: int, noun: str, nouns: str | None = None) -> str:
    """Return a number with its noun, which is in the singular for one alone.

    Examples
    --------
    >>> plural(1, "cell"), plural(1200, "cell"), plural(2, "process", "processes")
    ('1 cell', '1,200 cells', '2 processes')
    """
    return f"{count_text(n)} {noun if n == 1 else nouns or f'{noun}s'}"


def share_text(share: float, *, digits: int = 1) -> str:
    """Return a share in percent, rounded down, so that 100 % is said of all alone, and 0 % of nothing.

    Examples
    --------
    >>> share_text(18_704 / 18_708), share_text(1.0), share_text(1e-9), share_text(0.0), share_text(0.29, digits=0)
    ('99.9%', '100.0%', '<0.1%', '0.0%', '29%')
    """
    steps = 10 ** (digits + 2)
    whole = math.floor(share * steps + 1e-9)  # 0.29 of 100 is a hair less than 29 in floating point
    if share < 1:
        whole = min(whole, steps - 1)
    return f"<{1 / steps:.{digits}%}" if share > 0 and not whole else f"{whole / steps:.{digits}%}"
