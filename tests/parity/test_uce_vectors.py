"""UCE against its original: sentences given its random numbers, weights, and how often genes are drawn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import sparse

from cellmill.errors import InputError
from cellmill.kernel import SentenceOut, TokenCells, tokenise_sentences
from cellmill.kernel.reference.chromosome_sentences import drawing_weights
from cellmill.tokens import UCE, TokenBatch
from parity_vectors import each, within_five_sigma
from parity_where import where


def recipe_of(case, **more) -> UCE:
    params = case.params
    return UCE(
        case["tok"],
        case["chrom"],
        case["start"],
        sample_size=params["sample_size"],
        max_length=params["pad_length"],
        cls_token=params["cls_token_idx"],
        end_token=params["chrom_token_right_idx"],
        pad_token=params["pad_token_idx"],
        chromosome_offset=params["CHROM_TOKEN_OFFSET"],
        pad="max",
        **more,
    )


def counts_of(case, n: int = 1) -> sparse.csr_array:
    return sparse.csr_array(np.repeat(case["x"][None], n, axis=0))


def encode(case, n: int = 1, **more) -> TokenBatch:
    keys = np.arange(n, dtype=np.uint64) + np.uint64(77)
    return recipe_of(case, **more).encode(counts_of(case, n), np.arange(len(case["x"])), keys)


def chromosomes_of(row, params) -> list[tuple[int, list[int]]]:
    """Return the chromosomes of a sentence, in order, each with its tokens; what is no sentence fails."""
    left, found = list(row), []
    assert left.pop(0) == params["cls_token_idx"]
    while left:
        code = left.pop(0) - params["CHROM_TOKEN_OFFSET"]
        assert code >= 0
        upto = left.index(params["chrom_token_right_idx"])
        found.append((code, left[:upto]))
        del left[: upto + 1]
    return found


def with_numbers_of_the_original(case) -> tuple[np.ndarray, int]:
    """Return our sentence where draws and order of chromosomes come from the generator that the original used."""
    generator = np.random.RandomState(case.params["seed"])
    uniforms = generator.random_sample(case.params["sample_size"])
    p = case["p"].astype(np.float64)
    upto = np.cumsum(p) / np.cumsum(p)[-1]
    shuffled = np.unique(case["chrom"][np.searchsorted(upto, uniforms, side="right")])
    generator.shuffle(shuffled)
    order = np.zeros(len(case["x"]), np.uint64)
    for place, chromosome in enumerate(shuffled):
        order[case["chrom"] == chromosome] = place
    counts = counts_of(case)
    cells = TokenCells(
        counts.indptr, counts.indices, counts.data, token_of=np.arange(len(order)), keys=np.zeros(1, np.uint64)
    )
    plan = recipe_of(case).plan(cells, uniforms=uniforms, order=order)
    out = SentenceOut(
        genes=np.zeros(plan.width, np.int64),
        values=np.zeros(plan.width, np.float32),
        lengths=np.zeros(1, np.int64),
        drawn=np.zeros(1, np.int64),
    )
    tokenise_sentences(cells, plan, out)
    return out.genes, int(out.lengths[0])


sentences = where("uce", lambda case: "sentence" in case)


@sentences
def test_sentence_is_the_originals_given_its_random_numbers(case):
    made, length = with_numbers_of_the_original(case)
    assert length == case.params["length"] == int(case["mask"].sum())
    theirs = chromosomes_of(case["sentence"][:length], case.params)
    ours = chromosomes_of(made[:length], case.params)
    assert not case["sentence"][length:].any()
    start_of = dict(zip(case["tok"].tolist(), case["start"].tolist(), strict=True))
    tied = {
        (c, s)
        for c, s in zip(case["chrom"].tolist(), case["start"].tolist(), strict=True)
        if ((case["chrom"] == c) & (case["start"] == s)).sum() > 1
    }
    assert [code for code, _ in ours] == [code for code, _ in theirs]
    for (code, mine), (_, other) in zip(ours, theirs, strict=True):
        assert sorted(mine) == sorted(other)
        assert [start_of[token] for token in mine] == [start_of[token] for token in other]
        if not any((code, start_of[token]) in tied for token in mine):
            assert mine == other


@sentences
def test_weights_are_the_originals(case):
    there = case["x"] > 0
    ours, theirs = drawing_weights(case["x"][there].astype(np.uint32)).astype(float), case["p"][there].astype(float)
    # The first sum is torch's own in float32: it cancels, but for how the quotients are rounded.
    assert np.allclose(ours / ours.sum(), theirs / theirs.sum(), rtol=3e-7, atol=0)
    assert not case["p"][~there].any()


@sentences
def test_keyed_sentence_has_the_form_of_the_originals(case):
    batch = encode(case)
    length = int(batch.lengths[0])
    parts = chromosomes_of(batch.genes[0, :length].tolist(), case.params)
    assert sum(len(tokens) for _, tokens in parts) == case.params["sample_size"] == int(batch.extra["draws"][0])
    assert len({code for code, _ in parts}) == len(parts)
    of_gene = {t: (c, s) for t, c, s in zip(*(case[r].tolist() for r in ("tok", "chrom", "start")), strict=True)}
    expressed = set(case["tok"][case["x"] > 0].tolist())
    for code, tokens in parts:
        assert set(tokens) <= expressed
        assert {of_gene[token][0] for token in tokens} == {code}
        starts = [of_gene[token][1] for token in tokens]
        assert starts == sorted(starts)
    assert (batch.genes[0, length:] == case.params["pad_token_idx"]).all()


@where("uce", lambda case: "draws_per_gene" in case)
def test_genes_are_drawn_by_weight_and_chromosomes_shuffled(case):
    n, p = 1500, case["p"].astype(np.float64)
    batch = encode(case, n)
    tokens = batch.genes.numpy()
    draws = np.array([(tokens == token).sum() for token in case["tok"]])
    assert within_five_sigma(draws, n * case.params["sample_size"], p / p.sum())
    assert within_five_sigma(case["draws_per_gene"], case.params["repeats"] * case.params["sample_size"], p / p.sum())
    codes = [
        [code for code, _ in chromosomes_of(row[:m], case.params)]
        for row, m in zip(tokens.tolist(), batch.lengths.tolist(), strict=True)
    ]
    for code in case["first_chrom"].tolist():
        chance = np.array([(code in row) / len(row) for row in codes])
        first = sum(row[0] == code for row in codes)
        assert abs(first - chance.sum()) <= 5 * np.sqrt((chance * (1 - chance)).sum())


@where("uce", lambda case: "raises" in case.params)
def test_what_the_original_fails_on_is_handled_or_refused(case):
    batch = encode(case)
    length = int(batch.lengths[0])
    assert 1 <= length <= case.params["pad_length"]
    parts = chromosomes_of(batch.genes[0, :length].tolist(), case.params)
    if not case["x"].any():
        assert batch.genes[0, :length].tolist() == [case.params["cls_token_idx"]]
    else:  # as many draws as fit: one more, of a new chromosome, would not
        assert length > case.params["pad_length"] - 3
        assert sum(len(tokens) for _, tokens in parts) == int(batch.extra["draws"][0])
    with pytest.raises(InputError, match="cell 0"):
        encode(case, faithful=True)


@each("uce", prefix="collate")
def test_batch_is_trimmed_to_its_longest_sentence(case):
    lengths = torch.tensor(case.params["lengths"])
    batch = TokenBatch(values=torch.zeros(1), genes=torch.from_numpy(case["batch"]), lengths=lengths)
    assert np.array_equal(~batch.padding_mask().numpy(), case["mask"].astype(bool))
    counts = np.zeros((2, 40), np.uint32)
    counts[0, :20], counts[1, 0] = 3, 1
    recipe = UCE(np.arange(40) + 4, np.arange(40) % 4, np.arange(40), sample_size=9)
    made = recipe.encode(sparse.csr_array(counts), np.arange(40), np.arange(2, dtype=np.uint64))
    assert made.genes.shape[1] == int(made.lengths.max()) > int(made.lengths.min())
