"""The cache: bounded, oldest use first out, shared by processes, and never believed without a checksum."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import cellmill as cm
from cellmill.errors import CacheError, ConfigError
from cellmill.storage.cache import DEFAULT_LIMIT_BYTES, Cache, default_folder, default_limit_bytes, parse_size

BLOCK = 1000


def block(number: int, *, seed: int = 0) -> bytes:
    return np.random.default_rng([seed, number]).bytes(BLOCK)


def prepared(folder, limit) -> Cache:
    cache = Cache(folder, limit)
    cache.prepare()
    return cache


def disk_bytes(cache: Cache) -> int:
    return sum(path.stat().st_size for path in (cache.folder / "blocks").rglob("*") if path.is_file())


def test_a_block_comes_back_as_it_was_put(tmp_path):
    cache = prepared(tmp_path / "c", 10**6)
    cache.put_blocks("ab" * 16, {3: block(3), 4: memoryview(block(4))})
    assert cache.read_block("ab" * 16, 3, n_bytes=BLOCK) == block(3)
    assert cache.read_block("ab" * 16, 4, n_bytes=BLOCK) == block(4)
    assert cache.read_block("ab" * 16, 5, n_bytes=BLOCK) is None
    assert cache.read_block("cd" * 16, 3, n_bytes=BLOCK) is None
    assert cache.usage().n_blocks == 2


def test_the_limit_is_kept_at_every_moment(tmp_path):
    cache = prepared(tmp_path / "c", 50_000)
    for number in range(400):
        cache.put_blocks(f"{number % 7:032x}", {number: block(number)})
        assert disk_bytes(cache) <= 50_000
    assert disk_bytes(cache) > 30_000  # and it is used


def test_what_was_used_last_stays(tmp_path):
    cache = prepared(tmp_path / "c", 20_000)
    key = "ab" * 16
    for number in range(15):
        cache.put_blocks(key, {number: block(number)})
        time.sleep(0.002)
    for number in (0, 1, 2):
        assert cache.read_block(key, number, n_bytes=BLOCK) is not None
        time.sleep(0.002)
    for number in range(15, 25):
        cache.put_blocks(key, {number: block(number)})
        time.sleep(0.002)
    here = {int(path.name) for path in (cache.folder / "blocks").rglob("*") if path.is_file()}
    assert {0, 1, 2, 24} <= here
    assert not here & {3, 4, 5}


@pytest.mark.parametrize("at", [0, 9, 16, 500, 1015])
def test_a_flipped_bit_is_not_believed(at, tmp_path):
    cache = prepared(tmp_path / "c", 10**6)
    cache.put_blocks("ab" * 16, {3: block(3)})
    path = cache._block_path("ab" * 16, 3)
    raw = bytearray(path.read_bytes())
    raw[at] ^= 8
    path.write_bytes(raw)
    assert cache.read_block("ab" * 16, 3, n_bytes=BLOCK) is None
    assert not path.exists()


def test_a_half_block_and_a_block_under_another_name_are_not_believed(tmp_path):
    cache = prepared(tmp_path / "c", 10**6)
    key = "ab" * 16
    cache.put_blocks(key, {3: block(3), 4: block(4)})
    cache._block_path(key, 4).replace(cache._block_path(key, 5))
    assert cache.read_block(key, 5, n_bytes=BLOCK) is None
    cache._block_path(key, 3).write_bytes(cache._block_path(key, 3).read_bytes()[:600])
    assert cache.read_block(key, 3, n_bytes=BLOCK) is None


def test_a_byte_that_changed_on_disk_is_fetched_again(wide, serve, cache_folder):
    served = serve(wide.path)
    remote = cm.open(served.url)
    expected = wide.read(range(200)).toarray()
    remote.read(range(200))
    blocks = sorted(path for path in (cache_folder / "blocks").rglob("*") if path.is_file())
    raw = bytearray(blocks[4].read_bytes())
    raw[300] ^= 1
    blocks[4].write_bytes(raw)
    served.forget()
    np.testing.assert_array_equal(remote.read(range(200)).toarray(), expected)
    assert len(served.seen) == 1
    assert blocks[4].read_bytes() != raw


def test_a_whole_file_and_an_index_that_changed_on_disk_are_fetched_again(local, serve, cache_folder):
    served = serve(local.path)
    cm.open(served.url).read([0])
    (genes,) = cache_folder.glob("stores/*/genes.parquet")
    (index,) = cache_folder.glob("stores/*/shards/00000.cells")
    for path, at in ((genes, 100), (index, -100)):
        raw = bytearray(path.read_bytes())
        raw[at] ^= 1
        path.write_bytes(raw)
    served.forget()
    np.testing.assert_array_equal(cm.open(served.url).read([0]).toarray(), local.read([0]).toarray())
    assert {name for name, _ in served.seen} == {"manifest.json", "genes.parquet", "shards/00000.cells"}


def test_a_cache_too_small_for_a_batch_still_gives_the_batch(wide, serve):
    remote = cm.open(serve(wide.path).url, storage_options={"cache_limit": 0})
    np.testing.assert_array_equal(remote.read(range(200)).toarray(), wide.read(range(200)).toarray())
    remote.prefetch(range(200))
    np.testing.assert_array_equal(remote.read([5]).toarray(), wide.read([5]).toarray())


def test_a_small_cache_keeps_its_limit_while_a_store_is_read(wide, serve, cache_folder):
    limit = 600_000  # of some 1.2 MB of frames
    remote = cm.open(serve(wide.path).url, storage_options={"cache_limit": limit})
    rng = np.random.default_rng(0)
    for _ in range(12):
        rows = rng.integers(0, 200, 3)
        np.testing.assert_array_equal(remote.read(rows).toarray(), wide.read(rows).toarray())
        assert remote._cache.usage().n_bytes <= limit


def test_files_of_a_store_that_is_open_are_not_evicted_and_others_are(local, wide, serve, cache_folder):
    first = cm.open(serve(local.path).url)
    second = cm.open(serve(wide.path).url)
    assert first.genes.num_rows and second.genes.num_rows
    assert len(list(cache_folder.glob("stores/*/genes.parquet"))) == 2
    kept = first._folder.path
    del second
    Cache(cache_folder, 0).claim(1)
    assert [path.parent for path in cache_folder.glob("stores/*/genes.parquet")] == [kept]


def test_a_folder_that_cannot_be_written_to_is_told_at_once(local, serve, tmp_path):
    occupied = tmp_path / "a file"
    occupied.write_text("")
    url = serve(local.path).url
    for folder in (occupied, occupied / "below"):
        with pytest.raises(CacheError, match="CELLMILL_CACHE") as caught:
            cm.open(url, storage_options={"cache_folder": folder})
        assert str(folder) in str(caught.value)


def test_a_disk_that_is_full_for_blocks_does_not_hinder_reading(wide, serve, cache_folder):
    remote = cm.open(serve(wide.path).url)
    remote._opened([0])
    (cache_folder / "blocks").rmdir()
    (cache_folder / "blocks").write_text("nothing can be put here")
    np.testing.assert_array_equal(remote.read(range(200)).toarray(), wide.read(range(200)).toarray())


def test_folder_and_limit_follow_the_environment(monkeypatch, tmp_path):
    assert default_folder() == tmp_path / "cache"
    monkeypatch.delenv("CELLMILL_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert default_folder() == tmp_path / "xdg" / "cellmill"
    assert default_limit_bytes() == DEFAULT_LIMIT_BYTES == 20 * 2**30
    monkeypatch.setenv("CELLMILL_CACHE_LIMIT", "1.5 GB")
    assert Cache().limit_bytes == 1_500_000_000
    assert [parse_size(text, where="x") for text in ("7", 7, "2k", "2 KiB", "1MiB")] == [7, 7, 2000, 2048, 2**20]
    for wrong in ("much", "-5", "5 pounds"):
        monkeypatch.setenv("CELLMILL_CACHE_LIMIT", wrong)
        with pytest.raises(ConfigError, match="CELLMILL_CACHE_LIMIT"):
            Cache()


SHARER = """
import sys
import numpy as np
from cellmill.storage.cache import Cache
folder, seed = sys.argv[1], int(sys.argv[2])
rng = np.random.default_rng(seed)
cache = Cache(folder, 60_000)
key, missed, got = "ab" * 16, 0, 0
for turn in range(400):
    number = int(rng.integers(0, 120))
    expected = np.random.default_rng([0, number]).bytes(1000)
    found = cache.read_block(key, number, n_bytes=1000)
    if found is None:
        missed += 1
        cache.put_blocks(key, {number: expected})
    else:
        got += 1
        assert found == expected, number
