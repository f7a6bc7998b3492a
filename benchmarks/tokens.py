"""Cells per second from a store to a model's input, beside the original's own collation, in one run.

    python benchmarks/tokens.py --scgpt DIR             DIR: a checkout of bowang-lab/scGPT, whose collator is timed
    python benchmarks/tokens.py --geneformer DIR        DIR: a checkout of jkobject/geneformer, whose tokenizer is timed
    python benchmarks/tokens.py --cells 5000            ours alone, a quick look

Ours is timed from the store to torch tensors through cm.Loader in random order, warm, on one thread and on two. The
originals are timed on one thread: scGPT's collator from tensors that are in memory already, no reading. Rounds
alternate; medians are quoted. Results go to benchmarks/results/.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.util
import io
import json
import logging
import sys
import tempfile
import time
import types
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import anndata
import machine
import numpy as np
import torch
from scipy import sparse

import cellmill as cm
from cellmill import tokens
from cellmill.simulate import write_reference

HERE = Path(__file__).parent
BATCH = 512
SCGPT = "scgpt 1,200 genes, 51 bins, 40 % masked"
COLLATOR = "peer: scGPT's own collator, on one thread, cells in memory"
TOKENIZER = "peer: Geneformer's TranscriptomeTokenizer, on one thread, from an h5ad"


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


def rate_of_collator(
    collate: Callable[[list[dict[str, Any]]], Any], examples: list[dict[str, Any]], seconds: float
) -> float:
    """Return cells per second of an original's collator; examples are copied, since it writes into them."""
    cells, spent, at = 0, 0.0, 0
    while spent < seconds:
        batch = [{name: value.clone() for name, value in one.items()} for one in examples[at : at + BATCH]]
        at = (at + BATCH) % max(1, len(examples) - BATCH)
        began = time.perf_counter()
        collate(batch)
        spent += time.perf_counter() - began
        cells += len(batch)
    return cells / spent


def scgpt_collator(checkout: Path) -> Callable[[list[dict[str, Any]]], Any]:
    """Return the collator of scGPT's main branch; the package's __init__, which imports models, is bypassed."""
    package = types.ModuleType("scgpt")
    package.__path__ = [str(checkout / "scgpt")]  # type: ignore[attr-defined]
    package.logger = logging.getLogger("scgpt")  # type: ignore[attr-defined]
    sys.modules["scgpt"] = package
    made = importlib.import_module("scgpt.data_collator").DataCollator
    return made(
        do_padding=True, pad_token_id=0, pad_value=-2, do_mlm=True, do_binning=True, mlm_probability=0.4, mask_value=-1,
        max_length=1200, sampling=True, keep_first_n_tokens=1,
    )  # fmt: skip


def ragged_examples(store: cm.Store, n: int) -> list[dict[str, torch.Tensor]]:
    """Return cells as the original's data set holds them: ids and counts behind `<cls>`."""
    counts = store.read(np.random.default_rng(0).choice(store.n_cells, n, replace=False))
    ids = store.genes["token"].to_numpy()
    made = []
    for a, b in zip(counts.indptr[:-1].tolist(), counts.indptr[1:].tolist(), strict=True):
        genes = np.concatenate([[1], ids[counts.indices[a:b]]])
        values = np.concatenate([[-2.0], counts.data[a:b]]).astype(np.float32)
        made.append({"id": torch.tensor(0), "genes": torch.from_numpy(genes), "expressions": torch.from_numpy(values)})
    return made


def recipes_of(store: cm.Store) -> dict[str, Any]:
    """Return every recipe with settings of its paper, tables drawn at random where it needs some."""
    ids, codes = store.gene_ids, store.genes["token"].to_numpy().tolist()
    genes: dict[str, Any] = {"vocabulary": store.vocabulary}
    rng = np.random.default_rng(0)
    listed = {**genes, "token_of": {gene: i for i, gene in enumerate(ids[:19_264])}}
    return {
        "csr": tokens.CSR(),
        "dense, 2,000 genes, log1p": tokens.Dense(ids[:2000], transform="log1p_cp10k"),
        SCGPT: tokens.ScGPT(max_length=1200, mask=0.4),
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


def geneformer_tokenizer(checkout: Path, store: cm.Store, n: int, folder: Path) -> Callable[[], int]:
    """Return what tokenises an h5ad file by the class of Geneformer (jkobject/geneformer, the first version)."""
    for name in ("loompy", "datasets"):  # of its other ways in and out
        sys.modules.setdefault(name, types.ModuleType(name))
    sys.modules["datasets"].Dataset = None  # type: ignore[attr-defined]
    if not hasattr(anndata, "read"):  # as it was called when the tokenizer was written
        anndata.read = anndata.read_h5ad
    spec = importlib.util.spec_from_file_location("geneformer_tokenizer", checkout / "geneformer" / "tokenizer.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    counts = store.read(np.random.default_rng(0).choice(store.n_cells, n, replace=False)).astype(np.float32)
    cells = anndata.AnnData(sparse.csr_matrix(counts))
    cells.obs["n_counts"] = np.asarray(counts.sum(axis=1)).ravel()
    cells.var["ensembl_id"] = store.gene_ids
    path = folder / "geneformer.h5ad"
    cells.write_h5ad(path)
    made = module.TranscriptomeTokenizer.__new__(module.TranscriptomeTokenizer)
    made.custom_attr_name_dict = None
    made.gene_median_dict = dict(zip(store.gene_ids, np.random.default_rng(0).random(store.n_genes) + 0.5, strict=True))
    made.gene_token_dict = {gene: i for i, gene in enumerate(store.gene_ids)}
    made.genelist_dict = dict.fromkeys(store.gene_ids, True)

    def tokenise() -> int:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return len(made.tokenize_anndata(path)[0])

    return tokenise


def rate_of(function: Callable[[], int], seconds: float) -> float:
    """Return how many cells a second a function does, that says how many it did."""
    began, cells = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        cells += function()
    return cells / (time.perf_counter() - began)


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    parser.add_argument("--scgpt", type=Path, help="a checkout of bowang-lab/scGPT")
    parser.add_argument("--geneformer", type=Path, help="a checkout of jkobject/geneformer, whose tokenizer is timed")
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
    if options.scgpt:
        collate, examples = scgpt_collator(options.scgpt), ragged_examples(store, 4 * BATCH)
        ways[COLLATOR] = lambda seed: rate_of_collator(collate, examples, options.seconds)
    if options.geneformer:
        tokenise = geneformer_tokenizer(options.geneformer, store, 2 * BATCH, folder)
        ways[TOKENIZER] = lambda seed: rate_of(tokenise, options.seconds)
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
        "| what | cells per second, 1 thread | 2 threads | 1 thread to the peer | 2 threads to the peer |",
        "|---|---|---|---|---|",
    ]  # fmt: skip
    rates = found["rates"]
    for name in dict.fromkeys(one.rsplit(", ", 1)[0] for one in rates if one not in (COLLATOR, TOKENIZER)):
        peer = COLLATOR if name == SCGPT else TOKENIZER if name.startswith("geneformer") else ""
        both = [rates[f"{name}, {threads}"] for threads in ("1 thread", "2 threads")]
        ratios = [f"{median(values) / median(rates[peer]):.1f}" if peer in rates else "" for values in both]
        lines.append(f"| {name} | {' | '.join([*map(spread, both), *ratios])} |")
    lines += [f"| {name} | {spread(rates[name])} | | | |" for name in (COLLATOR, TOKENIZER) if name in rates]
    (folder / f"tokens-{day}.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
