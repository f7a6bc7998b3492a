"""Stores with head genes: built, resumed, added to, merged, verified and read by the same model."""

from __future__ import annotations

from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import cellmill as cm


def write_panel(path: Path, dense: np.ndarray, *, genes: list[str] | None = None) -> np.ndarray:
    names = genes or [f"g{i}" for i in range(dense.shape[1])]
    cells = [f"{path.stem}{i}" for i in range(len(dense))]
    data = sparse.csr_matrix(dense.astype(np.float32))
    ad.AnnData(data, obs=pd.DataFrame(index=cells), var=pd.DataFrame(index=names)).write_h5ad(path)
    return dense


def sparse_panel(seed: int, n_cells: int = 900, n_genes: int = 60) -> np.ndarray:
    rng = np.random.default_rng(seed)
    dense = rng.poisson(np.minimum(2, 8 / (1 + np.arange(n_genes))), (n_cells, n_genes))
    dense[1], dense[2, 3], dense[3] = 0, 70_000, 1
    return dense


def counts_of(store: cm.Store, genes: list[str]) -> np.ndarray:
    return store.read(np.arange(store.n_cells), genes=genes).toarray()


@pytest.fixture
def panel(tmp_path: Path) -> tuple[Path, np.ndarray, list[str]]:
    dense = write_panel(tmp_path / "a.h5ad", sparse_panel(0))
    return tmp_path / "a.h5ad", dense, [f"g{i}" for i in range(60)]


def test_a_sparse_panel_is_built_with_head_genes_and_reads_back(panel, tmp_path):
    path, dense, genes = panel
    store = cm.build(tmp_path / "a.mill", [path], vocabulary="union", shard_cells=400, block_cells=100)
    assert store.manifest.head is not None and store.head.n_genes > 30
    assert np.array_equal(counts_of(store, genes), dense)
    assert np.array_equal(store.read_dense(np.arange(5), genes=genes), dense[:5])
    assert store.totals().tolist() == dense.sum(axis=1).tolist()
    assert store.verify().ok
    rich = np.random.default_rng(1).poisson(3, (300, 600))  # 570 counts a cell: blocks are as good
    write_panel(tmp_path / "b.h5ad", rich)
    assert cm.build(tmp_path / "b.mill", [tmp_path / "b.h5ad"], vocabulary="union").manifest.head is None


def test_cells_added_later_keep_the_model_and_may_have_other_genes(panel, tmp_path):
    path, dense, genes = panel
    vocabulary = cm.Vocabulary([*genes, "new1", "new2"], name="panel")
    store = cm.build(tmp_path / "a.mill", [path], vocabulary=vocabulary)
    later = write_panel(tmp_path / "b.h5ad", sparse_panel(1, 200, 62), genes=[*genes, "new1", "new2"])
    grown = cm.append(store.path, [tmp_path / "b.h5ad"])
    assert grown.manifest.head == store.manifest.head and grown.n_genes == 62
    both = counts_of(grown, [*genes, "new1", "new2"])
    assert np.array_equal(both[:900, :60], dense) and not both[:900, 60:].any()
    assert np.array_equal(both[900:], later)
    assert np.array_equal(counts_of(store, genes), dense)  # opened before
    assert grown.verify().ok


def test_full_cells_added_to_a_sparse_panel_cost_what_they_cost_alone(panel, tmp_path):
    path, _, genes = panel
    full = write_panel(tmp_path / "full.h5ad", np.random.default_rng(3).poisson(30, (3000, 60)) + 1)
    alone = cm.build(tmp_path / "full.mill", [tmp_path / "full.h5ad"], vocabulary="union")
    store = cm.build(tmp_path / "a.mill", [path], vocabulary="union")
    grown = cm.append(store.path, [tmp_path / "full.h5ad"])
    assert grown.n_bytes - store.n_bytes < 1.5 * alone.n_bytes
    assert np.array_equal(counts_of(grown, genes)[900:], full)


@pytest.mark.parametrize("first", ["sparse", "rich"])
def test_stores_with_and_without_head_genes_merge(panel, tmp_path, first):
    path, dense, _ = panel
    rich = write_panel(tmp_path / "r.h5ad", np.random.default_rng(4).poisson(3, (300, 400)))
    names = [f"g{i}" for i in range(400)]
    vocabulary = cm.Vocabulary(names, name="panel")
    a = cm.build(tmp_path / "a.mill", [path], vocabulary=vocabulary)
    r = cm.build(tmp_path / "r.mill", [tmp_path / "r.h5ad"], vocabulary=vocabulary)
    assert a.manifest.head is not None and r.manifest.head is None
    merged = cm.merge(tmp_path / "m.mill", [a, r] if first == "sparse" else [r, a])
    assert (merged.manifest.head is not None) == (first == "sparse")
    found = counts_of(merged, names)
    wide = np.zeros((900, 400), found.dtype)
    wide[:, :60] = dense
    wanted = [wide, rich] if first == "sparse" else [rich, wide]
    assert np.array_equal(found, np.concatenate(wanted))
    assert merged.verify().ok


def test_stores_of_one_model_are_merged_byte_for_byte(panel, tmp_path):
    path, _, _ = panel
    write_panel(tmp_path / "b.h5ad", sparse_panel(0))
    one = cm.build(tmp_path / "a.mill", [path], vocabulary="union")
    other = cm.build(tmp_path / "b.mill", [tmp_path / "b.h5ad"], vocabulary="union")
    assert one.head_model == other.head_model
    merged = cm.merge(tmp_path / "m.mill", [one, other])
    shards = [shard.cells.xxh3 for shard in merged.manifest.shards]
    assert shards == [store.manifest.shards[0].cells.xxh3 for store in (one, other)]


def test_a_damaged_model_is_found_and_nothing_is_read_by_it(panel, tmp_path):
    path, _, _ = panel
    store = cm.build(tmp_path / "a.mill", [path], vocabulary="union")
    model = store.path / "model.bin"
    data = bytearray(model.read_bytes())
    data[40] ^= 1
    model.write_bytes(data)
    again = cm.open(store.path)
    assert any("model.bin" in problem for problem in again.verify().problems)
    with pytest.raises(cm.errors.CorruptStoreError, match=r"model\.bin"):
        again.read([0])
    model.unlink()
    with pytest.raises(cm.errors.CorruptStoreError, match=r"model\.bin"):
        cm.open(store.path).read([0])
