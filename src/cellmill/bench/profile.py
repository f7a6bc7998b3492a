"""The parts of one read (floor 4, bench): the kernel, what is around it, and waiting for the disk."""

from __future__ import annotations

import time
from dataclasses import dataclass

from cellmill.bench.counters import Counters
from cellmill.bench.rates import random_batches
from cellmill.store import Store

__all__ = ["ColdProfile", "WarmProfile", "profile_cold", "profile_warm"]


@dataclass(frozen=True)
class WarmProfile:
    """Where the time of random reads from the page cache goes, one thread.

    Attributes
    ----------
    batch_cells : int
    microseconds_per_cell : float
        Of the whole read.
    kernel, python : float
        Shares of it: `Store.gather`, which finds the frames and decodes them in one native call; checks of the rows
        and the making of a CSR matrix around it.
    nanoseconds_per_count : float
        Of the kernel alone.
    """

    batch_cells: int
    microseconds_per_cell: float
    kernel: float
    python: float
    nanoseconds_per_count: float


@dataclass(frozen=True)
class ColdProfile:
    """Where the time of random reads from the disk goes, one thread.

    Attributes
    ----------
    batch_cells : int
    waiting : float
        Share of the time in which this process did not run: waiting for the disk.
    major_faults_per_cell : float
    disk_bytes_per_cell : float or None
        Bytes fetched from the disk for each cell, with what the system reads ahead.
    frame_bytes_per_cell : float
        Bytes that were asked for.
    """

    batch_cells: int
    waiting: float
    major_faults_per_cell: float
    disk_bytes_per_cell: float | None
    frame_bytes_per_cell: float


def profile_warm(store: Store, *, batch_cells: int, seconds: float, seed: int) -> WarmProfile:
    """Time the whole read and the gather inside it on two batches in turn, each of fresh rows."""
    batches = random_batches(store.n_cells, batch_cells, seed=seed)
    store.read(next(batches), threads=1)
    whole = inside = 0.0
    cells = counts = 0
    end = time.perf_counter() + seconds
    while cells == 0 or time.perf_counter() < end:
        rows = next(batches)
        begin = time.perf_counter()
        store.read(rows, threads=1)
        whole += time.perf_counter() - begin
        cells += len(rows)
        rows = next(batches)
        begin = time.perf_counter()
        got = store.gather(rows, threads=1)
        inside += time.perf_counter() - begin
        counts += len(got.values)
    share = min(1.0, inside / whole)
    return WarmProfile(
        batch_cells=batch_cells,
        microseconds_per_cell=whole / cells * 1e6,
        kernel=share,
        python=1 - share,
        nanoseconds_per_count=inside / max(1, counts) * 1e9,
    )


def profile_cold(store: Store, *, batch_cells: int, seconds: float, seed: int) -> tuple[ColdProfile, float]:
    """Read random batches of a store whose pages were dropped; returns the profile and the cells per second."""
    batches = random_batches(store.n_cells, batch_cells, seed=seed)
    asked = cells = 0
    # a small store would be warm again before the time is over: no cell is read twice
    most = max(1, store.n_cells // batch_cells)
    before = Counters.now()
    for _ in range(most):
        rows = next(batches)
        store.read(rows, threads=1)
        cells += len(rows)
        if time.perf_counter() - before.wall_seconds >= seconds:
            break
    spent = Counters.now() - before
    sample = next(random_batches(store.n_cells, min(cells, 4096), seed=seed))
    _, _, start, stop = store.frames(sample)
    asked = int((stop - start).sum())
    profile = ColdProfile(
        batch_cells=batch_cells,
        waiting=max(0.0, 1 - spent.cpu_seconds / spent.wall_seconds),
        major_faults_per_cell=spent.major_faults / cells,
        disk_bytes_per_cell=None if spent.disk_bytes is None else spent.disk_bytes / cells,
        frame_bytes_per_cell=asked / len(sample),
    )
    return profile, cells / spent.wall_seconds
