"""Every recipe there is, in the loader: what `encode` gives, whatever the batch. A new recipe is tested by its name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from cellmill import kernel
from cellmill.genes import Vocabulary
from cellmill.ingest import build
from cellmill.loader import Loader
from cellmill.simulate import write_atlas
from cellmill.store import Store
from cellmill.tokens import Context
from cellmill.tokens.registry import RECIPES, recipe_named


def options_of(name: str, store: Store) -> dict[str, Any]:
    """Settings that make each recipe draw, drop and mask; tables drawn at random where it needs some."""
    ids = store.genes["gene_id"].to_pylist()
    tokens = store.genes["token"].to_numpy().tolist()
    rng = np.random.default_rng(0)
    places = {"vocabulary": store.vocabulary, "token_of": dict(zip(ids, range(len(ids)), strict=True))}
    assay = Context("study", {"gut-a": 90_000, "gut-c": 90_001}, missing=90_002)
    return {
        "csr": {},
        "dense": {"transform": "log1p_cp10k"},
        "count_diffusion": {"max_length": 30, "n_counts": 16},
        "hvg_panel": {"panel": ids[5:60], "vocabulary": store.vocabulary},
        "scgpt": {"max_length": 40, "context": (assay,)},
        "tahoe": {"max_length": 60, "mask": 0.5},
        "geneformer": {"medians": dict(zip(tokens, rng.random(len(ids)) + 0.5, strict=True)), "max_length": 50},
        "scfoundation": {"n_genes": 2000, **places},
        "aido_cell": {"n_genes": 2000, **places},
        "transcriptformer": {
            "max_length": 50,
            "assays": {"unknown": 0, "gut-a": 2},
            "assay_column": "study",
            "vocabulary": store.vocabulary,
            "token_of": {gene: 7 + i for i, gene in enumerate(ids)},
        },
        "cellfm": {"mask": 0.3, "max_length": 60, "max_genes": 60, "min_genes": 1},
        "uce": {
            "vocabulary": store.vocabulary,
            "rows": {gene: 10 + i for i, gene in enumerate(ids[3:])},
            "chromosomes": {gene: i % 7 for i, gene in enumerate(ids[3:])},
            "starts": {gene: int(rng.integers(10**6)) for gene in ids[3:]},
            "sample_size": 40,
            "max_length": 200,
        },
        "state_se": {
            "vocabulary": store.vocabulary,
            "embedding": {gene: 10 + i for i, gene in enumerate(ids[3:])},
            "max_length": 40,
            "n_expressed": 10,
            "n_unexpressed": 10,
            "n_shared": 10,
            "shared_per": "cell",
        },
        "nicheformer": {"means": rng.random(2000) + 0.1, "max_length": 50},
        "cell2sentence": {"max_length": 60},
    }[name]


def test_no_recipe_is_left_out(atlas):
    for name in RECIPES:
        recipe_named(name, **options_of(name, atlas))


def options_by_id(name: str, vocabulary: Vocabulary, ids: list[str]) -> dict[str, Any]:
    """Settings that name genes by their ids alone."""
    rng = np.random.default_rng(0)
    places = {"vocabulary": vocabulary, "token_of": {gene: 7 + i for i, gene in enumerate(ids)}}
    by_id = {gene: rng.random() + 0.5 for gene in ids}
    return {
        "csr": {},
        "dense": {"genes": ids[:40]},
        "count_diffusion": {"panel": ids[5:60], "vocabulary": vocabulary, "n_counts": 16},
        "hvg_panel": {"panel": ids[5:60], "vocabulary": vocabulary, "fill_to": 0},
        "scgpt": {"max_length": 40, "vocabulary": vocabulary},
        "tahoe": {"max_length": 60, "mask": 0.5, "vocabulary": vocabulary},
        "geneformer": {"medians": by_id, "max_length": 50, "vocabulary": vocabulary},
        "scfoundation": {"n_genes": 2000, **places},
        "aido_cell": {"n_genes": 2000, **places},
        "transcriptformer": {"max_length": 50, **places},
        "cellfm": {"mask": 0.3, "max_length": 60, "max_genes": 60, "min_genes": 1, **places},
        "uce": {
            "vocabulary": vocabulary,
            "rows": {gene: 10 + i for i, gene in enumerate(ids)},
            "chromosomes": {gene: i % 7 for i, gene in enumerate(ids)},
            "starts": {gene: int(rng.integers(10**6)) for gene in ids},
            "sample_size": 40,
            "max_length": 200,
        },
        "state_se": {
            "vocabulary": vocabulary,
            "embedding": {gene: 10 + i for i, gene in enumerate(ids)},
            "max_length": 40,
            "n_expressed": 10,
            "n_unexpressed": 10,
            "n_shared": 10,
            "shared_per": "cell",
        },
        "nicheformer": {"means": by_id, "max_length": 50, "vocabulary": vocabulary},
        "cell2sentence": {"max_length": 60},
    }[name]


@pytest.fixture(scope="module")
def renumbered(tmp_path_factory: pytest.TempPathFactory, atlas: Store) -> Store:
    """The cells of the atlas in a store whose vocabulary gives its genes other tokens."""
    folder = tmp_path_factory.mktemp("renumbered")
    inputs = write_atlas(folder / "inputs", n_cells=300, n_genes=400, seed=1)
    vocabulary = Vocabulary.from_json({"<pad>": 5000, **{gene: 4000 - i for i, gene in enumerate(atlas.gene_ids)}})
    vocabulary.to_json(folder / "vocabulary.json")
    return build(folder / "atlas.mill", inputs, vocabulary=folder / "vocabulary.json")


# those that make the store's own tokens, or of a recipe without vocabulary
@pytest.mark.parametrize("name", [name for name in RECIPES if name not in ("csr", "cell2sentence")])
def test_genes_are_found_by_id_whatever_tokens_a_store_gives_them(atlas: Store, renumbered: Store, name: str) -> None:
    ids, vocabulary = list(atlas.gene_ids), atlas.vocabulary
    assert sorted(renumbered.gene_ids) == sorted(ids) and renumbered.vocabulary.hash != vocabulary.hash

    def rows(store: Store) -> tuple[dict[int, dict[str, Any]], dict[str, Any]]:
        recipe = recipe_named(name, **options_by_id(name, vocabulary, ids))
        loader = Loader(store, batch_size=300, tokens=recipe, seed=5)
        (batch,) = loader
        tensors = {field: tensor for field, tensor in batch.tensors() if len(tensor) == 300 and field not in BY_STORE}
        tensors |= {field: tensor for field, tensor in batch.extra.items() if len(tensor) == 300}
        order = torch.argsort(batch.cells)
        made = {field: tensor[order] for field, tensor in tensors.items()}
        if "genes" in made:  # the order of genes in a row is that of the store's axis
            places = torch.argsort(made["genes"], dim=1, stable=True)
            alike = [field for field, tensor in made.items() if tensor.shape == places.shape]
            made |= {field: made[field].gather(1, places) for field in alike}
        made |= {
            field: tensor.sort(dim=-1)[0]
            for field, tensor in made.items()
            if field.startswith("task_") and tensor.ndim > 1
        }
        return made, loader.state_dict()

    (one, state), (other, its) = rows(atlas), rows(renumbered)
    assert one.keys() == other.keys()
    for field, tensor in one.items():
        assert torch.equal(tensor.nan_to_num(), other[field].nan_to_num()), field
    if name != "dense":
        assert vocabulary.hash in its["vocabulary"] and len(its["vocabulary"]) == 2 and len(state["vocabulary"]) == 1


BY_STORE = ("rows", "stores")


@pytest.mark.parametrize("name", list(RECIPES))
def test_the_loader_gives_what_encode_gives(atlas, name):
    loader = Loader(atlas, batch_size=50, tokens=recipe_named(name, **options_of(name, atlas)), seed=5, epochs=2)
    recipe, column = loader.reader.tokens, atlas.column("study").to_pylist()
    for batch in loader:
        rows = batch.rows.numpy()
        keys = kernel.keyed_u64(kernel.derive_key(5, "tokens", batch.epoch), batch.cells.numpy().view(np.uint64))
        more = {"obs": {"study": [column[row] for row in rows]}} if getattr(recipe, "obs_columns", ()) else {}
        counts = atlas.read(rows, genes=None if recipe.genes is None else list(loader.gene_ids))
        made = recipe.encode(counts, loader.reader.axis.tokens, keys, totals=atlas.totals(rows), **more)
        found = dict(batch.tensors())
        for field in ("values", "genes", "indptr", "target", "mask", "lengths", "cu_seqlens"):
            tensor = getattr(made, field)
            assert (tensor is None) == (field not in found), field
            assert tensor is None or (tensor.dtype == found[field].dtype and torch.equal(tensor, found[field])), field
        assert made.extra.keys() == batch.extra.keys()
        for field, tensor in made.extra.items():
            assert torch.equal(tensor, batch.extra[field]), field


def rows_of(loader: Loader) -> dict[tuple[int, int], dict[str, Any]]:
    """What each cell became in each epoch: a row of each tensor, numbers as they are."""
    found = {}
    for batch in loader:
        assert batch.indptr is None
        per_cell = {**dict(batch.tensors())}
        for i, uid in enumerate(batch.cells.tolist()):
            found[uid, batch.epoch] = {
                field: tensor[i] for field, tensor in per_cell.items() if tensor.ndim and len(tensor) == len(batch)
            }
    return found


def same_but_for_padding(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether rows agree as far as the shorter one goes, and the rest of the longer one is one value."""
    short, long = sorted((one.reshape(-1), other.reshape(-1)), key=len)
    rest = long[len(short) :]
    return torch.equal(short, long[: len(short)]) and len(rest.unique()) <= 1


@pytest.mark.parametrize("name", [name for name in RECIPES if name != "csr"])
def test_a_cell_becomes_the_same_whatever_its_batch_rank_and_thread(atlas, name):
    recipe = recipe_named(name, **options_of(name, atlas))
    options = {"tokens": recipe, "seed": 3, "epochs": 2}
    whole = rows_of(Loader(atlas, **options, batch_size=64, prefetch=0))
    small = rows_of(Loader(atlas, **options, batch_size=7, threads=1))
    ranks = [rows_of(Loader(atlas, **options, batch_size=30, rank=rank, world_size=2)) for rank in range(2)]
    for other in (small, ranks[0] | ranks[1]):
        assert other.keys() == whole.keys()
        for cell, row in whole.items():
            per_cell = row.keys() & other[cell].keys() - {"rows"}
            assert {"values", "cells", "totals"} <= per_cell
            for field in per_cell:
                assert same_but_for_padding(row[field], other[cell][field]), (cell, field)
