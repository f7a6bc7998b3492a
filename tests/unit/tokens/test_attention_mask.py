"""Who may look at whom: the rule of generative training, for masks in place and for parts of their own."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import sparse

from cellmill.errors import InputError
from cellmill.tokens import CSR, ScGPT, Tahoe


def cells():
    counts = sparse.csr_array(np.random.default_rng(0).poisson(0.7, (6, 40)).astype(np.uint32))
    counts = sparse.csr_array(counts.multiply(np.arange(6)[:, None] > 0).astype(np.uint32))  # the first has no genes
    return counts, np.arange(40) + 10, np.arange(6, dtype=np.uint64)


@pytest.mark.parametrize(
    "recipe",
    [ScGPT(max_length=15, mask=0.4), Tahoe(max_length=30, mask=0.5, multiple=8), ScGPT(max_length=20, mask=None)],
)
def test_hidden_genes_see_what_is_known_and_themselves(recipe):
    batch = recipe.encode(*cells())
    seen, known = batch.attention_mask(), batch.known()
    n, length = batch.genes.shape
    assert seen.shape == (n, length, length)
    for cell in range(n):
        real = int(batch.lengths[cell])
        hidden = set(batch.mask[cell].nonzero().ravel().tolist()) if batch.mask is not None else set()
        shown = {i for i in range(real) if i not in hidden}
        assert set(known[cell].nonzero().ravel().tolist()) == shown
        for query in range(length):
            expected = shown | ({query} if query < real else set())
            assert set(seen[cell, query].nonzero().ravel().tolist()) == expected
    assert seen.any(dim=2)[:, 0].all()  # <cls> is known, so that no softmax is over nothing


def test_a_part_of_its_own_comes_behind_what_is_known():
    batch = ScGPT(max_length=20, mask=0.5, style="both").encode(*cells())
    seen = batch.attention_mask()
    width, part = batch.genes.shape[1], batch.extra["gen_genes"].shape[1]
    assert seen.shape == (6, width + part, width + part) and part > 0
    assert batch.known().shape == (6, width + part)
    for cell in range(6):
        shown = set(range(int(batch.lengths[cell])))
        there = int(batch.extra["gen_lengths"][cell])
        for query in range(width + part):
            own = {query} if query in shown or width <= query < width + there else set()
            assert set(seen[cell, query].nonzero().ravel().tolist()) == shown | own


def test_attention_takes_it():
    batch = ScGPT(max_length=15, mask=0.4).encode(*cells())
    q = torch.randn(6, 1, batch.genes.shape[1], 8)
    out = torch.nn.functional.scaled_dot_product_attention(q, q, q, attn_mask=batch.attention_mask()[:, None])
    assert torch.isfinite(out).all()


def test_rows_without_padding_have_none():
    for recipe in (CSR(), ScGPT(max_length=15, pad="none")):
        with pytest.raises(InputError, match="no padding"):
            recipe.encode(*cells()).attention_mask()
