"""The order of training as a pure function (floor 4, mixture): position -> index, nothing stored.

Knows numbers only: how many things there are, which position is asked for, which key. Knows no store, cell or file.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from cellmill.errors import ConfigError, nearest
from cellmill.kernel import derive_key, permute

__all__ = ["Blocked", "Exact", "Order", "Stored", "by_group", "choose_order"]

I64 = npt.NDArray[np.int64]

BLOCK_CELLS = 64
# at least this many distinct blocks in a window for each cell of a batch: the label mix of a batch is then within
# about 6 % of the deficit of true random order
BLOCKS_PER_BATCH_CELL = 16


class Order(Protocol):
    """A family of keyed bijections of 0..n-1."""

    def index(self, positions: I64, n: int, key: int) -> I64:
        """Return the image of each position, int64[k], under the bijection of 0..n-1 that `key` names."""
        ...

    def to_dict(self) -> dict[str, int | str]:
        """Return the settings as JSON values."""
        ...


@dataclass(frozen=True)
class Exact:
    """Every index may follow every index. For data whose random reads are cheap."""

    def index(self, positions: I64, n: int, key: int) -> I64:
        """Return the image of each position, int64[k], in 0..n-1; cost does not depend on n."""
        return permute(positions.astype(np.uint64), n, key).view(np.int64)  # both far below 2^63

    def to_dict(self) -> dict[str, int | str]:
        """Return the settings as JSON values."""
        return {"kind": "exact"}


@dataclass(frozen=True)
class Blocked:
    """Blocks of neighbours are shuffled, and the cells of each window of blocks: for cold or remote data.

    Parameters
    ----------
    block_cells
        Neighbours that are read together.
    window_blocks
        Distinct blocks that are mixed with each other; at least 16 for each cell of a batch.

    Notes
    -----
    The index space is first rotated by a keyed offset, so that the short block at its end, and the borders of the
    blocks, lie elsewhere in every epoch. The last window takes the blocks that are left over, so no window is smaller
    than `window_blocks` unless all of the data is.

    Source: the block and window scheme of CorgiPile (arXiv 2206.05830); the entropy of its batches is a formula of
    the number of blocks in a window.
    """

    block_cells: int = BLOCK_CELLS
    window_blocks: int = 512 * BLOCKS_PER_BATCH_CELL

    def __post_init__(self) -> None:
        if self.block_cells < 1 or self.window_blocks < 1:
            raise ConfigError(f"blocks and windows hold at least one cell and one block, found {self}")

    def index(self, positions: I64, n: int, key: int) -> I64:
        """Return the image of each position, int64[k], in 0..n-1; cost does not depend on n."""
        size = self.block_cells
        n_blocks = n // size  # whole ones; the short rest is the last slot before rotation
        window_cells = size * self.window_blocks
        n_windows = max(1, n // window_cells)
        window = np.minimum(positions // window_cells, n_windows - 1)

        def mixed(at: I64, w: int) -> I64:
            start = w * window_cells
            length = window_cells if w < n_windows - 1 else n - start
            inner = permute((at - start).astype(np.uint64), length, derive_key(key, "window", w))
            return start + inner.astype(np.int64)

        slot, offset = np.divmod(by_group(window, positions, mixed), size)
        whole = slot < n_blocks
        block = slot.copy()
        if n_blocks:
            shuffled = permute(slot[whole].astype(np.uint64), n_blocks, derive_key(key, "blocks"))
            block[whole] = shuffled.astype(np.int64)
        return (block * size + offset + derive_key(key, "rotation") % n) % n

    def to_dict(self) -> dict[str, int | str]:
        """Return the settings as JSON values."""
        return {"kind": "blocked", "block_cells": self.block_cells, "window_blocks": self.window_blocks}


@dataclass(frozen=True)
class Stored:
    """No shuffling: components, stores and rows one after the other. For evaluation, never for training."""

    def index(self, positions: I64, n: int, key: int) -> I64:
        """Return the positions themselves, int64[k]."""
        del n, key
        return positions

    def to_dict(self) -> dict[str, int | str]:
        """Return the settings as JSON values."""
        return {"kind": "stored"}


def choose_order(order: str | Order, *, batch_size: int) -> Order:
    """Return the order behind a name: "exact", "stored", or "blocked" with a window wide enough for the batches.

    Raises
    ------
    ConfigError
        For another name.
    """
    if not isinstance(order, str):
        return order
    if order == "exact":
        return Exact()
    if order == "blocked":
        return Blocked(block_cells=BLOCK_CELLS, window_blocks=BLOCKS_PER_BATCH_CELL * batch_size)
    if order == "stored":
        return Stored()
    known = ("exact", "blocked", "stored")
    raise ConfigError(f"order must be one of {', '.join(known)}, found {order!r}.{nearest(order, known)}")


def by_group(groups: I64, positions: I64, function: Callable[[I64, int], I64]) -> I64:
    """Return `function(positions of one group, that group)` for each group, put back in place; int64[k]."""
    if not len(groups):
        return np.empty(0, dtype=np.int64)
    first = int(groups[0])
    if (groups == first).all():
        return function(positions, first)
    out = np.empty(len(positions), dtype=np.int64)
    for group in np.unique(groups):
        here = groups == group
        out[here] = function(positions[here], int(group))
    return out
