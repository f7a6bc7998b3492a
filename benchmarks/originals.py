"""The tokenizers and collators of published models, as their authors wrote them, for `tokens.py` to time beside ours.

A folder holds checkouts of their repositories, each named as `Original.folder` says. Their files are imported unchanged;
imports that the part in question does not need (trainers, plots, readers of settings) are empty while it is imported.
`Original.timed` says what is timed: what their own data set and collator do for each cell, of cells that are in memory
in the form in which they hold them. Reading files, tables and vocabularies comes before. Settings are those of
`tokens.recipes_of`, also where the original's default is another.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import io
import logging
import sys
import time
import types
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import torch
from scipy import sparse

import cellmill as cm

BATCH = 512
CLS, PAD_VALUE = 1, -2.0


@dataclass(frozen=True)
class Place:
    """Where an original gets what it needs: its checkout, cells, and a folder to write to."""

    checkout: Path
    store: cm.Store
    folder: Path

    @functools.cached_property
    def counts(self) -> sparse.csr_matrix:
        """Counts of random cells, float32, as h5ad files hold them."""
        rows = np.random.default_rng(0).choice(self.store.n_cells, min(2 * BATCH, self.store.n_cells), replace=False)
        return sparse.csr_matrix(self.store.read(rows).astype(np.float32))

    @functools.cached_property
    def cells(self) -> anndata.AnnData:
        """The same as the originals' tools have them."""
        made = anndata.AnnData(self.counts)
        made.var_names = list(self.store.gene_ids)
        made.var["ensembl_id"] = list(self.store.gene_ids)
        made.obs["n_counts"] = np.asarray(self.counts.sum(axis=1)).ravel()
        return made

    def batches(self, of: Any) -> list[Any]:
        """Return the parts of something that has a row for each cell."""
        return [of[at : at + BATCH] for at in range(0, self.counts.shape[0], BATCH)]


def as_it_is(batch: Any) -> Any:
    """Return a batch of an original that leaves its input alone."""
    return batch


@dataclass(frozen=True)
class Work:
    """Batches, and what makes tokens of one and returns how many cells they are of.

    `fresh` is not timed: it copies a batch for an original that writes into what it is given.
    """

    batches: Sequence[Any]
    process: Callable[[Any], int]
    fresh: Callable[[Any], Any] = as_it_is


