"""Every readable real file comes back cell by cell and gene by gene, labels included."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from scipy import sparse

import cellmill
from cellmill.errors import NotRawCountsError
from cellmill.ingest import build

anndata = pytest.importorskip("anndata")

HUMAN = Path(cellmill.__file__).parent / "genes/tables/human.parquet"

H5AD = [
    "pbmc_facs_zheng.h5ad",
    "gut_scp1884.h5ad",
    "pbmc_zheng68k_165.h5ad",
    "perturb_papalexi_eccite.h5ad",
    "mouse_dentategyrus_100.h5ad",
]


def read_original(path):
    """Counts, gene ids, cells and obs as other libraries read the file."""
    if path.suffix == ".h5ad":
        original = anndata.read_h5ad(path)
        return sparse.csr_matrix(original.X), list(original.var_names), list(original.obs_names), original.obs
    with h5py.File(path) as file:
        group = file["matrix"]
        shape = group["shape"][:]
        counts = sparse.csc_matrix((group["data"][:], group["indices"][:], group["indptr"][:]), shape=shape).T.tocsr()
        genes = [name.decode() for name in group["features/id"][:]]
        return counts, genes, [name.decode() for name in group["barcodes"][:]], pd.DataFrame()


@pytest.mark.parametrize("name", [*H5AD, "pbmc_1k_v2_10x.h5"])
def test_the_files_own_ids_come_back_exactly(shared_data, tmp_path, name):
    path = shared_data / name
    counts, genes, cells, obs = read_original(path)
    store = build(tmp_path / "s.mill", [path], vocabulary="union", block_cells=700)
    got = store.to_anndata()
    assert list(got.obs_names) == cells
    assert sorted(got.var_names) == sorted(genes)
    where = {gene: i for i, gene in enumerate(genes)}
    expected = counts[:, [where[gene] for gene in got.var_names]]
    assert (sparse.csr_matrix(got.X) != expected).nnz == 0
    for column in obs:
        mine = got.obs[column if column in got.obs else f"source_{column}"]
        if pd.api.types.is_numeric_dtype(obs[column]):
            np.testing.assert_array_equal(mine.to_numpy(float), obs[column].to_numpy(float))
        else:
            assert mine.astype(str).tolist() == obs[column].astype(str).tolist()
    assert store.verify().ok


@pytest.mark.parametrize("name", [*H5AD, "pbmc_1k_v2_10x.h5"])
def test_resolved_to_ensembl_every_umi_is_kept_or_reported(shared_data, tmp_path, name):
    path = shared_data / name
    counts, genes, _, _ = read_original(path)
    store = build(tmp_path / "s.mill", [path])
    report = json.loads((store.path / store.manifest.sources[0].report.path).read_text())
    assert report["genes"]["share_matched"] > 0.97
    per_gene = np.asarray(counts.sum(0)).ravel()
    assert report["proof"]["umis"] == int(per_gene.sum())
    dropped = set(report["genes_dropped"])
    kept = int(store.totals().sum())
    assert kept == int(sum(n for gene, n in zip(genes, per_gene, strict=True) if gene not in dropped))
    assert kept / per_gene.sum() > 0.97
    prefix = "ENSMUSG" if "mouse" in name else "ENSG"
    assert all(gene.startswith(prefix) for gene in store.gene_ids)


@pytest.mark.parametrize("name", ["pbmc_facs_zheng.h5ad", "pbmc_1k_v2_10x.h5"])
def test_resolved_by_id_every_gene_keeps_its_own_counts_under_its_living_id(shared_data, tmp_path, name):
    path = shared_data / name
    counts, genes, cells, _ = read_original(path)
    store = build(tmp_path / "s.mill", [path])
    report = json.loads((store.path / store.manifest.sources[0].report.path).read_text())
    heirs = pq.read_table(HUMAN, columns=["gene_id", "successor"]).to_pylist()
    living = {row["gene_id"]: row["successor"] for row in heirs if row["successor"]}
    claims = Counter(living.get(gene, gene) for gene in genes)
    # an heir that the file names as well, itself or by another retired id, is two genes there and stays two
    heir = {gene: living[gene] for gene in genes if gene in living and claims[living[gene]] == 1}
    expected_ids = [heir.get(gene, gene) for gene in genes]
    retired = len(heir)
    assert retired > 0
    assert report["genes"]["outcomes"] == {"exact_id": len(genes) - retired, "retired_id": retired}
    assert sorted(store.gene_ids) == sorted(expected_ids)
    assert store.column("cell").to_pylist() == cells
    where = {gene: i for i, gene in enumerate(expected_ids)}
    expected = counts[:, [where[gene] for gene in store.gene_ids]]
    assert (sparse.csr_matrix(store.read(np.arange(store.n_cells))) != expected).nnz == 0


def test_normalised_data_are_refused_with_the_value_and_the_remedy(shared_data, tmp_path):
    path = shared_data / "notraw_sciplex3_lognorm.h5ad"
    with pytest.raises(NotRawCountsError) as caught:
        build(tmp_path / "s.mill", [path])
    message = str(caught.value)
    for part in (str(path), "matrix X", "row ", "column ", "not whole", "typical of log-normalised data", "--skip-bad"):
        assert part in message
    assert list(tmp_path.iterdir()) == []
