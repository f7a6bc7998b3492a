"""What a loader saw of itself (floor 6, loader): speed, waits, and how well labels are mixed. Numbers only."""

from __future__ import annotations

import math
import resource
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy.special import gammaln

from cellmill.kernel.keys import mix64_int
from cellmill.loader.prefetch import Ahead
from cellmill.store import Store
from cellmill.tokens import Batch

__all__ = ["Meter", "advice", "entropy_bits", "ideal_entropy_bits", "random_entropy_bits"]

I64 = npt.NDArray[np.int64]
# labels are counted of so many batches, and then of one in so many: of all of them, that takes 6 % of a fast loader's
# time. Which ones, a hash says, since every eighth may always be the last of its epoch
ALL_LABELS: Final = 64
ONE_IN: Final = 8
# batches whose labels are counted together
COUNTED_AT_ONCE: Final = 64
# of the time: a consumer that waits longer is starved by its loader
STARVED: Final = 0.10


def entropy_bits(counts: npt.NDArray[np.int64]) -> float:
    """Return the entropy of a distribution in bits.

    Examples
    --------
    >>> entropy_bits(np.array([5, 5]))
    1.0
    """
    shares = counts[counts > 0] / max(1, int(counts.sum()))
    return float(-(shares * np.log2(shares)).sum())


def ideal_entropy_bits(counts: npt.NDArray[np.int64], batch_size: float) -> float:
    """Return the label entropy that batches of true random order have on average: H - (K - 1) / (2 m ln 2)."""
    n_labels = int((counts > 0).sum())
    return max(0.0, entropy_bits(counts) - (n_labels - 1) / (2 * batch_size * math.log(2))) if n_labels else 0.0


def random_entropy_bits(counts: npt.NDArray[np.int64], batch_size: int) -> float:
    """Return the expected label entropy of `batch_size` cells drawn without replacement: exact, hypergeometric.

    Examples
    --------
    >>> random_entropy_bits(np.array([1, 1]), 2)
    1.0
    """
    n, m = int(counts.sum()), min(batch_size, int(counts.sum()))
    if not m:
        return 0.0
    number, times = np.unique(counts[counts > 0], return_counts=True)  # labels of one size are alike
    bits = 0.0
    for size, labels in zip(number.tolist(), times.tolist(), strict=True):
        x = np.arange(max(1, m - (n - size)), min(size, m) + 1, dtype=np.float64)
        log_p = _log_choose(size, x) + _log_choose(n - size, m - x) - _log_choose(n, m)
        bits -= labels * float((np.exp(log_p) * (x / m) * np.log2(x / m)).sum())
    return bits + 0.0  # no -0.0


def _log_choose(n: Any, k: Any) -> Any:
    return gammaln(n + 1.0) - gammaln(k + 1.0) - gammaln(n - k + 1.0)


def advice(said: Mapping[str, Any], *, prefetch: int) -> list[str]:
    """Return what to do about what starves, one sentence each; nothing when nothing does."""
    if said["batches"] < 3:  # of the first ones everybody waits
        return []
    found = []
    waited, full = said["wait_share"], said["readers_wait_share"]
    if waited > STARVED:
        found.append(
            f"The model waits for batches {waited:.0%} of the time. Try a larger `prefetch` (now {prefetch}), more "
            "`threads`, fewer genes (a panel), or worker processes."
        )
        if said["major_page_faults"] > said["batches"]:
            found.append(
                f"{said['major_page_faults']:,} page faults went to the disk: the store does not fit into memory, or "
                "is read for the first time. order='blocked' reads neighbours together."
            )
        if said["cache_misses"] > said["cache_hits"]:
            found.append(
                f"{said['cache_misses']:,} blocks came from the server and {said['cache_hits']:,} from the cache. "
                "order='blocked' fetches neighbours together; store.prefetch(rows) fetches ahead; a later epoch is "
                "faster if the cache is large enough."
            )
    elif full > STARVED:
        found.append(
            f"The readers wait {full:.0%} of the time with batches ready: the model is the bottleneck, not the loader."
        )
    for name, bits in said["label_entropy"].items():
        if bits["random_bits"] > 0 and bits["batch_bits"] < 0.9 * bits["random_bits"]:
            found.append(
                f"Batches mix {name!r} less than random order would ({bits['batch_bits']:.2f} of "
                f"{bits['random_bits']:.2f} bits): use order='exact', or 'blocked' with more window_blocks."
            )
    return found


