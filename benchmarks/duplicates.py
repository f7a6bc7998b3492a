"""What looking for equal cells costs, and from how many counts on cells are not equal by chance.

    python benchmarks/duplicates.py --cells 10000000 --memory 512
    python benchmarks/duplicates.py --chance ../shared/data/pbmc_facs_zheng.h5ad

`--cells` searches made-up fingerprints, of which a tenth repeat an earlier one, in one process and a given memory; the
numbers grow in proportion to the cells. `--chance` takes the genes' shares of a file's counts and gives, for cells of
so many counts drawn from them, the pairs among 10^8 such cells that are expected to be equal: the worst case, since
cells of a file differ in type and depth.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
from scipy.special import i0e

from cellmill.sources import open_source
from cellmill.store.equal_cells import EqualCells

PAIRS = 1e8 * (1e8 - 1) / 2
BLOCK = 1 << 18


def search(n_cells: int, memory_mib: int, folder: Path) -> None:
    rng = np.random.default_rng(0)
    started, cpu = time.perf_counter(), time.process_time()
    with EqualCells(n_cells=n_cells, n_sources=10, memory_bytes=memory_mib << 20, folder=folder) as finder:
        for first in range(0, n_cells, BLOCK):
            n = min(BLOCK, n_cells - first)
            fingerprints = rng.integers(0, 2**64, n, dtype=np.uint64)
            fingerprints[: n // 10] = fingerprints[n // 10 : 2 * (n // 10)]
            counts = np.full(n, 5000, np.int64)
            finder.add(
                fingerprints=fingerprints, detected=counts, totals=counts, first_row=first, source=first % 10,
                uids=fingerprints,
            )  # fmt: skip
        n_marks = sum(len(part) for part in finder.marks())
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{n_cells:,} cells, {n_marks:,} marks: {seconds:.1f} s, of the processor {1e6 * cpu / n_cells:.2f} s a million"
    )
    print(f"peak {peak:.0f} MiB of the process, on disk: {finder.spilled}")


def chance(path: Path) -> None:
    with open_source(path) as source:
        matrix = source.matrices()[0].name
        sums = np.zeros(len(source.genes_of(matrix)))
        for block in source.blocks(matrix):
            np.add.at(sums, block.indices, block.data)
    shares = sums[sums > 0] / sums.sum()
    print(f"{path.name}: {len(shares):,} genes")
    for n_counts in (10, 20, 50, 100, 200):
        # two Poisson counts of mean m are equal with probability exp(-2 m) I0(2 m); genes are independent
        log10 = np.log10(i0e(2 * n_counts * shares)).sum()
        print(
            f"  {n_counts:4d} counts: two cells 10^{log10:.1f}, pairs among 10^8 cells 10^{log10 + np.log10(PAIRS):.1f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=0, help="search so many made-up cells")
    parser.add_argument("--memory", type=int, default=512, help="MiB")
    parser.add_argument("--chance", type=Path, nargs="*", default=[], help="files of counts")
    given = parser.parse_args()
    if given.cells:
        with tempfile.TemporaryDirectory(dir=".") as folder:
            search(given.cells, given.memory, Path(folder))
    for path in given.chance:
        chance(path)


if __name__ == "__main__":
    main()
