"""One writer at a time: the second is told who the first is, and neither loses anything; readers read on."""

from __future__ import annotations

import pickle
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from cellmill.errors import StoreLockedError
from cellmill.genes import Vocabulary
from cellmill.ingest import append_inputs, build
from cellmill.store import merge_stores, open_store
from cellmill.store.staging import Staging

GENES = [f"gene-{i}" for i in range(40)]
SMALL = {"shard_cells": 25, "block_cells": 25}


@pytest.fixture
def world(tmp_path, tiny_h5ad):
    """A store at the place that is written to, another store, and the calls of each verb."""
    vocabulary = Vocabulary(GENES, symbols=GENES, name="forty")
    vocabulary.to_json(tmp_path / "genes.json")
    options = {**SMALL, "vocabulary": str(tmp_path / "genes.json")}
    files = [tiny_h5ad(f"f{i}", n_cells=150, genes=GENES[10 * i :], n_genes=40 - 10 * i, seed=i).path for i in range(3)]
    target = build(tmp_path / "s.mill", files[:1], **options).path
    other = build(tmp_path / "other.mill", files[1:2], **options).path
    shutil.copytree(target, tmp_path / "copy.mill")
    calls = {
        "build": ([target, files[1:]], {**options, "overwrite": True}),
        "append": ([target, files[1:]], SMALL),
        "merge": ([target, [tmp_path / "copy.mill", other]], {"overwrite": True}),
    }
    return target, calls


VERBS = {"build": build, "append": append_inputs, "merge": merge_stores}


def wait_for_work(target, n_shards=1):
    """Until the writer has finished shards: it is in the middle of its work."""
    deadline = time.time() + 60
    while len(list((Staging.folder_of(target) / "journal").glob("*.npz"))) < n_shards:
        assert time.time() < deadline
        time.sleep(0.005)


# each verb once in each place
QUICK = (("build", "append"), ("append", "merge"), ("merge", "build"))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        pytest.param(first, second, marks=() if (first, second) in QUICK else pytest.mark.slow)
        for first in ("build", "append", "merge")
        for second in ("build", "append", "merge")
    ],
)
def test_the_second_writer_is_told_who_the_first_is(world, warm, first, second):
    target, calls = world
    writers, before = warm(), open_store(target).digest
    pid = writers.start(first, *calls[first][0], options=calls[first][1], slow=0.05)
    wait_for_work(target)
    known = {p.name: p.read_bytes() for p in (Staging.folder_of(target) / "journal").glob("*.npz")}
    args, options = calls[second]
    told = rf"host {socket.gethostname()}, process {pid}, since \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d"
    with pytest.raises(StoreLockedError, match=told):
        VERBS[second](*args, **options)
    assert {name: (Staging.folder_of(target) / "journal" / name).read_bytes() for name in known} == known
    assert open_store(target).digest == before  # not finished yet: the error came at once
    outcome = writers.end()
    store = open_store(target)
    assert outcome.get("digest") == store.digest != before
    assert store.n_cells == {"build": 300, "append": 450, "merge": 300}[first]
    assert store.verify().ok
    assert not Staging.folder_of(target).exists()


def test_readers_read_on_before_during_and_after_an_append(world, warm):
    target, calls = world
    rows = np.random.default_rng(0).integers(0, 150, 64)
    used, untouched = open_store(target), open_store(target)
    truth, obs, uids, genes = used.read(rows).toarray(), used.obs.to_arrow(), used.uids(), used.gene_ids
    sent = pickle.dumps(used)

    def check(store):
        np.testing.assert_array_equal(store.read(rows).toarray(), truth)
        np.testing.assert_array_equal(store.uids(), uids)
        assert store.gene_ids == genes
        assert store.obs.to_arrow().equals(obs)
        assert len(store.select("total_counts >= 0")) == 150

    writers = warm()
    writers.start("append", *calls["append"][0], options=calls["append"][1], slow=0.05)
    wait_for_work(target)
    rounds = 0
    while Staging.folder_of(target).exists():
        for store in (used, open_store(target) if rounds == 0 else used, pickle.loads(sent)):
            check(store)
        rounds += 1
    assert rounds >= 2
    assert "digest" in writers.end()
    for store in (used, untouched, pickle.loads(sent)):
        check(store)
    assert open_store(target).n_cells == 450


SCRIPT = """
import collections, sys, time
from pathlib import Path
from cellmill.errors import StoreLockedError
from cellmill.store.staging import Staging
seen, end = collections.Counter(), time.time() + float(sys.argv[2])
while time.time() < end:
    try:
        with Staging.locked(Path(sys.argv[1])) as staging:
            staging.prepare("key")
        seen["held"] += 1
    except StoreLockedError:
        seen["locked"] += 1
print(dict(seen))
"""


def test_a_place_that_is_left_and_taken_at_once_is_never_another_kind_of_error(tmp_path):
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "s.mill"), "3"]
    working = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    said = [process.communicate(timeout=120) for process in working]
    assert [process.returncode for process in working] == [0, 0, 0], said
    assert all("held" in out for out, _ in said)
    assert "locked" in "".join(out for out, _ in said)  # they did meet


def test_who_leaves_removes_nothing_of_who_came_since(tmp_path, monkeypatch):
    """One leaves the place; at the instant at which its lock is gone, another takes it and makes something there."""
    target = tmp_path / "s.mill"
    unlink, others = Path.unlink, []

    def then_another_comes(path, missing_ok=False):
        unlink(path, missing_ok=missing_ok)
        if path.name == "lock" and not others:
            others.append(Staging.locked(target))
            others[0].__enter__().prepare("other")

    with Staging.locked(target) as staging:
        staging.prepare("one")
        monkeypatch.setattr(Path, "unlink", then_another_comes)
    monkeypatch.undo()
    place = Staging.folder_of(target)
    assert (place / "key").read_text() == "other"
    assert (place / "store" / "shards").is_dir()
    with pytest.raises(StoreLockedError), Staging.locked(target):
        pass
    others[0].__exit__(None, None, None)
    assert not place.exists()
