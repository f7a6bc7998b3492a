"""Where and when something was measured, and what its disk can do."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from cellmill.bench import evict, resident_share

BLOCK = 4096


def facts() -> dict[str, str]:
    """Return processor, memory, system and date; no names of machines or folders."""
    return {
        "date": time.strftime("%Y-%m-%d %H:%M %Z"),
        "processor": _field("/proc/cpuinfo", "model name") or platform.processor() or platform.machine(),
        "processors": str(len(os.sched_getaffinity(0))),
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.1f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "python": sys.version.split()[0],
        "load_before": f"{os.getloadavg()[0]:.1f}",
        "commit": _commit(),
    }


def command(script: str = "store.py") -> str:
    """Return the command line, folders of this machine left out."""
    words = [Path(word).name if word.startswith("/") else word for word in sys.argv[1:]]
    return " ".join([f"python benchmarks/{script}", *words])


def drop(files: list[Path]) -> tuple[str, float | None]:
    """Drop files from the page cache; returns how, and the share of their pages that stayed.

    fadvise first; where pages stay and this process may, the whole page cache.
    """
    how, stayed = "posix_fadvise", evict(files)
    if stayed:
        try:
            os.sync()
            Path("/proc/sys/vm/drop_caches").write_text("1")
            how, stayed = "drop_caches", resident_share(files)
        except OSError:
            pass
    return how, stayed


def random_reads_per_second(files: list[Path], *, size: int, threads: int, seconds: float) -> float:
    """Return how many blocks of `size` bytes the disk gives per second, at random places of dropped files, by pread."""
    drop(files)
    sizes = np.array([path.stat().st_size for path in files])
    handles = [os.open(path, os.O_RDONLY) for path in files]
    for handle in handles:
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_RANDOM)

    def reads(seed: int) -> float:
        rng = np.random.default_rng(seed)
        which = rng.choice(len(files), 200_000, p=sizes / sizes.sum())
        places = (rng.random(len(which)) * (sizes[which] - size)).clip(0).astype(np.int64)
        begin, count = time.perf_counter(), 0
        for file, place in zip(which.tolist(), places.tolist(), strict=True):
            os.pread(handles[file], size, place)
            count += 1
            if time.perf_counter() - begin >= seconds:
                break
        return count / (time.perf_counter() - begin)

    with ThreadPoolExecutor(threads) as pool:
        total = sum(pool.map(reads, range(threads)))
    for handle in handles:
        os.close(handle)
    return total


def _field(path: str, name: str) -> str:
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return ""
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(name)), "")


def _commit() -> str:
    try:
        here = Path(__file__).parent
        said = subprocess.run(
            ["git", "describe", "--always", "--dirty"], cwd=here, capture_output=True, text=True, check=True
        )
        return said.stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