assert missed > 20 and got > 20, (missed, got)
"""


def test_four_processes_share_a_cache_while_it_evicts(tmp_path):
    cache = prepared(tmp_path / "c", 60_000)
    command = [sys.executable, "-c", SHARER, str(cache.folder)]
    running = [subprocess.Popen([*command, str(seed)], stderr=subprocess.PIPE, text=True) for seed in range(4)]
    largest = 0
    while any(process.poll() is None for process in running):
        with cache._locked():
            largest = max(largest, disk_bytes(cache))
        time.sleep(0.005)
    for process in running:
        assert process.communicate()[1] == ""
        assert process.returncode == 0
    assert 30_000 < largest <= 60_000


PUTTER = """
import sys
from cellmill.storage.cache import Cache
cache = Cache(sys.argv[1], 10**9)
print("ready", flush=True)
for number in range(10**9):
    cache.put_blocks("ab" * 16, {number % 50: bytes([number % 256]) * 3_000_000})
"""


def test_killed_in_the_middle_of_a_put_leaves_only_whole_blocks(tmp_path):
    cache = prepared(tmp_path / "c", 10**9)
    rng = np.random.default_rng(0)
    halves = 0
    for attempt in range(80):  # eight at least, and until one of the kills came in the middle
        if halves and attempt >= 8:
            break
        process = subprocess.Popen([sys.executable, "-c", PUTTER, str(cache.folder)], stdout=subprocess.PIPE)
        process.stdout.readline()
        time.sleep(float(rng.uniform(0.005, 0.03)))
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        for path in (cache.folder / "blocks" / "ab" / ("ab" * 16)).iterdir():
            if path.name.startswith("."):
                halves += 1
                continue
            found = cache.read_block("ab" * 16, int(path.name), n_bytes=3_000_000)
            assert found is not None and len(set(found)) == 1
    assert halves
    cache.put_blocks("ab" * 16, {7: b"x" * 10})  # the lock died with its holders
    assert cache.read_block("ab" * 16, 7, n_bytes=10) == b"x" * 10


def test_what_dead_processes_left_behind_is_removed(tmp_path):
    cache = prepared(tmp_path / "c", 5_000)
    cache.put_blocks("ab" * 16, {1: block(1)})
    folder = cache._block_path("ab" * 16, 1).parent
    old, young = folder / ".9.1.1.tmp", folder / ".9.1.2.tmp"
    for path in (old, young):
        path.write_bytes(bytes(2_000))
    os.utime(old, (time.time() - 3600, time.time() - 3600))
    cache.claim(5_000)
    assert not old.exists() and young.exists()


def test_two_readers_that_miss_the_same_blocks_both_get_them(wide, serve):
    served = serve(wide.path)
    served.fail("slow")
    expected = wide.read(range(200)).toarray()
    stores = [cm.open(served.url) for _ in range(2)]
    with ThreadPoolExecutor(2) as pool:
        for got in pool.map(lambda store: store.read(range(200)).toarray(), stores):
            np.testing.assert_array_equal(got, expected)
