"""A store gives back exactly the cells that were put in, in the order asked for."""

from __future__ import annotations

import pickle
import sys

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from cellmill.errors import InputError, MissingDependencyError, NotFoundError, QueryError
from cellmill.ingest import build
from cellmill.store import open_store
from cellmill.store.gene_lookup import positions_of_genes


@pytest.fixture
def store_and_file(tmp_path, tiny_h5ad):
    file = tiny_h5ad(n_cells=250, n_genes=90)
    # small shards and blocks, so that reads cross their borders
    return build(tmp_path / "s.mill", [file.path], vocabulary="union", shard_cells=64, block_cells=32), file


def columns_of(store, file):
    """Column of the file behind each gene of the store."""
    where = {gene: i for i, gene in enumerate(file.genes)}
    return [where[gene] for gene in store.gene_ids]


def test_every_count_comes_back_in_any_order(store_and_file):
    store, file = store_and_file
    assert len(store.manifest.shards) == 4
    rows = np.random.default_rng(1).permutation(np.repeat(np.arange(250), 2))
    got = store.read(rows)
    assert got.dtype == np.uint32
    np.testing.assert_array_equal(got.toarray(), file.counts.toarray()[rows][:, columns_of(store, file)])


def test_a_panel_gives_its_columns_in_its_order(store_and_file):
    store, file = store_and_file
    panel = [file.genes[i] for i in (7, 3, 0, 88)]
    expected = file.counts.toarray()[[5, 200, 1]][:, [7, 3, 0, 88]]
    np.testing.assert_array_equal(store.read([5, 200, 1], genes=panel).toarray(), expected)
    np.testing.assert_array_equal(store.read_dense([5, 200, 1], genes=panel), expected)


def test_log1p_cp10k_uses_the_whole_cell_even_for_a_panel(store_and_file):
    store, file = store_and_file
    counts = file.counts.toarray().astype(np.float64)
    total = np.maximum(counts.sum(1, keepdims=True), 1)
    expected = np.log1p(1e4 * counts / total)[[0, 1, 99], 3]
    got = store.read_dense([0, 1, 99], genes=[file.genes[3]], transform="log1p_cp10k")[:, 0]
    np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_select_is_sql_over_obs_and_the_files_labels(store_and_file):
    store, file = store_and_file
    rows = store.select("tissue = 'blood' AND donor_id IN ('donor1', 'donor2') AND total_counts > 0")
    totals = np.asarray(file.counts.sum(1)).ravel()
    expected = [
        i
        for i in range(250)
        if file.obs["tissue"][i] == "blood" and file.obs["donor_id"][i] in ("donor1", "donor2") and totals[i] > 0
    ]
    assert rows.dtype == np.int64
    assert rows.tolist() == expected
    assert store.query("SELECT count(*) AS n FROM obs").column("n").to_pylist() == [250]


@pytest.mark.parametrize("where", ["tisue = 'blood'", "1 = 1) OR (", "1=1); DROP VIEW obs; SELECT (1", "tissue ="])
def test_a_bad_where_says_what_is_wrong(store_and_file, where):
    store, _ = store_and_file
    with pytest.raises(QueryError, match="Columns: cell, dataset"):
        store.select(where) if "DROP" not in where else store.query(where)


def test_a_misspelt_column_names_the_nearest(store_and_file):
    with pytest.raises(QueryError, match="Did you mean 'tissue'"):
        store_and_file[0].select("tisue = 'blood'")


def test_an_empty_condition_is_no_condition(store_and_file):
    with pytest.raises(QueryError, match="where: the condition is empty"):
        store_and_file[0].select(" ")


def test_the_nearest_store_is_near_without_its_ending(tmp_path):
    (tmp_path / "gut.mill").mkdir()
    with pytest.raises(NotFoundError, match=r"no store here\. Make one"):
        open_store(tmp_path / "eye.mill")
    with pytest.raises(NotFoundError, match=r"Did you mean 'gut\.mill'"):
        open_store(tmp_path / "guts.mill")


def test_sql_reaches_nothing_but_obs(store_and_file, tmp_path):
    store, _ = store_and_file
    secret = tmp_path / "secret.csv"
    secret.write_text("a\n1\n")
    for sql in (f"SELECT * FROM read_csv('{secret}')", f"SELECT * FROM '{secret}'", f"COPY obs TO '{tmp_path}/x.csv'"):
        with pytest.raises(QueryError):
            store.query(sql)


