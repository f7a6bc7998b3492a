"""Keyed randomness in NumPy: mix64, counter-based numbers per cell, and a keyed bijection (floor 1, kernel)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from cellmill.kernel.keys import GAMMA, MASK64, mix64_int

__all__ = ["FEISTEL_ROUNDS", "keyed_u64", "mix64", "permute"]

U64 = npt.NDArray[np.uint64]
FEISTEL_ROUNDS = 8


def mix64(x: U64) -> U64:
    """Return one SplitMix64 step of each u64 of `x`; see `keys.mix64_int` for the formula."""
    z = x + np.uint64(GAMMA)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def keyed_u64(key: int, uids: U64, counter: int) -> U64:
    """Return mix64(mix64(mix64(key) + counter * GAMMA) ^ mix64(uid)) for each uid."""
    stream = mix64_int((mix64_int(key) + counter * GAMMA) & MASK64)
    return mix64(np.uint64(stream) ^ mix64(uids))


def permute(positions: U64, n: int, key: int) -> U64:
    """Return the image of each position under the keyed bijection of 0..n-1; positions are already below n.

    Notes
    -----
    A balanced Feistel network of 8 rounds on 2h bits, 4^h being the smallest power of four that is at least n (and 4),
    walked until the image is below n. Round r: (L, R) -> (R, L ^ (mix64(R ^ mix64(key + r * GAMMA)) mod 2^h)).
    """
    half = max(1, ((n - 1).bit_length() + 1) // 2)
    shift, mask = np.uint64(half), np.uint64((1 << half) - 1)
    round_keys = [np.uint64(mix64_int((key + r * GAMMA) & MASK64)) for r in range(FEISTEL_ROUNDS)]
    image = positions.copy()
    walking = np.arange(len(image))
    while len(walking):
        x = image[walking]
        left, right = x >> shift, x & mask
        for round_key in round_keys:
            left, right = right, left ^ (mix64(right ^ round_key) & mask)
        x = (left << shift) | right
        image[walking] = x
        walking = walking[x >= np.uint64(n)]
    return image
