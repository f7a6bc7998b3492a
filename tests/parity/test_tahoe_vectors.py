"""Tahoe-x1 and MosaicFM: binning to the bit, collators, parts, drugs, against outputs of the original code."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest
from scipy import sparse

from cellmill.genes import Vocabulary
from cellmill.kernel import SequenceOut, SequencePlan, SequenceRules, TokenCells, tokenise_sequences
from cellmill.kernel.reference.tokens import edges32, levels32
from cellmill.tokens import Tahoe, TokenBatch
from parity_vectors import Case, each, rows, within_five_sigma

PAD, CLS = 0, 1


@lru_cache
def vocabulary(pad: int, drug: int) -> Vocabulary:
    return Vocabulary(["a gene"], tokens=[10**6], specials={"<pad>": pad, "<cls>": CLS, "<drug>": drug})


@each("tahoe_binning", unless=("grades", "error"))
def test_bins_to_the_bit(case):
    x = case["x"].astype(np.float32)
    there = x != 0
    n_edges = case.params["n_bins"] - 1
    assert np.array_equal(edges32(x[there], n_edges), case["edges"])
    for side, ties in (("left", 1), ("right", 2)):
        zero = 1.0 if side == "left" and not there.all() else 0.0
        assert np.array_equal(
            values_of(x, SequenceRules(values=2, n_bins=n_edges + 1, ties=ties, zero_value=zero)), case[side]
        )
    if "log1p" in case:
        assert np.allclose(values_of(x, SequenceRules(values=3, target_sum=1e4)), case["log1p"], rtol=1e-5)


@each("tahoe_binning", prefix="grades")
def test_levels_of_quantiles_to_the_bit(case):
    for role, levels in case.arrays.items():
        assert np.array_equal(levels32(int(role[1:]) - 1), levels)


def values_of(x: np.ndarray, rules: SequenceRules) -> np.ndarray:
    """Return what the kernel makes of the counts of one cell."""
    n = len(x)
    cells = TokenCells([0, n], np.arange(n), x.astype(np.int64), token_of=np.arange(n), keys=np.zeros(1, np.uint64))
    out = SequenceOut(
        starts=np.array([0, n]),
        genes=np.empty(n, np.int64),
        values=np.empty(n, np.float32),
        lengths=np.empty(1, np.int64),
    )
    plan = SequencePlan(
        room=np.array([n]), head_tokens=np.empty((1, 0), np.int64), head_values=np.empty((1, 0), np.float32)
    )
    tokenise_sequences(cells, rules, plan, out)
    return out.values


def recipe_of(case: Case, faithful: str | None) -> Tahoe:
    p = case.params
    values = "bins" if p.get("do_binning", True) else "log1p" if p.get("log_transform") else "raw"
    return Tahoe(
        max_length=p["max_length"],
        mask=p.get("mlm_probability", 0.15) if p.get("do_mlm", True) else None,
        values=values,
        n_bins=p.get("num_bins", 51),
        right=p.get("right_binning", False),
        style=p.get("data_style", "mask"),
        choose="uniform" if p.get("sampling", True) else "first",
        fill="unexpressed" if p.get("unexp_padding") else "pad",
        drug="drug" if p.get("use_chem_token") else None,
        drug_ids=p.get("drug_to_id", {}),
        keep=p.get("keep_first_n_tokens", 1),
        pad_value=p["pad_value"],
        mask_value=p["mask_value"],
        vocabulary=vocabulary(p["pad_token_id"], p.get("drug_token_id", 303)),
        faithful=faithful,
    )


def encoded(case: Case, recipe: Tahoe, seed: int = 0) -> TokenBatch:
    width = max(int(case["ids"].max()) + 1, 303 if case.params.get("unexp_padding") else 0)
    n = len(case["ptr"]) - 1
    counts = sparse.csr_array((case["x"].astype(np.int64), case["ids"], case["ptr"]), shape=(n, width))
    genes = np.arange(width)
    genes[:3] = -1  # special tokens are no genes
    keys = np.random.default_rng(seed).integers(0, 2**63, n).astype(np.uint64)
    return recipe.encode(counts, genes, keys, obs={"drug": case.params.get("drugs", [None] * n)[:n]})


@each("tahoe_collator", unless=("error", "in_place"))
def test_collator(case):
    recipe = recipe_of(case, "tahoe")
    batch = encoded(case, recipe)
    assert batch.genes.shape == case["gene"].shape
    fixed = max(recipe.keep, 1 + int(recipe.drug is not None))
    check_rows(
        case, batch, case["gene"], case["expr_target"], case["expr_raw"], fixed, sampled=recipe.choose != "first"
    )
    if recipe.mask is None:
        assert batch.mask is None
        return
    if "drug_ids" in case:
        assert np.array_equal(batch.extra["drug_ids"], case["drug_ids"])
    mask = batch.mask.numpy()
    assert np.array_equal(batch.values.numpy() == recipe.mask_value, mask)
    if not isinstance(recipe.mask, tuple):
        assert np.array_equal(mask.sum(axis=1), case["n_mask"])
    if "mask_hits" in case:
        draws = 1000
        hits = sum(encoded(case, recipe, seed).mask.numpy().astype(int) for seed in range(draws))
        theirs, of = case["mask_hits"], case.params["draws"]
        p = (hits + theirs) / (draws + of)
        allowed = 5.5 * np.sqrt(p * (1 - p) * (1 / draws + 1 / of)) + 1e-9
        assert (np.abs(hits / draws - theirs / of) <= allowed).all()


def check_rows(case, batch, genes, target, raw, fixed, *, sampled) -> None:
    """Compare rows that fit; of others the beginning, the padding, and values that go with their genes."""
    mine, pad = batch.genes.numpy(), case.params["pad_token_id"]
    own = (batch.target if batch.target is not None else batch.values).numpy()
    counts = batch.extra["raw"].numpy()
    for i, (ids, x) in enumerate(zip(rows(case["ids"], case["ptr"]), rows(case["x"], case["ptr"]), strict=True)):
        fits = len(ids) + 1 + int("drug_ids" in case) <= genes.shape[1] or not sampled
        if fits and not case.params.get("unexp_padding"):
            assert np.array_equal(mine[i], genes[i])
            assert np.array_equal(counts[i], raw[i])
            assert np.allclose(own[i], target[i], rtol=1e-5, atol=0)
            continue
        assert np.array_equal(mine[i, :fixed], genes[i, :fixed])
        real, theirs = mine[i] != pad, genes[i] != pad
        assert real.sum() == theirs.sum()
        assert len(set(mine[i, real].tolist())) == real.sum()
        value = dict(zip(genes[i, theirs].tolist(), target[i, theirs].tolist(), strict=True))
        known = dict(zip(ids.tolist(), x.tolist(), strict=True))
        for at in range(fixed, int(real.sum())):
            assert counts[i, at] == known.get(mine[i, at], 0)
            if int(mine[i, at]) in value:
                assert own[i, at] == pytest.approx(value[int(mine[i, at])], rel=1e-5)


@each("tahoe_collator", prefix="error")
def test_a_cell_without_genes_is_a_row_where_the_original_raises(case):
    del case
    counts = sparse.csr_array(np.array([[0, 0], [3, 1]]))
    for faithful in (None, "tahoe", "mosaicfm"):
        batch = Tahoe(faithful=faithful).encode(counts, np.array([7, 8]), np.arange(2, dtype=np.uint64))
        assert batch.lengths.tolist() == [1, 3]


@each("tahoe_collator", prefix="in_place")
def test_a_second_pass_sees_raw_counts_again(case):
    x = case["x"].astype(np.int64)
    counts = sparse.csr_array(x[None])
    passes = [
        Tahoe(mask=None).encode(counts, np.arange(3, 3 + len(x)), np.zeros(1, np.uint64)).extra["raw"].numpy()
        for _ in range(2)
    ]
    there = x != 0
    assert np.array_equal(passes[0][0, 1:], case["first_raw"][0, 1:][there])
    assert np.array_equal(passes[0], passes[1])


@each("mosaicfm_both", unless=("gen", "pcpt"))
def test_two_parts(case):
    recipe = recipe_of(case, "mosaicfm")
    for seed in range(3):
        batch = encoded(case, recipe, seed)
        assert batch.genes.shape == case["pcpt_gene"].shape
        assert batch.extra["gen_genes"].shape == case["gen_gene"].shape
        check_parts(case, batch)
        for mine, theirs in ((batch.genes, case["pcpt_gene"]), (batch.extra["gen_genes"], case["gen_gene"])):
            assert np.array_equal((mine.numpy() != PAD).sum(axis=1), (theirs != PAD).sum(axis=1))
    if "drug_ids" in case:
        assert np.array_equal(batch.extra["drug_ids"], case["drug_ids"])
    if "gen_hits" in case:
        draws, theirs = 1000, case["gen_hits"] / case.params["draws"]
        hits = np.zeros(theirs.shape)
        for seed in range(draws):
            genes = encoded(case, recipe, seed).extra["gen_genes"].numpy()
            row, column = np.nonzero(genes != PAD)
            hits[row, genes[row, column]] += 1
        p = (hits + case["gen_hits"]) / (draws + case.params["draws"])
        allowed = 5.5 * np.sqrt(p * (1 - p) * (1 / draws + 1 / case.params["draws"])) + 1e-9
        assert (np.abs(hits / draws - theirs) <= allowed).all()


def check_parts(case: Case, batch: TokenBatch) -> None:
    first = 1 + int("drug_ids" in case)
    parts = (
        (batch.genes.numpy()[:, first:], batch.values.numpy()[:, first:], batch.extra["raw"].numpy()[:, first:]),
        tuple(batch.extra[name].numpy() for name in ("gen_genes", "gen_target", "gen_raw")),
    )
    of_cells = zip(*(rows(case[role], case["ptr"]) for role in ("ids", "x", "bins")), strict=True)
    for i, (ids, x, bins) in enumerate(of_cells):
        seen: list[int] = []
        for genes, values, raw in parts:
            real = genes[i] != PAD
            seen += genes[i, real].tolist()
            own = real & np.isin(genes[i], ids)
            at = np.searchsorted(ids, genes[i, own])
            assert np.array_equal(values[i, own], bins[at])
            assert np.array_equal(raw[i, own], x[at])
            assert not values[i, real & ~own].any()
        assert len(set(seen)) == len(seen)
        assert case.params.get("unexp_padding") or set(seen) <= set(ids.tolist())


@each("mosaicfm_both", prefix=("gen", "pcpt"))
def test_rows_of_mosaicfm_without_parts(case):
    batch = encoded(case, recipe_of(case, "mosaicfm"))
    genes = case["pcpt_gene"] if "pcpt_gene" in case else case["gene"]
    assert np.array_equal(batch.genes, genes)
    expected = case["pcpt_expr"] if "pcpt_expr" in case else case["expr"]
    assert np.array_equal((batch.values if batch.target is None else batch.target).numpy(), expected)
    if batch.mask is not None:
        assert not batch.mask[:, :2].any()  # the first gene, which the original skips


def test_corrected_masks_count_genes_and_reach_the_last_one():
    counts = sparse.csr_array(np.ones((400, 10), dtype=np.uint32))
    batch = Tahoe(mask=0.5).encode(counts, np.arange(3, 13), np.arange(400, dtype=np.uint64))
    assert batch.mask.sum(axis=1).tolist() == [5] * 400
    assert within_five_sigma(batch.mask[:, 1:].sum(axis=0).numpy(), 400, 0.5)
    assert not batch.mask[:, 0].any()
