"""Columns of one name are one column where no value changes; where one would, somebody is asked."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from cellmill.errors import InputError
from cellmill.ingest import append_inputs, build
from cellmill.store import merge_stores, open_store


@pytest.fixture
def make(tiny_h5ad):
    """A file of six cells with a column "x" of these values, numbers and truth values as they are."""

    def make_file(name, values, column="x"):
        rng = np.random.default_rng(len(name))
        path = tiny_h5ad(name, counts=rng.integers(0, 9, (6, 40)), obs={"donor_id": ["d"] * 6}).path
        values = np.array(values)
        with h5py.File(path, "r+") as file:
            if values.dtype.kind == "U":
                data = file["obs"].create_dataset(column, data=list(values), dtype=h5py.string_dtype())
            else:
                data = file["obs"].create_dataset(column, data=values)
            text = "string-array" if values.dtype.kind == "U" else "array"
            data.attrs.update({"encoding-type": text, "encoding-version": "0.2.0"})
            file["obs"].attrs.create("column-order", ["donor_id", column], dtype=h5py.string_dtype())
        return path

    return make_file


TEXT = ["31", "45", "40-49", "31", "31", "31"]
WHOLE = np.array([31, 45, 60, 31, 31, 31], np.int32)
REAL = np.array([0.5, 1, 2, 3, 4, 5], np.float32)
TRUTH = np.array([True, False] * 3)
LARGE = np.array([2**53 + 1, 1, 2, 3, 4, 5], np.int64)
UNSIGNED = np.array([2**64 - 1, 1, 2, 3, 4, 5], np.uint64)

CLASHES = [(TEXT, WHOLE), (TEXT, REAL), (TEXT, TRUTH), (TRUTH, WHOLE), (TRUTH, REAL), (LARGE, REAL), (UNSIGNED, WHOLE)]


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(("first", "second"), CLASHES)
def test_a_clash_is_an_error_in_build_append_and_merge(tmp_path, make, first, second, turned):
    a, b = make("a", second if turned else first), make("b", first if turned else second)
    said = r"obs column 'x' is of two types(.|\n)*{}.*for example(.|\n)*{}.*for example(.|\n)*--obs-map"
    with pytest.raises(InputError, match=said.format("[ab].h5ad", "[ab].h5ad")):
        build(tmp_path / "s.mill", [a, b], vocabulary="union")
    stores = [build(tmp_path / f"{p.stem}.mill", p, vocabulary="union") for p in (a, b)]
    with pytest.raises(
        InputError, match=said.format(r"(the store .*a\.mill|b\.h5ad)", r"(the store .*a\.mill|b\.h5ad)")
    ):
        append_inputs(stores[0].path, b)
    assert open_store(stores[0].path).n_cells == 6 and stores[0].verify().ok
    with pytest.raises(InputError, match=said.format("the store", "the store")):
        merge_stores(tmp_path / "m.mill", stores)
    merged = merge_stores(tmp_path / "m.mill", stores, obs_clash="text")
    assert merged.n_cells == 12 and merged.verify().ok


def test_the_remedy_that_is_said_works(tmp_path, make):
    a, b = make("a", TEXT), make("b", WHOLE)
    with pytest.raises(InputError) as caught:
        build(tmp_path / "s.mill", [a, b], vocabulary="union")
    text = str(caught.value)
    remedy = text[text.index("  sources:") : text.index("Values that")]
    (tmp_path / "labels.yaml").write_text(remedy)
    assert "b.h5ad" in remedy and "a.h5ad" not in remedy  # text stays text
    store = build(tmp_path / "s.mill", [a, b], vocabulary="union", obs_map=tmp_path / "labels.yaml")
    assert store.column("x").to_pylist() == TEXT + [str(value) for value in WHOLE]


def test_the_remedy_of_an_append_turns_to_the_type_of_the_store(tmp_path, make):
    store = build(tmp_path / "s.mill", make("a", WHOLE), vocabulary="union")
    b = make("b", ["1", "2", "3", "4", "5", "6"])
    with pytest.raises(InputError) as caught:
        append_inputs(store.path, b)
    text = str(caught.value)
    (tmp_path / "labels.yaml").write_text(text[text.index("  sources:") : text.index("Values that")])
    grown = append_inputs(store.path, b, obs_map=tmp_path / "labels.yaml")
    assert grown.column("x").to_pylist() == [*WHOLE.tolist(), 1, 2, 3, 4, 5, 6]
    assert grown.obs.schema["x"] == "int32"


def test_the_remedy_names_the_column_of_the_file(tmp_path, make):
    a, b = make("a", TEXT, "Age (y)"), make("b", WHOLE, "x")
    columns = {"x": {"from": "Age (y)"}}
    with pytest.raises(InputError) as caught:
        build(
            tmp_path / "s.mill", [b, a], vocabulary="union", obs_map={"sources": [{"match": "a*", "columns": columns}]}
        )
    assert "{x: {type: string}}" in str(caught.value)
    with pytest.raises(InputError) as caught:
        build(
            tmp_path / "s.mill", [make("c", WHOLE, "Age (y)"), make("d", TEXT)], vocabulary="union",
            obs_map={"sources": [{"match": "c*", "columns": columns}]},
        )  # fmt: skip
    assert "{x: {from: 'Age (y)', type: string}}" in str(caught.value)


@pytest.mark.parametrize(
    ("first", "second", "kind"),
    [
        (WHOLE, WHOLE.astype(np.int64), "int64"),
        (WHOLE, REAL, "float64"),
        (LARGE - 1, REAL, "float64"),  # 2^53 itself is exact
        (REAL, REAL.astype(np.float64), "float64"),
    ],
)
def test_what_widens_without_loss_is_one_column_and_noted(tmp_path, make, first, second, kind):
    store = build(tmp_path / "s.mill", [make("a", first), make("b", second)], vocabulary="union")
    assert store.obs.schema["x"] == kind
    assert store.column("x").to_pylist() == [*first.tolist(), *second.tolist()]
    report = (store.path / "reports" / "00000.json").read_text() + (store.path / "reports" / "00001.json").read_text()
    assert f"in the file and {kind} in the store; each value is the same" in report
    parts = [build(tmp_path / f"{n}.mill", tmp_path / f"{n}.h5ad", vocabulary="union") for n in "ab"]
    assert merge_stores(tmp_path / "m.mill", parts).column("x").to_pylist() == store.column("x").to_pylist()


def test_a_clash_may_come_from_the_third(tmp_path, make):
    paths = [make("a", WHOLE), make("b", REAL), make("c", TEXT)]
    with pytest.raises(InputError, match=r"a\.h5ad: int32(.|\n)*c\.h5ad: string"):
        build(tmp_path / "s.mill", paths, vocabulary="union")


def test_merge_refuses_an_option_that_is_not_known(tmp_path, make):
    store = build(tmp_path / "a.mill", make("a", WHOLE), vocabulary="union")
    with pytest.raises(InputError, match="'error' or 'text'"):
        merge_stores(tmp_path / "m.mill", [store], obs_clash="silent")