@dataclass(frozen=True)
class Original:
    """A tokenizer or collator: its repository, the recipe of ours that it belongs to, and how it is made ready."""

    folder: str
    repository: str
    recipe: str
    timed: str
    prepare: Callable[[Place], Work]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep an original's own bars, prints and warnings from the terminal."""
    with (
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        yield


def rate_of_original(work: Work, seconds: float) -> float:
    """Return how many cells a second an original does."""
    cells, spent, turn = 0, 0.0, 0
    with quiet():
        while spent < seconds:
            batch = work.fresh(work.batches[turn % len(work.batches)])
            began = time.perf_counter()
            cells += work.process(batch)
            spent += time.perf_counter() - began
            turn += 1
    return cells / spent


def make_ready(checkouts: Path, store: cm.Store, folder: Path) -> dict[str, Work]:
    """Return the work of each original that runs, by name of its recipe; the others are told on the terminal.

    Each has done one batch: what is compiled or filled at first is not timed.
    """
    made = {}
    for one in ORIGINALS:
        checkout = checkouts / one.folder
        if not checkout.is_dir():
            print(f"left out: {one.repository}, no checkout in {one.folder}", flush=True)
            continue
        own = folder / one.folder
        own.mkdir()
        try:
            with quiet():
                work = one.prepare(Place(checkout.resolve(), store, own))
                work.process(work.fresh(work.batches[0]))
        except Exception as error:  # whatever others' code raises, the rest is measured
            print(f"left out: {one.repository}, {type(error).__name__}: {error}", flush=True)
        else:
            made[one.recipe] = work
    return made


@contextlib.contextmanager
def stand_ins(names: Mapping[str, Mapping[str, Any]]) -> Iterator[None]:
    """Put empty modules, but for some attributes, in the place of others while an original is imported."""
    before = {name: sys.modules.get(name) for name in names}
    for name, attributes in names.items():
        module = types.ModuleType(name)
        module.__spec__ = ModuleSpec(name, None)
        module.__path__ = []
        vars(module).update(attributes)
        sys.modules[name] = module
        parent, _, last = name.rpartition(".")
        if parent in names:
            setattr(sys.modules[parent], last, module)
    try:
        yield
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


def bare_package(name: str, folder: Path, **attributes: Any) -> None:
    """Let modules of a package be imported without its `__init__`, which would import models."""
    package = types.ModuleType(name)
    package.__path__ = [str(folder)]
    vars(package).update(attributes)
    sys.modules[name] = package


def import_file(name: str, path: Path) -> types.ModuleType:
    """Return the module of one file."""
    spec = importlib.util.spec_from_file_location(f"original_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def ragged(place: Place) -> list[dict[str, torch.Tensor]]:
    """Return cells as data sets of scGPT's kind hold them: ids and counts behind `<cls>`."""
    counts, ids, made = place.counts, place.store.genes["token"].to_numpy(), []
    for a, b in zip(counts.indptr[:-1].tolist(), counts.indptr[1:].tolist(), strict=True):
        genes = np.concatenate([[CLS], ids[counts.indices[a:b]]])
        values = np.concatenate([[PAD_VALUE], counts.data[a:b]]).astype(np.float32)
        made.append({"id": torch.tensor(0), "genes": torch.from_numpy(genes), "expressions": torch.from_numpy(values)})
    return made


def collation(place: Place, collate: Callable[[list[dict[str, Any]]], Any]) -> Work:
    """Return the work of a collator of ragged cells, which writes bins into the cells that it is given."""

    def process(batch: list[dict[str, Any]]) -> int:
        collate(batch)
        return len(batch)

    def fresh(batch: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{name: value.clone() for name, value in one.items()} for one in batch]

    return Work(place.batches(ragged(place)), process, fresh)


def scgpt(place: Place) -> Work:
    """The collator of the main branch."""
    bare_package("scgpt", place.checkout / "scgpt", logger=logging.getLogger("scgpt"))
    collator = importlib.import_module("scgpt.data_collator").DataCollator(
        do_padding=True, pad_token_id=0, pad_value=PAD_VALUE, do_mlm=True, do_binning=True, mlm_probability=0.4,
        mask_value=-1, max_length=1200, sampling=True, keep_first_n_tokens=1,
    )  # fmt: skip
    return collation(place, collator)


def geneformer(place: Place) -> Work:
    """The tokenizer of the first version; its tables are drawn at random."""
    with stand_ins({"loompy": {}, "datasets": {"Dataset": None}}):
        module = import_file("geneformer", place.checkout / "geneformer" / "tokenizer.py")
    module.ad = types.SimpleNamespace(read=anndata.read_h5ad)  # as it was called then
    ids = place.store.gene_ids
    made = module.TranscriptomeTokenizer.__new__(module.TranscriptomeTokenizer)
    made.custom_attr_name_dict = None
    made.gene_median_dict = dict(zip(ids, np.random.default_rng(0).random(len(ids)) + 0.5, strict=True))
    made.gene_token_dict = {gene: i for i, gene in enumerate(ids)}
    made.genelist_dict = dict.fromkeys(ids, True)
    path = place.folder / "cells.h5ad"
    place.cells.write_h5ad(path)
    return Work([path], lambda file: len(made.tokenize_anndata(file)[0]))


def tahoe(place: Place) -> Work:
    """The collator, without a drug token."""
    package = place.checkout / "tahoe_x1"
    bare_package("tahoe_x1", package)
    bare_package("tahoe_x1.data", package / "data")

    class Base:
        def __init__(self, return_tensors: str) -> None:
            pass

    names = {
        "composer": {},
        "composer.utils": {"dist": None},
        "transformers": {"DefaultDataCollator": Base},
        "tahoe_x1.utils": {"download_file_from_s3_url": None},
    }
    with stand_ins(names):
        module = importlib.import_module("tahoe_x1.data.collator")
    tokens = zip(place.store.gene_ids, place.store.genes["token"].to_pylist(), strict=True)
    vocabulary = module.GeneVocab({"<pad>": 0, "<cls>": CLS, **dict(tokens)})
    collator = module.DataCollator(
        vocabulary, do_padding=True, pad_token_id=0, pad_value=PAD_VALUE, do_mlm=True, do_binning=True,
        mlm_probability=0.5, mask_value=-1, max_length=2048, sampling=True, keep_first_n_tokens=1, num_bins=51,
    )  # fmt: skip
    return collation(place, collator)


ORIGINALS = (
    Original(
        "scGPT",
        "bowang-lab/scGPT",
        "scgpt 1,200 genes, 51 bins, 40 % masked",
        "its `DataCollator`, cells as tensors of ids and counts",
        scgpt,
    ),
    Original(
        "tahoe-x1",
        "tahoebio/tahoe-x1",
        "tahoe 2,048",
        "its `DataCollator`, cells as tensors of ids and counts",
        tahoe,
    ),
    Original(
        "geneformer",
        "jkobject/geneformer",
        "geneformer V2, 4,096",
        "`TranscriptomeTokenizer.tokenize_anndata` of the first version, from an h5ad file, not cut and not padded",
        geneformer,
    ),
)
