"""Keys for keyed randomness, in plain Python integers (floor 1, kernel).

Knows mix64 and FNV-1a; knows nothing of arrays, cells or files.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

__all__ = ["GAMMA", "MASK64", "derive_key", "mix64_int"]

MASK64: Final = (1 << 64) - 1
GAMMA: Final = 0x9E3779B97F4A7C15


def mix64_int(x: int) -> int:
    """Return one step of SplitMix64 seeded with `x`, as an int in 0..2^64-1.

    Notes
    -----
    Modulo 2^64: ``z = x + 0x9E3779B97F4A7C15``, ``z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9``,
    ``z = (z ^ z >> 27) * 0x94D049BB133111EB``, and the result is ``z ^ z >> 31``.
    Source: Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators".
    """
    z = (x + GAMMA) & MASK64
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK64
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK64
    return z ^ (z >> 31)


def derive_key(seed: int, purpose: str, *parts: int) -> int:
    """Return the key of one random decision: a u64 that depends on `seed`, `purpose` and every part, in order.

    Parameters
    ----------
    seed : int
        0 <= seed < 2^64.
    purpose : str
        What the randomness is for, such as "order" or "split". Keys of two purposes have nothing to do with each other.
    *parts : int
        For instance the epoch; each in 0..2^64-1.

    Raises
    ------
    ValueError
        When the seed or a part does not fit into 64 bits.

    Notes
    -----
    ``k = mix64(seed); k = mix64(k ^ fnv1a64(utf8(purpose)))``, then ``k = mix64(k ^ part)`` for each part.

    Examples
    --------
    >>> derive_key(0, "order", 1) == derive_key(0, "order", 1) != derive_key(0, "order", 2)
    True
    """
    for name, number in [("seed", seed), *(("part", part) for part in parts)]:
        if not 0 <= int(number) <= MASK64:
            raise ValueError(f"{name} of a key must lie in 0..2^64-1, found {number}")
    return _key(int(seed), purpose, tuple(map(int, parts)))


@lru_cache(maxsize=4096)  # every batch asks for the same few
def _key(seed: int, purpose: str, parts: tuple[int, ...]) -> int:
    fnv = 0xCBF29CE484222325
    for byte in purpose.encode():
        fnv = ((fnv ^ byte) * 0x100000001B3) & MASK64
    key = mix64_int(mix64_int(seed) ^ fnv)
    for part in parts:
        key = mix64_int(key ^ part)
    return key
