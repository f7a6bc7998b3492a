"""The loader beside the bare kernel and other loaders: the figures that it is held to, measured side by side.

    python benchmarks/loader.py                              all parts, 200,000 cells: about an hour on 2 cores
    python benchmarks/loader.py --cells 20000 --first-cells 100000 --entropy-cells 600000 --repeats 1 --seconds 0.5
    python benchmarks/loader.py --parts csr panel            some of them

csr      cm.Loader, random order, CSR with two columns of obs, beside `store.gather` of the same rows and other systems
panel    a dense log1p panel of 2,000 genes beside annbatch and scvi-tools' AnnDataLoader
         (over all genes in memory; and, easier, over a panel that was made ahead and lies in memory)
first    time to the first batch of a large store in a fresh process, and the memory of a run
train    an epoch of LinearSCVI beside scvi-tools' own loader over AnnData in memory, and the losses
entropy  label entropy of batches in blocked order beside the exact order, on a store that is sorted by label

Each figure is taken in a fresh process on the same two processors, systems in turn, medians of `--repeats` rounds. The
sample, its stores and the systems are those of store.py; results go to benchmarks/results/.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import anndata
import growth
import machine
import numpy as np
import pandas as pd
import scipy.sparse as sp
from source import SourceFiles
from systems_known import SYSTEMS, TITLES
from tables import cell_text, spread, table_text

import cellmill as cm
from cellmill.simulate import write_reference

HERE = Path(__file__).parent
PARTS = ("csr", "panel", "first", "train", "entropy")
PEERS = ("cellstream", "scdl", "hf", "memmap", "annbatch")
LABELS = 60
Row = dict[str, Any]


class Bench:
    """One run: answers by figure and system, and why a system is left out."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.name = f"reference-{options.cells}-{options.genes}-{options.seed}"
        self.folder = options.work / self.name
        self.inputs = [self.folder / f"shard_{k}.h5ad" for k in range(options.shards)]
        self.stores = options.work / f"{self.name}-stores"
        self.answers: dict[str, dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
        self.missing: dict[str, str] = {}
        self.panel: list[int] = []
        self.stores.mkdir(parents=True, exist_ok=True)

    def place(self, name: str) -> Path:
        return self.stores / f"{name}{'.zarr' if name == 'annbatch' else ''}"

    def ask(self, part: str, system: str, task: str, *, repeat: int = 0, python: str = "", **extra: Any) -> None:
        """Take one figure of one system in a fresh process, and keep the answer."""
        key = f"{part} {system}"
        if key in self.missing:
            return
        options = self.options
        spec = {
            "task": task, "system": system, "place": str(self.place(system)), "inputs": [str(p) for p in self.inputs],
            "cpus": sorted(os.sched_getaffinity(0))[:2], "panel": self.panel, "seconds": options.seconds,
            "batch": options.batch, "seed": options.seed + repeat, "codes": str(self.stores / "codes.npy"), **extra,
        }  # fmt: skip
        answer = run_worker(python or self.python_of(system), "loader_worker.py", spec)
        if "missing" in answer or "error" in answer:
            self.missing[key] = answer.get("missing") or answer["error"]
            say(f"  {key}: left out ({self.missing[key]})")
            return
        self.answers[part][system].append(answer)
        told = answer.get("cells_per_second", answer.get("seconds_per_epoch", answer.get("batch_bits")))
        say(f"  {part} {repeat + 1}, {system}: {told if isinstance(told, list) else f'{told:,.3f}'}")

    def python_of(self, system: str) -> str:
        chosen = {"annbatch": self.options.annbatch_python}.get(system) or self.options.peers_python
        is_peer = SYSTEMS.get(system) == "peer" and chosen is not None and Path(chosen).exists()
        return str(chosen) if is_peer else sys.executable

    # ---- what is measured on ---------------------------------------------------------------------------------------

    def prepare(self, systems: Sequence[str]) -> None:
        """Make the sample and the stores of the systems, once."""
        if not all(path.exists() for path in self.inputs):
            say(f"simulating {self.options.cells:,} cells x {self.options.genes:,} genes (once)")
            write_reference(
                self.folder, n_cells=self.options.cells, n_genes=self.options.genes, n_shards=self.options.shards,
                seed=self.options.seed, processes=len(os.sched_getaffinity(0)),
            )  # fmt: skip
        for name in systems:
            if not self.place(name).exists():
                say(f"converting for {name} (once)")
                spec = {"action": "convert", "system": name, "place": str(self.place(name)),
                        "inputs": [str(p) for p in self.inputs]}  # fmt: skip
                answer = run_worker(self.python_of(name), "worker.py", spec)
                for part in ("csr", "panel"):
                    if "missing" in answer or "error" in answer:
                        self.missing[f"{part} {name}"] = answer.get("missing") or answer["error"]
        store = cm.open(self.place("cellmill"))
        position = {gene: i for i, gene in enumerate(SourceFiles(self.inputs).gene_ids())}
        self.panel = [position[gene] for gene in cm.hvg(store, n=min(2000, store.n_genes)).gene_ids]
        obs = store.obs.to_pandas(columns=["cell_type", "tissue"])
        codes = [obs[name].astype("category").cat.codes.to_numpy(dtype=np.int64) for name in obs.columns]
        np.save(self.stores / "codes.npy", np.stack(codes))

    def large_store(self) -> Path:
        """A store of many cells, encoded as `growth.py` does."""
        place: Path = self.options.work / f"growth-{self.options.first_cells}-{self.options.genes}.mill"
        if not (place / "manifest.json").exists():
            say(f"writing a store of {self.options.first_cells:,} cells (once)")
            distinct = min(20_000, self.options.first_cells)
            cells = growth.Cells(self.options.genes, distinct=distinct, seed=self.options.seed)
            growth.write_store(place, cells, self.options.first_cells)
        return place

    def sorted_store(self) -> Path:
        """A store sorted by label, of cells with few genes: the order alone decides how labels are mixed."""
        n = self.options.entropy_cells
        place: Path = self.options.work / f"sorted-{n}.mill"
        if not (place / "manifest.json").exists():
            say(f"writing a store of {n:,} cells sorted by label (once)")
            rng = np.random.default_rng(self.options.seed)
            shares = 1 / np.arange(1, LABELS + 1)
            labels = np.sort(rng.choice(LABELS, n, p=shares / shares.sum()))
            columns = np.sort(rng.integers(0, 8, (n, 4)) + 8 * np.arange(4), axis=1).astype(np.int32).ravel()
            values = rng.integers(1, 9, 4 * n).astype(np.float32)
            counts = sp.csr_matrix((values, columns, 4 * np.arange(n + 1)), (n, 32))
            names = pd.Categorical.from_codes(labels, [f"label {i:02d}" for i in range(LABELS)])
            obs = pd.DataFrame({"label": names}, index=[f"c{i}" for i in range(n)])
            var = pd.DataFrame(index=[f"ENSG{i:011d}" for i in range(32)])
            source = place.with_suffix(".h5ad")
            anndata.AnnData(counts, obs=obs, var=var).write_h5ad(source)
            cm.build(place, [source], vocabulary="union", overwrite=True)
            source.unlink()
        return place

    # ---- the parts -------------------------------------------------------------------------------------------------

    def csr(self, repeat: int) -> None:
        self.ask("csr", "cellmill", "csr", repeat=repeat)
        for name in self.options.systems:
            self.ask("csr", name, "peer", repeat=repeat)

    def panel_part(self, repeat: int) -> None:
        self.ask("panel", "cellmill", "panel_cellmill", repeat=repeat)
        if "annbatch" in self.options.systems:
            self.ask("panel", "annbatch", "panel_annbatch", repeat=repeat)
        for name, task in (("scvi-tools, all genes", "panel_scvi_all"), ("scvi-tools, made ahead", "panel_scvi")):
            self.ask("panel", name, task, repeat=repeat, place=str(self.place("cellmill")))

    def first(self, repeat: int) -> None:
        self.ask("first", "cellmill", "first", repeat=repeat, place=str(self.large_store()))

    def train(self, repeat: int) -> None:
        shared = {"place": str(self.place("cellmill")), "epochs": self.options.epochs, "n_cells": self.options.cells,
                  "torch_threads": self.options.torch_threads}  # fmt: skip
        for name in ("cellmill", "scvi"):
            self.ask("train", name, "train", repeat=repeat, **{**shared, "with": name, "batch": 128})

    def entropy(self, repeat: int) -> None:
        for order in ("exact", "blocked"):
            self.ask("entropy", order, "entropy", repeat=repeat, place=str(self.sorted_store()), order=order)


def run_worker(python: str, script: str, spec: dict[str, Any]) -> dict[str, Any]:
    words = [python, str(HERE / script), json.dumps(spec)]
    environment = {**os.environ, "PYTHONWARNINGS": "ignore", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}
    done = subprocess.run(words, capture_output=True, text=True, env=environment, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    ended = {"error": f"ended with {done.returncode}: {done.stderr[-400:]}"}
    return json.loads(lines[-1][7:]) if lines else ended


def say(text: str) -> None:
    print(text, flush=True)


# ---- what it comes to ----------------------------------------------------------------------------------------------


def spread_of(answers: Sequence[Row], get: str | Callable[[Row], float]) -> dict[str, float]:
    """Median, lowest and highest of a number of each answer."""
    return spread([one[get] if isinstance(get, str) else get(one) for one in answers])


def rates_of(found: dict[str, list[Row]]) -> dict[str, dict[str, float]]:
    return {name: spread_of(answers, "cells_per_second") for name, answers in found.items()}


def epoch_seconds(answer: Row) -> float:
    return float(np.median(answer["seconds_per_epoch"]))


def last_loss(answer: Row) -> float:
    return float(answer["losses"]["elbo_train"][-1])


def goal(text: str, value: float, *, at_least: float | None = None, at_most: float | None = None) -> list[str]:
    """One line of the table of goals: what, wanted, reached, verdict."""
    wanted = f">= {at_least:g}" if at_least is not None else f"<= {at_most:g}"
    is_met = value >= at_least if at_least is not None else value <= (at_most or 0.0)
    return [text, wanted, f"{value:.3g}", "yes" if is_met else "NO"]


def csr_goals(found: dict[str, list[Row]]) -> list[list[str]]:
    ratio = spread_of(found["cellmill"], lambda one: one["cells_per_second"] / one["kernel"])["median"]
    lines = [goal("csr: loader / bare kernel, the same rows", ratio, at_least=0.85)]
    peers = {name: rate["median"] for name, rate in rates_of(found).items() if SYSTEMS.get(name) == "peer"}
    if peers:
        best = max(peers, key=lambda name: peers[name])
        mine = rates_of(found)["cellmill"]["median"]
        lines.append(goal(f"csr: loader / best peer ({TITLES[best]})", mine / peers[best], at_least=3))
    return lines


def panel_goals(found: dict[str, list[Row]]) -> list[list[str]]:
    rates = {name: rate["median"] for name, rate in rates_of(found).items()}
    # a panel that was made ahead and lies in memory is another task: shown, and no goal
    others = [name for name in rates if name not in ("cellmill", "scvi-tools, made ahead")]
    return [goal(f"panel: loader / {name}", rates["cellmill"] / rates[name], at_least=5) for name in others]


def first_goals(found: dict[str, list[Row]]) -> list[list[str]]:
    answers = found["cellmill"]
    seconds = spread_of(answers, "first_seconds")["median"]
    memory = max(one["peak_anonymous"] for one in answers) / 2**20
    n_cells = answers[0]["n_cells"]
    return [
        goal(f"first: seconds from cm.Loader(...) to the first batch, {n_cells:,} cells", seconds, at_most=0.3),
        goal("first: peak anonymous memory of the process, MiB", memory, at_most=500),
    ]


def train_goals(found: dict[str, list[Row]]) -> list[list[str]]:
    if set(found) != {"cellmill", "scvi"}:
        return []
    epoch = {name: spread_of(answers, epoch_seconds)["median"] for name, answers in found.items()}
    loss = {name: spread_of(answers, last_loss)["median"] for name, answers in found.items()}
    apart = 100 * abs(loss["cellmill"] / loss["scvi"] - 1)
    return [
        goal("train: seconds per epoch, ours / scvi-tools' own", epoch["cellmill"] / epoch["scvi"], at_most=1),
        goal("train: difference of the losses after equal epochs, %", apart, at_most=1),
    ]


def entropy_goals(found: dict[str, list[Row]]) -> list[list[str]]:
    bits = {name: spread_of(answers, "batch_bits")["median"] for name, answers in found.items()}
    lost = 100 * (1 - bits["blocked"] / bits["exact"])
    return [goal("entropy: blocked below exact order, % of the bits", lost, at_most=1)]


GOALS = {"csr": csr_goals, "panel": panel_goals, "first": first_goals, "train": train_goals, "entropy": entropy_goals}


def csr_table(found: dict[str, list[Row]]) -> str:
    rows = [[TITLES.get(name, name), cell_text(rate)] for name, rate in rates_of(found).items()]
    if "kernel" in found["cellmill"][0]:
        rows.insert(1, ["store.gather, the same rows", cell_text(spread_of(found["cellmill"], "kernel"))])
    return table_text(["system", "cells per second"], rows)


def first_table(found: dict[str, list[Row]]) -> str:
    columns = {
        "seconds to the first batch": ("first_seconds", 1.0, 3),
        "before it, to import the loader": ("import_seconds", 1.0, 3),
        "cells per second": ("cells_per_second", 1.0, 0),
        "peak anonymous MiB": ("peak_anonymous", 2**20, 0),
        "peak resident MiB, mapped files too": ("peak_rss", 2**20, 0),
    }
    cells = [cell_text(spread_of(found["cellmill"], n), scale=s, digits=d) for n, s, d in columns.values()]
    return table_text(list(columns), [cells])


def train_table(found: dict[str, list[Row]]) -> str:
    rows = [
        [
            name,
            cell_text(spread_of(answers, epoch_seconds), digits=2),
            cell_text(spread_of(answers, "prepare_seconds"), digits=1),
            ", ".join(f"{loss:.2f}" for loss in answers[-1]["losses"]["elbo_train"]),
            cell_text(spread_of(answers, "peak_rss"), scale=2**20),
        ]
        for name, answers in found.items()
    ]
    head = ["batches by", "seconds per epoch", "seconds to prepare", "elbo by epoch (last round)", "peak resident MiB"]
    return table_text(head, rows)


def entropy_table(found: dict[str, list[Row]]) -> str:
    names = ("batch_bits", "random_bits", "all_bits")
    rows = [[name, *(cell_text(spread_of(a, n), digits=4) for n in names)] for name, a in found.items()]
    return table_text(["order", "bits of a batch", "of random batches, by formula", "of all cells"], rows)


TABLES = {"csr": csr_table, "panel": csr_table, "first": first_table, "train": train_table, "entropy": entropy_table}


def markdown(result: dict[str, Any]) -> str:
    box, settings = result["machine"], result["settings"]
    parts = [
        f"# The loader, {settings['cells']:,} cells",
        (
            f"`{result['command']}`, {box['date']}; {box['processor']}, {box['processors']} processors (two are used), "
            f"{box['memory']}, {box['system']}; load before: {box['load_before']}; commit {box['commit']}. "
            f"Page cache: {result['cache']}."
        ),
        (
            f"Reference sample, {settings['cells']:,} cells x {settings['genes']:,} genes; batches of "
            f"{settings['batch']} cells (training: 128). Medians of {settings['repeats']} rounds (lowest–highest); "
            "systems alternate, each in a fresh process. Batches of cellmill, and panels of all, were compared with "
            "the source before they were timed; those of the other systems by store.py."
        ),
        table_text(["figure", "wanted", "reached", "met"], result["goals"]),
    ]
    for part, found in result["answers"].items():
        parts += [f"## {part}", TABLES[part](found)]
    if result["left_out"]:
        parts += ["## Left out", "\n".join(f"- {name}: {why}" for name, why in result["left_out"].items())]
    answers = [one for found in result["answers"].values() for several in found.values() for one in several]
    versions = {name: number for one in answers for name, number in one["versions"].items()}
    parts.append("Versions: " + ", ".join(f"{name} {number}" for name, number in sorted(versions.items())) + ".")
    return "\n\n".join(parts) + "\n"


def compare(options: argparse.Namespace) -> None:
    bench = Bench(options)
    box = machine.facts()
    is_read = set(options.parts)
    needed = [name for name in options.systems if "csr" in is_read or (name == "annbatch" and "panel" in is_read)]
    if {"csr", "panel", "train"} & is_read:
        bench.prepare(["cellmill", *needed])
    does = {"csr": bench.csr, "panel": bench.panel_part, "first": bench.first, "train": bench.train,
            "entropy": bench.entropy}  # fmt: skip
    for part in options.parts:
        say(part)
        for repeat in range(options.repeats):
            does[part](repeat)
    answers = {part: dict(found) for part, found in bench.answers.items()}
    kept = ("cells", "genes", "batch", "repeats", "seconds", "epochs", "seed", "first_cells", "entropy_cells",
            "torch_threads")  # fmt: skip
    settings = {name: getattr(options, name) for name in kept}
    result = {
        "machine": box, "command": machine.command("loader.py"), "settings": settings, "answers": answers,
        "left_out": bench.missing, "cache": "warm: all files of a store are read once first; 'first' as it was found",
        "goals": [line for part, found in answers.items() for line in GOALS[part](found)],
    }  # fmt: skip
    options.out.mkdir(parents=True, exist_ok=True)
    stem = f"loader-{options.cells}-{time.strftime('%Y-%m-%d')}"
    if (options.out / f"{stem}.json").exists():
        stem += time.strftime("-%H%M")
    (options.out / f"{stem}.json").write_text(json.dumps(result, indent=1) + "\n")
    (options.out / f"{stem}.md").write_text(markdown(result))
    say(markdown(result))
    say(f"written: {stem}.json, {stem}.md")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--cells", type=int, default=200_000, help="cells of the reference sample")
    parser.add_argument("--first-cells", type=int, default=1_000_000, help="cells of the store of part first")
    parser.add_argument(
        "--entropy-cells", type=int, default=2_000_000, help="cells of the sorted store of part entropy"
    )
    parser.add_argument("--genes", type=int, default=36_000)
    parser.add_argument("--shards", type=int, default=4, help="h5ad files of the reference sample")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--epochs", type=int, default=3, help="of part train")
    parser.add_argument("--torch-threads", type=int, default=1, help="of the model in part train")
    parser.add_argument("--systems", nargs="*", choices=PEERS, default=list(PEERS))
    parser.add_argument("--repeats", type=int, default=5, help="rounds")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement of speed")
    parser.add_argument("--work", type=Path, default=HERE / "samples", help="where samples and stores are kept")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    parser.add_argument("--peers-python", type=Path, default=HERE.parent / ".venv-peers/bin/python")
    parser.add_argument("--annbatch-python", type=Path, default=HERE.parent / ".venv-annbatch/bin/python")
    return parser.parse_args()


if __name__ == "__main__":
    compare(parse())
