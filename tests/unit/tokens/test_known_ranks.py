"""What Geneformer's recipe finds out of many cells: it changes the time, never a row."""

from __future__ import annotations

import pickle

import numpy as np
from scipy import sparse

from cellmill.kernel import rank_keys
from cellmill.tokens import Geneformer, ranks
from cellmill.tokens.ranks import KnownRanks


def test_what_is_found_out_of_many_cells_changes_no_row(monkeypatch):
    rng = np.random.default_rng(4)
    counts = sparse.csr_array(rng.poisson(0.8, (200, 300)).astype(np.uint32))
    genes, keys = rng.permutation(300) + 4, np.arange(200, dtype=np.uint64)
    medians = {int(gene): rng.choice([1.0, 1.0, 1.5, 0.3]) for gene in genes}
    fresh = Geneformer(medians=medians, max_length=60)
    expected = fresh.encode(counts, genes, keys)
    monkeypatch.setattr(KnownRanks, "AFTER", 300)
    monkeypatch.setattr(KnownRanks, "MOST", 2)
    found_out = []
    monkeypatch.setattr(ranks, "rank_keys", lambda *args: found_out.append(1) or rank_keys(*args))
    recipe = Geneformer(medians=medians, max_length=60)
    for times in (0, 1, 1, 1):
        made = recipe.encode(counts, genes, keys)
        assert made.genes.equal(expected.genes) and made.values.equal(expected.values)
        assert len(found_out) == times
    for shift in range(5):  # other axes; no more of them are kept than are allowed
        other = np.roll(genes, shift)
        for _ in range(2):
            made = recipe.encode(counts, other, keys)
        assert made.genes.equal(fresh.encode(counts, other, keys).genes)
        assert len(recipe._known._keyed) <= 2
    again = pickle.loads(pickle.dumps(recipe))
    assert again == recipe and not again._known._keyed
    assert again.encode(counts, genes, keys).genes.equal(expected.genes)
