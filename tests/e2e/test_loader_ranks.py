"""Loaders in real processes under torchrun: killed and resumed on other numbers of ranks; and under Accelerate."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

import cellmill as cm
from cellmill.ingest import build
from cellmill.simulate import write_atlas

SCRIPT = Path(__file__).with_name("loader_ranks.py")
N_CELLS = 200


@pytest.fixture(scope="module")
def atlas(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    return build(folder / "atlas.mill", write_atlas(folder / "inputs", n_cells=N_CELLS, n_genes=100, seed=1))


def start(n_ranks, mode, store, folder, **options):
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(n_ranks),
        str(SCRIPT), mode, str(store.path), str(folder), json.dumps(options),
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CELLMILL_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    errors = (folder / "errors").open("w")
    return subprocess.Popen(command, env=environment, stdout=errors, stderr=errors)


def finish(process, folder):
    code = process.wait(timeout=240)
    assert code == 0, (folder / "errors").read_text()[-3000:]


def lines(folder, run, n_ranks):
    """What each rank wrote; a line that a kill has cut off is none."""
    texts = [(folder / f"{run}.{rank}").read_text() for rank in range(n_ranks)]
    return [[json.loads(line) for line in text.split("\n")[:-1]] for text in texts]


def steps(folder, run, n_ranks):
    """Epoch, step, cells and contents of each global step that all ranks had."""
    together = []
    for parts in zip(*lines(folder, run, n_ranks), strict=True):
        assert len({tuple(part[:2]) for part in parts}) == 1
        together.append((parts[0][0], parts[0][1], [uid for part in parts for uid in part[2]], [p[3] for p in parts]))
    return together


def expected(store, n_ranks, epochs):
    """What an uninterrupted run gives, read in this process."""
    from loader_ranks import LOADER, content

    ranks = [list(cm.Loader(store, epochs=epochs, **LOADER, rank=r, world_size=n_ranks)) for r in range(n_ranks)]
    return [
        (parts[0].epoch, parts[0].step, [uid for p in parts for uid in p.cells.tolist()], [content(p) for p in parts])
        for parts in zip(*ranks, strict=True)
    ]


@pytest.fixture(autouse=True)
def beside(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPT.parent))


def test_killed_by_sigkill_and_resumed_with_one_and_three_ranks(atlas, tmp_path):
    process = start(2, "torchrun", atlas, tmp_path, run="first", state=None, pause=0.03)
    try:
        deadline = time.monotonic() + 120
        while True:  # into the second epoch, a few steps after a state was saved
            files = [tmp_path / f"first.{rank}" for rank in range(2)]
            if all(file.exists() and file.read_text().count("\n") >= 14 for file in files):
                break
            assert time.monotonic() < deadline, (tmp_path / "errors").read_text()[-3000:]
            assert process.poll() is None, (tmp_path / "errors").read_text()[-3000:]
            time.sleep(0.005)
        process.send_signal(signal.SIGSTOP)  # the launcher shall not tidy up: all die at once, as in a power cut
        for rank in range(2):
            os.kill(int((tmp_path / f"first.{rank}.pid").read_text()), signal.SIGKILL)
    finally:
        process.kill()
        process.wait(timeout=60)
    saved = tmp_path / "state.json"
    state = json.loads(saved.read_text())
    before = lines(tmp_path, "first", 2)
    assert all(len(rank) < 27 for rank in before), "it was killed too late"
    whole = expected(atlas, 2, 3)
    position = state["position"]
    k = (position // N_CELLS) * 9 + -(-(position % N_CELLS) // 23)
    used = [(a[0], a[1], a[2] + b[2], [a[3], b[3]]) for a, b in zip(before[0][:k], before[1][:k], strict=True)]
    assert used == whole[:k]
    kept = saved.read_bytes()
    for n_ranks in (1, 3):
        saved_as = tmp_path / f"for{n_ranks}.json"
        saved_as.write_bytes(kept)
        finish(
            start(n_ranks, "torchrun", atlas, tmp_path, run=f"rest{n_ranks}", state=str(saved_as), pause=0), tmp_path
        )
        rest = steps(tmp_path, f"rest{n_ranks}", n_ranks)
        assert rest == expected(atlas, n_ranks, 3)[k:]
        times = Counter((epoch, uid) for epoch, _, cells, _ in used + rest for uid in cells)
        assert set(times.values()) == {1}
        assert Counter(epoch for epoch, _ in times) == {0: N_CELLS, 1: N_CELLS, 2: N_CELLS}


@pytest.mark.skipif(importlib.util.find_spec("accelerate") is None, reason="accelerate is not installed")
@pytest.mark.slow  # half a minute; one process with the real library is tested every time
@pytest.mark.parametrize("workers", [0, 1])
def test_accelerate_gives_each_cell_once_and_resumes(atlas, tmp_path, workers):
    whole = expected(atlas, 2, 2)
    for run, stop in (("part", 12), ("rest", 0)):  # 9 steps are an epoch
        options = {"run": run, "resume": run == "rest", "stop": stop, "workers": workers}
        finish(start(2, "accelerate", atlas, tmp_path, **options), tmp_path)
    together = steps(tmp_path, "part", 2) + steps(tmp_path, "rest", 2)
    assert len(steps(tmp_path, "part", 2)) == 12
    assert together == whole
    times = Counter((epoch, uid) for epoch, _, cells, _ in together for uid in cells)
    assert set(times.values()) == {1}
    assert len(times) == 2 * N_CELLS
