"""Does a cell cost the same in a large store as in a small one? Writes stores of growing size and reads them in turn.

    python benchmarks/growth.py                              10,000 to 2,000,000 cells
    python benchmarks/growth.py --sizes 10000 1000000 --distinct 0

Cells of the reference sample are encoded into shards straight away, without files between. To make large stores quickly
`--distinct` cells are simulated and repeated; each is encoded anew and lies in the store as often as it is repeated, so
bytes, pages and offsets are those of a store of that size. 0 simulates all of them.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import machine
import numpy as np
import pyarrow as pa
from scipy import sparse
from tables import cell_text, spread, table_text

import cellmill as cm
from cellmill import kernel
from cellmill.bench import Workload, evict
from cellmill.bench.profile import profile_cold
from cellmill.bench.rates import cells_per_second
from cellmill.genes import Vocabulary
from cellmill.simulate import reference_blocks, reference_genes, reference_model
from cellmill.storage import write_atomic
from cellmill.store import STANDARD_COLUMNS, VOCABULARY_NAME, Manifest, ShardEntry, Shards, SourceEntry, Sources
from cellmill.store.obs import cast_obs, write_obs
from cellmill.store.writer import ShardWriter, file_entry, write_genes, write_manifest, write_uids

HERE = Path(__file__).parent
SHARD_CELLS = 200_000
ORDER_CELLS = 4096
WORKLOADS = [Workload("random", "csr", 512, 1), Workload("random", "csr", 64, 1), Workload("sequential", "csr", 512, 1)]


class Cells:
    """Blocks of simulated cells, genes in storage order, without end."""

    def __init__(self, n_genes: int, *, distinct: int, seed: int) -> None:
        self.model = reference_model(n_genes=n_genes, seed=seed)
        self.distinct, self.seed = distinct, seed
        first = [block.counts for block in self._simulated(ORDER_CELLS)]
        detected = np.bincount(np.concatenate([counts.indices for counts in first]), minlength=n_genes)
        self.order = np.argsort(-detected, kind="stable")
        self.rate = detected[self.order] / ORDER_CELLS
        self._kept = [self._ordered(block.counts) for block in self._simulated(distinct)] if distinct else []

    def _simulated(self, n_cells: int) -> Iterator[Any]:
        return reference_blocks(self.model, n_cells=n_cells, seed=self.seed)

    def _ordered(self, counts: sparse.csr_array) -> sparse.csr_array:
        ordered = counts[:, self.order].tocsr()
        ordered.sort_indices()
        return ordered

    def blocks(self, n_cells: int) -> Iterator[sparse.csr_array]:
        """Yield `n_cells` cells in blocks."""
        left = n_cells
        while left:
            source = self._kept or (self._ordered(block.counts) for block in self._simulated(left))
            for counts in source:
                yield counts[:left] if counts.shape[0] > left else counts
                left -= min(left, counts.shape[0])
                if not left:
                    return


def write_store(folder: Path, cells: Cells, n_cells: int) -> float:
    """Write a store of simulated cells and return the seconds spent on encoding and writing frames."""
    shutil.rmtree(folder, ignore_errors=True)
    for name in ("shards", "obs", "reports"):
        (folder / name).mkdir(parents=True)
    ids, symbols = reference_genes(len(cells.order))
    ids, symbols = [ids[i] for i in cells.order], [symbols[i] for i in cells.order]
    vocabulary = Vocabulary(ids, symbols=symbols)
    vocabulary.to_json(folder / VOCABULARY_NAME)
    shards, seconds = [], 0.0
    for start in range(0, n_cells, SHARD_CELLS):
        entry, spent = _write_shard(folder, cells, len(shards), min(SHARD_CELLS, n_cells - start))
        shards.append(entry)
        seconds += spent
    write_atomic(folder / "reports/00000.json", b"{}\n")
    tokens = np.asarray(vocabulary.tokens, dtype=np.int64)
    source = SourceEntry(
        name="simulated", kind="simulated", uri="simulated", bytes=0, xxh3="0" * 32, matrix="X", n_cells=n_cells,
        report=file_entry(folder, "reports/00000.json"),
    )  # fmt: skip
    manifest = Manifest(
        vocabulary_hash=vocabulary.hash,
        vocabulary_name="union",
        vocabulary=file_entry(folder, VOCABULARY_NAME),
        genes=write_genes(folder, gene_ids=ids, symbols=symbols, tokens=tokens, detection_rate=cells.rate),
        obs_schema=tuple(STANDARD_COLUMNS.items()),
        shards=Shards(shards),
        sources=Sources([source]),
    )
    write_manifest(folder, manifest)
    return seconds


def _write_shard(folder: Path, cells: Cells, number: int, n_cells: int) -> tuple[ShardEntry, float]:
    seconds, totals, detected = 0.0, [], []
    with ShardWriter(folder / f"shards/{number:05d}.cells", n_genes=len(cells.order)) as writer:
        for counts in cells.blocks(n_cells):
            begin = time.perf_counter()
            frames, offsets = kernel.encode(counts.indptr, counts.indices, counts.data, n_genes=len(cells.order))
            writer.append(frames, offsets, nnz=counts.nnz)
            seconds += time.perf_counter() - begin
            totals.append(np.asarray(counts.sum(axis=1), dtype=np.int64))
            detected.append(np.diff(counts.indptr))
        entry, nnz = writer.finish(), writer.nnz
    uids = kernel.keyed_u64(kernel.derive_key(0, "growth", number), np.arange(n_cells))
    obs = pa.table(
        {
            "cell": pa.array([f"s{number}_{i}" for i in range(n_cells)]),
            "dataset": pa.array(["simulated"] * n_cells),
            "uid": pa.array(uids),
            "fingerprint": pa.array(uids),
            "total_counts": pa.array(np.concatenate(totals)),
            "n_genes_detected": pa.array(np.concatenate(detected).astype(np.int32)),
        }
    )
    path = f"obs/{number:05d}.parquet"
    write_obs(cast_obs(obs, list(STANDARD_COLUMNS.items())), folder / path)
    return (
        ShardEntry(
            cells=entry,
            obs=file_entry(folder, path),
            uids=write_uids(folder, f"obs/{number:05d}.uids", uids),
            n_cells=n_cells,
            nnz=nnz,
            source="simulated",
        ),
        seconds,
    )


def measure(stores: dict[int, Path], options: argparse.Namespace) -> dict[int, dict[str, list[float]]]:
    """Read all sizes in turn; microseconds a cell, seconds to the first batch."""
    found: dict[int, dict[str, list[float]]] = {size: defaultdict(list) for size in stores}
    for repeat in range(options.repeats):
        for size, path in stores.items():
            numbers = found[size]
            evict(p for p in path.rglob("*") if p.is_file())
            _, rate = profile_cold(cm.open(path), batch_cells=512, seconds=options.seconds, seed=repeat)
            numbers["cold random 512, µs a cell"].append(1e6 / rate)
            for file in sorted((path / "shards").iterdir()):
                file.read_bytes()
            begin = time.perf_counter()
            store = cm.open(path)
            store.read(np.arange(64) * (size // 64))
            numbers["first batch, ms"].append(1e3 * (time.perf_counter() - begin))
            rate = cells_per_second(store, WORKLOADS[0], None, seconds=options.seconds, seed=repeat + 1000)
            numbers[f"{WORKLOADS[0].order} {WORKLOADS[0].batch_cells} on pages not met, µs a cell"].append(1e6 / rate)
            for start in range(0, size, 4096):  # the system maps a page when the process first meets it
                store.gather(np.arange(start, min(start + 4096, size)))
            for load in WORKLOADS:
                rate = cells_per_second(store, load, None, seconds=options.seconds, seed=repeat)
                numbers[f"{load.order} {load.batch_cells}, µs a cell"].append(1e6 / rate)
        print(f"round {repeat + 1} done", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000, 2_000_000])
    parser.add_argument("--genes", type=int, default=36_000)
    parser.add_argument("--distinct", type=int, default=20_480, help="cells that are simulated; 0 for all")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, default=HERE / "samples" / "growth")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    options = parser.parse_args()
    cells = Cells(options.genes, distinct=options.distinct, seed=options.seed)
    stores, building = {}, {}
    for size in options.sizes:
        stores[size] = options.work / f"{size}.mill"
        building[size] = write_store(stores[size], cells, size) / size * 1e6
        print(f"{size:,} cells written, {building[size]:.1f} µs a cell for frames", flush=True)
    found = measure(stores, options)
    names = list(next(iter(found.values())))
    rows = []
    for size, numbers in found.items():
        store = cm.open(stores[size])
        facts = [f"{size:,}", f"{store.n_bytes / store.nnz:.3f}", f"{building[size]:.1f}"]
        rows.append([*facts, *(cell_text(spread(numbers[name]), digits=2) for name in names)])
    smallest = found[options.sizes[0]]
    flat = {
        name: median(found[options.sizes[-1]][name]) / median(smallest[name])
        for name in names
        if name.endswith("µs a cell")
    }
    box = machine.facts()
    text = "\n\n".join(
        [
            "# Growth: the cost of a cell as stores grow",
            (
                f"`python benchmarks/growth.py --sizes {' '.join(map(str, options.sizes))}`, {box['date']}; "
                f"{box['processor']}, {box['memory']}, {box['system']}; load before: {box['load_before']}; commit "
                f"{box['commit']}. One thread, page cache warm unless said, medians of {options.repeats} rounds "
                "(lowest–highest), sizes in turn."
            ),
            table_text(["cells", "bytes per nonzero", "encode and write, µs a cell", *names], rows),
            "Largest over smallest: " + ", ".join(f"{name} {ratio:.2f}" for name, ratio in flat.items()) + ".",
        ]
    )  # fmt: skip
    options.out.mkdir(parents=True, exist_ok=True)
    stem = f"growth-{time.strftime('%Y-%m-%d')}"
    (options.out / f"{stem}.md").write_text(text + "\n")
    result = {"machine": box, "building": building, "found": found, "largest_over_smallest": flat}
    (options.out / f"{stem}.json").write_text(json.dumps(result, indent=1) + "\n")
    print(text)


if __name__ == "__main__":
    main()
