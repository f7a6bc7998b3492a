"""The tokenizers and collators of published models, as their authors wrote them, for `tokens.py` to time beside ours.

A folder holds checkouts of their repositories, each named as `Original.folder` says. Their files are imported as they
are; what the part in question does not need of their imports (trainers, plots, readers of settings) is empty meanwhile.
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
import pickle
import sys
import time
import types
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any
from unittest import mock

import anndata
import numpy as np
import torch
from scipy import sparse
from torch.utils.data import default_collate

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
        return [of[rows] for rows in self.slices()]

    def slices(self) -> list[slice]:
        """Return which cells are in each batch."""
        n = self.counts.shape[0]
        return [slice(at, min(at + BATCH, n)) for at in range(0, n, BATCH)]


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
    for other in [other for other in sys.modules if other.startswith(f"{name}.")]:
        del sys.modules[other]  # of another version of the same package
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


def scgpt(place: Place, mask: float = 0.4, **more: Any) -> Work:
    """The collator of either branch, of 1,200 tokens; `more` are arguments that one of them lacks."""
    bare_package("scgpt", place.checkout / "scgpt", logger=logging.getLogger("scgpt"))
    scanpy = {"scanpy": {}, "scanpy.get": {"_get_obs_rep": None, "_set_obs_rep": None}}
    with stand_ins(scanpy):
        module = importlib.import_module("scgpt.data_collator")
    collator = module.DataCollator(
        do_padding=True, pad_token_id=0, pad_value=PAD_VALUE, do_mlm=True, do_binning=True, mlm_probability=mask,
        mask_value=-1, max_length=1200, sampling=True, keep_first_n_tokens=1, **more,
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


def nicheformer(place: Place) -> Work:
    """Its data set, which makes tokens of 1,000 cells at a time when it is created; means are drawn at random."""
    module = import_file("nicheformer", place.checkout / "src" / "nicheformer" / "data" / "dataset.py")
    cells = place.cells.copy()
    cells.obs["nicheformer_split"] = "train"
    means = np.random.default_rng(0).random(place.store.n_genes) + 0.1
    data = module.NicheformerDataset(cells, means, split="train", max_seq_len=1500)

    def process(rows: slice) -> int:
        data.tokens = data._process_chunk(rows.start, rows.stop)
        return len(default_collate([data[i] for i in range(len(data.tokens))])["X"])

    return Work(place.slices(), process)


def cell2sentence(place: Place) -> Work:
    """What it makes sentences of an AnnData with; the names are the ids of genes."""
    names = {"plotnine": {}, "datasets": {"Dataset": None, "DatasetDict": None}}
    with stand_ins(names):
        module = import_file("cell2sentence", place.checkout / "src" / "cell2sentence" / "utils.py")
    vocabulary = module.generate_vocabulary(place.cells)
    parts = [place.cells[rows].copy() for rows in place.slices()]
    return Work(parts, lambda part: len(module.generate_sentences(part, vocabulary)))


def uce(place: Place) -> Work:
    """Its data set, which has dense int64 counts in a mapped file, and its collator; tables are drawn at random."""
    module = import_file("uce", place.checkout / "eval_data.py")
    n, n_genes = BATCH, place.store.n_genes
    rng = np.random.default_rng(0)
    tables = {"rows": torch.arange(4, 4 + n_genes), "chromosomes": np.arange(n_genes) % 24}
    tables["starts"] = rng.integers(10**8, size=n_genes)
    torch.save({"cells": tables["rows"]}, place.folder / "rows.torch")
    for name in ("chromosomes", "starts"):
        (place.folder / f"{name}.pkl").write_bytes(pickle.dumps({"cells": tables[name]}))
    place.counts[:n].toarray().astype(np.int64).tofile(
        place.folder / "cells_counts.npz"
    )  # no npz, in spite of its name
    settings = types.SimpleNamespace(
        sample_size=1024, pad_length=1536, cls_token_idx=3, pad_token_idx=0, chrom_token_right_idx=2,
        CHROM_TOKEN_OFFSET=143_574,
    )  # fmt: skip
    data = module.MultiDatasetSentences(
        ["cells"], {"cells": (n, n_genes)}, settings,
        dataset_to_protein_embeddings_path=place.folder / "rows.torch",
        datasets_to_chroms_path=place.folder / "chromosomes.pkl",
        datasets_to_starts_path=place.folder / "starts.pkl",
        npzs_dir=f"{place.folder}/",
    )  # fmt: skip
    collate = module.MultiDatasetSentenceCollator(settings)
    return Work([range(n)], lambda rows: len(collate([data[i] for i in rows])[0]))


class Settings(dict[str, Any]):
    """A tree of settings, read by attribute or by key."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


