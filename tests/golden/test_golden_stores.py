"""Format version 2 stays: golden stores are read exactly, by cellmill and by the page alone, and are written again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cellmill import kernel
from cellmill.store import open_store
from golden import plain_reader
from golden.write_store_v2 import build_golden

HERE = Path(__file__).parent
GOLDEN = HERE / "store_v2"
INPUTS = json.loads((GOLDEN / "inputs.json").read_text())
each_store = pytest.mark.parametrize("name", INPUTS)


def counts_in_storage_order(name: str, gene_ids: list[str]) -> np.ndarray:
    columns = [int(gene_id.removeprefix("ENSG")) for gene_id in gene_ids]
    return np.concatenate([np.array(counts, np.int64) for counts in INPUTS[name]])[:, columns]


@each_store
def test_todays_reader_reads_golden_stores(name):
    store = open_store(GOLDEN / f"{name}.store")
    expected = counts_in_storage_order(name, list(store.gene_ids))
    np.testing.assert_array_equal(store.read(np.arange(store.n_cells)).toarray(), expected)
    np.testing.assert_array_equal(store.totals(), expected.sum(axis=1))
    assert store.verify().ok


@each_store
def test_the_plain_reader_reads_golden_stores(name):
    plain = plain_reader.read_store(GOLDEN / f"{name}.store")
    expected = counts_in_storage_order(name, [gene["gene_id"] for gene in plain.genes])
    assert plain.cells == [(np.flatnonzero(row).tolist(), row[row > 0].tolist()) for row in expected]
    assert bool(plain.head) == (name == "panel")


@each_store
def test_todays_writer_writes_golden_shards_to_the_byte(name, tmp_path):
    written = build_golden(tmp_path, name, INPUTS[name])
    golden = open_store(GOLDEN / f"{name}.store")
    head = [golden.manifest.head.path] if golden.manifest.head else []
    paths = [file.path for shard in golden.manifest.shards for file in (shard.cells, shard.uids)] + head
    assert len(paths) >= 6
    for path in paths:
        assert (written.path / path).read_bytes() == (golden.path / path).read_bytes(), path


def test_golden_stores_are_never_overwritten():
    before = {path: path.read_bytes() for path in GOLDEN.rglob("*") if path.is_file()}
    folders = (str(Path(kernel.__file__).parents[2]), str(HERE.parent))
    said = subprocess.run(
        [sys.executable, str(HERE / "write_store_v2.py")],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(folders)},
    )
    assert said.returncode != 0 and "never overwritten" in said.stderr
    assert {path: path.read_bytes() for path in GOLDEN.rglob("*") if path.is_file()} == before
