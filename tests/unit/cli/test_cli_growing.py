"""`append` and `merge` at the command line: what they print and write, how they end."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

import cellmill as cm
from cellmill.units import size_text

Call = Callable[..., Result]


def told(result: Result) -> str:
    return " ".join((result.stdout + result.stderr).split())


@pytest.fixture
def first(small_inputs: list[Path], tmp_path: Path) -> Path:
    """A store of the first input alone."""
    cm.build(tmp_path / "a.mill", small_inputs[:1])
    return tmp_path / "a.mill"


def test_append_says_what_was_added(call: Call, first: Path, small_inputs: list[Path]) -> None:
    before = cm.open(first)
    result = call("append", first, *small_inputs[1:])
    assert result.exit_code == 0, result.output
    after = cm.open(first)
    assert after.n_cells == 240 > before.n_cells
    added = after.manifest.sources[1:]
    names = ", ".join(source.name for source in added)
    assert f"{sum(source.n_cells for source in added)} cells of {names}" in told(result)
    assert f"cellmill info {first}" in result.stdout


def test_append_json_agrees_with_the_store(call: Call, first: Path, small_inputs: list[Path]) -> None:
    before = cm.open(first)
    result = call("append", first, *small_inputs, "--skip-bad", "--rename", "donor_id=person", "--json")
    assert result.exit_code == 0, result.output
    found, after = json.loads(result.stdout), cm.open(first)
    assert (found["n_cells"], found["digest"]) == (after.n_cells, after.digest)
    assert found["added"] == {
        "n_cells": after.n_cells - before.n_cells,
        "n_genes": after.n_genes - before.n_genes,
        "bytes": after.n_bytes - before.n_bytes,
        "sources": [source.name for source in after.manifest.sources[1:]],
    }
    assert [one["path"] for one in found["skipped"]] == [str(small_inputs[0])]
    assert "person" in after.obs.columns


def test_append_of_what_is_there_is_wrong_use_and_changes_nothing(
    call: Call, first: Path, small_inputs: list[Path]
) -> None:
    digest = cm.open(first).digest
    result = call("append", first, small_inputs[0])
    assert result.exit_code == 2
    assert "already" in told(result) and "--dataset-name" in told(result)
    assert cm.open(first).digest == digest
    assert [path for path in first.parent.iterdir() if path.name.startswith(".")] == []


def test_append_dry_run_writes_nothing(call: Call, first: Path, small_inputs: list[Path]) -> None:
    digest = cm.open(first).digest
    result = call("append", first, *small_inputs[1:], "--dry-run")
    assert result.exit_code == 0, result.output
    assert small_inputs[1].stem in told(result)
    plan = json.loads(call("append", first, *small_inputs[1:], "--dry-run", "--json").stdout)
    assert plan["n_cells"] == 240 - cm.open(first).n_cells
    assert cm.open(first).digest == digest


def test_append_to_nothing_says_how_to_make_a_store(call: Call, tmp_path: Path, small_inputs: list[Path]) -> None:
    result = call("append", tmp_path / "none.mill", small_inputs[0])
    assert result.exit_code == 2
    assert "cellmill build" in told(result)
    assert list(tmp_path.iterdir()) == []


def test_merge_holds_all_cells(call: Call, first: Path, small_inputs: list[Path], tmp_path: Path) -> None:
    cm.build(tmp_path / "b.mill", small_inputs[1:])
    result = call("merge", tmp_path / "m.mill", first, tmp_path / "b.mill")
    assert result.exit_code == 0, result.output
    merged = cm.open(tmp_path / "m.mill")
    assert merged.n_cells == 240
    assert merged.digest in result.stdout
    again = call("merge", tmp_path / "m.mill", first)
    assert again.exit_code == 2
    assert "--overwrite" in told(again)
    found = json.loads(call("merge", tmp_path / "m.mill", first, "--overwrite", "--json").stdout)
    assert found["n_cells"] == cm.open(tmp_path / "m.mill").n_cells == cm.open(first).n_cells


def test_merge_of_stores_that_share_a_dataset_names_both(call: Call, first: Path, tmp_path: Path) -> None:
    shutil.copytree(first, tmp_path / "copy.mill")
    result = call("merge", tmp_path / "m.mill", first, tmp_path / "copy.mill")
    assert result.exit_code == 2
    assert str(first) in told(result) and str(tmp_path / "copy.mill") in told(result)
    assert not (tmp_path / "m.mill").exists()


def test_info_counts_bytes_of_shards_alone(call: Call, first: Path) -> None:
    store = cm.open(first)
    found = json.loads(call("info", first, "--json").stdout)
    shards = sum(path.stat().st_size for path in (first / "shards").iterdir())
    assert store.n_bytes == shards
    assert found["bytes"]["counts"] == shards
    assert found["bytes"]["uids"] == sum(path.stat().st_size for path in (first / "obs").glob("*.uids"))
    assert f"{shards / store.nnz:.2f} bytes per nonzero" in told(call("info", first))


def test_a_store_has_one_size_whoever_tells_it(call: Call, small_inputs: list[Path], tmp_path: Path) -> None:
    path = tmp_path / "a.mill"
    built = call("build", path, *small_inputs)
    unnamed = {path / "reports" / name for name in ("build.json", "duplicates.json")}  # by the manifest
    unnamed |= set((path / "reports").glob("duplicates*"))
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file() and file not in unnamed)
    for verb in ("info", "card", "verify"):
        found = json.loads(call(verb, path, "--json").stdout)
        assert size == found["n_bytes" if verb == "verify" else "bytes_on_disk"]
        assert verb == "verify" or sum(found["bytes"].values()) == size
    said = size_text(size)
    assert f"size {said} (" in told(built)
    assert f"size {said} in 3 shards" in told(call("info", path))
    assert f"({said})" in told(call("verify", path))
    assert f"size {said} " in told(call("merge", tmp_path / "m.mill", path))
    call("card", path, "-o", tmp_path / "c.html")
    page = (tmp_path / "c.html").read_text(encoding="utf-8")
    assert page.count(said) >= 2  # above, and in the table of sizes
