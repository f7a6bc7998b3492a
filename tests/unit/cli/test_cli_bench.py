"""`cellmill bench` on a small store: a table for people, JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from typer.testing import Result

import cellmill as cm

Call = Callable[..., Result]
QUICK = ("--seconds", "0.01", "--repeats", "1", "--threads", "1")


def test_bench_shows_rates_and_where_the_time_goes(call: Call, small_store: Path) -> None:
    result = call("bench", small_store, *QUICK)
    assert result.exit_code == 0, result.output
    told = " ".join(result.stdout.split())
    for words in (
        "bytes per count",
        "gene-wise entropy",
        "cells per second",
        "panel dense",
        "kernel",
        "around it",
    ):
        assert words in told
    assert "measuring" in result.stderr


def test_bench_json_holds_the_numbers(call: Call, small_store: Path) -> None:
    result = call("bench", small_store, *QUICK, "--no-cold", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    store = cm.open(small_store)
    assert found["nnz"] == store.nnz
    assert found["bytes_per_nonzero"] == store.n_bytes / store.nnz
    assert {rate["workload"]["batch_cells"] for rate in found["rates"]} == {64, 512}
    assert all(rate["median"] > 0 for rate in found["rates"])
    assert found["cold"] is None


def test_bench_of_nothing_says_what_to_do(call: Call, tmp_path: Path) -> None:
    result = call("bench", tmp_path / "none.mill")
    assert result.exit_code == 2
    assert "cellmill build" in " ".join(result.stderr.split())
