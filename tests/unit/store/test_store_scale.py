"""Stores of many shards and of more cells than fit a test: opened quickly, in little memory, exact in arithmetic."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xxhash

from cellmill.errors import CorruptStoreError
from cellmill.ingest import build
from cellmill.kernel import RowTable
from cellmill.store import FileEntry, Manifest, ShardEntry, Shards, Store, open_store

READ = """
import json, re, sys, time
import numpy as np
import cellmill.store

def own_bytes():
    return int(re.search(r"RssAnon:\\s+(\\d+) kB", open("/proc/self/status").read())[1]) * 1024

before, start = own_bytes(), time.process_time()  # other processes may slow this one down
store = cellmill.store.open_store(sys.argv[1])
rows = np.random.default_rng(0).integers(0, store.n_cells, 512)
first = store.read(rows)
seconds = time.process_time() - start
shards = len(set((rows * len(store.manifest.shards) // store.n_cells).tolist()))
print(json.dumps({"seconds": seconds, "own": own_bytes(), "added": own_bytes() - before, "shards": shards,
                  "sums": first.sum(axis=1).tolist(), "rows": rows.tolist()}))
"""
N_SHARDS = 10_000


def entry_of(shard: ShardEntry, number: int) -> ShardEntry:
    named = (
        replace(file, path=f"{file.path.split('/')[0]}/{number:05d}.{file.path.rpartition('.')[2]}")
        for file in shard.files
    )
    return replace(shard, **dict(zip(("cells", "obs", "uids"), named, strict=True)))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_ten_thousand_shards_are_opened_quickly_and_in_little_memory(tmp_path, tiny_h5ad):
    store = build(tmp_path / "s.mill", [tiny_h5ad(n_cells=20).path], vocabulary="union")
    (shard,) = store.manifest.shards
    totals = store.totals()
    shards = [entry_of(shard, number) for number in range(N_SHARDS)]
    for each in shards[1:]:
        os.link(store.path / shard.cells.path, store.path / each.cells.path)
    manifest = replace(store.manifest, shards=Shards(shards)).sealed()
    (store.path / "manifest.json").write_bytes(manifest.to_json())
    said = subprocess.run([sys.executable, "-c", READ, str(store.path)], capture_output=True, text=True, timeout=120)
    assert said.returncode == 0, said.stderr
    found = json.loads(said.stdout)
    print(f"first batch after {found['seconds']:.3f} s, {found['own'] / 2**20:.0f} MiB of its own, "
          f"{found['added'] / 2**20:.0f} MiB more than before")  # fmt: skip
    assert found["shards"] > 450  # Nearly each row is in another shard.
    assert found["sums"] == [totals[row % 20] for row in found["rows"]]
    assert found["own"] < 200 * 2**20
    assert found["seconds"] < 2


# ---- a thousand million cells, in a manifest alone -----------------------------------------------------------------

MOST = 2**32 - 1  # cells of a shard


def imaginary(sizes: list[int], tmp_path: Path, tiny_h5ad) -> Store:
    """Return a store whose manifest names shards of these sizes, none of which is there."""
    real = build(tmp_path / "s.mill", [tiny_h5ad(n_cells=5).path], vocabulary="union")
    none = FileEntry("shards/0.cells", 100, "0" * 32)
    entries = [
        ShardEntry(none, replace(none, path="obs/0.parquet"), replace(none, path="obs/0.uids"), size, 1000 * size, "a")
        for size in sizes
    ]
    manifest = replace(real.manifest, shards=Shards(entries)).sealed()
    return Store(real.path, Manifest.from_json(manifest.to_json(), where="manifest.json"))


@pytest.mark.parametrize("sizes", [[200_000] * 5_000 + [7], [MOST, 1, MOST, 0, 3], [0, 0, 2**31, 2**31]])
def test_rows_of_huge_stores_are_found_in_the_right_shard(tmp_path, tiny_h5ad, sizes):
    store = imaginary(sizes, tmp_path, tiny_h5ad)
    firsts = np.cumsum([0, *sizes]).tolist()  # Python's own whole numbers would give the same:
    assert firsts[-1] == sum(sizes) == store.n_cells == len(store) == store.manifest.n_cells
    assert store.nnz == 1000 * sum(sizes)
    rows = sorted({row for first in firsts for row in (first - 1, first, first + 1) if 0 <= row < firsts[-1]})
    wanted = [max(i for i in range(len(sizes)) if firsts[i] <= row) for row in rows[-40:]]
    assert store._shard_of(np.array(rows[-40:], np.int64)).tolist() == wanted
    table = RowTable(np.array(firsts, np.int64))
    for row, shard in zip(rows[-40:], wanted, strict=True):
        assert table.missing(np.array([row], np.int64)) == [shard]
    with pytest.raises(IndexError, match=str(firsts[-1])):
        store.read([firsts[-1]])
    again = pickle.loads(pickle.dumps(store))
    assert again.n_cells == sum(sizes)


def test_numbers_beyond_63_bits_are_refused(tmp_path, tiny_h5ad):
    store = imaginary([MOST] * 3, tmp_path, tiny_h5ad)
    body = json.loads(store.manifest.to_json())
    body["shards"]["nnz"] = [2**62] * 3
    body.pop("manifest_xxh3")
    raw = json.dumps({"manifest_xxh3": "0" * 32} | body, indent=1).encode()
    raw = raw[:21] + xxhash.xxh3_128_hexdigest(raw).encode() + raw[53:]
    with pytest.raises(CorruptStoreError, match="nnz"):
        Manifest.from_json(raw, where="manifest.json")


def test_a_batch_across_a_thousand_million_rows_reads_the_right_cells(tmp_path, tiny_h5ad):
    """A real shard stands last, after shards that are not there: its rows begin far above 2^32."""
    real = build(tmp_path / "s.mill", [tiny_h5ad(n_cells=60).path], vocabulary="union")
    (shard,) = real.manifest.shards
    ghost = replace(entry_of(shard, 7), n_cells=MOST)
    manifest = replace(real.manifest, shards=Shards([ghost, ghost, shard])).sealed()
    (real.path / "manifest.json").write_bytes(manifest.to_json())
    store = open_store(real.path)
    cells = np.array([59, 0, 3, 3, 40])
    rows = cells + 2 * MOST
    expected = tiny_h5ad(n_cells=60).counts.toarray()[cells]
    order = [int(gene_id.removeprefix("ENSG")) for gene_id in store.gene_ids]
    np.testing.assert_array_equal(store.read(rows).toarray(), expected[:, order])
    assert store.uids(rows).tolist() == store.uids(rows[::-1]).tolist()[::-1]
    assert store.column("total_counts", rows).to_pylist() == expected.sum(axis=1).tolist()
