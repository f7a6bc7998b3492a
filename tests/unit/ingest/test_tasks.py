"""Where a plan is cut, and that nothing else decides the bytes of a store."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from cellmill.errors import BadInputsError, InputError, NotRawCountsError
from cellmill.ingest import BuildOptions, build, estimate, plan_build, run
from cellmill.ingest.tasks import cut, part_of
from cellmill.store.staging import Staging


def contents(folder):
    files = (p for p in folder.rglob("*") if p.is_file() and p.name != "build.json")
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}


def test_the_bytes_do_not_depend_on_how_blocks_are_cut(tmp_path, tiny_h5ad, monkeypatch):
    file = tiny_h5ad(counts=np.random.default_rng(0).poisson(1, (1000, 60))).path
    monkeypatch.setattr(run, "BuildOptions", partial(BuildOptions, shard_bytes=1500))
    stores = [
        build(tmp_path / f"{n}.mill", [file], vocabulary="union", shard_cells=300, block_cells=n) for n in (7, 50, 4096)
    ]
    sizes = stores[0].manifest.shards.n_cells.tolist()
    assert len(sizes) > 8  # by bytes, and at rows 300, 600 and 900
    assert {300, 600, 900} < set(np.cumsum(sizes).tolist())
    assert contents(stores[0].path) == contents(stores[1].path) == contents(stores[2].path)


def test_tasks_are_named_by_what_they_read(tmp_path, tiny_h5ad):
    genes = [f"g{i}" for i in range(40)]
    files = [tiny_h5ad(name, n_cells=500, genes=genes, seed=i).path for i, name in enumerate("ab")]
    plan = plan_build(files, vocabulary="union", options=BuildOptions(shard_cells=200))
    tasks = cut(plan)
    assert [(task.source, task.start, task.stop) for task in tasks] == [
        (0, 0, 200), (0, 200, 400), (0, 400, 500), (1, 0, 200), (1, 200, 400), (1, 400, 500),
    ]  # fmt: skip
    assert len({task.key for task in tasks}) == 6
    other = replace(plan, order=plan.order[::-1])
    assert not {task.key for task in cut(other)} & {task.key for task in tasks}
    for same in (replace(plan.options, block_cells=9), replace(plan.options, skip_bad=True)):
        assert [task.key for task in cut(replace(plan, options=same))] == [task.key for task in tasks]
    second = cut(replace(plan, sources=plan.sources[1:]))  # the same input, though another number of the plan
    assert [task.key for task in second] == [task.key for task in tasks[3:]]
    tiny_h5ad("a", n_cells=500, genes=genes, seed=9)
    changed = cut(plan_build(files, vocabulary="union", options=BuildOptions(shard_cells=200)))
    assert not {task.key for task in changed[:3]} & {task.key for task in tasks}


@pytest.mark.parametrize("n_parts", [1, 2, 5, 40])
def test_every_task_is_in_exactly_one_part(tiny_h5ad, n_parts):
    plan = plan_build([tiny_h5ad(n_cells=900).path], vocabulary="union", options=BuildOptions(shard_cells=50))
    tasks = cut(plan)
    parts = [part_of(tasks, i + 1, n_parts) for i in range(n_parts)]
    assert [task for part in parts for task in part] == list(tasks)
    assert max(map(len, parts)) <= -(-18 // n_parts) + 1
    for wrong in ((0, 2), (3, 2), (1, 0)):
        with pytest.raises(InputError, match="--task"):
            part_of(tasks, *wrong)


def test_all_bad_inputs_are_listed_at_the_end_and_work_on_the_others_is_kept(tmp_path, tiny_h5ad):
    late = np.ones((900, 40))
    late[850, 3] = 0.25
    good, other = tiny_h5ad("good", n_cells=500).path, tiny_h5ad("other", n_cells=90).path
    broken = tmp_path / "broken.h5ad"
    broken.write_bytes(good.read_bytes()[:1500])
    early = tiny_h5ad("early", counts=np.full((20, 40), 0.5)).path
    hidden = np.ones((9000, 40))
    hidden[4500 + 700, 3] = 0.25  # between the windows that the plan looks at
    inputs = [early, good, tiny_h5ad("late", counts=hidden).path, broken, other]
    policy = {"vocabulary": "union", "shard_cells": 200, "block_cells": 100}
    with pytest.raises(
        BadInputsError, match=r"3 of 5 inputs cannot be used:\n.*early(.|\n)*broken(.|\n)*late.*row 5200"
    ) as stop:
        build(tmp_path / "s.mill", inputs, **policy)
    assert stop.value.exit_code == 2
    assert "--skip-bad" in stop.value.__notes__[0]
    assert not (tmp_path / "s.mill").exists()
    kept = len(list((Staging.folder_of(tmp_path / "s.mill") / "journal").glob("*.npz")))
    assert kept == 3 + 26 + 1  # of the good ones all, of the late one what came before
    with pytest.raises(BadInputsError):
        build(tmp_path / "s.mill", inputs, **policy)
    store = build(tmp_path / "s.mill", inputs, skip_bad=True, **policy)
    assert [source.name for source in store.manifest.sources] == ["good", "other"]
    fresh = build(tmp_path / "t.mill", inputs, skip_bad=True, **policy)
    assert contents(store.path) == contents(fresh.path)
    planned = plan_build(inputs, vocabulary="union")
    assert [one.path.name for one in planned.refused] == ["early.h5ad", "broken.h5ad"]
    assert isinstance(planned.refused[0].error, NotRawCountsError)


def test_the_estimate_grows_with_the_work(tiny_h5ad):
    plan = plan_build([tiny_h5ad(n_cells=900).path], vocabulary="union", options=BuildOptions(shard_cells=100))
    one, three = estimate(plan, workers=1), estimate(plan, workers=3)
    assert (one.n_tasks, one.workers, three.workers) == (9, 1, 3)
    assert one.bytes_read == plan.sources[0].path.stat().st_size
    assert three.memory_bytes == 3 * one.memory_bytes
    assert three.seconds < one.seconds
    assert "an estimate" in str(one)
