"""Cells per second of each way of reading a store (floor 4, bench). Knows stores; knows nothing of other systems."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from cellmill import kernel
from cellmill.store import Store

__all__ = ["Rate", "Workload", "default_workloads", "panel_of", "random_batches", "read_for", "sequential_batches"]

Int64 = npt.NDArray[np.int64]
PANEL_GENES = 2000
_LEAST_BATCHES = 3


@dataclass(frozen=True)
class Workload:
    """One way of reading.

    Attributes
    ----------
    order : {"random", "sequential"}
        Rows by a keyed permutation of the whole store, or neighbours.
    form : {"csr", "panel csr", "panel dense", "csr and totals"}
        All genes as CSR; 2,000 genes as CSR or as a dense float32 matrix; CSR with the sum of each cell's counts.
    batch_cells, threads : int
    """

    order: Literal["random", "sequential"]
    form: Literal["csr", "panel csr", "panel dense", "csr and totals"]
    batch_cells: int
    threads: int


@dataclass(frozen=True)
class Rate:
    """Cells per second of a workload: median, least and most of the repeats.

    Attributes
    ----------
    workload : Workload
    cache : {"warm", "cold"}
    median, low, high : float
        Cells per second.
    repeats : int
    """

    workload: Workload
    cache: Literal["warm", "cold"]
    median: float
    low: float
    high: float
    repeats: int

    @classmethod
    def of(cls, workload: Workload, cache: Literal["warm", "cold"], rates: Sequence[float]) -> Rate:
        """Return the summary of repeated measurements."""
        return cls(workload, cache, statistics.median(rates), min(rates), max(rates), len(rates))


def default_workloads(threads: Sequence[int]) -> list[Workload]:
    """Return what `cellmill bench` measures: CSR in all ways, the forms of a panel and totals at batch 512."""
    found = [
        Workload(order, "csr", batch, n) for order in ("random", "sequential") for batch in (64, 512) for n in threads
    ]
    found += [Workload("random", form, 512, n) for form in ("panel csr", "panel dense") for n in threads]
    return [*found, Workload("random", "csr and totals", 512, threads[0])]


def panel_of(store: Store) -> list[str]:
    """Return 2,000 genes spread evenly over the 6,000 most often detected, where highly variable genes mostly lie."""
    pool = min(store.n_genes, 3 * PANEL_GENES)
    places = np.unique(np.linspace(0, pool - 1, min(pool, PANEL_GENES)).round().astype(np.int64))
    return [store.gene_ids[place] for place in places]


def random_batches(n_cells: int, batch_cells: int, *, seed: int) -> Iterator[Int64]:
    """Yield rows in the order of a keyed permutation, for ever; memory does not depend on the number of cells."""
    epoch, at = 0, 0
    size = min(batch_cells, n_cells)
    while True:
        if at + size > n_cells:
            epoch, at = epoch + 1, 0
        positions = np.arange(at, at + size, dtype=np.uint64)
        yield kernel.permute(positions, n_cells, kernel.derive_key(seed, "bench", epoch)).astype(np.int64)
        at += size


def sequential_batches(n_cells: int, batch_cells: int, *, seed: int) -> Iterator[Int64]:
    """Yield neighbours from a place that the seed chooses on, for ever."""
    at = int(kernel.derive_key(seed, "start") % n_cells)
    while True:
        yield (at + np.arange(min(batch_cells, n_cells), dtype=np.int64)) % n_cells
        at = (at + batch_cells) % n_cells


def batches_of(workload: Workload, n_cells: int, *, seed: int) -> Iterator[Int64]:
    """Return the batches of a workload."""
    order = random_batches if workload.order == "random" else sequential_batches
    return order(n_cells, workload.batch_cells, seed=seed)


def read_for(store: Store, workload: Workload, rows: Int64, panel: kernel.Panel | None) -> None:
    """Read one batch as the workload says, through the public face of the store, and let it go."""
    if workload.form == "csr":
        store.read(rows, threads=workload.threads)
    elif workload.form == "panel csr":
        store.read(rows, genes=panel, threads=workload.threads)
    elif workload.form == "panel dense":
        store.read_dense(rows, genes=panel, threads=workload.threads)
    else:
        store.gather(rows, totals=True, threads=workload.threads)


def cells_per_second(
    store: Store, workload: Workload, panel: kernel.Panel | None, *, seconds: float, seed: int, warm_up: bool = True
) -> float:
    """Read batches for about `seconds`, at least three, and return the rate; the first batch is not timed when warm."""
    batches = batches_of(workload, store.n_cells, seed=seed)
    if warm_up:
        read_for(store, workload, next(batches), panel)
    begin = time.perf_counter()
    cells, count = 0, 0
    while True:
        rows = next(batches)
        read_for(store, workload, rows, panel)
        cells, count = cells + len(rows), count + 1
        elapsed = time.perf_counter() - begin
        if elapsed >= seconds and count >= _LEAST_BATCHES:
            return cells / elapsed
