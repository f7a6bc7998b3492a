"""All measurements of one store (floor 4, bench)."""

from __future__ import annotations

import gc
import os
import platform
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cellmill import kernel
from cellmill.bench.cache import evict
from cellmill.bench.counters import anonymous_bytes
from cellmill.bench.entropy import GeneEntropy
from cellmill.bench.profile import ColdProfile, WarmProfile, profile_cold, profile_warm
from cellmill.bench.rates import Rate, Workload, cells_per_second, default_workloads, panel_of
from cellmill.errors import InputError
from cellmill.events import emit
from cellmill.store import Store, open_store

__all__ = ["StoreReport", "measure_store"]

_ENTROPY_CELLS = 20_000
_ENTROPY_RUN = 500
_STAGE = "measuring"


@dataclass(frozen=True)
class StoreReport:
    """What `measure_store` finds.

    Attributes
    ----------
    path, digest : str
    n_cells, n_genes, nnz : int
    bytes_per_nonzero : float
        Frames, offsets and checksums, without obs.
    entropy_bytes_per_nonzero : float
        Gene-wise, of `entropy_cells` cells in runs spread over the store.
    entropy_cells : int
    kernel, machine : str
    threads : int
        All threads, where a rate is not of one.
    panel_genes : int
    rates : tuple of Rate
    warm : tuple of WarmProfile
    cold : ColdProfile or None
        None where pages cannot be dropped.
    cold_resident : float or None
        Share of the store's pages that stayed in memory when they were dropped.
    memory_bytes : int or None
        Memory of the process at the end, mapped pages of files aside.
    """

    path: str
    digest: str
    n_cells: int
    n_genes: int
    nnz: int
    bytes_per_nonzero: float
    entropy_bytes_per_nonzero: float
    entropy_cells: int
    kernel: str
    machine: str
    threads: int
    panel_genes: int
    rates: tuple[Rate, ...]
    warm: tuple[WarmProfile, ...]
    cold: ColdProfile | None
    cold_resident: float | None
    memory_bytes: int | None


def measure_store(
    path: str | Path, *, seconds: float = 1.0, repeats: int = 3, threads: int = 0, cold: bool = True, seed: int = 0
) -> StoreReport:
    """Measure how a store reads: random and sequential, warm and cold, one and all threads, and where the time goes.

    Parameters
    ----------
    path
        The store.
    seconds
        Of each measurement.
    repeats
        Of each measurement; all are done once before any is done again, so that a busy minute hits all alike.
    threads
        What "all threads" means; 0 for all cores.
    cold
        Also read after the store's pages were dropped from memory, where the system lets it.
    seed
        Names the random rows.

    Raises
    ------
    InputError
        When the store has no cells, or a number makes no sense.
    """
    if seconds <= 0 or repeats < 1 or threads < 0:
        raise InputError(
            f"expected seconds above 0, at least one repeat and threads from 0; found seconds={seconds}, "
            f"repeats={repeats}, threads={threads}"
        )
    store = open_store(path)
    if not store.n_cells:
        raise InputError(f"{path}: this store has no cells to read")
    every = threads or kernel.default_threads()
    workloads = default_workloads([1, every] if every > 1 else [1])
    total = len(workloads) * repeats + repeats * cold + 3
    emit(_STAGE, done=0, total=total, unit="measurements")
    entropy = _sampled_entropy(store)
    emit(_STAGE, done=1, total=total, unit="measurements")
    rates = _warm_rates(store, workloads, seconds=seconds, repeats=repeats, seed=seed, total=total)
    done = 1 + len(workloads) * repeats
    warm = []
    for batch in (64, 512):
        warm.append(profile_warm(store, batch_cells=batch, seconds=seconds, seed=seed))
        done += 1
        emit(_STAGE, done=done, total=total, unit="measurements")
    memory = anonymous_bytes()
    n_bytes, facts = store.n_bytes, (store.digest, store.n_cells, store.n_genes, store.nnz)
    del store  # its maps would keep pages in memory
    profile, resident = None, None
    if cold:
        cold_rate, profile, resident = _cold(path, seconds=seconds, repeats=repeats, seed=seed, done=done, total=total)
        rates += cold_rate
    emit(_STAGE, done=total, total=total, unit="measurements")
    return StoreReport(
        path=str(path),
        digest=facts[0],
        n_cells=facts[1],
        n_genes=facts[2],
        nnz=facts[3],
        bytes_per_nonzero=n_bytes / max(1, facts[3]),
        entropy_bytes_per_nonzero=entropy.bytes_per_nonzero,
        entropy_cells=entropy.n_cells,
        kernel=kernel.IMPLEMENTATION,
        machine=f"{platform.machine()}, {os.cpu_count()} processors, {platform.system()} {platform.release()}",
        threads=every,
        panel_genes=min(facts[2], 2000),
        rates=tuple(rates),
        warm=tuple(warm),
        cold=profile,
        cold_resident=resident,
        memory_bytes=memory,
    )


def _warm_rates(
    store: Store, workloads: list[Workload], *, seconds: float, repeats: int, seed: int, total: int
) -> list[Rate]:
    panel = store.panel(panel_of(store))
    found: dict[Workload, list[float]] = defaultdict(list)
    done = 1
    for repeat in range(repeats):
        for workload in workloads:
            # the same rows for every workload of a repeat, so that none meets warmer pages than another
            rate = cells_per_second(store, workload, panel, seconds=seconds, seed=seed + repeat)
            found[workload].append(rate)
            done += 1
            emit(_STAGE, done=done, total=total, unit="measurements")
    return [Rate.of(workload, "warm", rates) for workload, rates in found.items()]


def _cold(
    path: str | Path, *, seconds: float, repeats: int, seed: int, done: int, total: int
) -> tuple[list[Rate], ColdProfile | None, float | None]:
    """Return the rate of random reads of dropped pages, its profile, and the share of pages that stayed."""
    rates, profile, worst = [], None, 0.0
    for repeat in range(repeats):
        gc.collect()
        resident = evict(_files(Path(path)))
        if resident is None:
            return [], None, None
        worst = max(worst, resident)
        profile, rate = profile_cold(open_store(path), batch_cells=64, seconds=seconds, seed=seed + repeat)
        rates.append(rate)
        emit(_STAGE, done=done + repeat + 1, total=total, unit="measurements")
    return [Rate.of(Workload("random", "csr", 64, 1), "cold", rates)], profile, worst


def _files(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.rglob("*")) if path.is_file()]


def _sampled_entropy(store: Store) -> GeneEntropy:
    """Return the entropy of at most 20,000 cells: runs of neighbours, spread evenly over the store."""
    entropy = GeneEntropy(store.n_genes)
    n_runs = max(1, min(_ENTROPY_CELLS, store.n_cells) // _ENTROPY_RUN)
    length = min(_ENTROPY_RUN, store.n_cells)
    for start in np.linspace(0, store.n_cells - length, n_runs).astype(np.int64):
        counts = store.read(np.arange(start, start + length))
        entropy.add(counts.indices, counts.data, n_cells=length)
    return entropy