def test_several_statements_are_refused(store_and_file):
    with pytest.raises(QueryError, match="one SELECT"):
        store_and_file[0].query("SELECT 1; SELECT 2")


def test_a_path_with_pattern_characters_can_be_queried(tmp_path, tiny_h5ad):
    folder = tmp_path / "odd [1] {a}* name's"
    folder.mkdir()
    store = build(folder / "s.mill", [tiny_h5ad().path], vocabulary="union")
    assert len(store.select("tissue = 'gut'")) == 20


@pytest.mark.parametrize("rows", [[-1], [250], [0, 10**12]])
def test_rows_outside_are_an_index_error(store_and_file, rows):
    with pytest.raises(IndexError, match=r"outside 0\.\.249"):
        store_and_file[0].read(rows)


def test_rows_that_are_not_whole_numbers_are_refused(store_and_file):
    with pytest.raises(InputError):
        store_and_file[0].read([0.5])


def test_no_rows_give_an_empty_matrix(store_and_file):
    store, _ = store_and_file
    assert store.read([]).shape == (0, store.n_genes)
    assert store.read_dense([]).shape == (0, store.n_genes)


def test_an_unknown_gene_is_named(store_and_file):
    with pytest.raises(QueryError, match="'NOPE'"):
        store_and_file[0].read([0], genes=["NOPE"])


def test_to_anndata_equals_the_file(store_and_file):
    anndata = pytest.importorskip("anndata")
    store, file = store_and_file
    got, original = store.to_anndata(), anndata.read_h5ad(file.path)
    np.testing.assert_array_equal(got[:, file.genes].X.toarray(), original.X.toarray())
    assert list(got.obs_names) == list(original.obs_names)
    for column in file.obs:
        assert list(got.obs[column]) == list(original.obs[column])


def test_to_anndata_keeps_nulls_and_digits_and_can_be_written(tmp_path, tiny_h5ad):
    anndata = pytest.importorskip("anndata")
    typed = anndata.read_h5ad(tiny_h5ad(n_cells=4, obs={"text": ["a", "b", "a", "c"]}).path)
    typed.obs["flag"] = pd.array([True, None, False, None], dtype="boolean")
    typed.obs["big"] = pd.array([2**60 + 1, None, 3, 4], dtype="Int64")
    typed.obs["whole"] = np.arange(4)
    typed.obs["real"] = [0.5, np.nan, 1.5, 2.5]
    typed.obs["label"] = pd.Categorical(["x", None, "y", "x"])
    typed.obs["nothing"] = pd.Categorical([None] * 4)
    typed.write_h5ad(tmp_path / "typed.h5ad")
    other = tiny_h5ad("other", n_cells=2, obs={"only here": ["p", "q"]})
    store = build(tmp_path / "s.mill", [tmp_path / "typed.h5ad", other.path], vocabulary="union")
    got = store.to_anndata()
    got.write_h5ad(tmp_path / "out.h5ad")
    for obs in (got.obs, anndata.read_h5ad(tmp_path / "out.h5ad").obs):
        assert obs["flag"].dropna().tolist() == [True, False]
        assert [int(value) for value in obs["big"].dropna()] == [2**60 + 1, 3, 4]
        assert obs["label"].dropna().tolist() == ["x", "y", "x"]
        assert obs["only here"].dropna().tolist() == ["p", "q"]
        assert obs["real"].isna().tolist() == [False, True, False, False, True, True]
        assert obs["nothing"].isna().all()


@pytest.mark.parametrize("rows", [[1.9, 2.2], np.ones(3, bool)])
def test_no_reader_takes_masks_or_real_numbers_for_row_ids(store_and_file, rows):
    store, _ = store_and_file
    for read in (store.read, store.totals, store.uids, store.to_anndata, lambda r: store.column("cell", r)):
        with pytest.raises(InputError):
            read(rows)


def test_a_mask_gives_the_totals_of_the_rows_it_marks(store_and_file):
    store, _ = store_and_file
    mask = np.arange(250) % 7 == 3
    np.testing.assert_array_equal(store.totals(mask), store.totals()[mask])


def test_uids_do_not_depend_on_what_else_is_in_the_store(tmp_path, tiny_h5ad):
    a, b = tiny_h5ad("a", seed=1), tiny_h5ad("b", seed=2)
    alone = build(tmp_path / "alone.mill", [b.path], vocabulary="union")
    both = build(tmp_path / "both.mill", [a.path, b.path], vocabulary="union")
    np.testing.assert_array_equal(alone.uids(), both.uids(both.select("dataset = 'b'")))
    assert len(np.unique(both.uids())) == both.n_cells


