"""A writer killed at a hundred moments leaves the last committed store, whole, and goes on to the same bytes."""

from __future__ import annotations

import random
import shutil
import signal
import tempfile
from pathlib import Path

import numpy as np
import pytest

from cellmill.errors import CellmillError
from cellmill.genes import Vocabulary
from cellmill.ingest import append_inputs, build
from cellmill.store import open_store
from cellmill.store.staging import Staging

MEMORY = Path("/dev/shm")

GENES = [f"gene-{i}" for i in range(40)]
SMALL = {"shard_cells": 20, "block_cells": 20}


def contents(folder: Path) -> dict[str, bytes]:
    """Every file but those that hold times."""
    files = (p for p in folder.rglob("*") if p.is_file() and p.name != "build.json" and "append-" not in p.name)
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}


@pytest.fixture
def world(tmp_path, tiny_h5ad):
    """An old store, inputs to write, and for each verb how it is called on a folder; and a folder for them."""
    vocabulary = Vocabulary(GENES, symbols=GENES, name="forty")
    vocabulary.to_json(tmp_path / "genes.json")
    options = {**SMALL, "vocabulary": str(tmp_path / "genes.json")}
    rng = np.random.default_rng(0)

    def file(name, n_cells, genes):
        return tiny_h5ad(name, counts=rng.poisson(0.6, (n_cells, len(genes))), genes=genes).path

    old = build(tmp_path / "old.mill", [file("old", 45, GENES[:30])], **options).path
    new = [file("new1", 90, GENES[10:]), file("new2", 50, GENES[::-1])]
    other = build(tmp_path / "other.mill", new, **options).path
    calls = {
        "build": lambda target: (("build", target, new), {**options, "overwrite": True}),
        "append": lambda target: (("append", target, new), SMALL),
        "merge": lambda target: (("merge", target, [old, other]), {"overwrite": True, "block_cells": 20}),
    }
    # what a killed process wrote stays, on a disk as in memory; there flushes take no time, and so a hundred kills
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder:
        yield Path(folder), old, calls


@pytest.mark.parametrize(
    ("verb", "n_kills"),
    [
        ("build", 20),
        ("append", 15),
        ("merge", 15),
        *(pytest.param(verb, 100, marks=pytest.mark.slow) for verb in ("build", "append", "merge")),
    ],
)
def test_killed_at_random_moments(world, warm, verb, n_kills):
    place, old, calls = world
    writers, wait = warm(), random.Random(7)
    target = place / "s.mill"

    def begin(folder):
        shutil.copytree(old, folder)
        args, options = calls[verb](folder)
        return lambda **kill: writers.run(*args, options=options, **kill)

    whole = begin(place / "whole.mill")(kill_at=None)
    assert "digest" in whole, whole
    expected, digest = contents(place / "whole.mill"), open_store(old).digest
    assert digest != whole["digest"]
    write, seen, died, finished, in_between = begin(target), set(), 0, 0, 0
    while died < n_kills or finished < 3:
        by_event = died < n_kills and wait.random() < 0.6
        kill = {"kill_at": wait.randrange(whole["events"])} if by_event else {}
        if not by_event and died < n_kills:
            kill = {"kill_after": wait.random() * 1.1 * whole["seconds"]}
        outcome = write(**kill)
        assert outcome.get("killed", signal.SIGKILL) == signal.SIGKILL and "error" not in outcome, outcome
        died += "killed" in outcome
        store = open_store(target)
        assert store.verify().ok
        assert store.digest in (digest, whole["digest"])
        in_between += store.digest == digest
        seen.add(len(list((Staging.folder_of(target) / "journal").glob("*.npz"))))
        if store.digest == whole["digest"]:  # committed, whether it lived to tell or not
            finished += 1
            assert contents(target) == expected
            tidy_up(target, store.manifest.sources[-1].uri)
            shutil.rmtree(target)
            write = begin(target)
    assert in_between > n_kills // 2
    # kills fell after different shards; how many there are of a few dozen is chance
    assert len(seen) >= (6 if n_kills >= 100 else 2)


def tidy_up(target, source):
    """The next writer removes what a kill after the commit left behind, also when it has nothing to do itself."""
    with pytest.raises(CellmillError, match="already"):
        append_inputs(target, source)
    assert not Staging.folder_of(target).exists()


@pytest.mark.parametrize("limit_bytes", [300, pytest.param(800, marks=pytest.mark.slow), 1200])
@pytest.mark.parametrize("verb", ["append", "merge"])
def test_a_full_disk_leaves_the_old_store_whole(world, warm, verb, limit_bytes):
    place, old, calls = world
    target, writers = place / "s.mill", warm()
    shutil.copytree(old, target)
    before = contents(target)
    args, options = calls[verb](target)
    outcome = writers.run(*args, options=options, limit_bytes=limit_bytes)
    assert outcome.get("error") == "DiskSpaceError", outcome
    assert "run the same command again" in outcome["message"]
    assert contents(target) == before
    assert open_store(target).verify().ok
    done = writers.run(*args, options=options)
    assert open_store(target).digest == done["digest"] != open_store(old).digest
    assert open_store(target).verify().ok
    assert not Staging.folder_of(target).exists()
