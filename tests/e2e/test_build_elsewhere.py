"""The same plan gives the same bytes in this process, by worker processes, on a Dask cluster, and as a job array."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
from scipy import sparse

from cellmill import events
from cellmill.errors import CellmillError, ConfigError, InputError, NotFoundError, NotRawCountsError, StateMismatchError
from cellmill.ingest import build, build_part, commit
from cellmill.store import open_store
from cellmill.store.staging import Staging

POLICY = {"vocabulary": "union", "shard_cells": 200, "block_cells": 50}
SLOW = """
import time
from cellmill.ingest import admission
if admission.convert_block.__name__ != "slow":  # a preload of Dask is run twice
    quick = admission.convert_block
    def slow(*args, **kw):
        time.sleep(0.05)
        return quick(*args, **kw)
    admission.convert_block = slow
"""


def contents(folder: Path) -> dict[str, bytes]:
    """Every file but the one that holds times."""
    files = (p for p in folder.rglob("*") if p.is_file() and p.name != "build.json")
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}


def wait_until(condition, seconds=120.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def files(tiny_h5ad):
    """Three files by cell, of five tasks each, one by gene, which is one task, and one without cells."""
    rng = np.random.default_rng(0)
    found = [tiny_h5ad(f"f{i}", counts=rng.poisson(0.5, (900, 60)), seed=i).path for i in range(3)]
    by_gene = tiny_h5ad("by_gene", counts=rng.poisson(0.5, (700, 60)))
    with h5py.File(by_gene.path, "r+") as file:
        attributes = dict(file["X"].attrs)
        del file["X"]
        matrix = sparse.csc_matrix(by_gene.counts)
        group = file.create_group("X")
        group.attrs.update({**attributes, "encoding-type": "csc_matrix"})
        for name in ("data", "indices", "indptr"):
            group[name] = getattr(matrix, name)
    return [*found, by_gene.path, tiny_h5ad("empty", counts=np.zeros((0, 60))).path]


@pytest.fixture
def whole(tmp_path, files):
    """The store as one process makes it."""
    store = build(tmp_path / "whole.mill", files, workers=1, **POLICY)
    assert len(store.manifest.shards) == 3 * 5 + 4
    return contents(store.path)


@pytest.fixture
def slow_processes(tmp_path, monkeypatch):
    """Python processes started from here convert slowly, so that a kill lands in the middle."""
    folder = tmp_path / "slow"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(SLOW)
    monkeypatch.setenv("PYTHONPATH", str(folder))


# ---- worker processes ---------------------------------------------------------------------------------------------


def children() -> list[int]:
    """Processes that this one has started and that run."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, parent = status.read_text().rpartition(")")[2].split()[:2]
            if int(parent) == os.getpid() and state != "Z":
                found.append(int(status.parent.name))
    return found


def test_workers_make_the_same_bytes(tmp_path, files, whole):
    seen = []
    with events.listening(seen.append):
        store = build(tmp_path / "s.mill", files, workers=3, **POLICY)
    assert contents(store.path) == whole
    assert not Staging.folder_of(store.path).exists()
    told = [event.done for event in seen if event.stage == "building by 3 processes"]
    assert told == sorted(told)
    assert told[-1] == 3 * 900 + 700


def test_a_killed_worker_is_replaced(tmp_path, files, whole, slow_processes):
    before, killed, lines = set(children()), [], []
    journal = Staging.folder_of(tmp_path / "s.mill") / "journal"

    def kill_one():
        wait_until(lambda: journal.exists() and len(list(journal.glob("*.npz"))) >= 2)
        killed.append(min(set(children()) - before))
        os.kill(killed[0], signal.SIGKILL)

    killer = threading.Thread(target=kill_one)
    killer.start()
    with events.listening(lambda event: lines.append(event.message)):
        store = build(tmp_path / "s.mill", files, workers=2, **POLICY)
    killer.join()
    assert killed
    assert sum("a worker process died (signal 9)" in line for line in lines) == 1
    assert contents(store.path) == whole
    assert set(children()) == before