def state(place: Place) -> Work:
    """Its data set of an AnnData and its collator, of genes that have an embedding: the first 20,000."""
    package = place.checkout / "src" / "state" / "emb"
    bare_package("original_state", package)
    bare_package("original_state.data", package / "data")
    with stand_ins({"requests": {}}):
        module = importlib.import_module("original_state.data.loader")
    embedded = {gene: i for i, gene in enumerate(place.store.gene_ids[:20_000])}
    settings = Settings(
        dataset=Settings(pad_length=2048, P=512, N=512, S=512, cls_token_idx=3),
        embeddings=Settings(current="given", given=Settings(num=len(embedded), ds_emb_mapping="given")),
        model=Settings(rda=True, counts=True, num_downsample=1, dataset_correction=True, batch_tabular_loss=False),
        loss=Settings(name="tabular"),
        task=Settings(mask=0.2),
    )
    data = module.FilteredGenesCounts(settings, adata=place.cells, adata_name="cells", protein_embeds=embedded)
    collate = module.VCIDatasetSentenceCollator(
        settings, valid_gene_mask=data.valid_gene_index, ds_emb_mapping_inference=data.ds_emb_map, is_train=False
    )
    return Work(place.slices(), lambda rows: len(collate([data[i] for i in range(rows.start, rows.stop)])[0]))


def transcriptformer(place: Place) -> Work:
    """Its data set's way from a sparse matrix to dense rows, and its `process_batch`; rows are cut as they come."""
    package = place.checkout / "src" / "transcriptformer"
    bare_package("transcriptformer", package)
    precision = torch.get_float32_matmul_precision()
    with stand_ins({"scanpy": {}}):
        module = importlib.import_module("transcriptformer.data.dataloader")
    torch.set_float32_matmul_precision(precision)  # it sets another, for all of torch
    specials = ("unknown", "[START]", "[END]", "[RD]", "[CELL]", "[PAD]", "[MASK]")
    vocabulary = {name: i for i, name in enumerate([*specials, *place.store.gene_ids])}
    genes = np.array(place.store.gene_ids)
    data = module.AnnDataset.__new__(module.AnnDataset)  # its __init__ makes tokens of whole files
    tokens_of = module.BatchGeneTokenizer(vocabulary)

    def process(counts: sparse.csr_matrix) -> int:
        made = module.process_batch(
            data._to_dense(counts), None, genes, tokens_of, None, sort_genes=False, randomize_order=False,
            max_len=2047, pad_zeros=True, pad_token="[PAD]", gene_vocab=vocabulary, normalize_to_scale=0,
            clip_counts=30, aux_vocab=None,
        )  # fmt: skip
        return len(made["gene_counts"])

    return Work(place.batches(place.counts), process)


class NoNetwork:
    """What scFoundation hands its tokens to: takes them and gives numbers of a fitting shape."""

    def __init__(self) -> None:
        self.seen = 0

    def eval(self) -> None:
        """Do nothing."""

    def token_emb(self, values: torch.Tensor, output_weight: int) -> torch.Tensor:
        """Return the values, and count a cell."""
        del output_weight
        self.seen += 1
        return values

    def pos_emb(self, places: torch.Tensor) -> torch.Tensor:
        """Return what adds nothing."""
        del places
        return torch.zeros(1)

    def encoder(self, values: torch.Tensor, padding: torch.Tensor) -> torch.Tensor:
        """Return numbers."""
        del values, padding
        return torch.zeros(1, 4, 1)


def scfoundation(place: Place) -> Work:
    """The `main` of its script, cell by cell, of a file of the 19,264 genes of its list; the network does nothing."""
    package, network = place.checkout / "model", NoNetwork()
    names = {"scanpy": {}, "pretrainmodels": {"select_model": None}}
    sys.modules.pop("load", None)
    with (
        stand_ins(names),
        contextlib.chdir(package),
        mock.patch.object(sys, "argv", ["get_embedding.py"]),
        mock.patch.object(sys, "path", [str(package), *sys.path]),
    ):
        module = import_file("scfoundation", package / "get_embedding.py")
    module.load_model_frommmf = lambda path, key: (network, {"pad_token_id": 103})
    paths = []
    for i, counts in enumerate(place.batches(place.counts[:, :19_264])):
        paths.append(place.folder / f"cells-{i}.npz")
        sparse.save_npz(paths[-1], counts, compressed=False)

    def process(path: Path) -> int:
        vars(module.args).update(data_path=str(path), save_path=str(place.folder))
        before = network.seen
        with mock.patch.object(torch.Tensor, "cuda", as_it_is):
            module.main()
        return network.seen - before

    return Work(paths, process)


