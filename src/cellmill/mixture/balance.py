"""How often each cell of a component is drawn, where not all are drawn alike (floor 4, mixture). Pure: numbers only.

Two ways, both exact in every pass over the component and in closed form, so that any draw is known alone: classes
(`Grouped`), each with a whole number of draws, and weights of single cells (`Weighted`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from cellmill.errors import MixtureError
from cellmill.kernel import derive_key, keyed_uniform
from cellmill.mixture.quotas import largest_remainder

__all__ = ["Grouped", "Weighted", "capped_weights", "class_draws", "even_quotas"]

I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Grouped:
    """Cells in classes; a pass draws a fixed number of each class.

    Attributes
    ----------
    members : int64[n_cells]
        Cells by index, class after class; within a class in the order in which they get their turn.
    starts : int64[n_classes + 1]
        Where each class begins in `members`.
    draws : int64[n_classes]
        Draws of each class in a pass. Each of its cells is drawn draws // size times, and draws % size of them once
        more: other ones in the next pass, around, so that no cell is ahead of another one by more than one draw.
    """

    members: I64
    starts: I64
    draws: I64

    @cached_property
    def slot_starts(self) -> I64:
        """First slot of each class in a pass, and the number of slots; int64[n_classes + 1]."""
        return np.concatenate([[0], np.cumsum(self.draws)]).astype(np.int64)

    @property
    def n_slots(self) -> int:
        """Draws in one pass."""
        return int(self.slot_starts[-1])

    def cells_at(self, slots: I64, number: I64) -> I64:
        """Return the index of the cell in each slot of a pass, int64[k]; `number` is the pass of each."""
        of = np.searchsorted(self.slot_starts, slots, side="right") - 1
        inside = slots - self.slot_starts[of]
        size = self.starts[of + 1] - self.starts[of]
        extra = self.draws[of] % size
        whole = self.draws[of] - extra
        turn = np.where(inside < whole, inside, number * extra + inside - whole) % size
        index: I64 = self.members[self.starts[of] + turn]
        return index

    @property
    def n_never(self) -> int:
        """Cells that no pass draws: those of classes without a draw."""
        return int(np.diff(self.starts)[self.draws == 0].sum())

    @property
    def most_repeats(self) -> float:
        """Draws of a cell in a pass, in the class that is drawn most."""
        return float((self.draws / np.diff(self.starts)).max())

    def digest(self) -> str:
        """Return a hash of what decides the draws."""
        return _digest(self.members, self.starts, self.draws)


@dataclass(frozen=True)
class Weighted:
    """Cells with weights; a pass draws each of them its expected number of times, rounded down or up.

    Attributes
    ----------
    upto : float64[n_cells + 1]
        Weights of the cells before each, and of all; what is drawn are `n_slots` points at equal distances.
    n_slots : int
        Draws in one pass.
    seed : int
        Of where the points of a pass begin, so that over many passes each cell comes as often as its weight says.

    Notes
    -----
    Systematic sampling with a random start (Madow, Ann. Math. Stat. 20, 1949): inclusion is exactly proportional to
    weight, and the numbers of draws of one pass differ from what is expected by less than one.
    """

    upto: F64
    n_slots: int
    seed: int

    def cells_at(self, slots: I64, number: I64) -> I64:
        """Return the index of the cell in each slot of a pass, int64[k]; `number` is the pass of each."""
        passes, of = np.unique(number, return_inverse=True)
        begin = keyed_uniform(derive_key(self.seed, "weights"), passes.astype(np.uint64))[of]
        points = (slots + begin) / self.n_slots * self.upto[-1]
        # a point that rounding puts at the very end belongs to the last cell with a weight
        last = np.searchsorted(self.upto, self.upto[-1]) - 1
        index: I64 = np.minimum(np.searchsorted(self.upto, points, side="right") - 1, last).astype(np.int64)
        return index

    @property
    def n_never(self) -> int:
        """Cells that no pass draws: those of weight 0."""
        return int(np.count_nonzero(np.diff(self.upto) == 0))

    @property
    def most_repeats(self) -> float:
        """Draws of a cell in a pass that are expected, of the cell of the largest weight."""
        return float(np.diff(self.upto).max() / self.upto[-1] * self.n_slots)

    def digest(self) -> str:
        """Return a hash of what decides the draws."""
        return _digest(self.upto, np.array([self.n_slots, self.seed], dtype=np.uint64))


def class_draws(
    sizes: Sequence[int],
    total: int,
    *,
    temperature: float = 1.0,
    weights: Sequence[float] | None = None,
    floor: float = 0.0,
    max_repeat: float | None = None,
) -> list[int]:
    """Return how often each class is drawn in a pass, whole numbers that add up to `total`.

    Parameters
    ----------
    sizes
        Cells of each class, 1 or more.
    total
        Draws of a pass.
    temperature
        A class has a share in proportion to size ** (1 / temperature): 1 leaves sizes as they are, 2 evens them out,
        infinity draws all classes alike.
    weights
        Shares of the classes instead, up to a factor. A class of weight 0 is never drawn.
    floor
        Least share of each class that is drawn at all.
    max_repeat
        Most draws of one cell in a pass; what a class may not take is shared by the others.

    Raises
    ------
    MixtureError
        When floors add up to more than all, or `max_repeat` leaves too few draws.

    Examples
    --------
    >>> class_draws([900, 90, 10], 1000, temperature=float("inf"), max_repeat=5)
    [500, 450, 50]
    """
    if weights is not None and 0 in weights:
        used = [i for i, weight in enumerate(weights) if weight]
        inner = class_draws(
            [sizes[i] for i in used], total, weights=[weights[i] for i in used], floor=floor, max_repeat=max_repeat
        )
        drawn = dict(zip(used, inner, strict=True))
        return [drawn.get(i, 0) for i in range(len(sizes))]
    n = np.asarray(sizes, dtype=np.float64)
    shares = n ** (1.0 / temperature) if weights is None else np.asarray(weights, dtype=np.float64)
    shares = _with_floor(shares / shares.sum(), floor)
    most = np.full(len(n), float(total)) if max_repeat is None else np.floor(n * max_repeat + 1e-9)
    if most.sum() < total:
        raise MixtureError(
            f"max_repeat={max_repeat:g} allows {most.sum():,.0f} draws of {n.sum():,.0f} cells, but a pass has "
            f"{total:,}; allow more repeats, or ask for fewer draws"
        )
    draws = _whole(_with_cap(shares * total, most), most, total)
    return [int(draw) for draw in draws]


def _with_floor(shares: F64, floor: float) -> F64:
    """Raise shares below the floor to it, and take that from the others in proportion."""
    if floor * len(shares) > 1 + 1e-9:
        raise MixtureError(
            f"floor={floor:g} for each of {len(shares)} classes is more than all; at most {1 / len(shares):g}"
        )
    low = np.zeros(len(shares), dtype=bool)
    while True:
        rest = 1 - floor * low.sum()
        others = shares[~low].sum()
        scaled = np.where(low, floor, shares * (rest / others if others else 0.0))
        below = ~low & (scaled < floor)
        if not below.any():
            return scaled
        low |= below


def _with_cap(wanted: F64, most: F64) -> F64:
    """Cut what is above `most`, and give that to the others in proportion."""
    total, full = wanted.sum(), np.zeros(len(wanted), dtype=bool)
    while True:
        rest = total - most[full].sum()
        others = wanted[~full].sum()
        scaled = np.where(full, most, wanted * (rest / others if others else 0.0))
        above = ~full & (scaled > most)
        if not above.any():
            return scaled
        full |= above


def _whole(wanted: F64, most: F64, total: int) -> I64:
    """Round to whole draws that add up, none above `most`, and none without a draw while there are enough."""
    draws = np.array(largest_remainder(wanted.tolist(), total), dtype=np.int64)
    draws = np.minimum(draws, most.astype(np.int64))
    if total >= len(draws):
        draws = np.maximum(draws, np.minimum(1, most.astype(np.int64)))
    while (left := total - int(draws.sum())) != 0:
        room = draws < most if left > 0 else draws > 1
        order = np.argsort(-(wanted - draws) * np.sign(left), kind="stable")
        chosen = order[room[order]][: abs(left)]
        draws[chosen] += int(np.sign(left))
    return draws


def capped_weights(weights: F64, total: int, *, max_repeat: float | None) -> F64:
    """Return weights of cells, those lowered that would be drawn more than `max_repeat` times in `total` draws.

    Raises
    ------
    MixtureError
        When there are too few cells with a weight for so many draws.
    """
    if max_repeat is None:
        return weights
    held = np.count_nonzero(weights)
    if held * max_repeat < total:
        raise MixtureError(
            f"max_repeat={max_repeat:g} allows {held * max_repeat:,.0f} draws of {held:,} cells with a weight, but a "
            f"pass has {total:,}; allow more repeats, or ask for fewer draws"
        )
    positive = weights > 0
    capped = np.zeros(len(weights))
    capped[positive] = _with_cap(weights[positive] / weights.sum() * total, np.full(held, float(max_repeat)))
    return capped


def even_quotas(sizes: Sequence[int], total: int) -> list[int]:
    """Return how many cells to take of each class so that all have the same, as far as they have so many.

    Water filling: small classes are taken whole, the others get the same number, what does not divide goes to the
    largest. A larger total takes no fewer of any class.

    Raises
    ------
    MixtureError
        When there are fewer cells than `total`.

    Examples
    --------
    >>> even_quotas([100, 3, 10], 21)
    [9, 3, 9]
    """
    if sum(sizes) < total:
        raise MixtureError(f"{total:,} cells are asked for, but there are {sum(sizes):,}")
    order = sorted(range(len(sizes)), key=lambda i: (sizes[i], i))
    quotas, left = [0] * len(sizes), total
    for place, i in enumerate(order):
        quotas[i] = min(sizes[i], left // (len(order) - place))
        left -= quotas[i]
    return quotas


def _digest(*arrays: npt.NDArray[np.generic]) -> str:
    state = hashlib.blake2b(digest_size=16)
    for array in arrays:
        state.update(f"{array.dtype.str}{len(array)}:".encode())
        state.update(np.ascontiguousarray(array).tobytes())
    return state.hexdigest()
