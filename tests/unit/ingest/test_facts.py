"""Facts of whole cells are those of all genes of the file, whatever the vocabulary keeps of them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from scipy import sparse

from cellmill.genes import GeneTable, Vocabulary
from cellmill.ingest import append_inputs, build, summary_line
from cellmill.ingest.convert import convert_block, gene_hashes
from cellmill.ingest.facts import MITOCHONDRIAL, RIBOSOMAL, UNMATCHED, classify_names, measure_cells
from cellmill.sources import CountBlock
from cellmill.store.obs import FACT_COLUMNS

MITO = ["ENSG00000198888", "ENSG00000198763"]  # MT-ND1, MT-ND2
RIBO = ["ENSG00000142541"]  # RPL13A
OTHER = ["ENSG00000141510", "ENSG00000146648", "ENSG00000136997"]  # TP53, EGFR, MYC
FOREIGN = ["MT-odd", "RPL99", "made-up"]
GOLDEN = Path(__file__).parents[2] / "golden" / "store_v2"
GENES = [*MITO, *RIBO, *OTHER, *FOREIGN]


@pytest.fixture
def counts():
    rng = np.random.default_rng(3)
    counts = rng.poisson(2, (50, len(GENES)))
    counts[7] = 0
    counts[8] = 0
    counts[8, 8] = 3  # nothing that the vocabulary has
    return counts


def expected_facts(counts, *, kept):
    total = counts.sum(1)
    with np.errstate(invalid="ignore"):
        return {
            "total_counts": total,
            "n_genes_detected": (counts > 0).sum(1),
            "kept_share": counts[:, kept].sum(1) / total,
            "mito_share": counts[:, [0, 1, 6]].sum(1) / total,
            "ribo_share": counts[:, [2, 7]].sum(1) / total,
            "top_gene_share": counts.max(1) / total,
            "stored_counts": counts[:, kept].sum(1),
            "n_genes_stored": (counts[:, kept] > 0).sum(1),
        }


def assert_facts(store, expected):
    for name, values in expected.items():
        found = store.column(name).to_numpy(zero_copy_only=False)
        np.testing.assert_array_equal(found, values.astype(found.dtype), err_msg=name)


def test_facts_are_those_of_the_whole_cell(tmp_path, tiny_h5ad, counts):
    file = tiny_h5ad("a", counts=counts, genes=GENES)
    vocabulary = Vocabulary([*MITO, *RIBO, *OTHER])
    store = build(tmp_path / "s.mill", [file.path], vocabulary=vocabulary, shard_cells=20, block_cells=10)
    assert store.obs.columns[6:12] == list(FACT_COLUMNS)
    assert_facts(store, expected_facts(counts, kept=slice(0, 6)))
    assert store.column("mito_share")[7].as_py() is None  # a cell without counts has no shares
    assert store.column("kept_share")[8].as_py() == 0
    np.testing.assert_array_equal(store.totals(), counts[:, :6].sum(1))
    np.testing.assert_array_equal(store.totals([8, 3]), counts[[8, 3], :6].sum(1))
    assert store.verify().ok


def test_a_share_of_genes_that_a_file_did_not_measure_is_missing_and_not_zero(tmp_path, tiny_h5ad, counts):
    with_ribosome = tiny_h5ad("a", counts=counts[:, 2:6], genes=GENES[2:6])
    store = build(tmp_path / "s.mill", [with_ribosome.path], vocabulary=Vocabulary([*MITO, *RIBO, *OTHER]))
    assert store.column("mito_share").null_count == 50
    assert store.column("ribo_share").null_count == 2  # the cells without counts


def test_facts_do_not_depend_on_how_the_file_is_written(tmp_path, tiny_h5ad, counts):
    """Genes in falling order and entries of a cell that come again, as some programs write them."""
    plain = tiny_h5ad("a", counts=counts, genes=GENES)
    odd = tiny_h5ad("b", counts=counts, genes=GENES)
    rows = [np.flatnonzero(row)[::-1] for row in counts]
    pairs = list(zip(counts, rows, strict=True))
    twice = [np.concatenate([genes, genes[:2]]) for genes in rows]
    parts = [(row[genes] - (np.arange(len(genes)) < 2), np.ones(min(2, len(genes)))) for row, genes in pairs]
    values = [np.concatenate(part) for part in parts]
    with h5py.File(odd.path, "r+") as file:
        for name, data in (("indices", twice), ("data", values)):
            del file["X"][name]
            file["X"][name] = np.concatenate(data).astype("int32" if name == "indices" else "float32")
        file["X"]["indptr"][:] = np.cumsum([0, *map(len, twice)])
    stores = [build(tmp_path / f"{f.path.stem}.mill", [f.path], vocabulary=Vocabulary(GENES)) for f in (plain, odd)]
    for name in ("total_counts", "n_genes_detected", *FACT_COLUMNS):
        assert stores[0].column(name).equals(stores[1].column(name)), name


@pytest.mark.parametrize("dtype", ["uint8", "int32", "uint32", "int64", "float32", "float64", "bool"])
def test_sums_are_exact_in_every_type(dtype):
    largest = 1 if dtype == "bool" else min(2**32 - 1, 2**24 if dtype == "float32" else np.iinfo("uint32").max)
    largest = min(largest, np.iinfo(dtype).max) if dtype not in ("float32", "float64", "bool") else largest
    matrix = sparse.csr_array(np.full((3, 5), largest).astype(dtype))
    block = CountBlock(0, matrix.indptr.astype(np.int64), matrix.indices.astype(np.int32), matrix.data, 5)
    classes = np.array([0, 1, 2, 4, 1], np.uint8)
    cells = convert_block(
        block, position_of=np.arange(5, dtype=np.int32), hashes=gene_hashes(list("abcde")), classes=classes
    )
    facts = measure_cells(cells, classes)
    assert facts.total_counts.tolist() == [5 * largest] * 3
    assert facts.n_genes_detected.tolist() == [5] * 3
    np.testing.assert_array_equal(facts.mito_share, np.float32(0.4))
    np.testing.assert_array_equal(facts.kept_share, np.float32(0.8))


@pytest.mark.parametrize("species", ["human", "mouse"])
def test_symbols_tell_the_same_as_the_gene_tables(species):
    table = GeneTable.load(species)
    by_id = classify_names(table.ids, [""] * len(table))
    assert np.bincount(by_id).tolist()[1:] == [37, {"human": 86, "mouse": 84}[species]]
    coding = np.array([kind == "protein_coding" for kind in table.arrow["biotype"].to_pylist()])
    by_symbol = classify_names([f"x{i}" for i in range(len(table))], table.symbols)
    marked = np.flatnonzero(by_id > 0)
    np.testing.assert_array_equal(by_symbol[marked], by_id[marked])
    more = [table.symbols[i] for i in np.flatnonzero((by_symbol != by_id) & coding)]
    assert len(more) <= 8, more  # proteins that are named as those of the ribosome: RPL36AL, RPS4Y2


def test_classes_hold_of_versioned_ids_and_of_older_symbols():
    assert classify_names(["ENSG00000198888.2", "ENSMUSG00000064341"], ["", ""]).tolist() == [MITOCHONDRIAL] * 2
    names = ["MT-ND1", "mt-Nd1", "Rpl13a", "RPS6KA1", "RPL21P16", "MTOR", "RPLP0", "RPSA"]
    assert classify_names(names, names).tolist() == [1, 1, 2, 0, 0, 0, 2, 2]
    assert UNMATCHED & (MITOCHONDRIAL | RIBOSOMAL) == 0


def test_a_store_without_facts_is_added_to_and_read(tmp_path, tiny_h5ad):
    """As stores are that were written before there were facts."""
    old = tmp_path / "blocks.store"
    shutil.copytree(GOLDEN / "blocks.store", old)
    genes = [f"ENSG{i:011d}" for i in range(140)]
    more = np.random.default_rng(0).poisson(1, (5, 140))
    store = append_inputs(old, tiny_h5ad("more", counts=more, genes=genes).path)
    assert store.column("stored_counts").null_count == store.n_cells - 5
    assert store.totals()[-5:].tolist() == more.sum(1).tolist()
    assert (store.totals()[:-5] == store.column("total_counts").to_numpy()[:-5]).all()
    assert store.verify().ok
    assert store.select("stored_counts IS NULL").tolist() == list(range(store.n_cells - 5))


def test_author_columns_named_as_facts_are_kept_under_another_name(tmp_path, tiny_h5ad):
    file = tiny_h5ad("a", n_cells=4, obs={"Mito_share": list("abcd")})
    store = build(tmp_path / "s.mill", [file.path], vocabulary="union")
    assert store.column("source_Mito_share").to_pylist() == list("abcd")


def test_rows_of_htseq_in_an_annotated_file_are_no_genes_and_count_nowhere(tmp_path, tiny_h5ad, counts):
    tallies = ["__no_feature", "__ambiguous"]
    with_tallies = np.hstack([counts, np.full((len(counts), 2), 900)])
    plain = build(tmp_path / "plain.mill", tiny_h5ad("a", counts=counts, genes=GENES).path, min_match=0.1)
    path = tiny_h5ad("b", counts=with_tallies, genes=[*GENES, *tallies]).path
    store = build(tmp_path / "tallies.mill", path, min_match=0.1)
    for fact in ("total_counts", "n_genes_detected", "kept_share", "top_gene_share"):
        assert store.column(fact).to_pylist() == plain.column(fact).to_pylist()
    report = json.loads((store.path / store.manifest.sources[0].report.path).read_text())
    assert report["features_left_out"] == {"tallies of reads without a gene": 2}
    assert any("__no_feature, __ambiguous" in note for note in report["notes"])
    assert report["genes"]["n_genes"] == len(GENES)
    assert "2 features left out as no genes" in summary_line(report)
