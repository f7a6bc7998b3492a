"""Cold batches ask for their frames together; what is read does not depend on it."""

from __future__ import annotations

import gc
import os
import weakref

import numpy as np
import pytest

import cellmill
from cellmill.bench.cache import evict, resident_share
from cellmill.simulate import write_atlas
from cellmill.storage import memory
from cellmill.store.readahead import ReadAhead


class CountingTable:
    """Counts how often frames are asked for."""

    def __init__(self) -> None:
        self.asked = 0

    def will_need(self, rows) -> None:
        self.asked += len(rows)


def test_frames_are_asked_for_only_while_batches_wait_for_the_disk(monkeypatch):
    faults = [0]
    monkeypatch.setattr("cellmill.store.readahead._major_faults", lambda: faults[0])
    ahead, table, rows = ReadAhead(lambda: ([], 0)), CountingTable(), np.arange(5)
    for _ in range(3):
        ahead.before(table, rows)
        ahead.after()
    assert table.asked == 0
    ahead.before(table, rows)
    faults[0] += 1
    ahead.after()
    for _ in range(200):
        ahead.before(table, rows)
        ahead.after()
    assert table.asked == 64 * 5  # and then no more, since no batch has waited since


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="pages cannot be dropped here")
def test_dropped_pages_change_no_count(tmp_path):
    paths = write_atlas(tmp_path / "files", n_cells=300, n_genes=800, seed=1)
    store = cellmill.build(tmp_path / "a.mill", paths)
    rows = np.random.default_rng(0).permutation(store.n_cells)
    wanted = store.read(rows)
    again = cellmill.open(store.path)
    for shard in store.manifest.shards:
        descriptor = os.open(store.path / shard.cells.path, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)
    again.prefetch(rows[:100])
    found = again.read(rows)
    assert np.array_equal(found.indptr, wanted.indptr)
    assert np.array_equal(found.indices, wanted.indices) and np.array_equal(found.data, wanted.data)


@pytest.mark.parametrize(("free", "whole"), [((20 << 20) + 8, True), (19 << 20, False)])
def test_files_are_read_whole_when_batches_go_on_waiting(tmp_path, monkeypatch, free, whole):
    path = tmp_path / "counts"
    path.write_bytes(os.urandom(5 << 20))
    if evict([path]) != 0.0:
        pytest.skip("pages cannot be dropped here")
    faults = [0]
    monkeypatch.setattr("cellmill.store.readahead._major_faults", lambda: faults[0])
    monkeypatch.setattr("cellmill.store.readahead.available_memory", lambda: free)
    ahead = ReadAhead(lambda: ([path], 5 << 20))
    for _ in range(9):  # the first tells that batches wait, eight of 64 are asked for
        assert ahead.reading is None and resident_share([path]) == 0.0
        ahead.before(CountingTable(), np.arange(64))
        faults[0] += 1
        ahead.after()
    if ahead.reading:
        ahead.reading.join(timeout=60)
    assert resident_share([path]) == (1.0 if whole else 0.0)


def test_a_file_that_is_gone_ends_reading_ahead_in_silence(tmp_path, monkeypatch):
    faults = [0]
    monkeypatch.setattr("cellmill.store.readahead._major_faults", lambda: faults[0])
    failures = []
    monkeypatch.setattr("threading.excepthook", failures.append)
    ahead = ReadAhead(lambda: ([tmp_path / "gone"], 1))
    for _ in range(9):
        ahead.before(CountingTable(), np.arange(64))
        faults[0] += 1
        ahead.after()
    ahead.reading.join(timeout=60)
    assert not failures


def test_no_thread_to_be_had_is_no_fault_of_a_batch(tmp_path, monkeypatch):
    faults = [0]
    monkeypatch.setattr("cellmill.store.readahead._major_faults", lambda: faults[0])

    def refused(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("threading.Thread.start", refused)
    ahead = ReadAhead(lambda: ([tmp_path / "counts"], 1))
    for _ in range(12):
        ahead.before(CountingTable(), np.arange(64))
        faults[0] += 1
        ahead.after()
    assert ahead.reading is None


def test_a_store_is_gone_with_its_last_name(tmp_path):
    paths = write_atlas(tmp_path / "files", n_cells=60, n_genes=800, seed=1)
    cellmill.build(tmp_path / "a.mill", paths)
    gc.disable()
    try:
        store = cellmill.open(tmp_path / "a.mill")
        store.read([0, 1])
        watch = weakref.ref(store)
        del store
        assert watch() is None
    finally:
        gc.enable()


def test_files_in_the_memory_of_a_container_count_as_free(tmp_path, monkeypatch):
    for name, text in {
        "memory.max": str(16 << 20),
        "memory.current": str(15 << 20),
        "memory.stat": f"anon {1 << 20}\nfile {14 << 20}\ninactive_file {8 << 20}\nactive_file {5 << 20}",
    }.items():
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    assert memory.available_memory() == 14 << 20
    (tmp_path / "memory.max").write_text("max")
    assert memory.available_memory() > 14 << 20
