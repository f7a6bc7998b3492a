"""Memory and the folder for temporary files are the caller's to choose, and change no byte of a store."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from scipy import sparse
from typer.testing import CliRunner

from cellmill.cli import app
from cellmill.errors import ConfigError
from cellmill.events import Event, listening
from cellmill.ingest import BuildOptions, append_inputs, build, plan_build

MIB = 1 << 20


@pytest.fixture
def by_gene(tmp_path: Path, tiny_h5ad: Callable[..., Any]) -> Path:
    """An h5ad stored by gene, of more counts than are sorted in 1 MiB."""
    rng = np.random.default_rng(0)
    counts = rng.negative_binomial(2, 0.3, (300, 300)).astype(np.int64)
    path: Path = tiny_h5ad(counts=counts).path
    columns = sparse.csc_matrix(counts)
    with h5py.File(path, "r+") as file:
        for name in ("data", "indices", "indptr"):
            del file["X"][name]
            file["X"][name] = getattr(columns, name)
        file["X"].attrs["encoding-type"] = "csc_matrix"
    return path


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    folder = tmp_path / "scratch"
    folder.mkdir()
    return folder


def test_a_small_budget_gives_the_same_store_by_files_in_the_scratch_folder(
    by_gene: Path, scratch: Path, tmp_path: Path
) -> None:
    spilled: set[str] = set()

    def look(_: Event) -> None:
        spilled.update(path.name for path in scratch.iterdir())

    with listening(look):
        whole = build(tmp_path / "whole.mill", by_gene, vocabulary="union", scratch=scratch)
        assert not spilled
        small = build(tmp_path / "small.mill", by_gene, vocabulary="union", memory="1 MiB", scratch=scratch)
        assert len(spilled) > 1  # one of the plan, which looks at a few cells, and one of the build
    assert small.digest == whole.digest
    assert list(scratch.iterdir()) == []
    plans = [plan_build([by_gene], vocabulary="union", options=BuildOptions(memory_bytes=n)) for n in (MIB, 2 * MIB)]
    assert plans[0].key == plans[1].key  # so that a killed build goes on with another budget
    with pytest.raises(ConfigError, match=r"--memory.*at least"):
        append_inputs(small.path, by_gene, memory=MIB - 1)


def test_the_plan_states_memory_and_folder(by_gene: Path, scratch: Path, tmp_path: Path) -> None:
    words = ["build", str(tmp_path / "a.mill"), str(by_gene), "--vocabulary", "union", "--dry-run"]
    asked = [*words, "--memory", "1MiB", "--scratch", str(scratch)]
    needs = json.loads(CliRunner().invoke(app, [*asked, "--json"]).stdout)["estimate"]
    assert needs["sorting_bytes"] == MIB and needs["spill_bytes"] > MIB and needs["scratch"] == str(scratch)
    told = " ".join(CliRunner().invoke(app, asked).stdout.split())
    assert f"of temporary files in {scratch}" in told and "1.0 MiB of it in each for sorting by cell" in told
    usual = json.loads(CliRunner().invoke(app, [*words, "--json"]).stdout)["estimate"]
    assert usual["spill_bytes"] == 0 and usual["memory_bytes"] > needs["memory_bytes"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--memory", "much"], "expected a size"),
        (["--memory", "1KiB"], "1.0 MiB at least"),
        (["--scratch", "nowhere"], "no folder; make it first"),
    ],
)
def test_a_size_or_a_folder_that_cannot_be_meant_is_refused(
    by_gene: Path, tmp_path: Path, words: list[str], said: str
) -> None:
    result = CliRunner().invoke(app, ["build", str(tmp_path / "a.mill"), str(by_gene), *words])
    assert result.exit_code == 2
    assert said in " ".join(result.stderr.split())
