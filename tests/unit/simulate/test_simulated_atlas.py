from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

from cellmill.errors import ConfigError
from cellmill.genes import GeneTable, Vocabulary, align
from cellmill.simulate import CELL_TYPES, Study, simulate_atlas
from cellmill.simulate import atlas as model


@pytest.fixture(scope="module")
def atlas() -> list[Study]:
    return simulate_atlas(n_cells=900, n_genes=20_000, seed=7)


def whole(studies: list[Study]) -> sparse.csr_array:
    return sparse.csr_array(sparse.vstack([study.counts for study in studies]).astype(np.float64))


def labels(studies: list[Study], column: str) -> np.ndarray:
    return np.concatenate([np.array(study.obs[column].to_pylist()) for study in studies])


def log_normalised(counts: sparse.csr_array) -> np.ndarray:
    dense = counts.toarray()
    return np.log1p(1e4 * dense / dense.sum(axis=1, keepdims=True))


def test_studies_hold_what_was_asked_for(atlas: list[Study]) -> None:
    assert [study.name for study in atlas] == ["blood-a", "blood-b", "gut-c"]
    for study in atlas:
        assert study.counts.shape == (study.n_cells, study.n_genes) == (300, 20_000)
        assert study.counts.dtype == np.uint32
        assert study.counts.has_sorted_indices
        assert study.counts.data.min() >= 1
        assert len(set(study.obs["cell"].to_pylist())) == 300
        assert study.obs.column_names == ["cell", "cell_type", "donor_id", "tissue", "assay", "batch", "study"]
        assert len(set(study.obs["donor_id"].to_pylist())) == 10
        assert len(set(study.obs["batch"].to_pylist())) == 2
    assert set(labels(atlas, "cell_type")) == set(CELL_TYPES)
    assert set(labels(atlas, "tissue")) == {"blood", "large intestine"}


def test_a_donor_lies_within_one_study_and_batch(atlas: list[Study]) -> None:
    pairs = set(zip(labels(atlas, "donor_id"), labels(atlas, "batch"), labels(atlas, "study"), strict=True))
    assert len(pairs) == 30


def test_counts_are_as_sparse_and_skewed_as_real_ones(atlas: list[Study]) -> None:
    counts = whole(atlas)
    per_cell = np.diff(counts.indptr)
    assert 1_200 <= np.median(per_cell) <= 1_800
    assert 0.55 <= (counts.data == 1).mean() <= 0.68
    assert 0.80 <= (counts.data <= 3).mean() <= 0.90
    assert 0.90 <= 1 - counts.nnz / np.prod(counts.shape) <= 0.95
    assert counts.data.max() > 255


def test_library_sizes_are_log_normal(atlas: list[Study]) -> None:
    for study in atlas:
        log_library = np.log(study.counts.sum(axis=1))
        centred = (log_library - log_library.mean()) / log_library.std()
        assert 0.3 < log_library.std() < 0.6
        assert abs((centred**3).mean()) < 0.5


def test_counts_are_overdispersed_within_a_cell_type_of_a_donor_group(atlas: list[Study]) -> None:
    study = atlas[0]
    rows = np.array(study.obs["cell_type"].to_pylist()) == "T cell"
    counts = sparse.csr_array(study.counts[np.flatnonzero(rows)]).toarray().astype(float)
    mean, variance = counts.mean(axis=0), counts.var(axis=0, ddof=1)
    expressed = mean > 1
    assert np.median(variance[expressed] / mean[expressed]) > 2


def test_drawn_counts_follow_the_gamma_poisson_law() -> None:
    for mean in (0.05, 0.8, 3.9, 12.0):
        rng = np.random.default_rng(1)
        _, _, values = model._draw_counts(np.full((20, 20_000), mean, dtype=np.float32), rng)
        n, theta = 400_000, model._DISPERSION
        total, squares = values.sum(dtype=np.float64), (values.astype(np.float64) ** 2).sum()
        variance = squares / n - (total / n) ** 2
        assert total / n == pytest.approx(mean, rel=0.02)
        assert variance == pytest.approx(mean + mean**2 / theta, rel=0.05)
        assert values.size / n == pytest.approx(1 - (theta / (theta + mean)) ** theta, rel=0.02)


