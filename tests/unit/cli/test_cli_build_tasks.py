"""`build` by parts and processes, its plan, and `commit`, as a user meets them."""

from __future__ import annotations

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from cellmill.cli.application import app
from cellmill.store import open_store
from cellmill.store.staging import Staging


@pytest.fixture
def run():
    return lambda *arguments: CliRunner().invoke(app, list(map(str, arguments)))


def test_parts_and_a_commit(run, tmp_path, tiny_h5ad):
    files = [tiny_h5ad(name, n_cells=300, seed=i).path for i, name in enumerate("ab")]
    store, common = tmp_path / "s.mill", [*files, "--vocabulary", "union"]
    first = run("build", store, *common, "--task", "1/2")
    assert first.exit_code == 0, first.output
    assert f"cellmill commit {store}" in first.output
    early = run("commit", store)
    assert early.exit_code == 2
    assert "--task 2/2" in early.output
    second = run("build", store, *common, "--task", "2/2", "--json")
    assert json.loads(second.stdout) == {"part": 2, "n_parts": 2, "tasks": 1, "n_tasks": 2, "n_cells": 300}
    done = run("commit", store, "--json")
    assert json.loads(done.stdout)["n_cells"] == 600
    assert open_store(store).verify().ok


@pytest.mark.parametrize("wrong", ["3/2", "0/2", "1", "a/b", "1/0"])
def test_a_task_that_is_none(run, tmp_path, tiny_h5ad, wrong):
    result = run("build", tmp_path / "s.mill", tiny_h5ad().path, "--task", wrong)
    assert result.exit_code == 2
    assert "for example 1/8" in result.output


def test_a_part_is_done_by_hand_or_by_dask(run, tmp_path, tiny_h5ad):
    result = run("build", tmp_path / "s.mill", tiny_h5ad().path, "--task", "1/2", "--dask", "tcp://localhost:1")
    assert result.exit_code == 2
    assert "give one of them" in result.output


def test_the_plan_lists_all_bad_inputs_and_what_it_needs(run, tmp_path, tiny_h5ad):
    good = tiny_h5ad("good").path
    bad = [tiny_h5ad(name, counts=np.full((20, 40), 0.5)).path for name in ("bad1", "bad2")]
    common = ["build", tmp_path / "s.mill", good, *bad, "--vocabulary", "union", "--dry-run"]
    shown = run(*common)
    assert shown.exit_code == 2
    assert "2 cannot be used" in shown.output
    for words in ("bad1.h5ad", "bad2.h5ad", "memory: about", "(an estimate", "1 task by 1 process", "of 1 input"):
        assert words in shown.output
    plan = json.loads(run(*common, "--json").stdout)
    assert [one["path"] for one in plan["refused"]] == list(map(str, bad))
    assert plan["estimate"]["n_tasks"] == 1
    assert plan["estimate"]["bytes_read"] == good.stat().st_size
    skipping = run(*common, "--skip-bad")
    assert skipping.exit_code == 0
    assert "2 skipped" in skipping.output
    assert not (tmp_path / "s.mill").exists()
    assert not Staging.folder_of(tmp_path / "s.mill").exists()


def test_append_with_nothing_new(run, tmp_path, tiny_h5ad):
    file, store = tiny_h5ad("a").path, tmp_path / "s.mill"
    assert run("build", store, file, "--vocabulary", "union").exit_code == 0
    before = open_store(store).digest
    assert run("append", store, file).exit_code == 2
    for extra in ([], ["--dry-run"]):
        again = run("append", store, file, "--skip-bad", *extra)
        assert again.exit_code == 0, again.output
        assert "1 skipped" in again.output
    shown = run("append", store, file, "--skip-bad", "--json")
    assert json.loads(shown.stdout)["added"]["sources"] == []
    assert "nothing is new" in run("append", store, file, "--skip-bad").output
    assert open_store(store).digest == before
