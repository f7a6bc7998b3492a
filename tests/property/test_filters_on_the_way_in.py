"""Filters on the way in keep the cells that SQL over the unfiltered store would, whatever the blocks and shards."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellmill.genes import Vocabulary
from cellmill.ingest import build
from cellmill.ingest.facts import MITOCHONDRIAL
from conftest import write_tiny_h5ad

GENES = ["ENSG00000198888", "ENSG00000142541", *(f"ENSG{i:011d}" for i in range(18))]
VOCABULARY = Vocabulary(GENES[:14])
CONDITIONS = [
    "tissue = 'blood'",
    "tissue <> 'gut' OR total_counts > 9",
    "kept_share >= 0.7 AND n_genes_detected > 4",
    "top_gene_share < 0.4",
    "donor_id IS NULL",
    "ribo_share > 0.1",
    "cell LIKE '%7' OR stage = '2'",
]


@pytest.fixture(scope="module")
def files():
    """Two files, of which the second has no donors, no mitochondrial gene, and a stage that is a number."""
    with tempfile.TemporaryDirectory() as folder:
        rng = np.random.default_rng(4)
        paths = []
        for name, genes in (("a", GENES), ("b", GENES[1:])):
            counts = rng.poisson(rng.gamma(0.5, 1, (70, 1)), (70, len(genes)))
            tissue = [["blood", "gut", "skin"][i % 3] for i in range(70)]
            other = {"donor_id": [f"d{i % 4}" for i in range(70)]} if name == "a" else {"stage": ["1", "2"] * 35}
            paths.append(
                write_tiny_h5ad(
                    Path(folder) / f"{name}.h5ad", counts, genes=genes, obs={"tissue": tissue, **other}
                ).path
            )
        whole = build(Path(folder) / "whole.mill", paths, vocabulary=VOCABULARY, block_cells=70)
        yield Path(folder), paths, whole


@settings(max_examples=8, deadline=None, derandomize=True)
@given(
    min_counts=st.integers(0, 14),
    min_genes=st.integers(0, 8),
    max_mito=st.none() | st.sampled_from([0.0, 0.05, 0.1, 0.25]),
    where=st.none() | st.sampled_from(CONDITIONS),
    block_cells=st.integers(3, 80),
    shard_cells=st.integers(5, 60),
)
def test_filters_are_the_selection_made_afterwards(
    files, min_counts, min_genes, max_mito, where, block_cells, shard_cells
):
    folder, paths, whole = files
    steps = [
        ("min_counts", min_counts, f"total_counts >= {min_counts}"),
        ("min_genes", min_genes, f"n_genes_detected >= {min_genes}"),
        ("max_mito", max_mito, f"(mito_share > {max_mito}) IS NOT TRUE"),
        ("where", where, f"({where})"),
    ]
    asked = [
        (name, value, sql) for name, value, sql in steps if value not in (None, 0) or (name, value) == ("max_mito", 0.0)
    ]
    expected = whole.select(" AND ".join(sql for *_, sql in asked) or None)
    options = {name: value for name, value, _ in steps}
    if not len(expected):
        return
    target = folder / "filtered.mill"
    store = build(
        target,
        paths,
        vocabulary=VOCABULARY,
        overwrite=True,
        block_cells=block_cells,
        shard_cells=shard_cells,
        **options,
    )
    assert store.uids().tolist() == whole.uids(expected).tolist()
    by_gene = [whole.gene_ids.index(gene) for gene in store.gene_ids]
    np.testing.assert_array_equal(
        store.read(np.arange(store.n_cells)).toarray(), whole.read(expected).toarray()[:, by_gene]
    )
    names = store.obs.columns
    assert store.obs.to_arrow(names).to_pylist() == whole.obs.to_arrow(names, expected).to_pylist()
    assert store.verify().ok
    for number, source in enumerate(store.manifest.sources):
        report = json.loads((store.path / f"reports/{number:05d}.json").read_text())
        before = f"dataset = '{source.name}'"
        left = [len(whole.select(before))]
        for *_, sql in asked:
            before += f" AND {sql}"
            left.append(len(whole.select(before)))
        assert [line["cells_removed"] for line in report["filters"]] == (-np.diff(left)).tolist()
        assert [line["filter"] for line in report["filters"]] == [name for name, *_ in asked]
        assert (report["cells_read"], report["n_cells"]) == (70, left[-1])


def test_the_files_hold_what_the_property_needs(files):
    _, _, whole = files
    assert MITOCHONDRIAL == 1
    assert 10 < whole.column("mito_share").null_count - 70 < 60  # of the second file, and of cells without counts
    assert all(0 < len(whole.select(condition)) < 140 for condition in CONDITIONS)
