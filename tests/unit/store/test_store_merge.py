"""A merged store holds the cells of its stores, one by one; what need not change is copied byte for byte."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

import cellmill as cm
from cellmill.errors import CorruptStoreError, InputError, StoreError, StoreExistsError, VocabularyError
from cellmill.genes import Vocabulary
from cellmill.ingest import append_inputs, build
from cellmill.store import Shards, Sources, merge_stores, open_store
from cellmill.store import merge as merge_module
from cellmill.store.staging import Staging

GENES = [f"ENSG{i:011d}" for i in range(60)]
SMALL = {"shard_cells": 40, "block_cells": 20}


@pytest.fixture
def vocabulary():
    return Vocabulary(GENES, symbols=[f"S{i}" for i in range(60)], name="sixty")


@pytest.fixture
def make(tmp_path, tiny_h5ad, vocabulary):
    """Build a store "NAME.mill" from a file "NAME.h5ad" of these genes."""

    def make_store(name, genes, *, n_cells=100, seed=0, **kw):
        file = tiny_h5ad(name, n_cells=n_cells, genes=genes, seed=seed, n_genes=len(genes), **kw)
        return build(tmp_path / f"{name}.mill", [file.path], vocabulary=vocabulary, **SMALL)

    return make_store


def cells_by_gene(store):
    counts = np.zeros((store.n_cells, len(GENES)), dtype=np.int64)
    counts[:, [GENES.index(gene) for gene in store.gene_ids]] = store.read(np.arange(store.n_cells)).toarray()
    return counts


def assert_holds(merged, stores):
    """The merged store reads as its stores do, cell by cell and column by column."""
    np.testing.assert_array_equal(cells_by_gene(merged), np.concatenate([cells_by_gene(s) for s in stores]))
    np.testing.assert_array_equal(merged.uids(), np.concatenate([s.uids() for s in stores]))
    for name in merged.obs.columns:
        parts = []
        for store in stores:
            own = {column.casefold(): column for column in store.obs.columns}.get(name.casefold())
            parts += store.column(own).to_pylist() if own else [None] * store.n_cells
        assert merged.column(name).to_pylist() == parts
    assert merged.nnz == sum(s.nnz for s in stores)
    assert [s.name for s in merged.manifest.sources] == [s.name for t in stores for s in t.manifest.sources]
    tokens = dict(zip(merged.gene_ids, merged.genes.column("token").to_pylist(), strict=True))
    detected = (cells_by_gene(merged) > 0).mean(axis=0)
    rates = merged.genes.column("detection_rate").to_pylist()
    for gene, rate in zip(merged.gene_ids, rates, strict=True):
        assert rate == pytest.approx(detected[GENES.index(gene)], abs=1e-12)
    for store in stores:
        assert dict(zip(store.gene_ids, store.genes.column("token").to_pylist(), strict=True)).items() <= tokens.items()
    assert merged.verify().ok
    assert not Staging.folder_of(merged.path).exists()


def shard_bytes(store, kinds=("cells", "obs", "uids")):
    return [(store.path / getattr(shard, kind).path).read_bytes() for shard in store.manifest.shards for kind in kinds]


def test_stores_of_one_gene_order_are_copied_byte_for_byte(tmp_path, make, tiny_h5ad, monkeypatch):
    first = make("a", GENES[:40], seed=1)
    shutil.copytree(first.path, tmp_path / "longer.mill")
    # the same order with genes at its end: appended to a copy, whose own dataset then has to go by another name
    second = _renamed(append_inputs(tmp_path / "longer.mill", tiny_h5ad("b", genes=GENES[20:], seed=2).path), "a", "a2")
    assert second.gene_ids[:40] == first.gene_ids and second.n_genes == 60
    monkeypatch.setattr(merge_module.kernel, "encode", None)  # no frame is encoded
    for stores in ([first, second], [second, first]):
        merged = merge_stores(tmp_path / "m.mill", stores, overwrite=True)
        assert_holds(merged, stores)
        assert shard_bytes(merged) == [raw for store in stores for raw in shard_bytes(store)]
        assert merged.gene_ids == second.gene_ids


def _renamed(store, old, new):
    """The same store with another name of a source in its manifest."""
    from dataclasses import replace

    sources = Sources(replace(s, name=new) if s.name == old else s for s in store.manifest.sources)
    shards = Shards(replace(s, source=new) if s.source == old else s for s in store.manifest.shards)
    manifest = replace(store.manifest, sources=sources, shards=shards)
    (store.path / "manifest.json").write_bytes(manifest.sealed().to_json())
    return open_store(store.path)


def test_other_gene_orders_are_encoded_in_that_of_the_first(tmp_path, make):
    stores = [make("a", GENES[:40], seed=1), make("b", GENES[:19:-1], seed=2), make("c", GENES[5:55], seed=3)]
    assert stores[1].gene_ids[:20] != stores[0].gene_ids[:20]
    merged = merge_stores(tmp_path / "m.mill", [store.path for store in stores], block_cells=7)
    assert_holds(merged, stores)
    assert merged.gene_ids[:40] == stores[0].gene_ids
    assert set(merged.gene_ids) == set(GENES)
    assert shard_bytes(merged, ("uids", "obs")) == [raw for s in stores for raw in shard_bytes(s, ("uids", "obs"))]
    assert shard_bytes(merged, ("cells",))[:3] == shard_bytes(stores[0], ("cells",))
    fingerprints = np.concatenate([s.column("fingerprint").to_numpy() for s in stores])
    np.testing.assert_array_equal(merged.column("fingerprint").to_numpy(), fingerprints)


def test_columns_that_differ_in_case_or_type_become_one(tmp_path, make):
    one = make("a", GENES[:40], n_cells=4, obs={"Tissue": ["gut"] * 4, "age": ["1", "2", "3", "4"]})
    two = make("b", GENES[:40], n_cells=4, obs={"tissue": ["skin"] * 4, "donor": ["x"] * 4})
    merged = merge_stores(tmp_path / "m.mill", [one, two])
    assert_holds(merged, [one, two])
    assert merged.obs.columns[12:] == ["Tissue", "age", "donor"]
    assert merged.select("TISSUE = 'skin'").tolist() == [4, 5, 6, 7]


def test_a_merged_store_can_be_merged_and_appended_to(tmp_path, make, tiny_h5ad):
    stores = [make("a", GENES[:40], seed=1), make("b", GENES[20:], seed=2), make("c", GENES[:30], seed=3)]
    inner = merge_stores(tmp_path / "inner.mill", stores[:2])
    merged = merge_stores(tmp_path / "m.mill", [inner, stores[2]])
    assert_holds(merged, stores)
    file = tiny_h5ad("d", genes=GENES[:40], seed=4)
    grown = append_inputs(merged.path, file.path)
    np.testing.assert_array_equal(grown.read(np.arange(300, 360), genes=file.genes).toarray(), file.counts.toarray())
    assert grown.verify().ok


def test_other_vocabularies_are_refused_with_both_hashes(tmp_path, make, tiny_h5ad):
    one = make("a", GENES[:40])
    other = build(tmp_path / "o.mill", [tiny_h5ad("o", genes=GENES[:40]).path], vocabulary="union")
    with pytest.raises(VocabularyError, match="--vocabulary") as caught:
        merge_stores(tmp_path / "m.mill", [one, other])
    assert one.vocabulary_hash in str(caught.value) and other.vocabulary_hash in str(caught.value)
    assert not (tmp_path / "m.mill").exists() and not Staging.folder_of(tmp_path / "m.mill").exists()


def test_a_dataset_in_two_stores_is_refused_and_both_are_named(tmp_path, make):
    one = make("a", GENES[:40])
    shutil.copytree(one.path, tmp_path / "copy.mill")
    with pytest.raises(InputError, match=r"'a' is in .*a\.mill and in .*copy\.mill.*rename"):
        merge_stores(tmp_path / "m.mill", [one, tmp_path / "copy.mill"])
    with pytest.raises(InputError, match="at least one"):
        merge_stores(tmp_path / "m.mill", [])


@pytest.mark.parametrize("kind", ["cells", "obs", "uids"])
@pytest.mark.parametrize("genes", ["as the first", "in another order"])
@pytest.mark.parametrize("damage", ["flipped", "missing"])
def test_damaged_files_are_not_carried_over(tmp_path, make, kind, genes, damage):
    one = make("a", GENES[:40], seed=1)
    two = make("b", GENES[:40] if genes == "as the first" else GENES[39::-1], seed=1 if genes == "as the first" else 7)
    path = two.path / getattr(two.manifest.shards[1], kind).path
    if damage == "flipped":
        raw = bytearray(path.read_bytes())
        raw[len(raw) // 2] ^= 1
        path.write_bytes(bytes(raw))
    else:
        path.unlink()
    with pytest.raises(CorruptStoreError, match=path.name):
        merge_stores(tmp_path / "m.mill", [one, two])
    assert not (tmp_path / "m.mill").exists()


def test_a_source_replaced_meanwhile_is_told_as_such(tmp_path, make, tiny_h5ad, vocabulary):
    one, two = make("a", GENES[:40], seed=1), make("b", GENES[:40], seed=2)
    file = tiny_h5ad("other", n_cells=90, genes=GENES[:40], seed=5)
    build(two.path, [file.path], vocabulary=vocabulary, overwrite=True, **SMALL)
    two.__dict__.pop("genes", None)
    with pytest.raises(StoreError, match="replaced"):
        merge_stores(tmp_path / "m.mill", [one, two])
    assert not (tmp_path / "m.mill").exists()


def test_what_lies_at_the_place_is_kept_unless_it_shall_be_replaced(tmp_path, make):
    one, two = make("a", GENES[:40], seed=1), make("b", GENES[:40], seed=2)
    with pytest.raises(StoreExistsError):
        merge_stores(one.path, [two])
    merged = merge_stores(one.path, [two], overwrite=True)
    assert merged.digest == two.digest
    assert merged.verify().ok


def test_a_merge_of_one_store_reads_equal(tmp_path, make):
    one = make("a", GENES[:40])
    assert merge_stores(tmp_path / "m.mill", [one]).digest == one.digest


def test_the_public_name_is_this_function():
    assert cm.merge is merge_stores
