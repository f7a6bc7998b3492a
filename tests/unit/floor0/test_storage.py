"""Files appear whole or not at all; a lock is held by one and freed by death."""

from __future__ import annotations

import gc
import multiprocessing
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cellmill.errors import DiskSpaceError, NotFoundError, StoreLockedError
from cellmill.storage import exclusive_lock, hash_bytes, hash_file, map_file, require_free_bytes, write_atomic


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    write_atomic(path, b"old")
    monkeypatch.setattr(os, "fsync", lambda descriptor: (_ for _ in ()).throw(OSError("disk on fire")))
    with pytest.raises(OSError, match="on fire"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_hash_of_a_file_is_that_of_its_bytes(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"x" * 10_000_000)
    assert hash_file(path) == hash_bytes(b"x" * 10_000_000)


def test_hash_of_a_folder_sees_names_and_contents(tmp_path):
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "a").write_bytes(b"1")
    first = hash_file(tmp_path / "f")
    (tmp_path / "f" / "a").rename(tmp_path / "f" / "b")
    assert hash_file(tmp_path / "f") != first


def test_an_empty_file_maps_to_no_bytes_and_a_missing_one_is_named(tmp_path):
    (tmp_path / "empty").touch()
    assert len(map_file(tmp_path / "empty")) == 0
    with pytest.raises(NotFoundError, match="nowhere"):
        map_file(tmp_path / "nowhere")


def test_mapped_files_are_read_only_and_hold_no_descriptors(tmp_path):
    (tmp_path / "f").write_bytes(b"0123456789")
    before = len(list(Path("/dev/fd").iterdir()))
    maps = [map_file(tmp_path / "f") for _ in range(300)]
    assert len(list(Path("/dev/fd").iterdir())) == before
    assert {bytes(data) for data in maps} == {b"0123456789"}
    with pytest.raises(ValueError, match="read-only"):
        maps[0][0] = 1


def test_a_mapping_lives_as_long_as_any_view_of_it(tmp_path):
    (tmp_path / "f").write_bytes(bytes(range(100)) * 1000)
    view = map_file(tmp_path / "f")[50_000:][:20].view("<u2")
    (tmp_path / "f").unlink()
    gc.collect()
    assert view.tobytes() == bytes(range(20))


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs /proc")
def test_a_mapping_that_nobody_needs_is_given_back(tmp_path):
    (tmp_path / "mapped").write_bytes(b"x")
    data = map_file(tmp_path / "mapped")
    assert str(tmp_path / "mapped") in Path("/proc/self/maps").read_text()
    del data
    assert str(tmp_path / "mapped") not in Path("/proc/self/maps").read_text()


def test_too_little_room_is_said_with_both_figures(tmp_path):
    with pytest.raises(DiskSpaceError, match=r"needs about 1024\.0 TiB.*are free"):
        require_free_bytes(tmp_path / "not" / "yet" / "there", 1 << 50, what="the store")


def _try_lock(path, queue):
    try:
        with exclusive_lock(path, what="the store x"):
            queue.put("locked")
    except StoreLockedError as error:
        queue.put(str(error))


def test_a_second_holder_is_told_who_the_first_is(tmp_path):
    queue = multiprocessing.get_context("spawn").Queue()
    with exclusive_lock(tmp_path / "lock", what="the store x"):
        process = multiprocessing.get_context("spawn").Process(target=_try_lock, args=(tmp_path / "lock", queue))
        process.start()
        message = queue.get(timeout=60)
        process.join()
    assert f"process {os.getpid()}" in message
    assert "the store x is being written" in message


def test_a_dead_holder_frees_the_lock(tmp_path):
    code = (
        "import sys, os, signal; from pathlib import Path; from cellmill.storage import exclusive_lock\n"
        "with exclusive_lock(Path(sys.argv[1]), what='x'): os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path / "lock")]).returncode == -9
    with exclusive_lock(tmp_path / "lock", what="x"):
        pass


def test_a_lock_file_that_was_moved_away_is_no_lock(tmp_path):
    with exclusive_lock(tmp_path / "lock", what="x"):
        (tmp_path / "lock").rename(tmp_path / "elsewhere")
        with exclusive_lock(tmp_path / "lock", what="x"):
            pass


def test_threads_that_write_one_file_do_not_move_away_each_others(tmp_path):
    path = tmp_path / "tag"
    texts = [str(i).encode() * 50 for i in range(8)]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(30):
            list(pool.map(lambda text: write_atomic(path, text), texts))
            assert path.read_bytes() in texts
    assert list(tmp_path.iterdir()) == [path]