def test_workers_that_die_again_and_again_end_the_build_and_finished_work_is_kept(tmp_path, files, whole, monkeypatch):
    folder = tmp_path / "deadly"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(
        "import os\nfrom cellmill.ingest import admission\nconvert, left = admission.convert_block, [9]\n"
        "def deadly(*args, **kw):\n    left[0] -= 1\n    if left[0] < 0:\n        os.kill(os.getpid(), 9)\n"
        "    return convert(*args, **kw)\nif os.environ.get('DEADLY'):\n    admission.convert_block = deadly\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(folder))
    monkeypatch.setenv("DEADLY", "1")
    # each process dies at its tenth block, and a shard of 900 cells takes 18: no task ever comes to its end
    with pytest.raises(CellmillError, match=r"rows 0 to 900 of .*3 worker processes died"):
        build(tmp_path / "s.mill", [files[0], files[1]], workers=2, **{**POLICY, "shard_cells": 900})
    assert not (tmp_path / "s.mill").exists()
    monkeypatch.delenv("DEADLY")
    assert contents(build(tmp_path / "s.mill", files, workers=2, **POLICY).path) == whole


def test_no_worker_outlives_a_killed_parent(tmp_path, files, slow_processes):
    target = tmp_path / "s.mill"
    program = (
        f"from cellmill.ingest import build\nbuild({str(target)!r}, {list(map(str, files))!r}, workers=2, **{POLICY!r})"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], start_new_session=True)
    journal = Staging.folder_of(target) / "journal"
    wait_until(lambda: journal.exists() and list(journal.glob("*.npz")))
    parent.kill()
    parent.wait()

    def in_session():
        found = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                fields = stat.read_text().rpartition(")")[2].split()
                if int(fields[3]) == parent.pid and fields[0] != "Z":
                    found.append(stat)
        return found

    wait_until(lambda: not in_session(), seconds=30)
    assert build(target, files, workers=1, **POLICY).verify().ok


# ---- Dask ---------------------------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


@pytest.fixture
def cluster(tmp_path):
    """A scheduler and two workers, each a program of its own; returns its address and the workers."""
    pytest.importorskip("distributed")
    address = f"tcp://127.0.0.1:{free_port()}"
    (tmp_path / "slow_worker.py").write_text(SLOW)
    started = []

    def start(*arguments):
        log = (tmp_path / f"dask{len(started)}.log").open("w")
        folder = tmp_path / f"elsewhere{len(started)}"  # workers do not run where the build does
        folder.mkdir()
        command = [sys.executable, "-m", "dask", *arguments]
        started.append(subprocess.Popen(command, stdout=log, stderr=log, cwd=folder))
        return started[-1]

    start("scheduler", "--host", "127.0.0.1", "--port", address.rpartition(":")[2], "--no-dashboard")
    options = ["--nthreads", "1", "--no-nanny", "--no-dashboard", "--preload", str(tmp_path / "slow_worker.py")]
    workers = [start("worker", address, "--name", f"w{i}", "--host", "127.0.0.1", *options) for i in range(2)]
    yield address, workers
    for process in started:
        process.kill()
        process.wait()


def test_a_dask_cluster_that_loses_a_worker_makes_the_same_bytes(tmp_path, files, whole, cluster):
    from distributed import Client

    address, workers = cluster
    with Client(address, timeout=60, set_as_default=False) as client:
        client.wait_for_workers(2, timeout=120)
        busy_when_killed = []
        journal = Staging.folder_of(tmp_path / "s.mill") / "journal"

        def kill_one():
            wait_until(lambda: journal.exists() and len(list(journal.glob("*.npz"))) >= 2)
            info = client.scheduler_info(n_workers=-1)["workers"]
            first = next(where for where, one in info.items() if one["name"] == "w0")
            wait_until(lambda: client.processing().get(first))
            busy_when_killed.append(len(client.processing()[first]))
            workers[0].kill()

        killer = threading.Thread(target=kill_one)
        killer.start()
        seen = []
        with events.listening(seen.append):
            store = build(tmp_path / "s.mill", files, dask=address, **POLICY)
        killer.join()
        assert busy_when_killed[0] >= 1
        assert workers[0].wait() == -signal.SIGKILL
        assert workers[1].poll() is None
        assert contents(store.path) == whole
        told = [event.done for event in seen if event.stage == "building on Dask"]
        assert told == sorted(told)
        assert told[-1] == 3 * 900 + 700
        assert len(set(told)) > 19  # moves within tasks
        # a client will do as well, and paths from this folder are seen from there
        there = Path.cwd()
        os.chdir(tmp_path)
        try:
            again = build("again.mill", [file.name for file in files], dask=client, **POLICY)
        finally:
            os.chdir(there)
        assert again.digest == store.digest


