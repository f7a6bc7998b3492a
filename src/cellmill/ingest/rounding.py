"""Values that are almost whole, rounded where the caller allows it and counted (floor 4, pure)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from cellmill.sources import CountBlock

__all__ = ["LARGEST_ROUNDING", "Rounded", "round_block"]

LARGEST_ROUNDING = 0.1  # beyond, normalised values would become counts


@dataclass(frozen=True)
class Rounded:
    """What was rounded.

    Attributes
    ----------
    values : int
        How many values were not whole and are now.
    largest_distance : float
        How far the farthest of them was from a whole number.
    """

    values: int = 0
    largest_distance: float = 0.0

    def __add__(self, other: Rounded) -> Rounded:
        return Rounded(self.values + other.values, max(self.largest_distance, other.largest_distance))


def round_block(block: CountBlock, allowed: float) -> tuple[CountBlock, Rounded]:
    """Return a block whose values within `allowed` of a whole number are that number; others stay, to be refused.

    Notes
    -----
    A value is rounded by itself, before entries of the same cell and gene are summed. With 0 allowed, and for values
    of a whole type, the block itself is returned.
    """
    if not allowed or block.data.dtype.kind != "f":
        return block, Rounded()
    whole = np.rint(block.data)
    with np.errstate(invalid="ignore"):
        distance = np.abs(block.data.astype(np.float64) - whole)
        near = (distance > 0) & (distance <= allowed)
    if not near.any():
        return block, Rounded()
    rounded = Rounded(int(np.count_nonzero(near)), float(distance[near].max()))
    return replace(block, data=np.where(near, whole, block.data)), rounded
