"""STATE SE against its original: rows, shares, tasks and masks, given its order of ties where that is random."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from scipy import sparse

from cellmill.errors import InputError, NotRawCountsError
from cellmill.tokens import StateSE, TokenBatch
from cellmill.tokens.cells import as_cells
from cellmill.tokens.state_se import LOCAL_CLS, _read_as_raw
from parity_vectors import within_five_sigma
from parity_where import where

N_EMBEDDINGS = 1 << 18


def recipe_of(case, **more) -> StateSE:
    params, table = case.params, case["emb"]
    return StateSE(
        table,
        n_embeddings=N_EMBEDDINGS,
        max_length=params["pad_length"],
        n_expressed=params["P"],
        n_unexpressed=params["N"],
        n_shared=params["S"] if params.get("loss", "tabular") == "tabular" else 0,
        mask=params.get("mask", 0.2),
        binary=params.get("loss") == "cross_entropy",
        pad="max",
        **more,
    )


def is_whole(case) -> bool:
    return bool((case["x"] == np.floor(case["x"])).all())


def input_of(case, n: int = 1):
    """Return counts (negative ones as 0, as the original takes them), tokens (-1 outside its valid mask) and keys."""
    x = np.maximum(case["x"], 0).astype(np.uint32)
    tokens = np.arange(len(x))
    if "valid" in case:
        tokens[~case["valid"]] = -1
    return sparse.csr_array(np.repeat(x[None], n, axis=0)), tokens, np.arange(n, dtype=np.uint64) + np.uint64(5)


def kept_of(case) -> np.ndarray:
    return np.flatnonzero(case["valid"]) if "valid" in case else np.arange(len(case["x"]))


def with_the_originals_order(case) -> TokenBatch:
    """Return our faithful row where genes of equal counts come in the order in which the original had them."""
    counts, tokens, keys = input_of(case)
    recipe = recipe_of(case, faithful=True)
    ids = case["emb"].tolist()
    often = Counter(ids)
    column_of = {identity: column for column, identity in enumerate(ids) if often[identity] == 1}
    order = np.full(len(ids), 2**32 - 1, dtype=np.uint64)
    for slot, identity in enumerate(case["sentence"].tolist()):
        if slot and identity in column_of:
            order[column_of[identity]] = min(slot, int(order[column_of[identity]]))
    cells = as_cells(counts, tokens, keys)
    return recipe.batch(cells, recipe.plan(cells, _read_as_raw(counts), order=order << np.uint64(32)))


whole = where("state_se", lambda case: "sentence" in case and is_whole(case))


@whole
def test_row_is_the_originals_given_its_order_of_ties(case):
    batch, width = with_the_originals_order(case), case.params["pad_length"]
    assert int(batch.lengths[0]) == width
    sentence, kept = batch.genes[0].numpy(), kept_of(case)
    assert np.allclose(batch.values[0].numpy(), case["value"], rtol=1e-6, atol=0)
    assert sentence[0] == case["sentence"][0] == case["emb"][kept[LOCAL_CLS]]
    n_expressed = int((case["log_value"] > 0).sum())
    exact = width if len(kept) >= width - 1 else 1 + n_expressed
    known = case["sentence"][:exact] >= 0  # genes without embedding cannot be told apart
    if known.all():
        assert sentence[:exact].tolist() == case["sentence"][:exact].tolist()
    unexpressed = set(case["emb"][kept][case["log_value"] == 0].tolist())
    assert set(sentence[1 + n_expressed :].tolist()) <= unexpressed


@whole
def test_corrected_row_is_log1p_always_and_leaves_the_first_slot_alone(case):
    counts, tokens, keys = input_of(case)
    batch = recipe_of(case).encode(counts, tokens, keys)
    with_embedding = kept_of(case)[case["emb"][kept_of(case)] >= 0]
    y = np.log1p(np.maximum(case["x"], 0)).astype(np.float32)[with_embedding]
    share = dict(zip(case["emb"][with_embedding].tolist(), y / max(y.sum(), 1e-30) * 100, strict=True))
    if not y.any():
        share = dict.fromkeys(share, 100 / len(y))
    assert batch.genes[0, 0] == 3 and batch.values[0, 0] == 0 and not batch.mask[0, 0]
    row = batch.values[0, 1 : int(batch.lengths[0])].numpy()
    assert np.allclose(row, [share[gene] for gene in batch.genes[0, 1 : 1 + len(row)].tolist()], rtol=1e-5)
    assert (np.diff(row) <= 0).all()
    if case.params["read_as_raw"] and (case["emb"] >= 0).all():
        assert np.allclose(row, case["value"][1:], rtol=1e-5)
    assert int(batch.mask.sum()) == case.params["n_masked"]
    p, n = case.params["P"], case.params["N"]
    if not y.all():
        assert not batch.extra["task_values"][0, p : p + n].any()


@whole
def test_tasks_are_of_the_originals_kinds_sizes_and_values(case):
    counts, tokens, keys = input_of(case)
    batch, p, n = recipe_of(case, faithful=True).encode(counts, tokens, keys), case.params["P"], case.params["N"]
    kept, y = kept_of(case), case["log_value"]
    assert batch.extra["task_genes"].shape[1] == len(case["task_gene"])
    value_of = dict(zip(case["emb"][kept].tolist(), y.tolist(), strict=True))
    kinds = ((slice(0, p), y > 0), (slice(p, p + n), y < 1))
    for genes, values in (
        (batch.extra["task_genes"][0].numpy(), batch.extra["task_values"][0].numpy()),
        (case["task_gene"], case["task_count"]),
    ):
        for part, kind in kinds:
            pool = case["emb"][kept][kind] if kind.any() else case["emb"][kept]
            assert set(genes[part].tolist()) <= set(pool.tolist())
            if kind.sum() > part.stop - part.start and (case["emb"] >= 0).all():
                assert len(set(genes[part].tolist())) == part.stop - part.start
            if not kind.any():
                assert len(set(genes[part].tolist())) == 1
        if (case["emb"] >= 0).all():
            expected = np.array([value_of.get(gene, 0) for gene in genes.tolist()])
            shown = (expected > 0).astype(float) if case.params["loss"] == "cross_entropy" else expected
            assert np.allclose(values, shown, rtol=1e-6)
            if genes is not case["task_gene"]:
                assert np.isclose(float(batch.extra["task_total"][0]), expected.sum(), rtol=1e-5)
    masked = int(batch.mask.sum())
    assert masked in (case.params["n_masked"], case.params["n_masked"] - 1) and not batch.mask[0, 0]


@whole
def test_what_is_taken_for_raw_counts_is_what_the_original_takes(case):
    assert bool(_read_as_raw(input_of(case)[0])[0]) == case.params["read_as_raw"]


@where("state_se", lambda case: not is_whole(case) or bool((case["x"] < 0).any()))
def test_values_that_are_no_counts_are_refused(case):
    _, tokens, keys = input_of(case)
    for faithful in (False, True):
        with pytest.raises(NotRawCountsError, match="cell 0"):
            recipe_of(case, faithful=faithful).encode(sparse.csr_array(case["x"][None]), tokens, keys)


@where("state_se", lambda case: "raises" in case.params)
def test_what_the_original_fails_on_is_handled_or_refused(case):
    counts, tokens, keys = input_of(case)
    with pytest.raises(InputError, match="cell 0 has no unexpressed gene"):
        recipe_of(case, faithful=True).encode(counts, tokens, keys)
    batch = recipe_of(case).encode(counts, tokens, keys)
    length = int(batch.lengths[0])
    assert length == min(case.params["pad_length"], 1 + len(case["x"]))
    assert int(batch.mask.sum()) == int(0.2 * length)
    assert torch.isclose(batch.values[0, :length].sum(), torch.tensor(100.0)) or length == case.params["pad_length"]


@where("state_se", lambda case: "mask_hits" in case)
def test_masks_and_tasks_fall_as_often_as_the_originals(case):
    n, width = case.params["draws"], case.params["pad_length"]
    counts, tokens, keys = input_of(case, n)
    batch = recipe_of(case, faithful=True, shared_per="cell").encode(counts, tokens, keys)
    mine, theirs = batch.mask.sum(0).numpy(), case["mask_hits"]
    chance = (mine + theirs) / (2 * n)
    assert (np.abs(mine - theirs) <= 5 * np.sqrt(2 * n * chance * (1 - chance)) + 1e-9).all()
    full = int(case["n_masked"].max())
    assert full == int(case.params["mask"] * width)
    whole_masks = [int((masks == full).sum()) for masks in (batch.mask.sum(1).numpy(), case["n_masked"])]
    chance = sum(whole_masks) / (2 * n)
    assert abs(whole_masks[0] - whole_masks[1]) <= 5 * np.sqrt(2 * n * chance * (1 - chance))
    assert set(batch.mask.sum(1).tolist()) == set(case["n_masked"].tolist())
    y = np.log1p(case["x"])
    tasks = batch.extra["task_genes"].numpy()
    kinds = (
        ("task_expressed_hits", y > 0, 0, case.params["P"]),
        ("task_unexpressed_hits", y < 1, case.params["P"], case.params["N"]),
    )
    for role, kind, start, k in kinds:
        chance = kind * k / kind.sum()
        hits = (tasks[:, start : start + k, None] == case["emb"]).any(1).sum(0)
        assert within_five_sigma(hits, n, chance)
        assert within_five_sigma(case[role], n, chance)


@where("state_se", lambda case: "umis" in case)
def test_downsampled_counts_are_multinomial_as_the_originals(case):
    n = 600
    counts, tokens, keys = input_of(case, n)
    x = counts[:1].toarray()[0].astype(float)
    fraction, total = case.params["downsample_frac"], x.sum()
    recipe = StateSE(np.arange(len(x)), max_length=len(x) + 1, downsample=fraction, mask=0.0)
    cells = as_cells(counts, tokens, keys)
    batch = recipe.batch(cells, recipe.plan(cells, np.zeros(n, np.uint8)))  # not logged: shares of counts
    drawn = int(total * fraction)
    assert (case["umis"] == drawn).all()
    found = np.zeros((n, len(x)))
    np.put_along_axis(found, batch.genes[:, 1:].numpy(), np.rint(batch.values[:, 1:].numpy() * drawn / 100), axis=1)
    assert (found.sum(1) == drawn).all()
    sigma = np.sqrt(drawn * x / total * (1 - x / total))
    assert (np.abs(found.mean(0) - drawn * x / total) <= 5 * sigma / np.sqrt(n) + 1e-9).all()
    assert (np.abs(case["mean_count"] - drawn * x / total) <= 5 * sigma / np.sqrt(case.params["draws"]) + 1e-9).all()
    assert np.allclose(found.std(0), sigma, rtol=0.2, atol=1e-9)
