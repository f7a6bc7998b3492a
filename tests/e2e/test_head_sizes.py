"""Real panels with few nonzeros a cell take at most 1.2 times their gene-wise entropy, everything included."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

from cellmill.kernel.model import choose_head, count_histograms, fit_model, open_model

SAMPLE = 4096
OFFSET_BYTES = 2.25  # A cell, in a shard's offsets of 16 bits.


@pytest.fixture(scope="module")
def benchmark():
    path = Path(__file__).resolve().parents[2] / "benchmarks" / "frames.py"
    spec = importlib.util.spec_from_file_location("benchmark_frames", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def read_panel(benchmark, path):
    if not path.exists():
        pytest.skip(f"{path.name} is not among the real cells")
    if path.suffix != ".zarr":
        return benchmark.read_counts(path)
    zarr = pytest.importorskip("zarr")
    return sparse.csr_matrix(zarr.open(path, mode="r")["X"][:])


@pytest.mark.parametrize("name", ["perturb_papalexi_eccite.h5ad", "mouse_neurons_10k_1000genes.zarr"])
def test_a_sparse_panel_takes_at_most_six_fifths_of_its_entropy(shared_data, benchmark, name):
    counts = benchmark.by_detection_rate(read_panel(benchmark, shared_data / name))
    n_cells, n_genes = counts.shape
    sample = counts[np.sort(np.random.default_rng(0).permutation(n_cells)[:SAMPLE])]
    histograms = count_histograms(sample.indptr, sample.indices, sample.data, n_genes)
    assert choose_head(histograms, n_genes=n_genes, n_cells=n_cells) == n_genes
    data = fit_model(histograms, n_head=n_genes)
    model = open_model(data)
    cells = counts.indptr.astype(np.int64), counts.indices.astype(np.int64), counts.data.astype(np.uint32)
    sections, offsets = model.encode(*cells)
    fault, *back = model.decode(sections, offsets, n_genes)
    assert fault is None
    assert all(np.array_equal(found, wanted) for found, wanted in zip(back, cells, strict=True))

    nnz = np.diff(counts.indptr)
    varints = int(np.where(nnz < 128, 1, 2).sum())
    stored = (len(sections) + varints + OFFSET_BYTES * n_cells + len(data)) / counts.nnz
    entropy = benchmark.entropy_bytes(counts)
    print(
        f"{name}: {counts.nnz / n_cells:.0f} nonzeros a cell; {stored:.4f} bytes a nonzero "
        f"(sections {len(sections) / counts.nnz:.4f}, model {len(data):,} bytes), entropy {entropy:.4f}: "
        f"{stored / entropy:.3f} times"
    )
    assert stored <= 1.20 * entropy
    assert len(data) < 0.02 * len(sections)