class Meter:
    """Adds up what batches cost and how labels lie in them."""

    def __init__(self) -> None:
        self.batches = 0
        self.cells = 0
        self.values = 0
        self.wait_seconds = 0.0
        self.seconds = 0.0
        self._counts: dict[str, npt.NDArray[np.int64]] = {}
        self._entropy: dict[str, float] = {}
        self._batches_labelled = 0
        self._cells_labelled = 0
        self._uncounted: list[dict[str, tuple[I64, int]]] = []
        self._past = Ahead()
        self._ahead = Ahead()
        self._stores: Sequence[Store] = ()
        self._before: npt.NDArray[np.int64] | None = None  # what the process's counters said when the iteration began
        self._counted = np.zeros(3, dtype=np.int64)

    def begin(self, ahead: Ahead, stores: Sequence[Store]) -> None:
        """Begin to count an iteration; one that was not ended counts up to here."""
        self.end()
        self._ahead, self._stores, self._before = ahead, stores, _counters(stores)

    def end(self) -> None:
        """Conclude the counts of an iteration."""
        if self._before is not None:
            self._counted += _counters(self._stores) - self._before
            self._past.full_seconds += self._ahead.full_seconds
            self._past.taken_bytes += self._ahead.taken_bytes
            self._past.most_bytes = max(self._past.most_bytes, self._ahead.most_bytes)
        self._ahead, self._before = Ahead(), None

    def add(self, batch: Batch, *, waited: float) -> None:
        """Count one batch that the consumer waited for, in seconds."""
        self.batches += 1
        self.cells += len(batch)
        self.values += batch.values.numel()
        self.wait_seconds += waited
        if batch.categories and (self.batches <= ALL_LABELS or mix64_int(self.batches) % ONE_IN == 0):
            self._batches_labelled += 1
            self._cells_labelled += len(batch)
            # copies: the consumer may write into the batch before these are counted
            self._uncounted.append(
                {name: (batch.obs[name].numpy().copy(), len(batch.categories[name])) for name in batch.categories}
            )
            if len(self._uncounted) == COUNTED_AT_ONCE:
                self._count_labels()

    def _count_labels(self) -> None:
        """Add the labels of the batches since the last time, all in one go: one by one they cost as much as reading."""
        taken, self._uncounted = self._uncounted, []
        by_name: dict[str, list[tuple[I64, int]]] = {}
        for labels in taken:
            for name, codes in labels.items():
                by_name.setdefault(name, []).append(codes)
        for name, some in by_name.items():
            n_categories = max(n for _, n in some)
            counts = self._counts.setdefault(name, np.zeros(n_categories, dtype=np.int64))
            of, label, times = _label_counts([codes for codes, _ in some], n_categories)
            np.add.at(counts, label, times)
            shares = times / np.bincount(of, weights=times, minlength=1)[of]
            self._entropy[name] = self._entropy.get(name, 0.0) - float((shares * np.log2(shares)).sum())

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers as JSON values."""
        self._count_labels()
        size = self._cells_labelled / self._batches_labelled if self._batches_labelled else 1.0
        now = self._counted + (0 if self._before is None else _counters(self._stores) - self._before)
        faults, hits, misses = now.tolist()
        full = self._past.full_seconds + self._ahead.full_seconds
        labels: Mapping[str, Any] = {
            name: {
                "batch_bits": self._entropy[name] / self._batches_labelled,
                "ideal_bits": ideal_entropy_bits(counts, size),
                "random_bits": random_entropy_bits(counts, round(size)),
                "all_bits": entropy_bits(counts),
            }
            for name, counts in self._counts.items()
        }
        return {
            "batches": self.batches,
            "cells": self.cells,
            "values": self.values,
            "bytes_in_tensors": self._past.taken_bytes + self._ahead.taken_bytes,
            "seconds": self.seconds,
            "cells_per_second": self.cells / self.seconds if self.seconds else 0.0,
            "wait_seconds": self.wait_seconds,
            "wait_share": self.wait_seconds / self.seconds if self.seconds else 0.0,
            "readers_wait_seconds": full,
            "readers_wait_share": full / self.seconds if self.seconds else 0.0,
            "most_bytes_ahead": max(self._past.most_bytes, self._ahead.most_bytes),
            "major_page_faults": faults,
            "cache_hits": hits,
            "cache_misses": misses,
            "label_entropy": dict(labels),
        }


def _label_counts(batches: Sequence[I64], n_categories: int) -> tuple[I64, I64, I64]:
    """Return (batch, label, how often) of those that occur; null, -1, is no label."""
    batch = np.repeat(np.arange(len(batches)), [len(codes) for codes in batches])
    codes = np.concatenate(batches)
    pair = (batch * n_categories + codes)[codes >= 0]
    if n_categories * len(batches) <= 4 * len(codes):
        all_times = np.bincount(pair, minlength=1)
        pair = np.flatnonzero(all_times)
        times = all_times[pair]
    else:  # a column may have a category for each cell of the store
        pair, times = np.unique(pair, return_counts=True)
    return pair // n_categories, pair % n_categories, times


def _counters(stores: Sequence[Store]) -> npt.NDArray[np.int64]:
    """Major page faults of this process, and blocks that stores at URLs found in the cache and fetched; int64[3]."""
    blocks = np.array([store.cache_counts for store in stores], dtype=np.int64).reshape(-1, 2).sum(axis=0)
    return np.array([resource.getrusage(resource.RUSAGE_SELF).ru_majflt, *blocks], dtype=np.int64)
