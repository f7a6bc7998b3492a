"""Obs reads alike by Arrow and by SQL, whatever the files hold and wherever they lie."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cellmill.errors import CorruptStoreError, InputError, QueryError
from cellmill.store import ObsTable
from cellmill.store.manifest import FileEntry, ShardEntry
from cellmill.store.obs import STANDARD_COLUMNS, arrow_type, cast_obs, type_name, unify_types, write_obs
from cellmill.store.writer import file_entry


def obs_of(folder, *files):
    """An ObsTable of one file per dict of columns, in the types that the files have; the schema unites them."""
    (folder / "obs").mkdir(parents=True, exist_ok=True)
    schema, shards = dict(STANDARD_COLUMNS), []
    for number, columns in enumerate(files):
        own = {name: pa.array(values) for name, values in columns.items()}
        n = len(next(iter(own.values())))
        standard = {
            name: pa.array([str(i) if kind in ("string", "category") else i for i in range(n)]).cast(arrow_type(kind))
            for name, kind in STANDARD_COLUMNS.items()
        }
        path = f"obs/{number:05d}.parquet"
        write_obs(pa.table(standard | own), folder / path)
        shards.append(ShardEntry(FileEntry("", 0, ""), file_entry(folder, path), FileEntry("", 0, ""), n, 0, "x"))
        for name, values in own.items():
            kind = type_name(values.type)
            schema[name] = unify_types(schema[name], kind) if name in schema else kind
    return ObsTable(folder, shards, list(schema.items()), unchanged=SimpleNamespace(during=nullcontext))


def by_sql(obs, name):
    return obs.query(f'SELECT "{name}" AS x FROM obs ORDER BY row').column("x").to_pylist()


def by_arrow(obs, name):
    return obs.to_arrow([name]).column(0).to_pylist()


def test_a_folder_named_like_a_partition_changes_no_column(tmp_path):
    obs = obs_of(tmp_path / "tissue=blood" / "n=7", {"tissue": ["gut", "skin"], "n": [1, 2]})
    assert by_sql(obs, "tissue") == by_arrow(obs, "tissue") == ["gut", "skin"]
    assert by_sql(obs, "n") == [1, 2]


@pytest.mark.parametrize("name", ["filename", "file_row_number", "File_Row_Number", "base", "s", "__cellmill_file"])
def test_columns_called_as_duckdb_calls_its_own_are_columns(tmp_path, name):
    obs = obs_of(tmp_path, {name: ["a", "b"]}, {name: ["c"], "other": [1]})
    assert by_sql(obs, name) == by_arrow(obs, name) == ["a", "b", "c"]
    assert obs.query(f"SELECT row FROM obs WHERE {name} = 'c'").column("row").to_pylist() == [2]


def test_nan_is_null_for_every_reader(tmp_path):
    obs = obs_of(tmp_path, {"age": [np.nan, 50.0, 3.0], "f": pa.array([1, 2, np.nan], pa.float32())})
    assert obs.query("SELECT row FROM obs WHERE age > 18").column("row").to_pylist() == [1]
    assert obs.query("SELECT row FROM obs WHERE age IS NULL").column("row").to_pylist() == [0]
    assert by_sql(obs, "age") == by_arrow(obs, "age") == [None, 50.0, 3.0]
    assert by_sql(obs, "f") == by_arrow(obs, "f") == [1.0, 2.0, None]


def test_whole_and_real_numbers_are_real_numbers(tmp_path):
    assert unify_types("int64", "float64") == unify_types("float32", "int64") == "float64"
    obs = obs_of(tmp_path, {"n": [1, 2**53 + 1]}, {"n": [0.5]})
    assert by_sql(obs, "n") == by_arrow(obs, "n") == [1.0, 2.0**53, 0.5]


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (["p", None], [True, False], ["p", None, "true", "false"]),
        (["p"], [1.0, 1e20, 0.1, np.nan], ["p", "1", "1e+20", "0.1", None]),
        ([True, None], [3], ["true", None, "3"]),
        ([1.5, 2.0], [True], ["1.5", "2", "true"]),
        (pa.array([2**64 - 1], pa.uint64()), [0.5], ["18446744073709551615", "0.5"]),
        (pa.array(["p", "q"]).dictionary_encode(), [7], ["p", "q", "7"]),
        (pa.nulls(2), [True], [None, None, True]),
        (pa.nulls(1), pa.array([2**64 - 1], pa.uint64()), [None, 2**64 - 1]),
        (pa.array([2**24 + 1], pa.int32()), pa.array([0.5], pa.float32()), [2.0**24 + 1, 0.5]),
    ],
)
def test_columns_of_two_types_read_alike_by_both_readers(tmp_path, first, second, expected):
    obs = obs_of(tmp_path, {"x": first}, {"x": second})
    assert by_arrow(obs, "x") == by_sql(obs, "x") == expected


def test_a_column_that_no_file_has_is_null(tmp_path):
    obs, none = obs_of(tmp_path, {"a": [1]}), FileEntry("", 0, "")
    obs = ObsTable(
        tmp_path,
        [ShardEntry(none, file_entry(tmp_path, "obs/00000.parquet"), none, 1, 0, "x")],
        [*obs.schema.items(), ("gone", "float64")],
        unchanged=SimpleNamespace(during=nullcontext),
    )
    assert by_sql(obs, "gone") == by_arrow(obs, "gone") == [None]


def test_a_query_sees_one_table(tmp_path):
    obs = obs_of(tmp_path, {"a": [1]})
    for name in ("shards", "s", "p", "shards_arrow", "schema", "columns", "paths"):
        with pytest.raises(QueryError):
            obs.query(f"SELECT * FROM {name}")
    assert obs.query("SELECT table_name FROM information_schema.tables").column(0).to_pylist() == ["obs"]


@pytest.mark.parametrize("rows", [[1.9, 2.2], [[0, 1]], ["1"], [True, False]])
def test_rows_that_name_no_cells_are_refused(tmp_path, rows):
    obs = obs_of(tmp_path, {"a": [1, 2, 3]})
    with pytest.raises(InputError):
        obs.to_pandas(rows=rows)


@pytest.mark.parametrize("rows", [[-1], [3], [2**63]])
def test_rows_outside_are_an_index_error(tmp_path, rows):
    with pytest.raises(IndexError, match=r"outside 0\.\.2"):
        obs_of(tmp_path, {"a": [1, 2, 3]}).to_arrow(rows=rows)


def test_a_mask_is_the_rows_that_it_marks(tmp_path):
    obs = obs_of(tmp_path, {"a": [1, 2]}, {"a": [3]})
    assert obs.to_arrow(["a"], rows=np.array([False, True, True])).column(0).to_pylist() == [2, 3]


@pytest.mark.parametrize("damage", ["junk", "cut", "short", "other columns", "missing"])
def test_a_damaged_file_is_named_by_every_reader(tmp_path, damage):
    obs = obs_of(tmp_path, {"a": list(range(20))})
    path = tmp_path / "obs" / "00000.parquet"
    if damage == "junk":
        path.write_bytes(b"junk" * 100)
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:-9])
    elif damage == "short":
        pq.write_table(pq.read_table(path).slice(0, 10), path)
    elif damage == "other columns":
        pq.write_table(pa.table({"x": [1] * 20}), path)
    else:
        path.unlink()
    for read in (obs.to_arrow, lambda: obs.to_arrow(["a"], rows=[3]), lambda: obs.query("SELECT a FROM obs")):
        with pytest.raises(CorruptStoreError, match=r"00000\.parquet"):
            read()


def test_a_flipped_bit_is_never_a_raw_error_nor_the_querys_fault(tmp_path):
    path = tmp_path / "obs" / "00000.parquet"
    obs_of(tmp_path, {"a": [f"value {i % 7}" for i in range(300)]})
    good, found = path.read_bytes(), 0
    for at in range(4, len(good), 41):
        damaged = bytearray(good)
        damaged[at] ^= 0x11
        path.write_bytes(good)
        obs = obs_of(tmp_path, {"a": [f"value {i % 7}" for i in range(300)]})
        path.write_bytes(bytes(damaged))
        for read in (obs.to_arrow, lambda obs=obs: obs.query("SELECT * FROM obs")):
            try:
                read()
            except CorruptStoreError:
                found += 1
    assert found > 10


def test_a_query_that_fails_over_sound_files_is_the_querys_fault(tmp_path):
    with pytest.raises(QueryError, match="Conversion Error"):
        obs_of(tmp_path, {"a": ["x"]}).query("SELECT CAST(a AS INTEGER) FROM obs")


def test_cast_obs_makes_nan_null_also_on_the_way_to_text():
    table = cast_obs(pa.table({"x": [np.nan, 2.0]}), [("x", "category")])
    assert table.column("x").to_pylist() == [None, "2"]


@pytest.mark.parametrize("sql", ["SELECT tissu FROM obs", "SELECT no_such_function(1)", "SELECT tissue! FROM obs"])
def test_what_duckdb_says_ends_with_one_full_stop(tmp_path, sql):
    with pytest.raises(QueryError) as caught:
        obs_of(tmp_path, {"tissue": ["blood"]}).query(sql)
    assert ". " in str(caught.value) and "!." not in str(caught.value) and ".." not in str(caught.value)
