"""cellmill beside other systems: size, conversion, speed and memory on one sample, measured side by side.

    python benchmarks/store.py                          the reference sample, 200,000 cells
    python benchmarks/store.py --cells 20000 --repeats 2    a quick look
    python benchmarks/store.py --files a.h5ad b.h5      sizes only, on files of your own

Each system works in a fresh process, on the same processors, in turn (A B C A B C ...), with the same rows; see
README.md beside this file for what is compared and how. Results go to benchmarks/results/.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import machine
import tables
from real_files import copies_of
from source import SourceFiles
from systems_known import SYSTEMS

import cellmill as cm
from cellmill.bench import GeneEntropy
from cellmill.simulate import write_reference

HERE = Path(__file__).parent
WARM_MODES = [
    *({"kind": "random", "batch": batch, "threads": threads} for batch in (64, 512) for threads in (1, 2)),
    {"kind": "sequential", "batch": 512, "threads": 1},
    {"kind": "panel", "batch": 512, "threads": 1},
]
COLD_MODES = [
    {"kind": "random", "batch": 64, "threads": 1},
    {"kind": "random", "batch": 512, "threads": 1},
    {"kind": "random", "batch": 512, "threads": 2},
]


class Bench:
    """One comparison under way: results are kept as they come, so that an interrupted one still shows what it has."""

    def __init__(self, options: argparse.Namespace, inputs: Sequence[Path], work: Path) -> None:
        self.options, self.inputs, self.work = options, list(inputs), work
        self.systems: list[str] = list(options.systems)
        self.raw: list[dict[str, Any]] = []
        self.missing: dict[str, str] = {}
        self.versions: dict[str, dict[str, str]] = {}
        self.panel: list[int] = []
        work.mkdir(parents=True, exist_ok=True)

    def place(self, name: str) -> Path:
        return self.work / f"{name}{'.zarr' if name == 'annbatch' else ''}"

    def ask(self, name: str, action: str, **extra: Any) -> dict[str, Any]:
        """Run one task of one system in a fresh process."""
        spec = {
            "action": action, "system": name, "place": str(self.place(name)), "inputs": [str(p) for p in self.inputs],
            "cpus": sorted(os.sched_getaffinity(0))[:2], "panel": self.panel, "seconds": self.options.seconds, **extra,
        }  # fmt: skip
        words = [self.python_of(name), str(HERE / "worker.py"), json.dumps(spec)]
        environment = {**os.environ, "PYTHONWARNINGS": "ignore", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}
        done = subprocess.run(words, capture_output=True, text=True, env=environment, check=False)
        lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
        answer = (
            json.loads(lines[-1][7:]) if lines else {"error": f"ended with {done.returncode}: {done.stderr[-400:]}"}
        )
        if "missing" in answer or "error" in answer:
            self.missing[name] = answer.get("missing") or answer["error"]
            self.systems = [system for system in self.systems if system != name]
            say(f"  {name}: left out ({self.missing[name]})")
            if self.options.verbose:
                say(done.stderr[-3000:])
        self.versions.setdefault(name, answer.get("versions", {}))
        self.raw.append({"system": name, "action": action, **extra, **answer})
        (self.work / "raw.json").write_text(json.dumps(self.raw))  # an interrupted comparison is not lost
        return answer

    def python_of(self, name: str) -> str:
        chosen = {"annbatch": self.options.annbatch_python}.get(name) or self.options.peers_python
        ours = SYSTEMS[name] == "ours" or chosen is None or not Path(chosen).exists()
        return sys.executable if ours else str(chosen)

    # ---- the parts -------------------------------------------------------------------------------------------------

    def convert_all(self) -> None:
        for repeat in range(self.options.conversions):
            for name in list(self.systems):
                answer = self.ask(name, "convert", repeat=repeat)
                if "seconds" in answer:
                    say(f"  conversion {repeat + 1}, {name}: {answer['seconds']:.1f} s")

    def choose_panel(self) -> None:
        store = cm.open(self.place("cellmill"))
        position = {gene: i for i, gene in enumerate(SourceFiles(self.inputs).gene_ids())}
        self.panel = [position[gene] for gene in cm.hvg(store, n=min(2000, store.n_genes)).gene_ids]

    def warm_all(self) -> None:
        for repeat in range(self.options.repeats):
            for name in list(self.systems):
                answer = self.ask(name, "speed", modes=WARM_MODES, seed=self.options.seed + repeat)
                said = {
                    f"{m['kind']} {m['batch']}x{m['threads']}": m["cells_per_second"] for m in answer.get("rates", [])
                }
                say(f"  warm {repeat + 1}, {name}: " + ", ".join(f"{k} {v:,.0f}" for k, v in said.items()))

    def cold_all(self) -> str:
        hows: set[str] = set()
        stayed_most = 0.0
        for repeat in range(self.options.cold_repeats):
            for mode in COLD_MODES:
                for name in list(self.systems):
                    files = self.files_of(name)
                    if not files:
                        continue
                    how, stayed = machine.drop(files)
                    hows.add(how)
                    stayed_most = max(stayed_most, stayed or 0.0)
                    self.ask(name, "cold", modes=[mode], seed=self.options.seed + repeat)
            say(f"  cold {repeat + 1} done")
        return f"{' and '.join(sorted(hows))}; at most {100 * stayed_most:.1f} % of the pages stayed"

    def files_of(self, name: str) -> list[Path]:
        if name == "h5ad":
            return self.inputs
        if name == "memory":
            return []
        place = self.place(name)
        return sorted(p for p in place.rglob("*") if p.is_file()) if place.is_dir() else [place]

    def disk(self) -> dict[str, float]:
        """Return what the disk gives: random preads of the size of a mean frame, in the store's own files."""
        store = cm.open(self.place("cellmill"))
        size = max(1, store.n_bytes // max(1, store.n_cells))
        files = sorted((self.place("cellmill") / "shards").glob("*.cells"))
        found: dict[int, list[float]] = defaultdict(list)
        for _ in range(self.options.repeats):
            for threads in (1, 2):
                rate = machine.random_reads_per_second(files, size=size, threads=threads, seconds=self.options.seconds)
                found[threads].append(rate)
        return {"block_bytes": size, **{f"threads_{n}": median(rates) for n, rates in found.items()}}


def say(text: str) -> None:
    print(text, flush=True)


def sample_facts(inputs: Sequence[Path]) -> dict[str, Any]:
    """Return what the source holds, the gene-wise entropy of all its counts among it."""
    source = SourceFiles(inputs)
    entropy, ones = GeneEntropy(source.n_genes), 0
    for pointers, indices, values in source.blocks():
        entropy.add(indices, values, n_cells=len(pointers) - 1)
        ones += int((values == 1).sum())
    return {
        "cells": source.n_cells,
        "genes": source.n_genes,
        "nonzeros": source.nnz,
        "nonzeros_per_cell": source.nnz / max(1, source.n_cells),
        "share_of_ones": ones / max(1, source.nnz),
        "entropy_bytes_per_nonzero": entropy.bytes_per_nonzero,
        "input_bytes": sum(path.stat().st_size for path in inputs),
    }


def compare(options: argparse.Namespace) -> None:
    """Measure everything on one sample."""
    name = f"reference-{options.cells}-{options.genes}-{options.seed}"
    inputs = [Path(path) for path in options.inputs or []]
    if not inputs:
        folder = options.work / name
        inputs = [folder / f"shard_{k}.h5ad" for k in range(options.shards)]
        if not all(path.exists() for path in inputs):
            say(f"simulating {options.cells:,} cells x {options.genes:,} genes (once)")
            write_reference(
                folder, n_cells=options.cells, n_genes=options.genes, n_shards=options.shards, seed=options.seed,
                processes=len(os.sched_getaffinity(0)),
            )  # fmt: skip
    bench = Bench(options, inputs, options.work / f"{name}-stores")
    result: dict[str, Any] = {"machine": machine.facts(), "command": machine.command(), "sample": sample_facts(inputs)}
    result["settings"] = {
        key: getattr(options, key) for key in ("repeats", "conversions", "cold_repeats", "seconds", "seed")
    }
    say("converting")
    bench.convert_all()
    bench.choose_panel()
    say("reading, page cache warm")
    bench.warm_all()
    result["cache"] = "warm"
    if options.cold:
        say("reading, page cache dropped")
        result["disk"] = bench.disk()
        result["cold_by"] = bench.cold_all()
    result |= {"versions": bench.versions, "left_out": bench.missing, "raw": bench.raw}
    result["summary"] = tables.summarise(bench.raw, result["sample"])
    result["goals"] = tables.goals(result)
    written = tables.write(result, options.out, stem=f"store-{result['sample']['cells']}")
    say(tables.markdown(result))
    say("written: " + ", ".join(path.name for path in written))


def compare_files(options: argparse.Namespace) -> None:
    """Compare sizes on each real file."""
    rows = []
    for path, copy, zipped in copies_of(options.files, options.work / "files"):
        say(path.name)
        bench = Bench(options, [copy], options.work / "files" / f"{path.name}-stores")
        sample = sample_facts([copy])
        sizes = {"h5ad gzip": zipped}
        for name in list(bench.systems):
            answer = bench.ask(name, "convert", repeat=0)
            if "count_bytes" in answer:
                sizes[name] = answer["count_bytes"]
        if "cellmill" in sizes:
            bench.choose_panel()
            for name in list(bench.systems):  # values first: a size of other counts is worth nothing
                bench.ask(name, "speed", modes=[], seed=options.seed)
        kept = {name: size for name, size in sizes.items() if name not in bench.missing}
        rows.append({"file": path.name, **sample, "bytes": kept, "left_out": bench.missing})
    result = {"machine": machine.facts(), "command": machine.command(), "files": rows}
    written = tables.write_files(result, options.out)
    say(tables.files_markdown(result))
    say("written: " + ", ".join(path.name for path in written))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=200_000, help="cells of the reference sample")
    parser.add_argument("--genes", type=int, default=36_000)
    parser.add_argument("--shards", type=int, default=4, help="h5ad files of the reference sample")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--inputs", nargs="+", help="h5ad files (CSR, same genes) instead of the reference sample")
    parser.add_argument("--files", nargs="+", type=Path, help="sizes only, on each of these files")
    parser.add_argument("--systems", nargs="+", choices=list(SYSTEMS), default=list(SYSTEMS))
    parser.add_argument("--repeats", type=int, default=5, help="rounds of reading")
    parser.add_argument("--conversions", type=int, default=3, help="rounds of conversion; 0: the stores of before")
    parser.add_argument("--seconds", type=float, default=1.5, help="of each measurement")
    parser.add_argument("--cold-repeats", type=int, default=3, help="rounds of reading dropped files")
    parser.add_argument("--no-cold", dest="cold", action="store_false")
    parser.add_argument("--work", type=Path, default=HERE / "samples", help="where samples and stores are kept")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    parser.add_argument("--peers-python", type=Path, default=HERE.parent / ".venv-peers/bin/python")
    parser.add_argument("--annbatch-python", type=Path, default=HERE.parent / ".venv-annbatch/bin/python")
    parser.add_argument("--verbose", action="store_true", help="show what a system that fails has to say")
    options = parser.parse_args()
    if "cellmill" not in options.systems:
        options.systems.insert(0, "cellmill")  # the panel of highly variable genes comes from its store
    return options


if __name__ == "__main__":
    chosen = parse()
    if chosen.files:
        compare_files(chosen)
    else:
        compare(chosen)
