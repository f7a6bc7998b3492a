"""Cells per second from a store to a model's input, beside the original's own tokens, in one run.

    python benchmarks/tokens.py --originals DIR         DIR: checkouts of the originals, see originals.py and README.md
    python benchmarks/tokens.py --cells 5000            ours alone, a quick look

Ours is timed from the store to torch tensors through cm.Loader in random order, warm, on one thread and on two. The
originals are timed on one thread, of cells that are in memory already. Rounds alternate; medians are quoted. Results go
to benchmarks/results/.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import machine
import numpy as np
import torch
from originals import BATCH, ORIGINALS, Work, make_ready, rate_of_original

import cellmill as cm
from cellmill import tokens
from cellmill.simulate import write_reference

HERE = Path(__file__).parent
ORIGINAL = "original of "


def rate_of_loader(store: cm.Store, recipe: Any, *, threads: int, seconds: float, seed: int) -> float:
    """Return cells per second of the loader, its first batches left out."""
    loader = cm.Loader(store, batch_size=BATCH, tokens=recipe, seed=seed, threads=threads, epochs=None)
    cells, began = 0, 0.0
    for step, batch in enumerate(loader):
        if step == 4:
            cells, began = 0, time.perf_counter()
        cells += len(batch)
        if step > 8 and time.perf_counter() - began > seconds:
            break
    rate = (cells - len(batch)) / (time.perf_counter() - began) if step > 4 else 0.0
    del loader
    return rate


def recipes_of(store: cm.Store) -> dict[str, Any]:
    """Return every recipe with settings of its paper, tables drawn at random where it needs some."""
    ids, codes = store.gene_ids, store.genes["token"].to_numpy().tolist()
    genes: dict[str, Any] = {"vocabulary": store.vocabulary}
    rng = np.random.default_rng(0)
    listed = {**genes, "token_of": {gene: i for i, gene in enumerate(ids[:19_264])}}
    return {
        "csr": tokens.CSR(),
        "dense, 2,000 genes, log1p": tokens.Dense(ids[:2000], transform="log1p_cp10k"),
        "scgpt 1,200 genes, 51 bins, 40 % masked": tokens.ScGPT(max_length=1200, mask=0.4),
        "scgpt both": tokens.ScGPT(max_length=1200, mask=0.5, style="both"),
        "tahoe 2,048": tokens.Tahoe(max_length=2048, mask=0.5),
        "geneformer V2, 4,096": tokens.Geneformer(medians=dict(zip(codes, rng.random(len(ids)) + 0.5, strict=True))),
        "nicheformer, 1,500": tokens.Nicheformer(means=rng.random(max(codes) + 1) + 0.1),
        "cell2sentence": tokens.Cell2Sentence(),
        "uce, 1,024 draws": tokens.UCE(
            {gene: 4 + i for i, gene in enumerate(ids)},  # the first rows are special tokens
            {gene: i % 24 for i, gene in enumerate(ids)},
            {gene: int(rng.integers(10**8)) for gene in ids},
            **genes,
        ),
        "state se, 2,048": tokens.StateSE({gene: i for i, gene in enumerate(ids[:20_000])}, **genes),
        "scfoundation": tokens.ScFoundation(**listed),
        "aido.cell": tokens.AidoCell(**listed),
        "transcriptformer, 2,047": tokens.TranscriptFormer(
            token_of={gene: 7 + i for i, gene in enumerate(ids)}, **genes
        ),
        "cellfm, 2,048": tokens.CellFM(mask=0.2),
        "count diffusion, 2,000 genes": tokens.CountDiffusion(panel=codes[:2000], n_counts=64),
        "hvg panel, 2,000": tokens.HVGPanel(ids[:2000], **genes),
    }


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    parser.add_argument("--originals", type=Path, help="a folder of checkouts, see originals.py")
    parser.add_argument("--store", type=Path, help="a store of your own instead of the reference sample")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        path = options.store
        if path is None:
            path = Path(folder) / "reference.mill"
            cm.build(path, write_reference(Path(folder) / "in", n_cells=options.cells, processes=2))
        store = cm.open(path)
        found = measure(store, options, Path(folder))
    found["sample"] = {"cells": store.n_cells, "genes": store.n_genes, "nonzeros per cell": store.nnz / store.n_cells}
    found["machine"] = machine.facts()
    write(found, options.out)


def measure(store: cm.Store, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Return medians over rounds that alternate between all that is compared."""
    ways: dict[str, Callable[[int], float]] = {}
    for name, recipe in recipes_of(store).items():
        for threads in (1, 2):

            def ours(seed: int, recipe: Any = recipe, threads: int = threads) -> float:
                return rate_of_loader(store, recipe, threads=threads, seconds=options.seconds, seed=seed)

            ways[f"{name}, {threads} thread{'s' * (threads > 1)}"] = ours
    for name, work in make_ready(options.originals, store, folder).items() if options.originals else ():

        def theirs(seed: int, work: Work = work) -> float:
            return rate_of_original(work, options.seconds)

        ways[ORIGINAL + name] = theirs
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(options.rounds):
        for name, way in ways.items():
            rates[name].append(way(turn))
            print(f"round {turn + 1}: {name}: {rates[name][-1]:,.0f} cells/s", flush=True)
    return {"rates": rates, "medians": {name: median(values) for name, values in rates.items()}}


def spread(values: list[float]) -> str:
    """Return median, least and most."""
    return f"{median(values):,.0f} ({min(values):,.0f} to {max(values):,.0f})"


def write(found: dict[str, Any], folder: Path) -> None:
    """Write the figures as JSON and as a table."""
    day = time.strftime("%Y-%m-%d")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"tokens-{day}.json").write_text(json.dumps(found, indent=1) + "\n")
    lines = [
        f"# Tokens, {day}", "",
        (f"{found['sample']['cells']:,} cells of {found['sample']['genes']:,} genes, "
        f"{found['sample']['nonzeros per cell']:,.0f} nonzeros each; batches of {BATCH}; "
        f"{found['machine']['processor']}, load before {found['machine']['load_before']}; medians of "
        f"{len(next(iter(found['rates'].values())))} rounds (least to most), from the store to torch tensors."), "",
        "| what | cells per second, 1 thread | 2 threads | the original, 1 thread | ours to it, 1 thread | 2 threads |",
        "|---|---|---|---|---|---|",
    ]  # fmt: skip
    rates = found["rates"]
    for name in dict.fromkeys(one.rsplit(", ", 1)[0] for one in rates if not one.startswith(ORIGINAL)):
        both = [rates[f"{name}, {threads}"] for threads in ("1 thread", "2 threads")]
        its = rates.get(ORIGINAL + name)
        beside = [spread(its), *(f"{median(values) / median(its):.1f}" for values in both)] if its else [""] * 3
        lines.append(f"| {name} | {' | '.join([*map(spread, both), *beside])} |")
    timed = [f"- {one.repository}: {one.timed}." for one in ORIGINALS if ORIGINAL + one.recipe in rates]
    if timed:
        genes = f"{found['sample']['genes']:,} genes of the file, expressed or not"
        lines += [
            "",
            f"The originals, each on one thread, of cells in memory; those with dense rows go through all {genes}:",
        ]
        lines += ["", *timed]
    (folder / f"tokens-{day}.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
