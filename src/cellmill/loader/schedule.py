"""Steps as arithmetic (floor 6, loader): which positions of the run a step takes, on which rank. Pure numbers."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt

from cellmill.errors import ConfigError, nearest

__all__ = ["Last", "Schedule", "Step", "whole_number"]

I64 = npt.NDArray[np.int64]
Last = Literal["keep", "drop", "pad"]


def whole_number(name: str, value: object, *, least: int) -> int:
    """Return a whole number, NumPy's too, as an int.

    Raises
    ------
    ConfigError
        For anything else, and below `least`.
    """
    try:
        number = -1 if isinstance(value, bool) else operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        number = -1
    if number < least:
        raise ConfigError(f"{name} must be a whole number of at least {least}, found {value!r}")
    return number


class Step(NamedTuple):
    """One global step as one rank sees it.

    Attributes
    ----------
    epoch, number : int
        Epoch, and number of the step within it.
    positions : int64 array
        Positions of the run that this rank reads.
    padding : bool array or None
        True where a position only fills up the last batch; None when there is nothing to fill.
    after : int
        Positions used up by all ranks once this step is done.
    """

    epoch: int
    number: int
    positions: I64
    padding: npt.NDArray[np.bool_] | None
    after: int


@dataclass(frozen=True)
class Schedule:
    """How epochs of `n_draws` positions fall into global batches, and batches into ranks.

    Global step t of an epoch takes the positions [t * batch_size, (t + 1) * batch_size) of it, whatever the number of
    ranks; rank r of R takes its slice of those. No batch goes across the end of an epoch.
    """

    n_draws: int
    batch_size: int
    last: Last = "keep"
    rank: int = 0
    world_size: int = 1
    what: str = "cells"  # what a position stands for, in messages

    def __post_init__(self) -> None:
        object.__setattr__(self, "batch_size", whole_number("batch_size", self.batch_size, least=1))
        if self.last not in get_args(Last):
            raise ConfigError(
                f"last must be one of keep, drop, pad, found {self.last!r}.{nearest(str(self.last), get_args(Last))}"
            )
        object.__setattr__(self, "world_size", whole_number("world_size", self.world_size, least=1))
        object.__setattr__(self, "rank", whole_number("rank", self.rank, least=0))
        if self.rank >= self.world_size:
            raise ConfigError(f"rank must be in 0..world_size-1, found rank={self.rank}, world_size={self.world_size}")
        if self.batch_size < self.world_size:
            raise ConfigError(
                f"batch_size={self.batch_size} is the size of the global batch, over all ranks, "
                f"and {self.batch_size} {self.what} are fewer than the {self.world_size} ranks"
            )
        self.check(0)

    def check(self, position: int) -> None:
        """Raise ConfigError if some step of the epoch at `position` has no cell for some rank."""
        left = self.n_draws - position % self.n_draws
        rest = left % self.batch_size
        if self.last == "keep" and 0 < rest < self.world_size:
            raise ConfigError(
                f"the last batch of an epoch has {rest} {self.what}, fewer than the {self.world_size} ranks, which "
                "would leave ranks waiting for each other; choose last='drop', last='pad', or another batch_size"
            )
        if self.last == "drop" and self.n_draws < self.batch_size:
            raise ConfigError(
                f"last='drop' leaves nothing: an epoch has {self.n_draws} {self.what}, a batch {self.batch_size}. "
                "Choose a smaller batch_size, or last='keep'"
            )

    @property
    def steps_per_epoch(self) -> int:
        """Steps of a whole epoch; the same on every rank."""
        return self._count(self.n_draws)

    def steps_to(self, end_epoch: int, *, start: int) -> int:
        """Return the number of steps from position `start` to the beginning of epoch `end_epoch`."""
        epoch, offset = divmod(start, self.n_draws)
        return self._count(self.n_draws - offset) + (end_epoch - epoch - 1) * self.steps_per_epoch

    def step(self, index: int, *, start: int) -> Step:
        """Return the `index`-th step after position `start`."""
        epoch, offset = divmod(start, self.n_draws)
        first = self._count(self.n_draws - offset)
        if index >= first:
            more, number = divmod(index - first, self.steps_per_epoch)
            epoch, offset, begin = epoch + 1 + more, 0, number * self.batch_size
        else:
            begin = offset + index * self.batch_size
        count = min(self.batch_size, self.n_draws - begin)
        ends = begin + 2 * self.batch_size > self.n_draws if self.last == "drop" else begin + count == self.n_draws
        size = self.batch_size if self.last == "pad" else count
        mine = np.arange(size * self.rank // self.world_size, size * (self.rank + 1) // self.world_size, dtype=np.int64)
        return Step(
            epoch=epoch,
            number=begin // self.batch_size,
            positions=epoch * self.n_draws + (begin + mine) % self.n_draws,
            padding=mine >= count if size > count else None,
            after=(epoch + 1) * self.n_draws if ends else epoch * self.n_draws + begin + count,
        )

    def _count(self, n_positions: int) -> int:
        whole, rest = divmod(n_positions, self.batch_size)
        return whole + (1 if rest and self.last != "drop" else 0)
