"""Filters and rounding from the command line: one line for each input, warnings, and what JSON says."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from typer.testing import Result

import cellmill as cm
from conftest import TinyFile

Call = Callable[..., Result]
FILTERS = ("--min-counts", "12", "--min-genes", "5", "--where", "tissue = 'blood'", "--min-cells-per-gene", "2")


def test_every_filter_has_its_line_for_each_input(
    call: Call, tiny_h5ad: Callable[..., TinyFile], tmp_path: Path
) -> None:
    paths = [tiny_h5ad(name, seed=seed).path for name, seed in (("a", 1), ("b", 2))]
    result = call("build", tmp_path / "s.mill", *paths, "--vocabulary", "union", *FILTERS)
    assert result.exit_code == 0, result.output
    store = cm.open(tmp_path / "s.mill")
    kept = [source.n_cells for source in store.manifest.sources]
    assert min(kept) > 0 and max(kept) < 60
    lines = result.stdout.splitlines()
    for name, n in zip("ab", kept, strict=True):
        at = next(
            i for i, line in enumerate(lines) if line.startswith(f"{name}: 60 cells read, {n} kept, 40 of 40 genes")
        )
        filters = [line.split()[0] for line in lines[at + 1 : at + 5]]
        assert filters == ["min_counts", "min_genes", "where", "min_cells_per_gene"]
        removed = [int(line.split()[-3]) for line in lines[at + 1 : at + 4]]
        assert sum(removed) == 60 - n and removed[0] > 0 and removed[2] > 0


def test_json_tells_what_the_lines_tell(call: Call, tiny_h5ad: Callable[..., TinyFile], tmp_path: Path) -> None:
    first, second = (tiny_h5ad(name, seed=seed).path for name, seed in (("a", 1), ("b", 2)))
    built = json.loads(call("build", tmp_path / "s.mill", first, "--vocabulary", "union", *FILTERS, "--json").stdout)
    (source,) = built["sources_built"]
    assert source["cells_read"] == 60 and source["n_cells"] == built["n_cells"]
    assert [line["filter"] for line in source["filters"]] == ["min_counts", "min_genes", "where", "min_cells_per_gene"]
    grown = json.loads(call("append", tmp_path / "s.mill", second, *FILTERS, "--json").stdout)
    assert [one["name"] for one in grown["sources_built"]] == ["b"]
    assert grown["sources_built"][0]["n_cells"] == grown["added"]["n_cells"] < 60


def test_a_dry_run_says_which_cells_and_warns(call: Call, tiny_h5ad: Callable[..., TinyFile], tmp_path: Path) -> None:
    path = tiny_h5ad("doubled", counts=np.random.default_rng(0).poisson(2, (60, 60)) * 2).path
    call_of = ("build", tmp_path / "s.mill", path, "--vocabulary", "union", "--dry-run", "--min-counts", "9")
    result = call(*call_of, "--max-mito", "0.1")
    assert result.exit_code == 0, result.output
    assert "only cells with at least 9 counts, at most 0.1 of counts mitochondrial" in result.stdout
    assert (
        "warning: in 60 of 60 cells looked at, all counts are multiples of a number above 1 (most often 2)"
        in result.stdout
    )
    assert "warning: no mitochondrial gene was measured" in result.stdout
    planned = json.loads(call(*call_of, "--json").stdout)
    assert planned["filters"] == {"min_counts": 9}
    assert len(planned["sources"][0]["warnings"]) == 2


def test_wrong_filters_end_with_2_and_leave_nothing(
    call: Call, tiny_h5ad: Callable[..., TinyFile], tmp_path: Path
) -> None:
    path = tiny_h5ad("a").path
    for words, said in (
        (("--where", "tisue = 'blood'"), "'tissue'"),
        (("--where", "random() < 0.5"), "random"),
        (("--max-mito", "20"), "0.2"),
        (("--allow-rounding", "0.5"), "0.1"),
        (("--min-counts", "1000000"), "no cell is left"),
    ):
        result = call("build", tmp_path / "s.mill", path, "--vocabulary", "union", *words)
        assert result.exit_code == 2, result.output
        assert said in result.output
        assert [p.name for p in tmp_path.iterdir() if p.name != "a.h5ad" and "building" not in p.name] == []


def test_one_cell_is_told_in_the_singular(call: Call, tiny_h5ad: Callable[..., TinyFile], tmp_path: Path) -> None:
    counts = np.full((3, 5), 4)
    counts[0] = 1
    shown = call(
        "build", tmp_path / "s.mill", tiny_h5ad("a", counts=counts).path, "--vocabulary", "union", *FILTERS[:2]
    )
    assert "  min_counts 12: 1 cell removed" in shown.stdout.splitlines()