def test_cell_types_are_learnable_across_studies(atlas: list[Study]) -> None:
    """The nearest mean profile of one blood study names most cells of the other."""
    first, second = log_normalised(whole(atlas[:1])), log_normalised(whole(atlas[1:2]))
    train, test = labels(atlas[:1], "cell_type"), labels(atlas[1:2], "cell_type")
    known = [name for name in CELL_TYPES if (train == name).sum() >= 5]
    profiles = np.stack([first[train == name].mean(axis=0) for name in known])
    profiles -= profiles.mean(axis=0)
    second = second - second.mean(axis=0)
    guess = np.array(known)[(second @ profiles.T / np.linalg.norm(profiles, axis=1)).argmax(axis=1)]
    assert (guess == test).mean() > 0.9


@pytest.mark.parametrize("column", ["donor_id", "batch"])
def test_donors_and_batches_are_visible(atlas: list[Study], column: str) -> None:
    """T cells lie nearer to the mean of their own group, computed without them, far more often than by chance."""
    study = atlas[1]
    rows = np.array(study.obs["cell_type"].to_pylist()) == "T cell"
    x, group = log_normalised(whole([study]))[rows], labels([study], column)[rows]
    names = [name for name in sorted(set(group)) if (group == name).sum() >= 4]
    even = np.arange(group.size) % 2 == 0
    means = np.stack([x[even & (group == name)].mean(axis=0) for name in names if (even & (group == name)).any()])
    names = [name for name in names if (even & (group == name)).any()]
    held = ~even & np.isin(group, names)
    distance = ((x[held][:, None, :] - means[None]) ** 2).sum(axis=2)
    hits = (np.array(names)[distance.argmin(axis=1)] == group[held]).mean()
    assert hits > 1.5 / len(names)


def test_the_same_seed_gives_the_same_atlas_and_another_another() -> None:
    first, again, other = (simulate_atlas(n_cells=60, n_genes=500, seed=seed) for seed in (3, 3, 4))
    for a, b, c in zip(first, again, other, strict=True):
        assert (a.counts != b.counts).nnz == 0
        assert a.obs.equals(b.obs)
        assert a.gene_ids == b.gene_ids == c.gene_ids
        assert (a.counts != c.counts).nnz > 0


def test_a_study_does_not_depend_on_how_many_follow() -> None:
    alone, among = (
        simulate_atlas(n_cells=20, n_genes=300, n_studies=1),
        simulate_atlas(n_cells=80, n_genes=300, n_studies=4),
    )
    assert (alone[0].counts != among[0].counts).nnz == 0
    assert [study.name for study in among] == ["blood-a", "blood-b", "gut-c", "blood-a2"]


def test_every_symbol_means_its_id() -> None:
    study = simulate_atlas(n_cells=3, n_genes=20_000)[0]
    human = Vocabulary.load("human")
    assert len(set(study.gene_ids)) == 20_000
    found = align(study.symbols, vocabulary=human, table=GeneTable.load("human"))
    assert found.target.tolist() == human.index_of(study.gene_ids).tolist()


def test_few_genes_still_hold_the_markers() -> None:
    study = simulate_atlas(n_cells=6, n_genes=200)[0]
    assert {"CD3E", "MS4A1", "NKG7", "LYZ", "MZB1", "EPCAM"} <= set(study.symbols)


@pytest.mark.parametrize(
    "arguments", [{"n_cells": 2}, {"n_studies": 0}, {"n_genes": 0}, {"n_genes": 10**6}, {"seed": -1}]
)
def test_what_cannot_be_simulated_is_refused(arguments: dict[str, int]) -> None:
    with pytest.raises(ConfigError):
        simulate_atlas(**arguments)


def test_simulating_needs_neither_anndata_nor_torch() -> None:
    source = Path(__file__).parents[3] / "src"
    code = "import sys, cellmill.simulate; print(sorted({'anndata', 'torch', 'pandas'} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONPATH": str(source)}
    )
    assert done.stdout.strip() == "[]"