def test_bad_inputs_are_told_as_elsewhere_from_a_cluster(tmp_path, files, tiny_h5ad, cluster):
    address, _ = cluster
    counts = np.ones((5000, 60))
    counts[4800, 3] = 0.5
    late = tiny_h5ad("late", counts=counts).path
    with pytest.raises(NotRawCountsError, match=r"late\.h5ad.*row 4800"):
        build(tmp_path / "s.mill", [files[0], late], dask=address, **{**POLICY, "shard_cells": 1000})
    journal = Staging.folder_of(tmp_path / "s.mill") / "journal"
    assert list(journal.glob("*.npz"))
    store = build(tmp_path / "s.mill", [files[0], late], dask=address, skip_bad=True, **{**POLICY, "shard_cells": 1000})
    assert [source.name for source in store.manifest.sources] == ["f0"]


def test_an_address_at_which_no_scheduler_answers(tmp_path, files, monkeypatch):
    pytest.importorskip("distributed")
    from cellmill.ingest import dask_cluster

    monkeypatch.setattr(dask_cluster, "_SECONDS_TO_ANSWER", 1)
    with pytest.raises(ConfigError, match="no scheduler answers"):
        build(tmp_path / "s.mill", files, dask=f"tcp://127.0.0.1:{free_port()}", **POLICY)
    with pytest.raises(ConfigError, match="give one of them"):
        build(tmp_path / "s.mill", files, dask="tcp://127.0.0.1:1", workers=2, **POLICY)


# ---- a job array --------------------------------------------------------------------------------------------------

PART = """
import sys
from cellmill.ingest import build_part
target, part, *files = sys.argv[1:]
build_part(target, files, part=(int(part), 3), vocabulary="union", shard_cells=200, block_cells=50, threads=1)
"""


def part(target, i, files):
    return [sys.executable, "-c", PART, str(target), str(i), *map(str, files)]


def test_parts_at_the_same_time_and_a_commit_make_the_same_bytes(tmp_path, files, whole):
    target = tmp_path / "s.mill"
    jobs = [subprocess.Popen(part(target, i, files)) for i in (1, 2, 3)]
    assert [job.wait() for job in jobs] == [0, 0, 0]
    assert not target.exists()
    assert contents(commit(target).path) == whole
    assert not Staging.folder_of(target).exists()
    with pytest.raises(InputError, match="nothing is left to commit"):
        commit(target)


def test_a_part_that_is_missing_is_named_and_what_is_there_is_kept(tmp_path, files, whole):
    target = tmp_path / "s.mill"
    with pytest.raises(NotFoundError, match="no part of such a store"):
        commit(target)
    for i in (1, 3):
        build_part(target, files, part=(i, 3), **POLICY)
    before = {p.name for p in (Staging.folder_of(target) / "journal").glob("*.npz")}
    for _ in range(2):
        with pytest.raises(
            InputError, match=r"of 16 tasks are not finished:\n  --task 2/3: rows \d+ to \d+ of .*and \d more\nRun"
        ):
            commit(target)
    assert {p.name for p in (Staging.folder_of(target) / "journal").glob("*.npz")} == before
    assert not target.exists()
    done = build_part(target, files, part=(2, 3), **POLICY)
    assert (done.part, done.n_parts, done.n_tasks) == (2, 3, 16)
    assert contents(commit(target).path) == whole


def test_a_killed_part_goes_on_and_a_part_may_run_twice(tmp_path, files, whole, slow_processes):
    target = tmp_path / "s.mill"
    journal = Staging.folder_of(target) / "journal"
    job = subprocess.Popen(part(target, 1, files))
    wait_until(lambda: journal.exists() and list(journal.glob("*.npz")))
    job.kill()
    job.wait()
    with pytest.raises(InputError, match="--task 1/3"):
        commit(target)
    twins = [subprocess.Popen(part(target, 1, files)) for _ in range(2)]
    assert [twin.wait() for twin in twins] == [0, 0]
    for i in (2, 3):
        build_part(target, files, part=(i, 3), **POLICY)
    assert contents(commit(target).path) == whole


