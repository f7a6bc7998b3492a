"""What a mapping file says is what becomes of the authors' columns, cell by cell, and each step of it is counted."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellmill.errors import ConfigError, InputError, NotFoundError
from cellmill.events import listening
from cellmill.ingest import BuildOptions, ObsMap, append_inputs, build, build_part, commit, plan_build
from cellmill.ingest.convert import cell_uids
from cellmill.ingest.obs_mapping import map_table
from cellmill.store.obs import FACT_COLUMNS, STANDARD_COLUMNS

TYPES = ["T", "T", "B cell", "Mono", "T", "?"]


def table_of(**columns):
    return pa.table({"cell": [f"c{i}" for i in range(len(next(iter(columns.values()))))], **columns})


def mapped(table, columns):
    obs_map = ObsMap.of({"sources": [{"match": "*", "columns": columns}]})
    return map_table(table, obs_map.rules_for(Path("a.h5ad")), where="a.h5ad")


def written(tmp_path, text):
    path = tmp_path / "labels.yaml"
    path.write_text(text)
    return path


@pytest.fixture
def cells(tiny_h5ad):
    """Six cells of two files, with labels of their authors."""

    def make(name, **obs):
        rng = np.random.default_rng(len(name))
        obs = obs or {"Celltype": TYPES, "Donor": ["d1"] * 3 + ["d2"] * 3, "age": ["61", "61", "61", "40", "40", "40"]}
        return tiny_h5ad(name, counts=rng.integers(0, 9, (6, 40)), obs=obs).path

    return make


MAP = """
sources:
  - match: "*.h5ad"
    columns:
      assay: {constant: "10x 3' v3", ontology: "EFO:0009922"}
      is_primary_data: {constant: true}
      cell_type:
        from: Celltype
        values: {T: T cell, "?": ~, NK: natural killer cell}
        ontology: {T cell: "CL:0000084", B cell: "CL:0000236"}
      donor_id: Donor
      age: {type: int32}
  - match: [b.h5ad, c.h5ad]
    dataset: "lab2/{name}"
    columns:
      assay: {constant: Smart-seq2}
