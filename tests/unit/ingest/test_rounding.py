"""Nothing is rounded in silence: only what is asked for, and counted."""

from __future__ import annotations

import json

import numpy as np
import pytest

from cellmill.errors import ConfigError, NotRawCountsError
from cellmill.ingest import append_inputs, build


def nearly(counts, *, distance=2e-4):
    values = counts.astype(np.float64)
    values[3, 5], values[40, 6], values[41, 6] = 7 + distance / 2, 2 - distance, -distance / 4
    return values


@pytest.fixture
def counts():
    return np.random.default_rng(0).poisson(1, (60, 40))


def test_a_value_that_is_almost_whole_is_refused_and_the_option_named(tmp_path, tiny_h5ad, counts):
    file = tiny_h5ad("a", counts=nearly(counts), dtype="float64")
    with pytest.raises(NotRawCountsError, match=r"row 3\).*7\.0001, which is not whole.*--allow-rounding 0\.001"):
        build(tmp_path / "s.mill", [file.path], vocabulary="union")
    with pytest.raises(
        NotRawCountsError, match=r"row 40\).*1\.9998, which is not whole"
    ):  # less is allowed than needed
        build(tmp_path / "s.mill", [file.path], vocabulary="union", allow_rounding=1.5e-4)


def test_no_option_is_named_for_what_is_far_from_whole(tmp_path, tiny_h5ad, counts):
    file = tiny_h5ad("a", counts=counts + 0.25, dtype="float64")
    with pytest.raises(NotRawCountsError) as caught:
        build(tmp_path / "s.mill", [file.path], vocabulary="union", allow_rounding=1e-3)
    assert "--allow-rounding" not in str(caught.value)


def test_what_is_rounded_is_counted_and_reported(tmp_path, tiny_h5ad, counts):
    file = tiny_h5ad("a", counts=nearly(counts), dtype="float64")
    options = {"vocabulary": "union", "allow_rounding": 1e-3, "shard_cells": 20, "block_cells": 10}
    store = build(tmp_path / "s.mill", [file.path], **options)
    expected = np.rint(nearly(counts))
    found = store.read(np.arange(60)).toarray()
    np.testing.assert_array_equal(found[:, np.argsort(store.gene_ids)], expected)
    rounded = json.loads((store.path / "reports/00000.json").read_text())["rounded"]
    assert rounded["allowed_distance"] == 1e-3
    assert rounded["values"] == 3
    assert rounded["largest_distance"] == pytest.approx(2e-4)
    grown = append_inputs(store.path, tiny_h5ad("b", counts=nearly(counts), dtype="float64").path, allow_rounding=1e-3)
    assert json.loads((grown.path / "reports/00001.json").read_text())["rounded"]["values"] == 3


def test_whole_values_are_not_reported_as_rounded(tmp_path, tiny_h5ad, counts):
    path = tiny_h5ad("a", counts=counts).path
    plain = build(tmp_path / "s.mill", [path], vocabulary="union")
    allowed = build(tmp_path / "t.mill", [path], vocabulary="union", allow_rounding=1e-3)
    assert "rounded" not in json.loads((plain.path / "reports/00000.json").read_text())
    assert json.loads((allowed.path / "reports/00000.json").read_text())["rounded"]["values"] == 0
    assert plain.digest == allowed.digest


@pytest.mark.parametrize("distance", [-1e-3, 0.11, 0.5, float("nan")])
def test_distances_that_would_make_counts_of_anything_are_refused(tmp_path, distance):
    with pytest.raises(ConfigError, match=r"--allow-rounding"):
        build(tmp_path / "s.mill", [tmp_path / "never.h5ad"], allow_rounding=distance)
