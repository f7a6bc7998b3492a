"""`cellmill duplicates`: the table on the screen and as JSON is that of the API, also of several stores."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

import cellmill as cm


@pytest.fixture
def store(tmp_path: Path, tiny_h5ad) -> Path:
    """Two sources of 8 cells, of which 3 are in both, one of these twice in the second."""
    rng = np.random.default_rng(0)
    counts = rng.integers(1, 9, (13, 40))
    first = tiny_h5ad("first", counts=counts[:8])
    second = tiny_h5ad("second", counts=counts[[0, 1, 2, 2, 9, 10, 11, 12]])
    cm.build(tmp_path / "s.mill", [first.path, second.path], vocabulary="union")
    return tmp_path / "s.mill"


def test_the_table_says_which_source_repeats_which(call, store):
    found = json.loads(call("duplicates", store, "--json").stdout)
    assert found == cm.open(store).duplicates.to_dict()
    assert (found["n_duplicates"], found["n_groups"], found["by_source"]) == (4, 3, {"second": 4})
    assert {(one["source"], one["other"]): one["n_cells"] for one in found["table"]} == {
        ("first", "second"): 3, ("second", "first"): 4, ("second", "second"): 2,
    }  # fmt: skip
    shown = call("duplicates", store).stdout
    assert "4 cells equal an earlier one (3 sets" in shown and "dedupe: true" in shown


def test_another_limit_is_looked_for_anew_and_kept_where_asked(call, store):
    few = json.loads(call("duplicates", store, "--min-counts", 10_000, "--json").stdout)
    assert few["n_duplicates"] == 0 and few["few"]["repeats"] == 4
    assert cm.open(store).duplicates.min_counts == 50
    assert call("duplicates", store, "--min-counts", 10_000, "--mark").exit_code == 0
    assert cm.open(store).duplicates.min_counts == 10_000 and not len(cm.open(store).select("n_copies > 1"))


def test_two_stores_are_looked_at_together(call, store, tmp_path):
    shutil.copytree(store, tmp_path / "copy.mill")
    found = json.loads(call("duplicates", store, tmp_path / "copy.mill", "--json").stdout)
    assert found["n_cells"] == 32 and found["by_source"] == {"s:second": 4, "copy:first": 8, "copy:second": 8}
    assert found["uid_repeats"] == 16


def test_many_sources_are_shown_as_pairs(call, tmp_path, tiny_h5ad):
    counts = np.random.default_rng(1).integers(1, 9, (4, 40))
    paths = [tiny_h5ad(f"f{i}", counts=counts).path for i in range(9)]
    cm.build(tmp_path / "s.mill", paths, vocabulary="union")
    shown = call("duplicates", tmp_path / "s.mill").stdout
    assert "source" in shown and "other" in shown and "and 32 pairs more" in shown  # of 9 x 8, which has no own ones


def test_what_was_written_says_how_many_cells_are_in_it_twice(call, tmp_path, tiny_h5ad):
    """In the box itself, not by progress alone: `--quiet` and `merge` say it as well."""
    counts = np.random.default_rng(0).integers(1, 9, (8, 40))
    files = [tiny_h5ad(name, counts=counts).path for name in ("first", "second", "third")]
    one, two, both = (tmp_path / name for name in ("one.mill", "two.mill", "both.mill"))

    built = call("--quiet", "build", one, files[0], "--vocabulary", "union").stdout
    assert re.search(r"duplicates +none", built)
    grown = call("--quiet", "append", one, files[1]).stdout
    assert f"8 cells equal an earlier one; cellmill duplicates {one}" in grown
    unsearched = call("build", two, files[2], "--vocabulary", "union", "--no-duplicates").stdout
    assert f"not looked for; cellmill duplicates {two} does" in unsearched
    assert "16 cells equal an earlier one" in call("merge", both, one, two).stdout
    assert json.loads(call("merge", both, one, two, "--overwrite", "--json").stdout)["n_duplicates"] == 16
