"""A store at a URL, and the processes that read it: forked, spawned, and many at once."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from torch.utils.data import DataLoader

import cellmill as cm
from cellmill.errors import RemoteDeniedError


def read_and_report(store, rows, queue) -> None:
    try:
        queue.put(store.read(rows).toarray())
    except Exception as error:
        queue.put(error)


def read_in(method: str, store, rows):
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    process = context.Process(target=read_and_report, args=(store, rows, queue))
    process.start()
    try:
        result = queue.get(timeout=60)
        process.join(20)
        assert process.exitcode == 0
    finally:
        process.kill()
    if isinstance(result, Exception):
        raise result
    return result


def test_a_forked_process_reads_what_its_parent_did_not(wide, serve):
    served = serve(wide.path)
    remote = cm.open(served.url)
    remote.read([0])  # the parent's threads are running now
    served.forget()
    np.testing.assert_array_equal(read_in("fork", remote, np.arange(200)), wide.read(range(200)).toarray())
    assert served.seen


def test_a_fork_of_a_fork_reads_too(wide, serve):
    remote = cm.open(serve(wide.path).url)
    expected = wide.read([199]).toarray()

    def in_child(queue) -> None:
        remote.read([0])
        queue.put(bool((read_in("fork", remote, np.array([199])) == expected).all()))

    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    process = context.Process(target=in_child, args=(queue,))
    process.start()
    assert queue.get(timeout=60) is True
    process.join(20)


def test_a_forked_process_opens_a_store_of_its_own(local, wide, serve):
    first, second = serve(local.path), serve(wide.path)
    cm.open(first.url).read([0])
    url = second.url

    def in_child(queue) -> None:
        store = cm.open(url)
        queue.put((store.read([3]).toarray(), store.uids([3])))

    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    process = context.Process(target=in_child, args=(queue,))
    process.start()
    counts, uids = queue.get(timeout=60)
    process.join(20)
    np.testing.assert_array_equal(counts, wide.read([3]).toarray())
    np.testing.assert_array_equal(uids, wide.uids([3]))


def test_errors_of_a_forked_process_are_those_of_any(wide, serve):
    served = serve(wide.path)
    remote = cm.open(served.url)
    remote._opened([0])
    served.fail("403", only=".cells")
    with pytest.raises(RemoteDeniedError, match=r"00000\.cells"):
        read_in("fork", remote, np.array([5]))


def test_a_helper_ends_with_the_process_that_it_helps(wide, serve):
    served = serve(wide.path)
    code = (
        "import os, sys, cellmill as cm\n"
        f"store = cm.open({served.url!r})\n"
        "store.read([0])\n"
        "pid = os.fork()\n"
        "if pid == 0:\n"
        "    from cellmill.storage import forked\n"
        "    store.read([199])\n"
        "    print(forked.helper()._process.pid, flush=True)\n"
        "    os._exit(0)\n"
        "os.waitpid(pid, 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    helper = int(done.stdout)
    deadline = time.monotonic() + 10
    while is_running(helper) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not is_running(helper)


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"  # ended, and not yet asked for by whoever inherited it


def test_a_spawned_process_reads(wide, serve):
    remote = cm.open(serve(wide.path).url)
    np.testing.assert_array_equal(read_in("spawn", remote, np.array([3, 199])), wide.read([3, 199]).toarray())


def test_the_workers_of_a_loader_read_from_a_url(local, serve):
    served = serve(local.path)

    def epoch(store, workers):
        plan = cm.Mixture([cm.Component("all", store)]).plan()
        loader = DataLoader(cm.Loader(plan, batch_size=32), batch_size=None, num_workers=workers)
        return [(batch.rows.tolist(), batch.values.tolist()) for batch in loader]

    assert epoch(cm.open(served.url), 2) == epoch(local, 0)