def test_a_plain_build_takes_over_what_parts_have_done(tmp_path, files, whole):
    target = tmp_path / "s.mill"
    build_part(target, files, part=(2, 3), **POLICY)
    lines = []
    with events.listening(lambda event: lines.append(event.message)):
        store = build(target, files, **POLICY)
    assert any(line.startswith("going on after") for line in lines)
    assert contents(store.path) == whole


def test_parts_of_other_inputs_do_not_mix(tmp_path, files, slow_processes):
    target = tmp_path / "s.mill"
    journal = Staging.folder_of(target) / "journal"
    job = subprocess.Popen(part(target, 1, files))
    wait_until(lambda: journal.exists() and list(journal.glob("*.npz")))
    with pytest.raises(StateMismatchError, match="other parts of this build are running"):
        build_part(target, files[:2], part=(2, 3), **POLICY)
    assert job.wait() == 0


def test_an_input_that_changed_since_is_noticed_by_the_commit(tmp_path, files, tiny_h5ad):
    target = tmp_path / "s.mill"
    for i in (1, 2):
        build_part(target, files[:2], part=(i, 2), **POLICY)
    tiny_h5ad("f1", counts=np.random.default_rng(9).poisson(0.5, (900, 60)))
    with pytest.raises(StateMismatchError, match="an input has changed"):
        commit(target)
    assert not target.exists()


def test_bad_inputs_of_parts_are_listed_by_the_commit_and_left_out_on_request(tmp_path, files, tiny_h5ad):
    target = tmp_path / "s.mill"
    counts = np.ones((5000, 60))
    counts[4800, 3] = 0.5
    late = tiny_h5ad("late", counts=counts).path
    policy = {**POLICY, "shard_cells": 1000}
    for i in (1, 2):
        with contextlib.suppress(NotRawCountsError):
            build_part(target, [files[0], late], part=(i, 2), **policy)
    with pytest.raises(NotRawCountsError, match=r"late\.h5ad.*row 4800"):
        commit(target)
    assert not target.exists()
    store = commit(target, skip_bad=True)
    assert [source.name for source in store.manifest.sources] == ["f0"]
    assert store.n_cells == 900
    assert open_store(target).verify().ok


# ---- filters, whoever does the work ---------------------------------------------------------------------------------

FILTERS = {"where": "tissue = 'blood'", "min_counts": 28, "min_genes": 20, "min_cells_per_gene": 635}


@pytest.fixture
def filtered(tmp_path, files):
    store = build(tmp_path / "filtered.mill", files, workers=1, **FILTERS, **POLICY)
    kept = sum(source.n_cells for source in store.manifest.sources)
    assert 0 < kept < 3 * 900 + 700
    assert 0 < store.n_genes < 60
    return contents(store.path)


def test_filters_remove_the_same_in_workers_one_of_which_is_killed(tmp_path, files, filtered, slow_processes):
    before, journal = set(children()), Staging.folder_of(tmp_path / "s.mill") / "journal"
    killed = []

    def kill_one():
        wait_until(lambda: journal.exists() and len(list(journal.glob("*.npz"))) >= 2)
        killed.append(min(set(children()) - before))
        os.kill(killed[0], signal.SIGKILL)

    killer = threading.Thread(target=kill_one)
    killer.start()
    store = build(tmp_path / "s.mill", files, workers=2, **FILTERS, **POLICY)
    killer.join()
    assert killed
    assert contents(store.path) == filtered


@pytest.mark.slow
def test_filters_remove_the_same_in_parts_and_after_a_kill(tmp_path, files, filtered, slow_processes):
    target, journal = tmp_path / "s.mill", Staging.folder_of(tmp_path / "s.mill") / "journal"
    script = f"""
import sys
from cellmill.ingest import build_part
build_part(sys.argv[1], sys.argv[2:], part=(1, 3), **{FILTERS!r}, **{POLICY!r})
"""
    job = subprocess.Popen([sys.executable, "-c", script, str(target), *map(str, files)])
    wait_until(lambda: journal.exists() and list(journal.glob("*.npz")))
    job.kill()
    job.wait()
    for i in (3, 1, 2):
        build_part(target, files, part=(i, 3), **FILTERS, **POLICY)
    assert contents(commit(target).path) == filtered


def test_filters_remove_the_same_on_a_cluster(tmp_path, files, filtered, cluster):
    store = build(tmp_path / "s.mill", files, dask=cluster[0], **FILTERS, **POLICY)
    assert contents(store.path) == filtered
