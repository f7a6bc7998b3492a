"""Measuring a store: how small it is, how fast it reads, and where the time goes (floor 4).

Knows stores, the kernel and the counters of the operating system. Must not know peers, files of other kinds or torch;
the comparison with other systems is `benchmarks/store.py`, outside of the package.

    cache.py      which pages of a file lie in memory, and giving them back
    counters.py   time, page faults, bytes from the disk, memory of this process
    entropy.py    the gene-wise entropy of counts
    rates.py      cells per second of each way of reading, alternating
    profile.py    the parts of one read
    report.py     all of it for one store
"""

from __future__ import annotations

from cellmill.bench.cache import evict, resident_share
from cellmill.bench.counters import Counters, anonymous_bytes
from cellmill.bench.entropy import GeneEntropy
from cellmill.bench.profile import ColdProfile, WarmProfile
from cellmill.bench.rates import Rate, Workload
from cellmill.bench.report import StoreReport, measure_store

__all__ = [
    "ColdProfile",
    "Counters",
    "GeneEntropy",
    "Rate",
    "StoreReport",
    "WarmProfile",
    "Workload",
    "anonymous_bytes",
    "evict",
    "measure_store",
    "resident_share",
]
