"""Recipes: counts in, tensors out, exact."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from scipy import sparse

from cellmill import kernel
from cellmill.errors import ConfigError, InputError, NotRawCountsError
from cellmill.tokens import CSR, Dense

KEYS = np.zeros(5, np.uint64)


@pytest.fixture
def counts():
    rng = np.random.default_rng(0)
    dense = (rng.poisson(2, (5, 7)) * (rng.random((5, 7)) < 0.5)).astype(np.uint32)
    dense[2] = 0
    dense[0, 0] = 70_000
    return sparse.csr_array(dense)


def test_csr_keeps_every_count(counts):
    batch = CSR().encode(counts, np.arange(7), KEYS)
    assert batch.values.dtype == torch.int32
    assert batch.genes.dtype == torch.int32
    assert np.array_equal(batch.to_dense().numpy(), counts.toarray())
    layout = batch.to_sparse_csr()
    assert layout.dtype == torch.float32
    assert layout.shape == (5, 7)
    assert np.array_equal(layout.to_dense().numpy(), counts.toarray())


def test_a_sparse_batch_is_made_without_the_warning_of_torch(counts):
    torch.set_warn_always(True)  # else torch warns once in a process, and here perhaps before
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            CSR().encode(counts, np.arange(7), KEYS).to_sparse_csr()
    finally:
        torch.set_warn_always(False)


def test_csr_widens_counts_that_int32_cannot_hold():
    huge = sparse.csr_array(np.array([[2**31, 1]], dtype=np.uint32))
    batch = CSR().encode(huge, np.arange(2), KEYS[:1])
    assert batch.values.tolist() == [2**31, 1]


@pytest.mark.parametrize("transform", ["raw", "cp10k", "log1p_cp10k"])
def test_dense_is_bit_for_bit_what_the_kernel_makes(counts, transform):
    frames, offsets = kernel.encode(counts.indptr, counts.indices, counts.data, n_genes=7)
    made = kernel.gather_dense(
        [frames], np.zeros(5, np.int64), offsets[:-1], offsets[1:], n_genes=7, transform=transform
    )
    batch = Dense(transform=transform).encode(counts, np.arange(7), KEYS)
    assert batch.values.dtype == torch.float32
    assert np.array_equal(batch.values.numpy(), made)
    assert batch.to_dense() is batch.values


def test_dense_divides_by_the_totals_it_is_given(counts):
    totals = np.array([10, 20, 0, 40, 50])
    batch = Dense(transform="cp10k").encode(counts, np.arange(7), KEYS, totals=totals)
    assert np.allclose(batch.values[3].numpy(), counts.toarray()[3] * 250)
    assert not batch.values[2].any()


def test_wrong_use_is_said(counts):
    with pytest.raises(ConfigError, match="Did you mean 'log1p_cp10k'"):
        Dense(transform="log1p_cp10")
    with pytest.raises(InputError, match="this batch is dense"):
        Dense().encode(counts, np.arange(7), KEYS).to_sparse_csr()


def test_recipes_are_values():
    assert CSR(["a", "b"]) == CSR(("a", "b"))
    assert Dense(["a"]) != Dense(["a"], transform="cp10k")
    assert Dense(["a"]).to_dict() == {"recipe": "dense", "genes": ["a"], "transform": "raw"}


@pytest.mark.parametrize("recipe", [CSR, Dense])
def test_a_panel_is_a_list_of_genes(recipe):
    with pytest.raises(ConfigError, match=r"write \['ENSG00000000003'\]"):
        recipe("ENSG00000000003")


@pytest.mark.parametrize("recipe", [CSR(), Dense(), Dense(transform="cp10k")])
def test_plain_recipes_refuse_what_is_no_counts(recipe):
    good = sparse.csr_array(np.array([[1, 0, 2], [0, 3, 0]]))
    genes, keys = np.arange(3), np.zeros(2, np.uint64)
    for bad, error in [
        (sparse.csr_array(np.array([[1.5, 0, -2], [0, 0, 0]])), NotRawCountsError),
        (sparse.csr_array(np.array([[np.nan, 0, 1], [0, 0, 0]])), NotRawCountsError),
        (good.tocsc(), InputError),
        (good.toarray(), InputError),
        (good.astype(complex), InputError),
    ]:
        with pytest.raises(error, match="counts"):
            recipe.encode(bad, genes, keys)
    with pytest.raises(InputError, match="genes"):
        recipe.encode(good, genes[:2], keys)
    with pytest.raises(InputError, match="keys"):
        recipe.encode(good, genes, keys.astype(float))
    twice = sparse.csr_array((np.array([1, 2, 3]), np.array([1, 1, 0]), np.array([0, 2, 3])), shape=(2, 3))
    assert recipe.encode(twice, genes, keys).to_dense().argmax(dim=1).tolist() == [1, 0]
    if recipe != Dense(transform="cp10k"):
        assert recipe.encode(twice, genes, keys).to_dense().tolist() == [[0, 3, 0], [3, 0, 0]]
    outside = sparse.csr_array((np.array([1, 2]), np.array([1, 7]), np.array([0, 1, 2])), shape=(2, 3))
    with pytest.raises(InputError, match="counts has column"):
        recipe.encode(outside, genes, keys)
