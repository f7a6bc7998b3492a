"""scGPT: binning, collators and the fine-tuning path against outputs of the original code."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest
from scipy import sparse

from cellmill.genes import Vocabulary
from cellmill.kernel import SequenceNumbers, SequenceOut, SequencePlan, SequenceRules, TokenCells, tokenise_sequences
from cellmill.kernel.reference.tokens import between, edges64
from cellmill.tokens import ScGPT, TokenBatch
from parity_vectors import FOLDER, Case, each, rows, within_five_sigma


@lru_cache
def vocabulary(pad: int, cls: int) -> Vocabulary:
    return Vocabulary(["a gene"], tokens=[10**6], specials={"<pad>": pad, "<cls>": cls})


def as_counts(case: Case) -> tuple[sparse.csr_array, np.ndarray]:
    """Cells of a case as a matrix whose columns are the token ids."""
    width = int(case["ids"].max()) + 1
    matrix = sparse.csr_array((case["x"], case["ids"], case["ptr"]), shape=(len(case["ptr"]) - 1, width))
    return matrix, np.arange(width)


def recipe_of(case: Case, faithful: str) -> ScGPT:
    p = case.params
    mlm = p.get("mlm_probability", 0.15)
    return ScGPT(
        max_length=p["max_length"],
        mask=mlm if p.get("do_mlm", True) else None,
        n_bins=51 if p.get("do_binning", True) else None,
        style=p.get("data_style", "pcpt"),
        choose="uniform" if p.get("sampling", True) else "first",
        keep=p.get("keep_first_n_tokens", 1),
        pad_value=p["pad_value"],
        mask_value=p["mask_value"],
        vocabulary=vocabulary(p["pad_token_id"], p["cls_id"]),
        faithful=faithful,
    )


def encoded(case: Case, recipe: ScGPT, seed: int = 0) -> TokenBatch:
    counts, genes = as_counts(case)
    keys = np.random.default_rng(seed).integers(0, 2**63, counts.shape[0]).astype(np.uint64)
    return recipe.encode(counts, genes, keys)


# binning


@each("scgpt_binning", unless=("empty", "zero_length", "freq"))
def test_bins_are_the_originals_for_its_uniforms(case):
    x = case["x"].astype(case.params.get("input_dtype", "float32"))
    there = x != 0
    values = x[there]
    n_edges = case.params["n_bins"] - 1
    edges = edges64(values, n_edges)
    assert np.array_equal(edges, case["edges"][-n_edges:])
    below, upto = between(values, edges)
    lo, hi = np.where(below == upto, upto, below + 1), upto
    assert np.array_equal(lo, case["lo"])
    assert np.array_equal(hi, case["hi"])
    if not np.array_equal(values, np.floor(values)) or values.max() >= 2**24:
        return  # the kernel takes counts
    u = np.zeros(len(x))
    u[there] = case["u"]
    assert np.array_equal(bins_of(x, case.params["n_bins"], u), case["out"])


def bins_of(x: np.ndarray, n_bins: int, u: np.ndarray | None, key: int = 0) -> np.ndarray:
    """Return what the kernel makes of one cell."""
    n = len(x)
    cells = TokenCells([0, n], np.arange(n), x.astype(np.uint32), token_of=np.arange(n), keys=np.array([key]))
    out = SequenceOut(
        starts=np.array([0, n]),
        genes=np.empty(n, np.int64),
        values=np.empty(n, np.float32),
        lengths=np.empty(1, np.int64),
    )
    plan = SequencePlan(
        room=np.array([n]), head_tokens=np.empty((1, 0), np.int64), head_values=np.empty((1, 0), np.float32)
    )
    tokenise_sequences(cells, SequenceRules(values=1, n_bins=n_bins), plan, out, numbers=SequenceNumbers(bin=u))
    return out.values


@each("scgpt_binning", prefix="freq")
def test_bins_of_tied_counts_are_uniform(case):
    x, histogram = case["x"], case["histogram"]
    draws = 1500
    made = np.array([bins_of(x, case.params["n_bins"], None, key=key) for key in range(draws)]).astype(int)
    for gene, theirs in zip(np.flatnonzero(x), histogram, strict=True):
        seen, expected = np.bincount(made[:, gene], minlength=histogram.shape[1]), theirs > 0
        assert not seen[~expected].any()
        assert within_five_sigma(seen[expected], draws, 1 / expected.sum())


@each("scgpt_binning", prefix=("empty", "zero_length"))
def test_a_cell_without_counts_has_bins_of_zero(case):
    assert not bins_of(case["x"], 51, None).any()


# collators


def check_rows(case: Case, batch: TokenBatch, genes: np.ndarray, values: np.ndarray, keep: int) -> None:
    """Rows that fit are equal; of longer ones the specials, the padding, and that genes are of the cell, each once."""
    pad = case.params["pad_token_id"]
    mine = batch.genes.numpy()
    assert mine.shape == genes.shape
    sampled = case.params.get("sampling", True)
    binned = "lo" in case
    x = rows(case["x"], case["ptr"])
    bounds = (
        zip(rows(case["lo"], case["ptr"]), rows(case["hi"], case["ptr"]), strict=True) if binned else [None] * len(x)
    )
    mine_values = (batch.target if batch.target is not None else batch.values).numpy()
    for i, (ids, counts, bound) in enumerate(zip(rows(case["ids"], case["ptr"]), x, bounds, strict=True)):
        real = genes[i] != pad
        assert np.array_equal(mine[i] != pad, real)
        if len(ids) + 1 <= genes.shape[1] or not sampled:
            assert np.array_equal(mine[i], genes[i])
        assert np.array_equal(mine[i, :keep], genes[i, :keep])
        assert np.array_equal(mine_values[i, ~real], values[i, ~real])
        at = np.searchsorted(ids, mine[i, 1 : real.sum()])
        assert np.array_equal(ids[at], mine[i, 1 : real.sum()])
        assert len(set(at.tolist())) == len(at)
        own = mine_values[i, 1 : real.sum()]
        if binned:
            assert (bound[0][at] <= own).all()
            assert (own <= bound[1][at]).all()
        else:
            assert np.array_equal(own, counts[at])


@each("scgpt_collator", unless=("error", "explicit_zero"))
def test_collator_of_main(case):
    recipe = recipe_of(case, "collator")
    batch = encoded(case, recipe)
    check_rows(case, batch, case["gene"], case["expr"], max(1, recipe.keep))
    if case.params.get("do_mlm", True):
        assert np.array_equal(batch.mask.numpy(), batch.values.numpy() != batch.target.numpy())
    if "mask_hits" in case:
        draws = 600
        hits = sum(encoded(case, recipe, seed).mask.numpy().astype(int) for seed in range(draws))
        may = case["mask_hits"] > 0
        assert not hits[~may].any()
        assert within_five_sigma(hits[may], draws, recipe.mask)


@each("scgpt_collator", prefix="explicit_zero")
def test_collator_keeps_zeros_that_are_stored(case):
    x, genes = case["x"], case["gene"][0]
    counts = sparse.csr_array((x, np.arange(len(x)), [0, len(x)]), shape=(1, len(x)))
    recipe = ScGPT(
        max_length=case.params["max_length"],
        mask=None,
        pad_value=case.params["pad_value"],
        vocabulary=vocabulary(10**5, int(genes[0])),
        faithful="collator",
    )
    batch = recipe.encode(counts, genes[1:].astype(np.int64), np.zeros(1, np.uint64))
    assert np.array_equal(batch.genes[0], genes)
    assert np.array_equal(batch.values[0].numpy()[1:] == 0, x == 0)
    assert np.array_equal(batch.values[0].numpy() == 0, case["expr"][0] == 0)


@pytest.mark.parametrize("faithful", [None, "collator", "pretraining", "finetuning"])
def test_a_cell_without_genes_is_a_row_where_the_original_raises(faithful):
    counts = sparse.csr_array(np.array([[0, 0], [3, 1]]))
    batch = ScGPT(faithful=faithful).encode(counts, np.array([7, 8]), np.arange(2, dtype=np.uint64))
    assert batch.lengths.tolist() == [1, 3]
    assert batch.genes[0].tolist() == [1, 0, 0]


@each("scgpt_collator_devtemp", prefix="pcpt")
def test_pretraining_masks_in_place(case):
    recipe = recipe_of(case, "pretraining")
    batch = encoded(case, recipe)
    check_rows(case, batch, case["gene"], case["expr"], recipe.keep)
    if "mask_hits" in case:
        draws = 600
        hits = sum(encoded(case, recipe, seed).mask.numpy().astype(int) for seed in range(draws))
        may = case["mask_hits"] > 0
        assert not hits[~may].any()
        assert within_five_sigma(hits[may], draws, recipe.mask)
        corrected = sum(encoded(case, recipe_of(case, None), seed).mask.numpy().astype(int) for seed in range(200))
        assert corrected[:, recipe.keep].any()  # the first gene that the original never masks


@each("scgpt_collator_devtemp", prefix=("gen", "both.no_mlm"))
def test_pretraining_without_a_mask(case):
    batch = encoded(case, recipe_of(case, "pretraining"))
    check_rows(case, batch, case["pcpt_gene"], case["pcpt_expr"], 1)


@each("scgpt_collator_devtemp", prefix="both", unless=("both.no_mlm", "both.tiny", "both.gen_length_0"))
def test_pretraining_in_two_parts(case):
    recipe = recipe_of(case, "pretraining")
    many = isinstance(recipe.mask, tuple)
    for seed in range(30 if many else 3):
        batch = encoded(case, recipe, seed)
        seen, hidden = batch.genes.numpy(), batch.extra["gen_genes"].numpy()
        if not many:
            assert seen.shape == case["pcpt_gene"].shape
            assert hidden.shape == case["gen_gene"].shape
        check_parts(case, batch, seen, hidden)
    if many:
        lengths = {encoded(case, recipe, seed).extra["gen_genes"].shape[1] for seed in range(60)}
        assert lengths == set(case["gen_length_drawn"].tolist())
    elif "gen_hits" in case:
        check_hits(case, recipe)


def check_parts(case: Case, batch: TokenBatch, seen: np.ndarray, hidden: np.ndarray) -> None:
    for i, (ids, counts) in enumerate(zip(rows(case["ids"], case["ptr"]), rows(case["x"], case["ptr"]), strict=True)):
        mine = seen[i, 1 : int(batch.lengths[i])]
        other = hidden[i, : int(batch.extra["gen_lengths"][i])]
        assert not set(mine.tolist()) & set(other.tolist())
        assert set(mine.tolist()) | set(other.tolist()) <= set(ids.tolist())
        if "lo" not in case:
            assert np.array_equal(batch.values.numpy()[i, 1 : len(mine) + 1], counts[np.searchsorted(ids, mine)])
            assert np.array_equal(
                batch.extra["gen_target"].numpy()[i, : len(other)], counts[np.searchsorted(ids, other)]
            )


def check_hits(case: Case, recipe: ScGPT) -> None:
    """How often each gene is in which part, against how often the original put it there."""
    draws, theirs = 600, case.params["draws"]
    gen, pcpt = np.zeros(case["gen_hits"].shape), np.zeros(case["gen_hits"].shape)
    for seed in range(draws):
        batch = encoded(case, recipe, seed)
        for hits, genes in ((pcpt, batch.genes.numpy()), (gen, batch.extra["gen_genes"].numpy())):
            row, column = np.nonzero(genes < hits.shape[1])
            hits[row, genes[row, column]] += 1
    for mine, original in ((gen, case["gen_hits"]), (pcpt, case["pcpt_hits"])):
        p = (mine + original) / (draws + theirs)
        allowed = 5.5 * np.sqrt(p * (1 - p) * (1 / draws + 1 / theirs)) + 1e-9
        assert (np.abs(mine / draws - original / theirs) <= allowed).all()


@each("scgpt_collator_devtemp", prefix="both.tiny")
def test_nothing_is_hidden_of_tiny_cells(case):
    counts = sparse.csr_array(np.array([[1, 2, 0], [0, 0, 3]]))
    recipe = ScGPT(max_length=case.params["max_length"], mask=case.params["mlm_probability"], style="both")
    assert recipe.encode(counts, np.arange(5, 8), np.zeros(2, np.uint64)).extra["gen_genes"].shape == (2, 0)


# fine-tuning


@each("scgpt_tokenize_and_pad", prefix=("t", "real"))
def test_tokenize_and_pad(case):
    p = case.params
    if "x" in case:
        x, ids = case["x"], case["gene_ids"]
    else:
        cells = load_cells()
        x, ids = cells, np.arange(cells.shape[1])
    recipe = ScGPT(
        max_length=p["max_len"],
        mask=None,
        n_bins=None,
        include_zeros=p["include_zero_gene"],
        cls=p["append_cls"],
        pad_value=p["pad_value"],
        vocabulary=vocabulary(p["pad_id"], p["cls_id"]),
        faithful="finetuning",
    )
    x = sparse.csr_array(x)
    x.eliminate_zeros()
    known = np.concatenate([[0], np.unique(x.data)])  # values need not be whole: each stands for itself
    ranked = sparse.csr_array((np.searchsorted(known, x.data), x.indices, x.indptr), shape=x.shape)
    batch = recipe.encode(ranked, ids.astype(np.int64), np.arange(x.shape[0], dtype=np.uint64))
    real = np.arange(batch.genes.shape[1]) < batch.lengths.numpy()[:, None]
    real[:, : int(p["append_cls"])] = False
    values = batch.values.numpy()
    values[real] = known[values[real].astype(int)]
    assert batch.genes.shape == case["genes"].shape
    for i, fits in enumerate(case["fits"]):
        mine, theirs = batch.genes[i].numpy(), case["genes"][i]
        if fits:
            assert np.array_equal(mine, theirs)
            assert np.array_equal(values[i], case["values"][i])
            continue
        row = dict(zip(ids.tolist(), np.asarray(x[[i]].todense()).ravel().tolist(), strict=True))
        first = int(p["append_cls"])
        assert np.array_equal(mine[:first], theirs[:first])
        assert values[i, :first].tolist() == case["values"][i, :first].tolist()
        assert [row[gene] for gene in mine[first:].tolist()] == values[i, first:].tolist()
        assert len(set(mine[first:].tolist())) == len(mine) - first


def load_cells() -> sparse.csr_array:
    with np.load(FOLDER / "cells.npz") as stored:
        return sparse.csr_array(
            (stored["data"], stored["indices"], stored["indptr"]),
            shape=tuple(stored["shape"]) if "shape" in stored else (24, 6000),
        )


@each("scgpt_tokenize_and_pad", prefix="freq")
def test_long_rows_are_sampled_uniformly(case):
    counts = sparse.csr_array(np.ceil(case["x"]))
    ids = case["gene_ids"].astype(np.int64)
    recipe = ScGPT(max_length=case.params["max_len"], mask=None, n_bins=None, faithful="finetuning")
    draws = 1000
    kept, first = np.zeros(case["kept"].shape), np.zeros(case["kept"].shape)
    for seed in range(draws):
        keys = np.random.default_rng(seed).integers(0, 2**63, counts.shape[0]).astype(np.uint64)
        batch = recipe.encode(counts, ids + 10, keys)
        for row, (genes, length) in enumerate(zip(batch.genes.numpy() - 10, batch.lengths.tolist(), strict=True)):
            kept[row, genes[1:length]] += 1
            first[row, genes[1:2][: length - 1]] += 1
    for row, n in enumerate(np.diff(counts.indptr)):
        there = ids[counts.indices[counts.indptr[row] : counts.indptr[row + 1]]]
        assert kept[row].sum() == kept[row, there].sum()
        assert within_five_sigma(kept[row, there], draws, min(1.0, (case.params["max_len"] - 1) / max(n, 1)))
        if n > case.params["max_len"] - 1:
            assert within_five_sigma(first[row, there], draws, 1 / n)


@each("scgpt_random_mask_value")
def test_random_mask_value(case):
    """Values as the original got them; those of padding and `<cls>` are told apart by the value, as it does."""
    p, values = case.params, case["values"]
    pad_value, draws = p["pad_value"], 600
    hits, n_mask = np.zeros(values.shape, int), None
    for seed in range(draws):
        masked = mask_rows(values, p["mask_ratio"], pad_value, seed)
        n_mask = masked.sum(axis=1)
        assert np.array_equal(n_mask, case["n_mask"])
        hits += masked
    may = case["maskable"].astype(bool) if case["maskable"].shape == values.shape else values != pad_value
    assert not hits[~may].any()
    share = case["n_mask"] / np.maximum(may.sum(axis=1), 1)
    assert within_five_sigma(hits[may], draws, np.broadcast_to(share[:, None], values.shape)[may])


def mask_rows(values: np.ndarray, ratio: float, pad_value: float, seed: int) -> np.ndarray:
    """Return which values the kernel masks, each value standing for itself in front of no gene."""
    n, width = values.shape
    cells = TokenCells(
        np.zeros(n + 1, np.int64),
        np.empty(0, np.int32),
        np.empty(0, np.uint32),
        token_of=np.arange(1),
        keys=np.random.default_rng(seed).integers(0, 2**63, n),
    )
    out = SequenceOut(
        starts=np.arange(n + 1) * width,
        genes=np.empty(n * width, np.int64),
        values=np.empty(n * width, np.float32),
        mask=np.empty(n * width, np.uint8),
        lengths=np.empty(n, np.int64),
    )
    plan = SequencePlan(
        room=np.zeros(n, np.int64),
        head_tokens=np.tile(np.arange(width), (n, 1)),
        head_values=values.astype(np.float32),
        n_mask=np.full(n, -2),
        maskable=np.zeros(n, np.int64),
        ratio=np.full(n, ratio),
    )
    tokenise_sequences(cells, SequenceRules(mask_heads=True, spared=pad_value), plan, out)
    return out.mask.reshape(n, width).astype(bool)
