from __future__ import annotations

import mmap
import os
import shutil
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

import cellmill as cm
from cellmill.bench import GeneEntropy, evict, measure_store, resident_share
from cellmill.bench.rates import panel_of, random_batches, sequential_batches
from cellmill.errors import InputError
from cellmill.simulate import write_reference


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> cm.Store:
    folder = tmp_path_factory.mktemp("bench")
    return cm.build(folder / "s.mill", write_reference(folder / "h5ad", n_cells=700, n_genes=3000, n_shards=2))


def entropy_by_definition(dense: np.ndarray) -> float:
    """Bits of each gene's counts, gene by gene, as the formula says."""
    bits = 0.0
    for gene in dense.T:
        share = np.unique(gene, return_counts=True)[1] / len(gene)
        bits -= len(gene) * float((share * np.log2(share)).sum())
    return bits / 8 / np.count_nonzero(dense)


def test_entropy_is_that_of_the_definition_whatever_the_blocks() -> None:
    rng = np.random.default_rng(0)
    dense = rng.poisson(rng.gamma(0.4, 40.0, (300, 30)))  # small counts and many above 63
    assert (dense > 63).any()
    counts = sparse.csr_array(dense)
    whole, parts = GeneEntropy(30), GeneEntropy(30)
    whole.add(counts.indices, counts.data, n_cells=300)
    for start in (0, 100, 200):
        block = counts[start : start + 100]
        parts.add(block.indices, block.data, n_cells=100)
    assert whole.bytes_per_nonzero == pytest.approx(entropy_by_definition(dense))
    assert parts.bytes_per_nonzero == pytest.approx(whole.bytes_per_nonzero)


def test_random_batches_give_each_cell_once_per_round() -> None:
    rows = np.concatenate(list(islice(random_batches(1000, 100, seed=1), 20)))
    assert np.array_equal(np.sort(rows[:1000]), np.arange(1000))
    assert np.array_equal(np.sort(rows[1000:]), np.arange(1000))
    assert not np.array_equal(rows[:1000], rows[1000:])


def test_sequential_batches_are_neighbours_and_wrap() -> None:
    rows = np.concatenate(list(islice(sequential_batches(50, 20, seed=0), 6)))
    assert set(np.diff(rows) % 50) == {1}
    assert rows.max() == 49


def test_batches_are_never_larger_than_the_store() -> None:
    assert len(next(random_batches(7, 512, seed=0))) == 7
    assert len(next(sequential_batches(7, 512, seed=0))) == 7


def can_drop_pages(folder: Path) -> bool:
    """Whether this file system gives back cached pages at all (one in memory does not), found out by other means."""
    if not hasattr(os, "posix_fadvise"):
        return False
    probe = folder / "probe"
    probe.write_bytes(bytes(8 * mmap.PAGESIZE))
    with probe.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return resident_share([probe]) == 0.0


def test_evicted_pages_are_gone_and_read_pages_are_there(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_bytes(np.random.default_rng(0).bytes(40 * mmap.PAGESIZE))
    path.read_bytes()
    if not can_drop_pages(tmp_path):
        pytest.skip("this file system does not drop pages")
    assert resident_share([path]) == 1.0
    assert evict([path]) == 0.0
    with path.open("rb", buffering=0) as file:
        file.read(1)
    assert 0 < resident_share([path]) <= 1


def test_the_report_covers_all_workloads(store: cm.Store) -> None:
    report = measure_store(store.path, seconds=0.01, repeats=2, threads=2)
    assert (report.n_cells, report.nnz, report.digest) == (store.n_cells, store.nnz, store.digest)
    assert report.bytes_per_nonzero == pytest.approx(store.n_bytes / store.nnz)
    dense = store.read(np.arange(store.n_cells)).toarray()
    # runs of 500 neighbours: of 700 cells, the first 500 are taken
    assert report.entropy_cells == 500
    assert report.entropy_bytes_per_nonzero == pytest.approx(entropy_by_definition(dense[:500]))
    warm = [rate for rate in report.rates if rate.cache == "warm"]
    shapes = {(r.workload.order, r.workload.form, r.workload.batch_cells, r.workload.threads) for r in warm}
    assert {("random", "csr", b, t) for b in (64, 512) for t in (1, 2)} <= shapes
    assert {("sequential", "csr", b, t) for b in (64, 512) for t in (1, 2)} <= shapes
    assert {("random", f, 512, 1) for f in ("panel csr", "panel dense", "csr and totals")} <= shapes
    assert all(0 < rate.low <= rate.median <= rate.high and rate.repeats == 2 for rate in report.rates)
    for profile in report.warm:
        assert profile.kernel > 0
        assert profile.kernel + profile.python == pytest.approx(1)
    assert all(profile.microseconds_per_cell > 0 for profile in report.warm)


def test_a_cold_read_fetches_from_the_disk(store: cm.Store, tmp_path: Path) -> None:
    copy = shutil.copytree(store.path, tmp_path / "copy.mill")  # nobody has mapped it: its pages can be dropped
    report = measure_store(copy, seconds=0.01, repeats=2, threads=1)
    if not can_drop_pages(tmp_path):
        pytest.skip("this file system does not drop pages")
    assert report.cold is not None
    assert report.cold_resident == 0.0
    assert report.cold.major_faults_per_cell > 0
    assert report.cold.frame_bytes_per_cell == pytest.approx(store.n_bytes / store.n_cells, rel=0.3)
    assert [rate.cache for rate in report.rates].count("cold") == 1


def test_without_cold_no_page_is_dropped(store: cm.Store) -> None:
    report = measure_store(store.path, seconds=0.01, repeats=1, threads=1, cold=False)
    assert report.cold is None
    assert {rate.cache for rate in report.rates} == {"warm"}


def test_the_panel_is_2000_genes_at_most(store: cm.Store) -> None:
    panel = panel_of(store)
    assert len(set(panel)) == len(panel) == 2000
    assert set(panel) <= set(store.gene_ids)


@pytest.mark.parametrize("wrong", [{"seconds": 0.0}, {"repeats": 0}, {"threads": -1}])
def test_numbers_that_make_no_sense_are_refused(store: cm.Store, wrong: dict[str, float]) -> None:
    with pytest.raises(InputError, match="expected seconds"):
        measure_store(store.path, **wrong)  # type: ignore[arg-type]
