"""Killed at any step of publishing, the old store or the new one lies there, whole; the next call concludes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cellmill.ingest import build
from cellmill.store import open_store
from cellmill.store.staging import Staging

# Kills itself with SIGKILL before the k-th change of a name on the disk after the manifest was written.
SCRIPT = """
import os, pathlib, signal, sys
from cellmill.storage import local as storage
from cellmill.ingest import build, conclude
left = int(sys.argv[3])
if len(sys.argv) > 4:  # a system that cannot exchange two names in one step
    storage._exchange = lambda first, second: False
def counted(call):
    def wrapper(*args, **kw):
        global left
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1
        return call(*args, **kw)
    return wrapper
# in the order that is worst for the tidying up; the file system may choose any
iterdir = pathlib.Path.iterdir
pathlib.Path.iterdir = lambda self: iter(sorted(iterdir(self), key=lambda path: path.name != "publishing"))
write_manifest = conclude.write_manifest
def then_count(*args):
    write_manifest(*args)
    for name in ("rename", "replace", "unlink", "rmdir"):
        setattr(os, name, counted(getattr(os, name)))
    exchange = storage._exchange
    storage._exchange = counted(exchange)
conclude.write_manifest = then_count
build(sys.argv[1], [sys.argv[2]], vocabulary="union", shard_cells=20, block_cells=20, overwrite=True)
"""


def run_until(target: Path, source: Path, step: int, *extra: str) -> int:
    command = [sys.executable, "-c", SCRIPT, str(target), str(source), str(step), *extra]
    return subprocess.run(command, capture_output=True, env={**os.environ, "CELLMILL_THREADS": "1"}).returncode


# each way builds once for every step of publishing; every time every third step of one way is run
@pytest.mark.parametrize(
    ("replaces", "two_steps", "every"),
    [
        (True, False, 3),
        *(
            pytest.param(*ways, 1, marks=pytest.mark.slow)
            for ways in [(True, False), (False, False), (False, True), (True, True)]
        ),
    ],
)
def test_killed_at_any_step_of_publishing(tmp_path, tiny_h5ad, replaces, two_steps, every):
    old, new = tiny_h5ad("old", n_cells=30), tiny_h5ad("new", n_cells=100, seed=3)
    extra = ["two"] if two_steps else []
    step, code = 0, -9
    while code == -9:
        target = tmp_path / f"s{step}.mill"
        if replaces:
            build(target, [old.path], vocabulary="union")
        code = run_until(target, new.path, step, *extra)
        if target.exists():
            assert open_store(target).n_cells in ((30, 100) if replaces else (100,))
            assert open_store(target).verify().ok
        else:
            assert not replaces or two_steps
        store = build(target, [new.path], vocabulary="union", shard_cells=20, block_cells=20, overwrite=True, threads=1)
        assert store.n_cells == 100
        assert store.verify().ok
        np.testing.assert_array_equal(store.read(np.arange(100), genes=new.genes).toarray(), new.counts.toarray())
        assert not Staging.folder_of(target).exists()
        assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []
        step += every
    assert code == 0
    assert step > 10
