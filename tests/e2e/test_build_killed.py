"""A build killed at any moment leaves no store, loses no finished work, and goes on to the same bytes."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from cellmill.errors import StoreLockedError
from cellmill.ingest import build
from cellmill.store.staging import Staging

SCRIPT = """
import sys, time
from cellmill.ingest import admission, build
if len(sys.argv) > 3:  # slow down, so that a kill lands in the middle
    convert = admission.convert_block
    def slow(*args, **kw):
        time.sleep(float(sys.argv[3]))
        return convert(*args, **kw)
    admission.convert_block = slow
build(sys.argv[1], sys.argv[2].split(","), vocabulary="union", shard_cells=200, block_cells=50)
"""


def start(target, files, *extra):
    command = [sys.executable, "-c", SCRIPT, str(target), ",".join(map(str, files)), *extra]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env={**os.environ})


def contents(folder: Path) -> dict[str, bytes]:
    files = (p for p in folder.rglob("*") if p.is_file() and p.name != "build.json")
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}


@pytest.fixture
def files(tiny_h5ad):
    rng = np.random.default_rng(0)
    return [tiny_h5ad(f"f{i}", counts=rng.poisson(0.5, (900, 60)), seed=i).path for i in range(2)]


def test_a_killed_build_goes_on_to_the_same_bytes(tmp_path, files):
    whole = build(tmp_path / "whole.mill", files, vocabulary="union", shard_cells=200, block_cells=50)
    target, kept = tmp_path / "killed.mill", 0
    journal = Staging.folder_of(target) / "journal"
    wait = random.Random(4)
    for _ in range(6):
        process = start(target, files, "0.02")
        known = len(list(journal.glob("*.npz"))) if journal.exists() else 0
        deadline = time.time() + 60
        while time.time() < deadline and process.poll() is None:  # at least one more shard, then some moment later
            if journal.exists() and len(list(journal.glob("*.npz"))) > known:
                break
            time.sleep(0.005)
        time.sleep(wait.random() * 0.05)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        if process.returncode == 0:
            break
        assert not target.exists()
        now = len(list(journal.glob("*.npz")))
        assert now > kept
        kept = now
    assert kept >= 4
    if not target.exists():
        process = start(target, files)
        _, errors = process.communicate()
        assert process.returncode == 0, errors.decode()
    assert contents(target) == contents(whole.path)
    assert not Staging.folder_of(target).exists()


def test_a_second_writer_is_told_who_the_first_is_and_harms_nothing(tmp_path, files):
    target = tmp_path / "s.mill"
    first = start(target, files, "0.1")
    try:
        lock = Staging.folder_of(target) / "lock"
        deadline = time.time() + 60
        while time.time() < deadline and not (lock.exists() and lock.read_text()):
            time.sleep(0.01)
        with pytest.raises(StoreLockedError, match=f"process {first.pid}"):
            build(target, files, vocabulary="union")
        _, errors = first.communicate(timeout=120)
        assert first.returncode == 0, errors.decode()
    finally:
        first.kill()
        first.communicate()
    assert target.exists()


def test_a_full_disk_keeps_finished_work_and_says_what_to_do(tmp_path, files):
    limited = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000)){SCRIPT}"
    target = tmp_path / "s.mill"
    process = subprocess.run(
        [sys.executable, "-c", limited, str(target), ",".join(map(str, files))], capture_output=True, text=True
    )
    assert process.returncode != 0
    assert "DiskSpaceError" in process.stderr
    assert "run the same command again" in process.stderr
    assert not target.exists()
    assert build(target, files, vocabulary="union", shard_cells=200, block_cells=50).verify().ok


def test_other_inputs_start_over_instead_of_mixing(tmp_path, files):
    target = tmp_path / "s.mill"
    process = start(target, files, "0.05")
    journal = Staging.folder_of(target) / "journal"
    while process.poll() is None and not list(journal.glob("*.npz")):
        time.sleep(0.005)
    process.kill()
    process.communicate()
    store = build(target, files[:1], vocabulary="union", shard_cells=200, block_cells=50)
    assert store.n_cells == 900
    assert store.verify().ok
