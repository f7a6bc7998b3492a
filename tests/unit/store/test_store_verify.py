"""`verify` finds every change of a byte, wherever it is made, and says in which file."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cellmill import kernel
from cellmill.errors import CellmillError, CorruptStoreError, FrameError, InputError
from cellmill.ingest import build
from cellmill.storage import hash_file
from cellmill.store import open_store
from cellmill.store import shard as shard_module
from cellmill.store.format import pack_uids
from cellmill.store.manifest import Sources


@pytest.fixture
def store(tmp_path, tiny_h5ad):
    return build(tmp_path / "s.mill", [tiny_h5ad(n_cells=100).path], vocabulary="union", shard_cells=40, block_cells=20)


def flip(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 0x10
    path.write_bytes(bytes(data))


def test_a_sound_store_passes(store):
    report = store.verify()
    assert report.ok
    assert report.n_cells_decoded == 100


@pytest.mark.parametrize("part", ["genes", "vocabulary", "obs", "uids", "cells", "report"])
@pytest.mark.parametrize("where", [0.02, 0.3, 0.6, 0.98])
def test_a_flipped_bit_is_found_and_its_file_named(store, part, where):
    shard = store.manifest.shards[1]
    entry = {
        "genes": store.manifest.genes,
        "vocabulary": store.manifest.vocabulary,
        "obs": shard.obs,
        "uids": shard.uids,
        "cells": shard.cells,
        "report": store.manifest.sources[0].report,
    }[part]
    flip(store.path / entry.path, int(where * entry.bytes))
    report = open_store(store.path).verify()
    assert not report.ok
    assert any(entry.path in problem for problem in report.problems)


def test_a_missing_and_a_cut_shard_are_found(store):
    first, second = (store.path / shard.cells.path for shard in store.manifest.shards[:2])
    first.unlink()
    second.write_bytes(second.read_bytes()[:-7])
    problems = store.verify().problems
    assert any(str(first) in p and "missing" in p for p in problems)
    assert any(str(second) in p for p in problems)


def test_a_cut_shard_is_refused_when_it_is_read(store):
    path = store.path / store.manifest.shards[0].cells.path
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(CorruptStoreError, match=path.name):
        open_store(store.path).read([0])


def test_a_broken_frame_names_shard_and_row(store):
    entry = store.manifest.shards[1]
    path = store.path / entry.cells.path
    data = bytearray(path.read_bytes())
    data[16 : 16 + 200] = b"\xff" * 200
    path.write_bytes(bytes(data))
    with pytest.raises(FrameError, match=r"00001\.cells: cell \d+ of this shard \(row 4\d of the store\)"):
        open_store(store.path).read(np.arange(40, 50))


def test_a_manifest_changed_by_hand_is_refused(store):
    path = store.path / "manifest.json"
    body = json.loads(path.read_text())
    body["shards"]["n_cells"][0] += 1
    path.write_text(json.dumps(body))
    with pytest.raises(CorruptStoreError, match="checksum"):
        open_store(store.path)


def test_every_prefix_of_a_manifest_is_refused(store):
    path = store.path / "manifest.json"
    whole = path.read_bytes().rstrip()
    for length in range(0, len(whole), 97):
        path.write_bytes(whole[:length])
        with pytest.raises(CorruptStoreError):
            open_store(store.path)


def test_a_swapped_shard_is_found(store):
    first, second = (store.path / shard.cells.path for shard in store.manifest.shards[:2])
    shutil.copy(second, first)
    assert not open_store(store.path).verify().ok


def test_obs_of_another_shape_is_found(store):
    path = store.path / store.manifest.shards[1].obs.path
    for table in (pa.table({"x": [1] * 40}), pq.read_table(path).slice(0, 10)):
        pq.write_table(table, path)
        problems = open_store(store.path).verify().problems
        assert problems
        assert all("00001" in problem for problem in problems)


def test_uids_that_are_sound_but_not_those_of_obs_are_found(store):
    entry = store.manifest.shards[1].uids
    other = store.uids(np.arange(40, 80))
    other[7] ^= np.uint64(1)
    (store.path / entry.path).write_bytes(pack_uids(other))
    problems = open_store(store.path).verify().problems
    assert any("00001.uids: uids differ from those in obs" in problem for problem in problems)


def test_uids_whose_own_hash_is_wrong_are_found(store):
    entry = store.manifest.shards[1].uids
    flip(store.path / entry.path, entry.bytes - 3)
    problems = open_store(store.path).verify().problems
    assert any("00001.uids: the checksum at its end does not hold" in problem for problem in problems)


@pytest.mark.parametrize("damage", ["missing", "cut", "a shard in its place", "another version"])
def test_damaged_uids_are_refused_when_they_are_read(store, damage):
    path = store.path / store.manifest.shards[1].uids.path
    raw = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(raw[:-8])
    elif damage == "another version":
        path.write_bytes(raw[:8] + b"\3\0" + raw[10:])
    else:
        path.write_bytes(b"CELLMILL" + raw[8:])
    with pytest.raises(CellmillError, match=r"00001\.uids"):
        open_store(store.path).uids([41])
    assert len(open_store(store.path).uids([39, 80])) == 2
    assert open_store(store.path).read([41]).nnz


def test_a_sample_decodes_a_part(store):
    assert 0 < store.verify(sample=0.1).n_cells_decoded < 20
    with pytest.raises(InputError):
        store.verify(sample=0)


@pytest.mark.parametrize("what", ["folder", "circle of links"])
@pytest.mark.parametrize("part", ["cells", "obs", "uids", "vocabulary"])
def test_what_the_system_does_not_read_is_found_beside_all_else(store, part, what):
    shard = store.manifest.shards[1]
    entries = {"cells": shard.cells, "obs": shard.obs, "uids": shard.uids, "vocabulary": store.manifest.vocabulary}
    path = store.path / entries[part].path
    path.unlink()
    path.mkdir() if what == "folder" else path.symlink_to(path.name)
    other = store.path / store.manifest.shards[2].cells.path
    flip(other, 30)
    report = open_store(store.path).verify()
    assert any(str(path) in line for line in report.problems)
    assert any(str(other) in line for line in report.problems)
    reads = {"cells": lambda s: s.read([50]), "obs": lambda s: s.obs.to_arrow(["cell"]), "uids": lambda s: s.uids()}
    with pytest.raises(CellmillError, match=path.name):
        reads.get(part, lambda s: s.vocabulary)(open_store(store.path))


def test_memory_of_verify_is_bounded_by_nonzeros(tmp_path, tiny_h5ad, monkeypatch):
    counts = np.ones((300, 400), dtype=np.int64)
    counts[::7] = 0
    counts[5, 3:] = 0
    made = build(tmp_path / "d.mill", [tiny_h5ad("dense", counts=counts).path], vocabulary="union")
    monkeypatch.setattr(shard_module, "_MOST_NONZEROS", 1000)
    batches = []
    gather = kernel.gather_frames

    def watched(*args, **how):
        got = gather(*args, **how)
        batches.append(int(got.indptr[-1]))
        return got

    monkeypatch.setattr(kernel, "gather_frames", watched)
    report = open_store(made.path).verify()
    assert report.ok and report.n_cells_decoded == 300
    assert sum(batches) == np.count_nonzero(counts)
    assert max(batches) <= 1000


def test_sources_whose_cells_are_not_those_of_their_shards_are_found(store):
    for change in ({"n_cells": 99}, {"name": "nobody"}):
        entry = replace(store.manifest.sources[0], **change)
        manifest = replace(store.manifest, sources=Sources([entry])).sealed()
        (store.path / "manifest.json").write_bytes(manifest.to_json())
        report = open_store(store.path).verify()
        assert any("source" in line or "its shards hold others" in line for line in report.problems)


def test_a_manifest_that_is_no_text_is_not_shown_whole(tmp_path):
    folder = tmp_path / "s.mill"
    folder.mkdir()
    (folder / "manifest.json").write_bytes(bytes([0x1F, 0x8B, 0xFF]) * 100_000)
    with pytest.raises(CorruptStoreError, match="gzip") as found:
        open_store(folder)
    assert len(str(found.value)) < 600


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.set_column(0, "gene_id", pa.array([None] * len(t), pa.string())), "without an id"),
        (lambda t: t.set_column(0, "gene_id", pa.array(["one"] * len(t))), "the id of another"),
        (lambda t: t.set_column(0, "gene_id", pa.array(range(len(t)))), "not a table of genes"),
    ],
)
def test_genes_that_are_none_are_refused(store, change, said):
    path = store.path / store.manifest.genes.path
    pq.write_table(change(pq.read_table(path)), path)
    genes = replace(store.manifest.genes, bytes=path.stat().st_size, xxh3=hash_file(path))
    (store.path / "manifest.json").write_bytes(replace(store.manifest, genes=genes).sealed().to_json())
    with pytest.raises(CorruptStoreError, match=said):
        open_store(store.path).read([0], genes=["g"])