class Columns:
    """In the place of MindSpore's data sets: does the functions of a pipeline one after the other, on this thread."""

    def __init__(self, source: Any, column_names: list[str], **unused: Any) -> None:
        del unused
        self.source, self.names = source, column_names
        self.steps: list[tuple[Callable[..., Any], list[str], list[str]]] = []
        self.wanted = column_names

    def map(
        self, function: Callable[..., Any], input_columns: list[str], output_columns: list[str] | None = None
    ) -> Any:
        """Add a function of some columns; it gives others, or the same."""
        self.steps.append((function, input_columns, output_columns or input_columns))
        return self

    def project(self, columns: list[str]) -> Any:
        """Say which columns are wanted."""
        self.wanted = columns
        return self

    def batch(self, size: int, **unused: Any) -> Any:
        """Take all cells as one batch."""
        del size, unused
        return self

    def rows(self, cells: Sequence[int]) -> list[torch.Tensor]:
        """Return the wanted columns of some cells."""
        made = []
        for i in cells:
            row = dict(zip(self.names, self.source[i], strict=True))
            for function, taken, given in self.steps:
                out = function(*(row[name] for name in taken))
                row.update(zip(given, out if isinstance(out, tuple) else (out,), strict=True))
            made.append([row[name] for name in self.wanted])
        return [torch.from_numpy(np.stack(column)) for column in zip(*made, strict=True)]


def cellfm(place: Place) -> Work:
    """Its data set of an h5ad file, read and capped beforehand, and the functions of its pipeline."""
    mindspore: dict[str, dict[str, Any]] = {
        "mindspore": {"nn": None, "ops": None},
        "mindspore.numpy": {},
        "mindspore.scipy": {},
        "mindspore.dataset": {"GeneratorDataset": Columns},
        "scanpy": {"read_h5ad": anndata.read_h5ad},
    }
    with stand_ins(mindspore):
        module = import_file("cellfm", place.checkout / "data_process.py")
    place.cells.write_h5ad(place.folder / "cells.h5ad")
    (place.folder / "gene_info.csv").write_text("\n".join(["gene", *place.store.gene_ids]) + "\n")
    with contextlib.chdir(place.folder):  # where it looks for the list of genes
        data = module.SCrna(str(place.folder), "cells.h5ad")
    pipeline = module.build_dataset(data, module.Prepare(2048, mask_ratio=0.2), BATCH)
    return Work(place.slices(), lambda rows: len(pipeline.rows(range(rows.start, rows.stop))[0]))


ORIGINALS = (
    Original(
        "scGPT",
        "bowang-lab/scGPT",
        "scgpt 1,200 genes, 51 bins, 40 % masked",
        "its `DataCollator`, cells as tensors of ids and counts",
        scgpt,
    ),
    Original(
        "scGPT-dev-temp",
        "bowang-lab/scGPT, branch dev-temp",
        "scgpt both",
        "its `DataCollator`, style both, cells as tensors of ids and counts",
        functools.partial(scgpt, mask=0.5, data_style="both"),
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
    Original(
        "nicheformer",
        "theislab/nicheformer",
        "nicheformer, 1,500",
        "what its data set does with a chunk of cells of a sparse matrix, then single cells collated",
        nicheformer,
    ),
    Original(
        "cell2sentence",
        "vandijklab/cell2sentence",
        "cell2sentence",
        "`generate_sentences` of a sparse matrix, which gives the text of sentences; ours gives their tokens",
        cell2sentence,
    ),
    Original(
        "UCE",
        "snap-stanford/UCE",
        "uce, 1,024 draws",
        "its data set, of a mapped file of dense int64 counts of all genes, and its collator",
        uce,
    ),
    Original(
        "state",
        "ArcInstitute/state",
        "state se, 2,048",
        "its data set, of a sparse matrix, and its collator, with its weights of all genes",
        state,
    ),
    Original(
        "transcriptformer",
        "czi-ai/transcriptformer",
        "transcriptformer, 2,047",
        "dense rows of a sparse matrix and `process_batch`; longer cells are cut, ours sampled",
        transcriptformer,
    ),
    Original(
        "scFoundation",
        "biomap-research/scFoundation",
        "scfoundation",
        "`main` of `get_embedding.py` without its network, a cell at a time, and reading 512 cells from an npz",
        scfoundation,
    ),
    Original(
        "CellFM",
        "biomed-AI/CellFM",
        "cellfm, 2,048",
        "its data set, of a sparse matrix whose totals are capped already, and the functions of `build_dataset`",
        cellfm,
    ),
)
