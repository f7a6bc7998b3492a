"""Fewer counts per cell: of the right distribution, and of the cell alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import sparse, stats

from cellmill.errors import ConfigError
from cellmill.loader import Dataset, Loader
from cellmill.loader.thinning import thin_counts
from cellmill.tokens import CSR, Dense


def by_cell(batches):
    found = {}
    for batch in batches:
        matrix = batch.to_dense().float()
        for i, uid in enumerate(batch.cells.tolist()):
            found[uid] = (tuple(matrix[i].tolist()), batch.totals[i].item())
    return found


def test_the_same_cell_has_the_same_counts_whatever_reads_it(atlas):
    plain = by_cell(Loader(atlas, batch_size=300))
    whole = by_cell(Loader(atlas, batch_size=300, downsample=400))
    assert {total for _, total in whole.values()} != {total for _, total in plain.values()}
    ranks = [
        loader
        for rank in range(3)
        for loader in Loader(atlas, batch_size=37, downsample=400, rank=rank, world_size=3, order="blocked", threads=2)
    ]
    assert by_cell(ranks) == whole
    assert by_cell([Dataset(atlas, downsample=400).__getitems__(range(299, -1, -1))]) == whole
    second = Loader(atlas, batch_size=300, downsample=400)
    second.set_epoch(1)
    assert by_cell(second) != whole
    assert by_cell(Loader(atlas, batch_size=300, downsample=400, seed=1)) != whole


def test_a_panel_has_the_counts_of_the_whole_cell(atlas):
    ids = list(atlas.gene_ids)
    panel = [ids[i] for i in (50, 3, 200, 7)]
    whole = by_cell(Loader(atlas, batch_size=300, downsample=400))
    for tokens in (CSR(panel), Dense(panel)):
        for uid, (counts, total) in by_cell(Loader(atlas, batch_size=60, tokens=tokens, downsample=400)).items():
            assert list(counts) == [whole[uid][0][i] for i in (50, 3, 200, 7)]
            assert total == whole[uid][1]
    scaled = Loader(atlas, batch_size=300, tokens=Dense(transform="cp10k"), downsample=400)
    for counts, _ in by_cell(scaled).values():
        assert sum(counts) == pytest.approx(1e4, rel=1e-4)


def test_totals_are_near_the_target_and_small_cells_stay(atlas):
    target = int(np.median(atlas.totals()))
    plain = by_cell(Loader(atlas, batch_size=300))
    thinned = by_cell(Loader(atlas, batch_size=300, downsample=target))
    above = [uid for uid, (_, total) in plain.items() if total > target]
    assert len(above) > 100
    for uid, (counts, total) in plain.items():
        if total <= target:
            assert thinned[uid] == (counts, total)
        assert all(a <= b for a, b in zip(thinned[uid][0], counts, strict=True))
        assert thinned[uid][1] == sum(thinned[uid][0])
    totals = np.array([thinned[uid][1] for uid in above])
    spread = np.sqrt(np.mean([target * (1 - target / plain[uid][1]) for uid in above]) / len(above))
    assert abs(totals.mean() - target) < 5 * spread


@pytest.mark.parametrize("count", [1, 7, 32, 33, 5000])
def test_counts_are_thinned_binomially(count):
    n = 4000
    counts = sparse.csr_array(np.full((n, 1), count, dtype=np.uint32))
    keys = np.arange(n, dtype=np.uint64)
    kept = thin_counts(counts, np.array([3]), keys, np.full(n, 10 * count), target=3 * count).toarray().ravel()
    law = stats.binom(count, 0.3)
    assert kept.mean() == pytest.approx(law.mean(), abs=5 * law.std() / np.sqrt(n))
    grid = np.arange(count + 1)
    seen = np.cumsum(np.bincount(kept, minlength=count + 1)) / n
    assert np.abs(seen - law.cdf(grid)).max() < 0.035  # Kolmogorov and Smirnov: 1.95 / sqrt(4000) has p = 0.001


def test_targets_that_cannot_be_meant(atlas):
    for target in (0, 2.5, "many"):
        with pytest.raises(ConfigError, match="downsample must be a whole number of at least 1"):
            Loader(atlas, downsample=target)


def test_bfloat16_is_the_rounded_matrix(atlas):
    options = {"batch_size": 100, "seed": 2}
    whole = Loader(atlas, tokens=Dense(transform="log1p_cp10k"), **options)
    half = Loader(atlas, tokens=Dense(transform="log1p_cp10k", dtype="bfloat16"), **options)
    for one, other in zip(whole, half, strict=True):
        assert other.values.dtype == torch.bfloat16
        assert torch.equal(one.values.bfloat16(), other.values)
    with pytest.raises(ConfigError, match="dtype must be one of float32, bfloat16, found 'bfloat'"):
        Dense(dtype="bfloat")


def test_batches_lie_where_they_are_asked_for(atlas):
    for batch in Loader(atlas, batch_size=100, device="meta", obs=["cell_type"]):
        assert {tensor.device.type for _, tensor in batch.tensors()} == {"meta"}
    assert next(iter(Loader(atlas, device="cpu"))).values.device.type == "cpu"
    with pytest.raises(ConfigError, match="no device of torch"):
        Loader(atlas, device="gpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what is missing where there is no CUDA device")
def test_a_device_that_is_not_there_is_refused(atlas):
    with pytest.raises(ConfigError, match="this process has 0 CUDA devices"):
        Loader(atlas, device="cuda")
    with pytest.raises(ConfigError, match="pin_memory=True needs a CUDA device"):
        Loader(atlas, pin_memory=True)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_batches_on_a_cuda_device_are_those_in_memory(atlas):
    pairs = zip(Loader(atlas, batch_size=50), Loader(atlas, batch_size=50, device="cuda"), strict=True)
    for one, other in pairs:
        assert other.values.is_cuda
        assert torch.equal(one.values, other.values.cpu())
    assert next(iter(Loader(atlas, pin_memory=True))).values.is_pinned()
