"""h5ad of all ages: matrices, gene tables and obs equal anndata's reading."""

from __future__ import annotations

import re

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import scipy.sparse as sp

from cellmill.errors import FormatError, InputError
from cellmill.sources import H5adSource, Limits, open_source

DTYPES = [
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "int8",
    "int16",
    "int32",
    "int64",
    "float16",
    "float32",
    "float64",
    "bool",
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", ["csr", "csc", "dense"])
def test_values_keep_the_dtype_of_the_file(dtype, layout, whole, truth, tmp_path):
    path, X = tmp_path / "a.h5ad", np.minimum(truth.X, 100).astype(dtype)
    ad.AnnData(np.zeros((X.shape[0], X.shape[1]), np.float32)).write_h5ad(path)
    with h5py.File(path, "r+") as file:
        del file["X"]
        if layout == "dense":
            file["X"] = X
        else:
            stored = sp.csr_array(X.astype(np.int64)) if layout == "csr" else sp.csc_array(X.astype(np.int64))
            group = file.create_group("X")
            group.attrs["encoding-type"] = f"{layout}_matrix"
            for part in ("data", "indices", "indptr"):
                group[part] = getattr(stored, part).astype(dtype) if part == "data" else getattr(stored, part)
    with open_source(path) as source:
        info = source.matrices()[0]
        assert info.dtype == ("uint8" if dtype == "bool" else dtype) and info.layout == layout
        for block in source.blocks():
            assert block.data.dtype == info.dtype
        np.testing.assert_array_equal(
            np.vstack([b.data.sum(dtype=float) for b in source.blocks()]).sum(), X.sum(dtype=float)
        )


def test_big_endian_values_are_handed_on_native(whole, truth, tmp_path):
    path = tmp_path / "a.h5ad"
    ad.AnnData(sp.csr_matrix(truth.X.astype(np.float32))).write_h5ad(path)
    with h5py.File(path, "r+") as file:
        for part, kind in (("data", ">f4"), ("indices", ">i4"), ("indptr", ">i8")):
            values = file["X"][part][()].astype(kind)
            del file["X"][part]
            file["X"].create_dataset(part, data=values, dtype=kind)
    with open_source(path) as source:
        np.testing.assert_array_equal(whole(source, block_cells=5).toarray(), truth.X)


def test_raw_and_layers_have_names_and_their_own_genes(whole, truth, tmp_path, write):
    path = tmp_path / "a.h5ad"
    full = ad.AnnData(sp.csr_matrix(truth.X.astype(np.float32)), var=pd.DataFrame(index=truth.genes))
    small = full[:, :10].copy()
    small.raw, small.X = full, np.log1p(small.X.toarray())
    small.layers["counts"] = full.X[:, :10]
    small.layers["twice"] = sp.csc_matrix(full.X[:, :10] * 2)
    small.write_h5ad(path)
    with open_source(path) as source:
        assert [info.name for info in source.matrices()] == ["X", "raw", "layers/counts", "layers/twice"]
        assert [info.layout for info in source.matrices()] == ["dense", "csr", "csr", "csc"]
        assert source.n_genes == 10 and source.genes_of("raw").index == truth.genes
        assert source.genes_of("layers/twice").index == truth.genes[:10]
        read = {info.name: whole_matrix(source, info) for info in source.matrices()}
    np.testing.assert_array_equal(read["raw"], truth.X)
    np.testing.assert_array_equal(read["layers/counts"], truth.X[:, :10])
    np.testing.assert_array_equal(read["layers/twice"], 2 * truth.X[:, :10])
    np.testing.assert_array_equal(read["X"], np.asarray(small.X))


def whole_matrix(source, info):
    blocks = [
        sp.csr_array((b.data, b.indices, b.indptr), shape=(b.n_cells, b.n_genes)).toarray()
        for b in source.blocks(info.name, block_cells=8)
    ]
    return np.vstack(blocks)


def test_old_top_level_raw_and_a_missing_X(whole, truth, tmp_path, write):
    path = write("h5ad-csr", truth, tmp_path)
    with h5py.File(path, "r+") as file:
        file.move("X", "raw.X")
        file.copy("var", "raw.var")
    with open_source(path) as source:
        assert [info.name for info in source.matrices()] == ["raw"]
        np.testing.assert_array_equal(whole(source).toarray(), truth.X)


def write_obs(tmp_path, obs, **options):
    path = tmp_path / "a.h5ad"
    ad.AnnData(np.ones((len(obs), 2), np.float32), obs=obs).write_h5ad(path, **options)
    return path


def test_obs_columns_keep_kind_and_order(tmp_path):
    obs = pd.DataFrame(
        {
            "type": pd.Categorical(["B", None, "T", "B"], categories=["T", "B", "unused"]),
            "batch": pd.Categorical([3, 1, 3, 3]),
            "ok": [True, False, True, True],
            "n": np.array([1, 2, 3, 4], np.int32),
            "umis": np.array([1, 2**63 + 1, 3, 4], np.uint64),
            "share": [0.5, np.nan, 1.0, 2.0],
            "half": np.array([0.5, 1, 2, 3], np.float16),
            "maybe": pd.array([1, None, 3, 4], "Int64"),
            "flag": pd.array([True, None, False, True], "boolean"),
            "text": ["ä", "b", "", "d"],
        },
        index=["c1", "c2", "c3", "c4"],
    )
    path = tmp_path / "a.h5ad"
    ad.AnnData(np.ones((4, 2), np.float32), obs=obs.drop(columns="half")).write_h5ad(path)
    order = [*obs.columns, "nullable"]
    with h5py.File(path, "r+") as file:
        file["obs/half"] = obs["half"].to_numpy()
        group = file["obs"].create_group("nullable")
        group.attrs["encoding-type"] = "nullable-string-array"
        group["values"], group["mask"] = np.array(list("x?yz"), h5py.string_dtype()), np.array([0, 1, 0, 0], bool)
        file["obs"].attrs["column-order"] = np.array(order, dtype=h5py.string_dtype())
    with open_source(path) as source:
        table, notes = source.obs(), source.notes
    assert notes == []
    assert table.column_names == ["cell", *order]
    labels = pa.dictionary(pa.int32(), pa.string())
    assert [table.schema.field(n).type for n in order] == [
        labels, labels, pa.bool_(), pa.int32(), pa.uint64(), pa.float64(), pa.float32(), pa.int64(), pa.bool_(),
        pa.string(), pa.string(),
    ]  # fmt: skip
    assert table["type"].to_pylist() == ["B", None, "T", "B"]
    assert table["type"].chunk(0).dictionary.to_pylist() == ["T", "B", "unused"]
    assert table["batch"].to_pylist() == ["3", "1", "3", "3"]
    assert table["umis"].to_pylist() == [1, 2**63 + 1, 3, 4]
    assert np.isnan(table["share"].to_pylist()[1]) and table["share"].null_count == 0
    assert table["half"].to_pylist() == [0.5, 1, 2, 3]
    assert table["maybe"].to_pylist() == [1, None, 3, 4]
    assert table["flag"].to_pylist() == [True, None, False, True]
    assert table["text"].to_pylist() == ["ä", "b", "", "d"]
    assert table["nullable"].to_pylist() == ["x", None, "y", "z"]


def test_dataframe_of_2019_with_categories_by_reference(tmp_path):
    """anndata 0.7: codes with an object reference to obs/__categories; anndata itself still reads it."""
    path = write_obs(tmp_path, pd.DataFrame({"plain": [1, 2, 3]}, index=list("abc")))
    with h5py.File(path, "r+") as file:
        obs = file["obs"]
        obs.attrs["encoding-version"] = "0.1.0"
        obs["type"] = np.array([1, -1, 0], np.int8)
        obs["__categories/type"] = np.array(["T", "B"], h5py.string_dtype())
        obs["type"].attrs["categories"] = obs["__categories/type"].ref
        obs.attrs["column-order"] = np.array(["type", "plain"], dtype=h5py.string_dtype())
    with open_source(path) as source:
        table = source.obs()
        assert table.column_names == ["cell", "type", "plain"] and source.notes == []
    assert table["type"].to_pylist() == ["B", None, "T"]
    assert ad.read_h5ad(path).obs["type"].astype(object).tolist()[::2] == ["B", "T"]


def test_compound_tables_of_2017_with_labels_in_uns(tmp_path):
    path = tmp_path / "old.h5ad"
    rows = [(b"c1", 1, 0.5, b"x\xc3\xa4"), (b"c2", 0, 1.5, b"y"), (b"c3", -1, 2.5, b"")]
    with h5py.File(path, "w") as file:
        file["X"] = np.ones((3, 2), np.float32)
        file["obs"] = np.array(rows, [("index", "S4"), ("type", "i1"), ("share", "f8"), ("text", "S4")])
        file["var"] = np.array(
            [(b"ENSG00000000001", b"A"), (b"ENSG00000000002", b"B")], [("index", "S15"), ("gene_name", "S3")]
        )
        file["uns/type_categories"] = np.array([b"T", b"B"])
    with open_source(path) as source:
        table = source.obs()
        assert table["cell"].to_pylist() == ["c1", "c2", "c3"]
        assert table["type"].to_pylist() == ["B", "T", None]
        assert table["share"].to_pylist() == [0.5, 1.5, 2.5] and table["text"].to_pylist() == ["xä", "y", ""]
        assert source.genes.ids == ["ENSG00000000001", "ENSG00000000002"] and source.genes.symbols == ["A", "B"]


def test_index_as_a_nullable_string_group(tmp_path, truth, write):
    """What anndata 0.13 writes with pandas 3."""
    path = write("h5ad-csr", truth, tmp_path)
    with h5py.File(path, "r+") as file:
        for axis in ("obs", "var"):
            names = file[axis]["_index"][()]
            del file[axis]["_index"]
            group = file[axis].create_group("_index")
            group.attrs["encoding-type"] = "nullable-string-array"
            group["values"], group["mask"] = names, np.zeros(names.size, bool)
    with open_source(path) as source:
        assert source.obs()["cell"].to_pylist() == truth.cells and source.genes.index == truth.genes


def test_columns_that_no_table_can_hold_are_skipped_and_named(tmp_path):
    path = write_obs(tmp_path, pd.DataFrame({"a": [1, 2], "cell": ["x", "y"]}, index=["c1", "c2"]))
    with h5py.File(path, "r+") as file:
        obs = file["obs"]
        obs["wide"] = np.ones((2, 3))
        obs["complex"] = np.ones(2, complex)
        obs["stray"] = np.ones(2)
        obs.create_group("odd").attrs["encoding-type"] = "awkward-array"
        names = ["wide", "a", "complex", "odd", "gone", "cell"]
        obs.attrs["column-order"] = np.array(names, dtype=h5py.string_dtype())
    with open_source(path) as source:
        table, notes = source.obs(), "\n".join(source.notes)
        assert len(source.notes) == 6 and source.obs() is table and len(source.notes) == 6
    assert table.column_names == ["cell", "a", "source_cell"] and table["source_cell"].to_pylist() == ["x", "y"]
    for said in (
        "'wide' was skipped (its shape",
        "'complex'",
        "'odd'",
        "'gone' is listed but not stored",
        "stray",
        "'source_cell'",
    ):
        assert said in notes


def test_latin1_labels_of_old_exports_are_read(tmp_path):
    path = write_obs(tmp_path, pd.DataFrame(index=["c1", "c2"]))
    with h5py.File(path, "r+") as file:
        file["obs/who"] = np.array(["Müller".encode("latin-1"), b"x"])
        file["obs"].attrs["column-order"] = np.array(["who"], dtype=h5py.string_dtype())
    with open_source(path) as source:
        assert source.obs()["who"].to_pylist() == ["Müller", "x"]


def test_best_ids_and_symbols_of_the_gene_table(tmp_path):
    path = tmp_path / "a.h5ad"
    ids = [f"ENSG{i:011d}.{i}" for i in range(5)]
    cases = [
        (pd.DataFrame({"feature_name": list("ABCDE")}, index=ids), ids, list("ABCDE")),
        (pd.DataFrame({"gene_ids": ids}, index=list("ABCDE")), ids, list("ABCDE")),
        (pd.DataFrame({"gene_ids": list("12345")}, index=list("ABCDE")), list("ABCDE"), list("ABCDE")),
        (pd.DataFrame({"Gene_Symbol": pd.Categorical(list("ABCDA"))}, index=ids), ids, list("ABCDA")),
        (pd.DataFrame({"n": range(5)}, index=ids), ids, None),
        # orthologues of another species beside the file's own ids
        (pd.DataFrame({"ensembl_id": [f"ENSMUSG{i:011d}" for i in range(5)]}, index=ids), ids, None),
        (pd.DataFrame({"gene_ids": [*ids[:3], "", "NaN"]}, index=list("ABCDE")), [*ids[:3], "D", "E"], list("ABCDE")),
        (pd.DataFrame({"gene_ids": [*ids[:4], None]}, index=list("ABCDE")), [*ids[:4], "E"], list("ABCDE")),
    ]
    for var, expected_ids, symbols in cases:
        ad.AnnData(np.ones((2, 5), np.float32), var=var).write_h5ad(path)
        with open_source(path) as source:
            assert source.genes.ids == expected_ids and source.genes.symbols == symbols
            assert "n" not in source.genes.columns


TYPES = ["Gene Expression", "Antibody Capture", "Gene Expression", "CRISPR Guide Capture", "Gene Expression"]


@pytest.mark.parametrize("layout", [sp.csr_matrix, sp.csc_matrix, np.asarray])
@pytest.mark.parametrize("column", ["feature_types", "feature_type"])
def test_antibodies_are_no_genes_on_either_axis(layout, column, whole, tmp_path):
    path, rng = tmp_path / "a.h5ad", np.random.default_rng(0)
    X = rng.poisson(1.0, (9, 5)).astype(np.float32)
    var = pd.DataFrame({column: pd.Categorical(TYPES)}, index=["A", "CD4", "B", "guide", "C"])
    full = ad.AnnData(layout(X), var=var, layers={"counts": layout(X)})
    small = full[:, :3].copy()
    small.raw = full
    small.write_h5ad(path)
    with open_source(path) as source:
        assert source.dropped == {"features not Gene Expression": 1, "features not Gene Expression, in raw/var": 2}
        assert source.genes.index == ["A", "B"] and source.genes_of("raw").index == ["A", "B", "C"]
        assert source.genes.columns == {column: ["Gene Expression"] * 2}
        assert [info.n_genes for info in source.matrices()] == [2, 3, 2]
        for matrix, kept in (("X", [0, 2]), ("layers/counts", [0, 2]), ("raw", [0, 2, 4])):
            np.testing.assert_array_equal(whole(source, matrix, block_cells=4).toarray(), X[:, kept])


@pytest.mark.parametrize(
    ("columns", "kept"),
    [
        ({"feature_types": ["gene expression", "antibody_capture", "Gene expression"]}, [0, 2]),
        ({"feature_types": ["protein_coding", "Antibody Capture", "lncRNA"]}, [0, 2]),
        ({"feature_types": ["Gene Expression", "Antibody Capture", None]}, [0, 2]),
        ({"feature_type": ["protein_coding", "IG_C_gene", "lncRNA"]}, [0, 1, 2]),
        ({"feature_type": list("abc"), "feature_types": ["Gene Expression", "Custom", "Gene Expression"]}, [0, 2]),
        ({"feature_types": ["Gene Expression", "blank", "Gene Expression"]}, [0, 2]),
    ],
)
def test_feature_types_decide_in_any_spelling(columns, kept, tmp_path):
    path = tmp_path / "a.h5ad"
    ad.AnnData(np.ones((2, 3), np.float32), var=pd.DataFrame(columns, index=list("XYZ"))).write_h5ad(path)
    with open_source(path) as source:
        assert source.genes.index == ["XYZ"[i] for i in kept]
        assert sum(source.dropped.values()) == 3 - len(kept)


def test_a_file_of_antibodies_alone_is_refused(tmp_path):
    path = tmp_path / "a.h5ad"
    var = pd.DataFrame({"feature_types": ["Antibody Capture"] * 2}, index=list("XY"))
    ad.AnnData(np.ones((2, 2), np.float32), var=var).write_h5ad(path)
    with pytest.raises(FormatError, match=r"a\.h5ad, var: none of its 2 features is a gene"):
        open_source(path)


@pytest.mark.parametrize("axis", ["obs", "var"])
def test_an_index_that_is_no_vector_is_refused(axis, truth, write, tmp_path):
    path = write("h5ad-csr", truth, tmp_path)
    size = len(truth.cells if axis == "obs" else truth.genes)
    damage(path, lambda file: replace(file, f"{axis}/_index", np.full((size, 2), b"x")))
    with pytest.raises(FormatError, match=f"index of {axis}.*shape"):
        open_source(path).obs()


def outside(tmp_path, name="other.h5"):
    with h5py.File(tmp_path / name, "w") as file:
        file["x"] = np.ones(4, np.float32)
        file.create_group("deep")["x"] = file["x"]
    return name


def link_to_another_file(file, tmp_path):
    file["X/data"] = h5py.ExternalLink(outside(tmp_path), "/x")


def link_below_a_group(file, tmp_path):
    file["uns/a"] = h5py.ExternalLink(outside(tmp_path), "/deep")
    file["X/data"] = h5py.SoftLink("/uns/a/x")


def stored_in_another_file(file, tmp_path):
    (tmp_path / "secret").write_bytes(np.ones(4, np.float32).tobytes())
    file.create_dataset("X/data", (4,), np.float32, external=[(str(tmp_path / "secret"), 0, 16)])


def virtual_over_another_file(file, tmp_path):
    layout = h5py.VirtualLayout((4,), np.float32)
    layout[:] = h5py.VirtualSource(str(tmp_path / outside(tmp_path)), "x", (4,))
    file.create_virtual_dataset("X/data", layout)


@pytest.mark.parametrize(
    "plant", [link_to_another_file, link_below_a_group, stored_in_another_file, virtual_over_another_file]
)
def test_values_of_another_file_are_never_taken_for_counts(plant, tmp_path):
    path = tmp_path / "a.h5ad"
    ad.AnnData(sp.csr_matrix(np.eye(4, dtype=np.float32)), uns={"kept": 1}).write_h5ad(path)
    with h5py.File(path, "r+") as file:
        del file["X/data"]
        plant(file, tmp_path)
    with pytest.raises(FormatError, match=r"a\.h5ad, /.*(a link to|values stored in) .*(other|secret)"):
        open_source(path)


def test_links_within_a_file_are_followed_even_in_circles(whole, truth, write, tmp_path):
    path = write("h5ad-csr", truth, tmp_path)
    with h5py.File(path, "r+") as file:
        file["uns/root"], file["uns/soft"] = file["/"], h5py.SoftLink("/uns")
        file["uns/nowhere"] = h5py.SoftLink("/gone")
        file.move("X", "uns/counts")
        file["X"] = h5py.SoftLink("/uns/counts")
    with open_source(path) as source:
        np.testing.assert_array_equal(whole(source).toarray(), truth.X)


def damage(path, change):
    with h5py.File(path, "r+") as file:
        change(file)


def replace(file, name, values):
    attributes = dict(file[name].attrs)
    del file[name]
    file[name] = values
    for key, value in attributes.items():
        file[name].attrs[key] = value


def set_at(name, at, value):
    def change(file):
        values = file[name][()]
        values[at] = value
        file[name][...] = values

    return change


HOSTILE = [
    ("indptr falls", set_at("X/indptr", 5, 10**6), r"matrix X: indptr falls from 1000000 to \d+ at cell 5"),
    ("indptr overflowed", set_at("X/indptr", 20, -(2**31)), r"indptr falls from \d+ to -2147483648 at cell 19"),
    ("indptr starts late", set_at("X/indptr", 0, 1), "matrix X: indptr runs from 1 to"),
    ("indptr ends late", set_at("X/indptr", -1, 10**6), "matrix X: indptr runs from 0 to 1000000"),
    ("gene too high", set_at("X/indices", 9, 23), "matrix X: entry 9 has gene index 23, but there are 23"),
    ("gene negative", set_at("X/indices", 0, -1), "matrix X: entry 0 has gene index -1"),
    ("short indptr", lambda f: replace(f, "X/indptr", f["X/indptr"][:-1]), "indptr has 37 entries, expected 38"),
    ("short data", lambda f: replace(f, "X/data", f["X/data"][:-1]), "values but .* indices are stored"),
    ("float indices", lambda f: replace(f, "X/indices", f["X/indices"][()] * 1.0), "indices are float64, expected"),
    ("text data", lambda f: replace(f, "X/data", f["X/data"][()].astype("S")), r"values are \|S32, expected integers"),
    ("no indices", lambda f: f["X"].__delitem__("indices"), "indices is missing; .* here are data, indptr"),
    ("two-dimensional data", lambda f: replace(f, "X/data", np.ones((2, 2))), "data is no vector"),
    ("wrong shape", lambda f: f["X"].attrs.modify("shape", np.array([37, 22])), r"its shape is \(37, 22\)"),
    ("odd encoding", lambda f: f["X"].attrs.modify("encoding-type", "coo_matrix"), "encoding is 'coo_matrix'"),
    ("dense shape", lambda f: replace(f, "X", np.ones((23, 37))), r"shape is \(23, 37\), expected \(37, 23\)"),
    ("no var", lambda f: f.__delitem__("var"), "it holds X, layers, obs"),
    ("index gone", lambda f: f["obs"].__delitem__("_index"), "obs names its index '_index', which is missing"),
    ("var without index", lambda f: replace(f, "var", np.ones(23)), "var is a dataset, expected a table"),
    ("long column", lambda f: replace(f, "obs/batch", np.ones(40)), r"obs\['batch'\] has 40 entries, but there are 37"),
    ("code out of range", set_at("obs/type/codes", 7, 5), r"obs\['type'\].*entry 7 has category code 5"),
    ("odd mask", lambda f: replace(f, "obs/maybe/mask", np.ones(3, bool)), r"obs\['maybe'\].*37 values but 3 mask"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "said"), [case[1:] for case in HOSTILE], ids=[case[0] for case in HOSTILE])
def test_contradictions_name_file_matrix_and_place(change, said, truth, tmp_path):
    path = tmp_path / "a.h5ad"
    obs = pd.DataFrame({"batch": 1, "type": pd.Categorical(["a", "b", *["a"] * 35])}, index=truth.cells)
    obs["maybe"] = pd.array([None, *range(36)], "Int64")
    ad.AnnData(sp.csr_matrix(truth.X.astype(np.float32)), obs=obs, var=pd.DataFrame(index=truth.genes)).write_h5ad(path)
    damage(path, change)
    with pytest.raises(FormatError, match=said) as caught, open_source(path) as source:
        _ = source.obs(), list(source.blocks(block_cells=10))
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("budget", [256, 1 << 20])
def test_a_csc_with_a_cell_out_of_range_is_refused(budget, truth, tmp_path, write):
    path = write("h5ad-csc", truth, tmp_path)
    damage(path, set_at("X/indices", 11, 37))
    with open_source(path, memory_budget=budget, spill_dir=tmp_path) as source:
        with pytest.raises(FormatError, match="matrix X: entry 11 has cell index 37, but there are 37"):
            list(source.blocks())
        assert list(tmp_path.glob("cellmill-spill-*")) == []


def test_a_broken_layer_does_not_stop_the_rest(truth, tmp_path, whole):
    path = tmp_path / "a.h5ad"
    csr = sp.csr_matrix(truth.X.astype(np.float32))
    ad.AnnData(csr, layers={"good": csr, "bad": csr}).write_h5ad(path)
    damage(path, lambda file: file["layers/bad"].__delitem__("data"))
    with open_source(path) as source:
        assert [info.name for info in source.matrices()] == ["X", "layers/good"]
        assert "matrix layers/bad cannot be read" in source.notes[0]
        np.testing.assert_array_equal(whole(source).toarray(), truth.X)
        with pytest.raises(FormatError, match="layers/bad: data is missing"):
            source.blocks("layers/bad")
        with pytest.raises(InputError, match="Did you mean 'layers/good'"):
            source.blocks("layers/god")


def test_values_that_are_no_counts_are_handed_on_as_they_are(tmp_path):
    path, odd = tmp_path / "a.h5ad", np.array([[np.nan, -1.0, 0.5], [np.inf, 0.0, 3.0]])
    for X in (odd, sp.csr_matrix(odd), sp.csc_matrix(odd)):
        ad.AnnData(X).write_h5ad(path)
        with open_source(path) as source:
            (block,) = source.blocks()
            np.testing.assert_array_equal(block.data, [np.nan, -1, 0.5, np.inf, 3.0])


def test_explicit_zeros_are_kept_and_duplicates_summed_and_counted(tmp_path):
    path = tmp_path / "a.h5ad"
    csr = sp.csr_matrix((3, 4), dtype=np.float32)
    csr.data = np.array([5, 0, 2, 3, 1], np.float32)
    csr.indices, csr.indptr = np.array([1, 0, 3, 3, 3], np.int32), np.array([0, 2, 5, 5], np.int32)
    ad.AnnData(sp.csr_matrix((3, 4), dtype=np.float32)).write_h5ad(path)
    with h5py.File(path, "r+") as file:
        for part in ("data", "indices", "indptr"):
            replace(file, f"X/{part}", getattr(csr, part))
    with open_source(path) as source:
        for _ in range(2):
            (block,) = source.blocks()
            assert block.indices.tolist() == [0, 1, 3] and block.data.tolist() == [0, 5, 6] and block.merged == 2
        assert [note for note in source.notes if "2 entries repeated" in note] == source.notes


def test_entries_after_the_last_cell_belong_to_nobody(truth, tmp_path, write, whole):
    path = write("h5ad-csr", truth, tmp_path)
    damage(path, lambda f: [replace(f, f"X/{p}", np.append(f[f"X/{p}"], [9, 9, 9])) for p in ("data", "indices")])
    with open_source(path) as source:
        np.testing.assert_array_equal(whole(source).toarray(), truth.X)
        assert source.matrices()[0].stored == np.count_nonzero(truth.X)
        assert re.search("3 stored entries belong to no cell", "".join(source.notes))


def test_a_cell_with_more_entries_than_genes_allow_is_refused(tmp_path):
    path = tmp_path / "a.h5ad"
    ad.AnnData(sp.csr_matrix((2, 3), dtype=np.float32)).write_h5ad(path)
    with h5py.File(path, "r+") as file:
        replace(file, "X/data", np.ones(500, np.float32))
        replace(file, "X/indices", np.zeros(500, np.int32))
        replace(file, "X/indptr", np.array([0, 0, 500], np.int32))
    said = "cell 1 holds 500 entries, but there are 3 genes"
    with H5adSource(path, limits=Limits(max_block_entries=100)) as source, pytest.raises(FormatError, match=said):
        list(source.blocks())


def test_blocks_are_cut_where_cells_hold_very_much(truth, tmp_path, write, whole):
    for kind in ("h5ad-csr", "h5ad-csc", "h5ad-dense"):
        path = write(kind, truth, tmp_path)
        with H5adSource(path, limits=Limits(max_block_entries=40, max_dense_values=100)) as source:
            sizes = [block.indices.size for block in source.blocks()]
            assert len(sizes) > 5 and max(sizes) <= (100 if "dense" in kind else 40)
            np.testing.assert_array_equal(whole(source).toarray(), truth.X)


def test_a_file_open_elsewhere_in_the_process_can_be_read(truth, tmp_path, write, whole):
    path = write("h5ad-csr", truth, tmp_path)
    with h5py.File(path, "r"), open_source(path) as source:
        np.testing.assert_array_equal(whole(source).toarray(), truth.X)
    with open_source(path), h5py.File(path, "r") as file:
        assert "X" in file


def test_a_square_matrix_that_does_not_say_its_layout_is_warned_of(truth, write, whole, tmp_path):
    n = len(truth.genes)
    square = type(truth)(truth.X[:n], truth.cells[:n], truth.genes)
    with open_source(write("h5ad-csr-no-encoding", square, tmp_path)) as source:
        np.testing.assert_array_equal(whole(source).toarray(), square.X)
        assert any("is square and does not say its layout" in caution for caution in source.cautions)
