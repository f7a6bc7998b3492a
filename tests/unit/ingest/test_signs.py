"""Whole numbers that are no raw counts are warned about; raw counts, of every real file, are not."""

from __future__ import annotations

import json
import re

import anndata as ad
import numpy as np
import pytest
from scipy import sparse

from cellmill import events
from cellmill.ingest import build, plan_build
from cellmill.ingest.options import BuildOptions
from cellmill.ingest.signs import empty_droplets_warning, signs_of_processing, sums_among_genes
from cellmill.sources import CountBlock


def block_of(counts):
    matrix = sparse.csr_array(counts)
    return CountBlock(0, matrix.indptr.astype(np.int64), matrix.indices.astype(np.int32), matrix.data, counts.shape[1])


def raw_counts(n_cells=60, n_genes=4000, depth=5000.0):
    """Counts as of cells with few genes that are expressed much and many that are expressed little."""
    rng = np.random.default_rng(0)
    shares = rng.gamma(0.3, 1, n_genes)
    sizes = rng.lognormal(0, 0.4, (n_cells, 1))
    return rng.poisson(sizes * depth * shares / shares.sum())


def log1p_rounded(counts):
    return np.rint(np.log1p(counts / counts.sum(1, keepdims=True) * 1e4)).astype(int)


def sampled_down(counts, depth=500):
    rng = np.random.default_rng(1)
    return np.array([rng.multivariate_hypergeometric(cell, depth) for cell in counts])


SIGNS = {
    "multiples": (lambda counts: counts * 3, "multiples of a number above 1 \\(most often 3\\)"),
    "no ones": (
        lambda counts: np.where(counts == 1, 0, counts),
        "none of .* counts looked at is 1 \\(the lowest is 2\\)",
    ),
    "only ones": (lambda counts: (counts > 0).astype(np.uint8), "all of .* counts looked at are 1: .*which genes"),
    "log range": (log1p_rounded, "the largest count is [4-8] .*range of logarithms"),
    "same totals": (sampled_down, "the same total, about 500"),
}


@pytest.mark.parametrize("name", SIGNS)
def test_each_sign_is_seen_where_it_is_and_not_in_raw_counts(name):
    change, said = SIGNS[name]
    raw = raw_counts()
    assert signs_of_processing([block_of(raw)]) == ()
    found = signs_of_processing([block_of(change(raw))])
    assert any(re.search(said, one) for one in found), found
    assert len(found) == (2 if name == "multiples" else 1), found  # what is multiplied has no ones, either


@pytest.mark.parametrize("depth", [20, 40, 100, 1000])
def test_shallow_cells_are_not_taken_for_presence(depth):
    for n_cells in (12, 60, 600):
        found = signs_of_processing([block_of(raw_counts(n_cells, depth=depth))])
        assert not any("are 1" in one for one in found), (n_cells, depth)


def test_few_values_that_are_all_1_tell_nothing():
    presence = np.zeros((60, 100), np.uint8)
    presence[:, :16] = 1
    assert not any("are 1" in one for one in signs_of_processing([block_of(presence)]))  # 960 values
    presence[:, :17] = 1
    assert any("are 1" in one for one in signs_of_processing([block_of(presence)]))


def test_a_matrix_of_true_and_false_is_told(tmp_path):
    path = tmp_path / "binary.h5ad"
    ad.AnnData(raw_counts() > 0).write_h5ad(path)
    assert any("which genes were found" in one for one in plan_build([path], vocabulary="union").sources[0].warnings)


def test_cells_that_cannot_tell_give_no_warning():
    few = np.zeros((500, 100), int)
    few[:, 3] = 2  # all multiples of 2, one total: of one gene
    assert signs_of_processing([block_of(few)]) == ()
    assert signs_of_processing([]) == ()


def test_warnings_are_in_plan_report_and_messages(tmp_path, tiny_h5ad):
    path = tiny_h5ad("doubled", counts=raw_counts() * 2).path
    said = []
    with events.listening(lambda event: said.append(event.message)):
        store = build(tmp_path / "s.mill", [path], vocabulary="union")
    report = json.loads((store.path / "reports/00000.json").read_text())
    planned = plan_build([path], vocabulary="union")
    assert "multiples of a number above 1" in report["warnings"][0]
    assert planned.to_dict()["sources"][0]["warnings"] == report["warnings"]
    assert "multiples of a number above 1" in str(planned)
    assert any("doubled.h5ad: in 60 of 60 cells" in message for message in said)


def test_an_unfiltered_droplet_matrix_is_recognised():
    rng = np.random.default_rng(0)
    droplets = sparse.random(3000, 6000, density=0.0003, rng=rng, data_rvs=lambda n: np.ones(n, int)).toarray()
    droplets[::50] = rng.poisson(0.5, (60, 6000))
    windows = [block_of(droplets)]
    said = empty_droplets_warning(windows, n_cells=737_280, n_genes=6000)
    assert said and "--min-counts 500" in said and "98% of the barcodes" in said
    assert empty_droplets_warning([block_of(droplets[::50])], n_cells=737_280, n_genes=6000) is None
    assert empty_droplets_warning(windows, n_cells=900, n_genes=6000) is None  # a plate with empty wells
    assert empty_droplets_warning(windows, n_cells=737_280, n_genes=300) is None  # a panel


RAW = [
    "pbmc_facs_zheng.h5ad", "pbmc_1k_v2_10x.h5", "gut_scp1884.h5ad", "pbmc_zheng68k_165.h5ad",
    "perturb_papalexi_eccite.h5ad", "mouse_dentategyrus_100.h5ad",
]  # fmt: skip


@pytest.mark.parametrize("name", RAW)
def test_raw_files_give_no_warning(shared_data, name):
    planned = plan_build([shared_data / name], options=BuildOptions(min_match=0.5))
    assert planned.sources[0].warnings == ()


def test_a_gene_that_is_the_sum_of_the_others_is_found_and_no_other():
    counts = raw_counts(n_genes=200)
    matched = np.ones(201, bool)
    assert sums_among_genes([block_of(counts)], matched=matched[:200]) == []
    with_sum = np.insert(counts, 7, counts.sum(1), axis=1)
    assert sums_among_genes([block_of(with_sum[:30]), block_of(with_sum[30:])], matched=matched) == [7]
    one_off = with_sum.copy()
    one_off[3, 7] += 1
    assert sums_among_genes([block_of(one_off)], matched=matched) == []
    # beside another fact of cells it is the sum of the genes that matched alone
    two = np.insert(with_sum, 201, (counts > 0).sum(1), axis=1)
    among = np.insert(np.ones(200, bool), [7, 200], False)
    assert sums_among_genes([block_of(two)], matched=among) == [7]
    assert sums_among_genes([block_of(with_sum[:5])], matched=matched) == []  # too few cells to tell


def test_a_total_among_the_genes_is_warned_of(tiny_h5ad):
    counts = raw_counts(n_cells=60, n_genes=60, depth=500.0)
    counts[:, 59] = counts[:, :59].sum(1)
    path = tiny_h5ad("summed", counts=counts).path
    (source,) = plan_build([path], vocabulary="union").sources
    assert any("is the sum of the others in all cells looked at" in warning for warning in source.warnings)