def test_equal_cells_have_equal_fingerprints_whatever_the_gene_order(tmp_path, tiny_h5ad):
    file = tiny_h5ad("a", n_cells=50)
    order = np.random.default_rng(3).permutation(len(file.genes))
    shuffled = tiny_h5ad("b", counts=file.counts.toarray()[:, order], genes=[file.genes[i] for i in order])
    prints = [
        build(tmp_path / f"{f.path.stem}.mill", [f.path], vocabulary="union").column("fingerprint").to_numpy()
        for f in (file, shuffled)
    ]
    np.testing.assert_array_equal(prints[0], prints[1])
    distinct = len({tuple(row) for row in file.counts.toarray().tolist()})
    assert len(np.unique(prints[0])) == distinct


def test_a_store_can_be_pickled(store_and_file):
    store, _ = store_and_file
    store.read([0])
    again = pickle.loads(pickle.dumps(store))
    np.testing.assert_array_equal(again.read([7]).toarray(), store.read([7]).toarray())


def test_opening_nothing_says_how_to_make_one(tmp_path):
    with pytest.raises(NotFoundError, match="cellmill build"):
        open_store(tmp_path / "none.mill")


def test_opening_a_file_says_what_it_is(tiny_h5ad):
    with pytest.raises(NotFoundError, match="a file, not a store"):
        open_store(tiny_h5ad().path)


def test_obs_columns_of_different_types_are_widened_not_lost(tmp_path, tiny_h5ad):
    a = tiny_h5ad("a", n_cells=4, obs={"stage": ["1", "2", "3", "4"], "only_a": list("wxyz")})
    b = tiny_h5ad("b", n_cells=4, obs={"stage": ["p", "q", "r", "s"]})
    store = build(tmp_path / "s.mill", [a.path, b.path], vocabulary="union")
    assert store.column("stage").to_pylist() == ["1", "2", "3", "4", "p", "q", "r", "s"]
    assert store.column("only_a").to_pylist() == [*"wxyz", None, None, None, None]
    assert store.select("only_a IS NULL").tolist() == [4, 5, 6, 7]
    assert store.obs.to_arrow(["only_a"], rows=[5, 0, 3]).column(0).to_pylist() == [None, "w", "z"]


@pytest.mark.parametrize("missing", ["anndata", "pandas"])
def test_what_is_missing_for_anndata_is_named_with_its_extra(store_and_file, monkeypatch, missing):
    store, _ = store_and_file
    monkeypatch.setitem(sys.modules, missing, None)
    monkeypatch.delitem(sys.modules, "cellmill.store.adapter", raising=False)
    with pytest.raises(MissingDependencyError, match=rf"{missing}.*\[anndata\]"):
        store.to_anndata()


def test_a_text_is_no_list_of_genes(store_and_file):
    with pytest.raises(QueryError, match=r"found the text 'ENSG00000141510'. For one gene give \['ENSG00000141510'\]"):
        store_and_file[0].read([0], genes="ENSG00000141510")


def test_genes_named_by_symbols_are_told_their_ids():
    table = pa.table({"gene_id": ["ENSG1", "ENSG2"], "symbol": ["TP53", "MS4A1"]})
    assert positions_of_genes(table, ["ENSG2", "ENSG1"], where="s").tolist() == [1, 0]
    with pytest.raises(QueryError, match=r"s: 2 of 3 genes.*1 of them are symbols here: MS4A1 is ENSG2\. Give the ids"):
        positions_of_genes(table, ["ENSG1", "MS4A1", "nowhere"], where="s")


def test_rows_with_strides_are_rows(store_and_file):
    store, _ = store_and_file
    rows = np.arange(20)
    for some in (rows[::2], rows[::-1], rows[::-3].astype(np.int32)):
        want = store.read(some.copy()).toarray()
        np.testing.assert_array_equal(store.read(some).toarray(), want)
        np.testing.assert_array_equal(store.read_dense(some), want)
        got = store.gather(some)
        np.testing.assert_array_equal(got.indptr, store.read(some.copy()).indptr)
        store.prefetch(some)


def test_genes_that_are_no_texts_are_refused(store_and_file):
    store, _ = store_and_file
    with pytest.raises(QueryError, match="found 0"):
        store.read([1], genes=[0])
