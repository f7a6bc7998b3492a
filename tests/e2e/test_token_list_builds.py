"""Cells written as corpora of token lists come back as the cells that they were: fingerprints, counts, labels."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cellmill.errors import FormatError, NotRawCountsError
from cellmill.ingest import build
from cellmill.store import open_store


def token_table(counts, gene_tokens, *, marker):
    """Lists of a CSR matrix, as corpora have them."""
    indptr = counts.indptr.astype(np.int64)
    tokens, values = gene_tokens[counts.indices], counts.data.astype(np.float32)
    if marker:
        tokens, values = np.insert(tokens, indptr[:-1], 1), np.insert(values, indptr[:-1], -2.0)
        indptr = indptr + np.arange(indptr.size)
    offsets = pa.array(indptr.astype(np.int32))
    lists = {"genes": tokens.astype(np.int64), "expressions": values}
    return pa.table({name: pa.ListArray.from_arrays(offsets, list_) for name, list_ in lists.items()})


def write_tahoe(store, folder):
    """Three shards in data, tables in metadata."""
    (folder / "data").mkdir(parents=True)
    (folder / "metadata").mkdir()
    tokens = np.random.default_rng(0).permutation(store.n_genes) + 3
    pq.write_table(
        pa.table(
            {
                "gene_symbol": store.genes["symbol"],
                "ensembl_id": store.genes["gene_id"],
                "token_id": tokens.astype(np.int64),
            }
        ),
        folder / "metadata" / "gene_metadata.parquet",
    )
    obs = store.obs.to_arrow()
    labels = [name for name in obs.column_names if name not in open_names(store)]
    table = token_table(store.read(np.arange(store.n_cells)), tokens, marker=True)
    for name in labels:
        table = table.append_column(name, obs[name].cast(pa.string()))
    table = table.append_column("BARCODE_SUB_LIB_ID", obs["cell"])
    third = -(-store.n_cells // 3)
    for i in range(3):
        part = table.slice(i * third, third)
        pq.write_table(part, folder / "data" / f"train-{i:05d}-of-00003.parquet", row_group_size=100)
    return folder


def write_bank(store, folder):
    folder.mkdir()
    (folder / "manifest.json").write_text('{"on_disk_format": "parquet", "main_data": "X", "gene_vocab_md5": null}')
    (folder / "studytable.json").write_text('{"study_ids": null}')
    vocabulary = {"<pad>": 0, "<cls>": 1} | {gene: 2 + i for i, gene in enumerate(store.gene_ids)}
    (folder / "gene_vocab.json").write_text(json.dumps(vocabulary))
    table = token_table(store.read(np.arange(store.n_cells)), np.arange(store.n_genes) + 2, marker=False)
    table = table.append_column("id", pa.array(np.arange(store.n_cells)))
    pq.write_table(table, folder / "X.datatable.parquet", row_group_size=150)
    return folder


def open_names(store):
    return ("cell", "dataset", "uid", "fingerprint", "total_counts", "n_genes_detected")


@pytest.fixture(params=["made up", "gut_scp1884.h5ad"])
def original(request, tmp_path, tiny_h5ad):
    if request.param == "made up":
        path = tiny_h5ad(n_cells=333, n_genes=90).path
    else:
        path = request.getfixturevalue("shared_data") / request.param
    return build(tmp_path / "original.mill", [path], vocabulary="union")


def assert_same_cells(store, original):
    ours, theirs = store.obs.to_arrow(), original.obs.to_arrow()
    for name in ("fingerprint", "total_counts", "n_genes_detected"):
        assert ours[name].equals(theirs[name]), name
    rows = np.arange(original.n_cells)
    genes = original.gene_ids
    assert (store.read(rows, genes=genes) != original.read(rows, genes=genes)).nnz == 0
    assert store.verify().ok


def test_token_lists_give_the_same_cells(original, tmp_path):
    folder = write_tahoe(original, tmp_path / "tahoe")
    store = build(tmp_path / "s.mill", [folder], vocabulary="union", block_cells=64, shard_cells=150)
    assert_same_cells(store, original)
    ours, theirs = store.obs.to_arrow(), original.obs.to_arrow()
    assert ours["cell"].equals(theirs["cell"])
    for name in set(theirs.column_names) - set(open_names(store)):
        assert ours[name].cast(pa.string()).to_pylist() == theirs[name].cast(pa.string()).to_pylist()
    report = json.loads((store.path / "reports" / "00000.json").read_text())
    assert report["kind"] == "parquet" and report["name"] == "tahoe_data"
    assert any("is a marker (token 1, value -2)" in note for note in report["notes"])
    one_by_one = build(tmp_path / "t.mill", [f"{folder}/data/*.parquet"], vocabulary="union")
    assert_same_cells(one_by_one, original)
    assert len(one_by_one.manifest.sources) == 3


def test_a_bank_gives_the_same_cells(original, tmp_path):
    store = build(tmp_path / "s.mill", [write_bank(original, tmp_path / "study.scb")], vocabulary="union")
    assert_same_cells(store, original)
    assert store.obs.to_arrow()["cell"].to_pylist() == [str(i) for i in range(original.n_cells)]
    assert store.manifest.sources[0].name == "study"


def test_a_wrong_list_far_into_a_shard_stops_the_build_with_its_place(tmp_path, tiny_h5ad):
    """Beyond the cells that a plan looks at."""
    original = build(tmp_path / "o.mill", [tiny_h5ad(n_cells=5000, n_genes=30).path], vocabulary="union")
    folder = write_tahoe(original, tmp_path / "tahoe")
    shard = folder / "data" / "train-00001-of-00003.parquet"
    table = pq.read_table(shard)
    genes, values = table["genes"].to_pylist(), table["expressions"].to_pylist()
    for wrong, error, said in (
        ({"genes": 999}, FormatError, r"train-00001-of-00003\.parquet, row group 2, row 250 of the file: token 999"),
        ({"expressions": 0.5}, NotRawCountsError, r"Cell 'cell1917' \(row 1917\).* has the value 0\.5"),
    ):
        lists = {"genes": [*genes], "expressions": [*values]}
        for name, value in wrong.items():
            lists[name][250] = [*lists[name][250][:-1], value]
        changed = table
        for name, column in lists.items():
            at = table.column_names.index(name)
            changed = changed.set_column(at, name, pa.array(column, table.schema.field(name).type))
        pq.write_table(changed, shard, row_group_size=100)
        with pytest.raises(error, match=said):
            build(tmp_path / "s.mill", [folder], vocabulary="union")
    assert not (tmp_path / "s.mill").exists()
    pq.write_table(table, shard, row_group_size=100)
    build(tmp_path / "s.mill", [folder], vocabulary="union")
    assert open_store(tmp_path / "s.mill").verify().ok