"""


def test_a_mapping_file_makes_the_columns_that_it_says(tmp_path, cells):
    store = build(
        tmp_path / "s.mill", [cells("a"), cells("b")], vocabulary="union", obs_map=written(tmp_path, MAP)
    )  # fmt: skip
    assert store.obs.columns[len(STANDARD_COLUMNS) + len(FACT_COLUMNS) :] == [
        "cell_type", "cell_type_ontology_term_id", "Celltype", "donor_id", "age", "assay", "assay_ontology_term_id",
        "is_primary_data",
    ]  # fmt: skip
    table = store.obs.to_arrow().to_pydict()
    once = ["T cell", "T cell", "B cell", "Mono", "T cell", None]
    assert table["cell_type"] == once * 2
    assert table["Celltype"] == TYPES * 2  # what the author said stays
    term = {"T cell": "CL:0000084", "B cell": "CL:0000236"}
    assert table["cell_type_ontology_term_id"] == [term.get(label) for label in once] * 2
    assert table["assay"] == ["10x 3' v3"] * 6 + ["Smart-seq2"] * 6
    assert table["assay_ontology_term_id"] == ["EFO:0009922"] * 6 + [None] * 6
    assert table["is_primary_data"] == [True] * 12
    assert table["donor_id"] == (["d1"] * 3 + ["d2"] * 3) * 2
    assert table["age"] == [61, 61, 61, 40, 40, 40] * 2
    kinds = store.obs.schema
    assert (kinds["age"], kinds["assay"], kinds["cell_type"]) == ("int32", "category", "category")
    assert [s.name for s in store.manifest.sources] == ["a", "lab2/b"]
    names = [f"cell{i}" for i in range(6)]
    np.testing.assert_array_equal(store.uids()[6:], cell_uids("lab2/b", names, [0] * 6))
    assert store.verify().ok


def test_the_report_counts_each_step(tmp_path, cells):
    store = build(tmp_path / "s.mill", cells("a"), vocabulary="union", obs_map=written(tmp_path, MAP))
    report = json.loads((store.path / "reports" / "00000.json").read_text())
    records = {record["column"]: record for record in report["obs_mapping"]}
    assert records["cell_type"] == {
        "column": "cell_type", "file_column": "Celltype", "type": "category", "type_in_file": "string", "n_cells": 5,
        "values": [{"from": "T", "to": "T cell", "cells": 3}, {"from": "?", "to": None, "cells": 1}],
        "others": [{"value": "B cell", "cells": 1}, {"value": "Mono", "cells": 1}], "others_become": "keep",
        "unused": ["NK"], "kept_as": "Celltype", "ontology": "cell_type_ontology_term_id",
        "without_term": [{"value": "Mono", "cells": 1}],
    }  # fmt: skip
    assert records["assay"]["constant"] == "10x 3' v3" and records["assay"]["n_cells"] == 6
    assert (records["age"]["type_in_file"], records["age"]["type"]) == ("string", "int32")
    assert {"file": "Donor", "store": "donor_id", "type": "string"} in report["obs"]
    assert {"file": 'constant "10x 3\' v3"', "store": "assay", "type": "category"} in report["obs"]


def test_a_plan_tells_what_the_mapping_does(tmp_path, cells):
    plan = plan_build([cells("a")], vocabulary="union", options=BuildOptions(obs_map=ObsMap.of(written(tmp_path, MAP))))
    text = str(plan)
    for said in (
        "cell_type <- Celltype: category, 5 cells",
        "mapped 'T' -> 'T cell' (3), '?' -> None (1)",
        "kept as they are: 'B cell' (1), 'Mono' (1)",
        "in no cell: 'NK'",
        'assay <- constant "10x 3\' v3"',
        "without a term: 'Mono' (1)",
    ):
        assert said in text
    assert plan.to_dict()["sources"][0]["obs_mapping"][0]["column"] == "assay"


def test_another_mapping_is_another_build(tmp_path, cells):
    path = cells("a")
    keys = {
        plan_build([path], vocabulary="union", options=BuildOptions(obs_map=given)).key
        for given in (None, ObsMap.of(written(tmp_path, MAP)), ObsMap.of(written(tmp_path, MAP.replace("NK", "Nk"))))
    }
    assert len(keys) == 3


def test_a_column_that_is_not_there_is_named_with_the_nearest(tmp_path, cells):
    path = cells("a")
    text = "sources: [{match: '*', columns: {cell_type: Celtype}}]"
    with pytest.raises(ConfigError, match=r"a\.h5ad: .*'cell_type' of the obs column 'Celtype'.*mean 'Celltype'"):
        build(tmp_path / "s.mill", path, vocabulary="union", obs_map=written(tmp_path, text))
    assert not (tmp_path / "s.mill").exists()
    text = "sources: [{match: '*', columns: {cell_type: {from: Celtype, optional: true}}}]"
    store = build(tmp_path / "s.mill", path, vocabulary="union", obs_map=written(tmp_path, text))
    assert "cell_type" not in store.obs.columns


def test_a_file_that_the_mapping_does_not_fit_is_skipped_on_request(tmp_path, cells):
    text = "sources: [{match: '*', columns: {cell_type: Celltype}}]"
    paths = [cells("a"), cells("b", other=["x"] * 6)]
    store = build(
        tmp_path / "s.mill", paths, vocabulary="union", obs_map=written(tmp_path, text), skip_bad=True
    )  # fmt: skip
    assert [s.name for s in store.manifest.sources] == ["a"]
    (skipped,) = json.loads((store.path / "reports/build.json").read_text())["skipped"]
    assert "'Celltype', which the file does not have" in skipped["reason"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("sources: [{match: '*', colums: {}}]", "there is no key 'colums'. Did you mean 'columns'?"),
        ("sources: [{match: '*', columns: {a: {form: b}}}]", "there is no key 'form'. Did you mean 'from'?"),
        ("source: []", "there is no key 'source'. Did you mean 'sources'?"),
        ("sources: [{columns: {}}]", "sources.0.match: missing"),
        ("sources: [{match: '*', columns: {a: {type: integer}}}]", "sources.0.columns.a.type"),
        ("sources: [{match: '*', columns: {a: {type: int}}}]", "Did you mean 'int"),
        ("sources: [{match: '*', columns: {a: {from: b, constant: c}}}]", "exclude each other"),
        ("sources: [{match: '*', columns: {a: {constant: c, values: {x: y}}}}]", "say the new value itself"),
        ("sources: [{match: '*', columns: {a: {others: error}}}]", "there is no `values`"),
        ("sources: [{match: '*', columns: {uid: b}}]", "'uid' is made by cellmill itself"),
        ("sources: [{match: '*', columns: {Age: b, age: c}}]", "are one column"),
        ("sources: [{match: '*', columns: {a: {ontology: T cell}}}]", "looks like CL:0000084, found 'T cell'"),
        ("sources: [{match: '*', columns: {a: b, a: c}}]", "line 1: .*'a' stands here a second time"),
        ("sources: [{match: '*'", "line 1: this is not valid YAML"),
        ("- a", "expected a mapping with the key `sources`, found list"),
        ("sources: [{match: 'x*.h5ad', columns: {a: b}}]", r"none of its patterns \(x\*\.h5ad\) fits an input"),
    ],
)
def test_a_mapping_that_cannot_be_meant_is_refused(tmp_path, cells, text, said):
    with pytest.raises(ConfigError, match=said):
        build(tmp_path / "s.mill", cells("a"), vocabulary="union", obs_map=written(tmp_path, text))


def test_a_mapping_file_that_is_not_there(tmp_path, cells):
    with pytest.raises(NotFoundError, match="mapping file"):
        build(tmp_path / "s.mill", cells("a"), obs_map=tmp_path / "none.yaml")


def test_a_pattern_that_fits_nothing_is_said(tmp_path, cells):
    text = "sources: [{match: '*', columns: {x: Donor}}, {match: 'zz*', columns: {y: Donor}}]"
    seen = []
    with listening(lambda event: seen.append(event.message)):
        build(tmp_path / "s.mill", cells("a"), vocabulary="union", obs_map=written(tmp_path, text))
    assert "the mapping for zz* fits no input" in seen


def test_patterns_are_compared_from_the_end_of_the_path(tmp_path):
    rules = ObsMap.of({"sources": [{"match": "lab/*.h5ad", "columns": {"x": "y"}}]})
    assert rules.rules_for(tmp_path / "lab" / "a.h5ad") and not rules.rules_for(tmp_path / "other" / "a.h5ad")


def test_keys_of_a_table_are_texts_as_written(tmp_path):
    text = "sources: [{match: '*', columns: {sex: {values: {1: male, 2.0: female, no: ~, true: x}}}}]"
    rules = ObsMap.of(written(tmp_path, text)).rules_for(tmp_path)
    assert rules["sex"].values == {"1": "male", "2.0": "female", "no": None, "true": "x"}


def test_numbers_are_looked_up_as_arrow_writes_them():
    found = mapped(table_of(sex=[1.0, 2.0, np.nan]), {"sex": {"values": {"1": "male", "2": "female"}}})
    assert found.table.column("sex").to_pylist() == ["male", "female", None]
    assert found.table.column("author_sex").to_pylist()[:2] == [1.0, 2.0]
    assert found.records[0].kept_as == "author_sex"


def test_values_may_become_numbers_or_truth_values():
    found = mapped(
        table_of(a=["y", "n", "y"], b=["1 h", "2.5 h", "x"]),
        {
            "a": {"values": {"y": True, "n": False}},
            "hours": {"from": "b", "values": {"1 h": 1, "2.5 h": 2.5, "x": None}},
        },
    )
    assert found.table.column("a").to_pylist() == [True, False, True]
    assert found.table.column("hours").to_pylist() == [1.0, 2.5, None]
    with pytest.raises(InputError, match=r"a\.h5ad, obs column 'a'.*several types \(bool True, str 'n'"):
        mapped(table_of(a=["y", "n"]), {"a": {"values": {"y": True}}})


def test_others_can_be_refused_or_made_null():
    table = table_of(a=["x", "y", "z", "y"])
    null = mapped(table, {"b": {"from": "a", "values": {"x": "X"}, "others": None}})
    assert null.table.column("b").to_pylist() == ["X", None, None, None]
    assert null.records[0].others == [("y", 2), ("z", 1)]
    with pytest.raises(InputError, match=r"2 values are not in its table.*'y' \(2 cells\), 'z' \(1 cells\)"):
        mapped(table, {"b": {"from": "a", "values": {"x": "X"}, "others": "error"}})


def test_a_value_that_is_not_of_the_type_is_named():
    with pytest.raises(InputError, match=r"a\.h5ad, obs column 'age': '40-49' is no int32.*`values`"):
        mapped(table_of(age=["31", "40-49"]), {"age": {"type": "int32"}})
    with pytest.raises(InputError, match=r"2\.5 is no int64"):
        mapped(table_of(age=[2.0, 2.5]), {"age": {"type": "int64"}})
    assert mapped(table_of(age=[2.0, np.nan]), {"age": {"type": "int64"}}).table.column("age").to_pylist() == [2, None]


@pytest.mark.parametrize(
    "columns",
    [
        {"cell_type": {"from": "Celltype"}},  # and the file has a cell_type
        {"cell_type": {"constant": "T cell"}},
        {"x": {"from": "Celltype", "ontology": "CL:0000084"}},  # and has x_ontology_term_id
        {"CELL_TYPE": {"from": "Celltype"}},
    ],
)
def test_no_column_of_the_file_is_lost_to_one_that_is_made(columns):
    table = table_of(Celltype=["a"], cell_type=["b"], x_ontology_term_id=["c"])
    with pytest.raises(ConfigError, match=r"has one called '(cell_type|x_ontology_term_id)' already"):
        mapped(table, columns)
    freed = mapped(table, {"cell_type": {"from": "Celltype"}, "original_cell_type": "cell_type"})
    assert freed.table.to_pydict() == {
        "cell": ["c0"], "cell_type": ["a"], "original_cell_type": ["b"], "x_ontology_term_id": ["c"],
    }  # fmt: skip


def test_the_name_for_what_the_author_said_may_be_taken():
    with pytest.raises(ConfigError, match="already"):
        mapped(table_of(sex=["m"], author_sex=["?"]), {"sex": {"values": {"m": "male"}}})


def test_a_column_near_the_common_schema_is_pointed_at():
    (record,) = mapped(table_of(a=["x"]), {"celltype": "a"}).records
    assert "'celltype' is no column of the common schema. Did you mean 'cell_type'?" in str(record)


LABEL = st.sampled_from(["a", "b", "c", "", "1"])


@settings(max_examples=80, deadline=None)
@given(
    values=st.lists(st.one_of(st.none(), LABEL), min_size=1, max_size=30),
    by=st.dictionaries(LABEL, st.one_of(st.none(), LABEL), max_size=4),
    others=st.sampled_from(["keep", "null"]),
    terms=st.dictionaries(LABEL, st.sampled_from(["CL:1", "CL:2"]), max_size=3),
    categories=st.booleans(),
)
def test_values_and_terms_are_those_of_plain_dictionaries(values, by, others, terms, categories):
    column = pa.array(values, pa.string())
    table = table_of(x=column.dictionary_encode() if categories else column)
    found = mapped(table, {"y": {"from": "x", "values": by, "others": others, "ontology": terms}})
    expected = [None if v is None else by.get(v, v if others == "keep" else None) for v in values]
    assert found.table.column("y").to_pylist() == expected
    assert found.table.column("y_ontology_term_id").to_pylist() == [terms.get(v) for v in expected]
    assert found.table.column("x").to_pylist() == values
    (record,) = found.records
    assert record.n_cells == sum(v is not None for v in expected)
    assert sum(n for *_, n in record.values) == sum(v in by for v in values if v is not None)
    assert sum(n for _, n in record.others) == sum(v not in by for v in values if v is not None)


# ---- names of datasets -----------------------------------------------------------------------------------------


def test_a_name_for_the_dataset_makes_other_uids(tmp_path, cells):
    path = cells("a")
    plain = build(tmp_path / "plain.mill", path, vocabulary="union")
    named = build(tmp_path / "named.mill", path, vocabulary="union", dataset_name="GSE132044/{name}")
    assert [s.name for s in named.manifest.sources] == ["GSE132044/a"]
    assert set(named.column("dataset").to_pylist()) == {"GSE132044/a"}
    assert not set(plain.uids().tolist()) & set(named.uids().tolist())
    grown = append_inputs(named.path, path, dataset_name="b")
    assert [s.name for s in grown.manifest.sources] == ["GSE132044/a", "b"]
    assert grown.duplicates.uid_repeats == 0


def test_two_inputs_cannot_be_one_dataset(tmp_path, cells):
    with pytest.raises(InputError, match=r"2 inputs would all be the dataset 'x'.*\{name\}"):
        build(tmp_path / "s.mill", [cells("a"), cells("b")], vocabulary="union", dataset_name="x")
    with pytest.raises(ConfigError, match="dataset_name"):
        build(tmp_path / "s.mill", cells("a"), vocabulary="union", dataset_name=" ")


def test_categoricals_of_the_file_stay_dictionaries(tmp_path, cells):
    path = cells("a")
    with h5py.File(path, "r+") as file:
        del file["obs/Donor"]
        group = file.create_group("obs/Donor")
        group.attrs.update({"encoding-type": "categorical", "encoding-version": "0.2.0", "ordered": False})
        group["codes"] = np.array([0, 1, -1, 0, 0, 1], np.int8)
        group.create_dataset("categories", data=["d1", "d2"], dtype=h5py.string_dtype())
        for name, kind in (("codes", "array"), ("categories", "string-array")):
            group[name].attrs.update({"encoding-type": kind, "encoding-version": "0.2.0"})
    obs_map = {"sources": [{"match": "*", "columns": {"donor_id": "Donor"}}]}
    store = build(tmp_path / "s.mill", path, vocabulary="union", obs_map=obs_map)
    assert store.obs.schema["donor_id"] == "category"
    assert store.column("donor_id").to_pylist() == ["d1", "d2", None, "d1", "d1", "d2"]


def test_parts_of_an_array_map_as_one_build_does(tmp_path, cells):
    paths, labels = [cells("a"), cells("b")], written(tmp_path, MAP)
    whole = build(tmp_path / "whole.mill", paths, vocabulary="union", obs_map=labels, dataset_name="x/{name}")
    for i in (1, 2):
        build_part(
            tmp_path / "s.mill", paths, part=(i, 2), vocabulary="union", obs_map=labels, dataset_name="x/{name}"
        )  # fmt: skip
    store = commit(tmp_path / "s.mill")
    assert store.digest == whole.digest and store.duplicates == whole.duplicates
    assert [s.name for s in store.manifest.sources] == ["x/a", "lab2/b"]


def test_processes_map_as_one_does(tmp_path, cells):
    paths, labels = [cells("a"), cells("b")], written(tmp_path, MAP)
    whole = build(tmp_path / "whole.mill", paths, vocabulary="union", obs_map=labels)
    assert build(tmp_path / "s.mill", paths, vocabulary="union", obs_map=labels, workers=2).digest == whole.digest
