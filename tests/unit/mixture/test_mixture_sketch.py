"""Geometric sketches: rare cells are kept, and the choice depends on cells and seed alone."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cellmill.errors import ConfigError, NotFoundError
from cellmill.mixture import Component, Mixture, write_coordinates

pytest.importorskip("geosketch", reason="the extra sketch is not installed")


@pytest.fixture
def coordinates(atlas, tmp_path):
    """290 cells in one spot, 10 spread over a plane."""
    rng = np.random.default_rng(1)
    points = np.concatenate([rng.normal(0, 0.01, (290, 4)), rng.uniform(-9, 9, (10, 4))]).astype(np.float32)
    write_coordinates(tmp_path / "pcs.parquet", atlas.uids(), points)
    return tmp_path / "pcs.parquet"


def rows_of(atlas, coordinates, n=20, **more):
    plan = Mixture([Component("all", atlas, choose=n, sketch=coordinates)], **more).plan()
    return plan.parts[0].cells.rows(0)


def test_a_sketch_keeps_what_is_rare(atlas, coordinates):
    rows = rows_of(atlas, coordinates)
    assert len(rows) == 20
    assert (rows >= 290).sum() >= 8  # a random choice holds less than one
    assert np.array_equal(rows, rows_of(atlas, coordinates))
    assert not np.array_equal(rows, rows_of(atlas, coordinates, seed=5))


def test_the_global_generator_is_as_before(atlas, coordinates):
    np.random.seed(3)  # noqa: NPY002
    expected = np.random.random(3)  # noqa: NPY002
    np.random.seed(3)  # noqa: NPY002
    rows_of(atlas, coordinates)
    assert np.array_equal(np.random.random(3), expected)  # noqa: NPY002


def test_rows_of_the_file_may_lie_in_any_order(atlas, coordinates, tmp_path):
    table = pq.read_table(coordinates)
    pq.write_table(table.take(pa.array(np.random.default_rng(0).permutation(300))), tmp_path / "other.parquet")
    assert np.array_equal(rows_of(atlas, coordinates), rows_of(atlas, tmp_path / "other.parquet"))


def test_what_is_no_file_of_coordinates_is_refused(atlas, coordinates, tmp_path):
    with pytest.raises(NotFoundError, match="cellmill pca STORE"):
        rows_of(atlas, tmp_path / "none.parquet")
    table = pq.read_table(coordinates)
    pq.write_table(table.slice(0, 299), tmp_path / "few.parquet")
    with pytest.raises(ConfigError, match="1 of the 300 cells have no coordinates"):
        rows_of(atlas, tmp_path / "few.parquet")
    pq.write_table(table.rename_columns(["id", *table.column_names[1:]]), tmp_path / "named.parquet")
    with pytest.raises(ConfigError, match="a column uid"):
        rows_of(atlas, tmp_path / "named.parquet")
    (tmp_path / "text.parquet").write_text("no")
    with pytest.raises(ConfigError, match="cannot be read as Parquet"):
        rows_of(atlas, tmp_path / "text.parquet")
    with pytest.raises(ConfigError, match="goes with `choose`"):
        Component("all", atlas, sketch=coordinates)
